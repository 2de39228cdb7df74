//! Generated days of the same shape as the ubuntu-irc corpus, so that the replay can be run without that corpus.
//!
//! Figures taken from that corpus: about 1,270 lines and 130 speakers per day, over two hours. A few regulars say most
//! of the lines (Zipf's law with an exponent of about 1), and many people come only once. Lines have 1 to a few hundred
//! characters, with a median of 60. Questions and answers come in bursts.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Corpus;
use crate::args::Membership;

const LINES: u32 = 1_270;
/// Number of people from whom the speakers of a day are drawn; about 130 of them speak.
const PEOPLE_A_DAY: u32 = 300;
/// The first of them are regulars who come every day; the others are new each day.
const REGULARS: u32 = 40;
/// One in this many lines has a notice of a join or a departure before it.
const NOTICES: u32 = 5;
const WORDS: [&str; 24] = [
    "apt",
    "the",
    "kernel",
    "driver",
    "how",
    "do",
    "I",
    "mount",
    "it",
    "says",
    "error",
    "sound",
    "works",
    "now",
    "thanks",
    "try",
    "sudo",
    "and",
    "then",
    "wireless",
    "\"quoted\"",
    "naïve",
    "日本",
    "http://example.org/?a=1&b=2",
];

/// The first `lines` of `days` days. The same seed gives the same corpus.
pub(crate) fn corpus(days: usize, lines: usize, seed: u64, membership: Membership) -> Corpus {
    let mut random = StdRng::seed_from_u64(seed);
    let file = |day| (format!("synthetic-{day:04}"), file(day, &mut random).into_bytes());
    Corpus::from_files((0..days).map(file), lines, membership)
}

fn file(day: usize, random: &mut StdRng) -> String {
    let weights = zipf(PEOPLE_A_DAY);
    let mut text = String::new();
    let mut minute = 9 * 60_u32;
    let mut speaker = draw(&weights, random);
    // Notices have a random generator of their own, so that the same seed gives the same lines with and without
    // notices.
    let mut notices = StdRng::seed_from_u64(day as u64);
    for _ in 0..LINES {
        // Within a burst a minute has a dozen lines. Between bursts a few minutes pass.
        minute += match random.random_range(0..100) {
            0..90 => 0,
            90..98 => 1,
            _ => random.random_range(1..6),
        };
        // Two in five lines come from the previous speaker.
        if random.random_range(0..5) > 1 {
            speaker = draw(&weights, random);
        }
        let said = line(random);
        let (hours, minutes) = (minute / 60 % 24, minute % 60);
        if notices.random_range(0..NOTICES) == 0 {
            let what = if notices.random() { "joined" } else { "left" };
            let who = nick(day, draw(&weights, &mut notices));
            text.push_str(&format!("=== {who} [n=x@example.org]  has {what} #ubuntu\n"));
        }
        text.push_str(&format!("[{hours:02}:{minutes:02}] <{}> {said}\n", nick(day, speaker)));
    }
    text
}

fn nick(day: usize, person: u32) -> String {
    match person {
        0..REGULARS => format!("Regular{person}"),
        // Nicks that differ only in case, and nicks with brackets, are common in the corpus.
        _ if person.is_multiple_of(7) => format!("[Guest]{person}_{day}"),
        _ if person.is_multiple_of(11) => format!("GUEST{person}-{day}"),
        _ => format!("guest{person}-{day}"),
    }
}

/// Cumulative weights of the ranks 1, 2, 3 …
fn zipf(people: u32) -> Vec<f64> {
    let mut sum = 0.0;
    let weight = |rank: u32| {
        sum += 1.0 / f64::from(rank);
        sum
    };
    (1..=people).map(weight).collect()
}

fn draw(sums: &[f64], random: &mut StdRng) -> u32 {
    let point = random.random::<f64>() * sums.last().copied().unwrap_or_default();
    u32::try_from(sums.partition_point(|sum| *sum < point)).unwrap_or_default()
}

/// Lengths are roughly log-normal: usually a short sentence, sometimes a paragraph.
fn line(random: &mut StdRng) -> String {
    let words = match random.random_range(0..100) {
        0..30 => random.random_range(1..5),
        30..90 => random.random_range(5..20),
        _ => random.random_range(20..70),
    };
    let words: Vec<&str> = (0..words).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn its_shape_is_that_of_real_days() {
        let corpus = corpus(4, usize::MAX, 7, Membership::Fixed);
        assert_eq!(corpus.days.len(), 4);
        for day in &corpus.days {
            assert_eq!(day.lines.len(), LINES as usize);
            assert!((80..=237).contains(&day.members.len()), "{} members", day.members.len());
            let mut counts: HashMap<_, usize> = HashMap::new();
            day.lines.iter().for_each(|line| *counts.entry(line.nick).or_default() += 1);
            let most = counts.values().copied().max().unwrap_or_default();
            assert!(most > day.lines.len() / 20, "the loudest says {most}");
            assert!(counts.values().filter(|count| **count == 1).count() > 10);
        }
        let shared =
            corpus.days[0].members.iter().filter(|nick| corpus.days[1].members.contains(nick)).count();
        assert!(shared > 20, "{shared} come on both days");
    }

    #[test]
    fn the_same_seed_gives_the_same_lines() {
        let texts = |seed| {
            let corpus = corpus(1, usize::MAX, seed, Membership::Fixed);
            corpus.days[0].lines.iter().map(|line| line.text.clone()).collect::<Vec<_>>()
        };
        assert_eq!(texts(1), texts(1));
        assert_ne!(texts(1), texts(2));
    }
}
