//! Lines of IRC logs: `[HH:MM] <nick> text` and `[HH:MM]  * nick does`. Other lines are not messages. Of the notices
//! (`=== nick …`), those about joins, departures and changes of nick are read too.

use std::time::Duration;

const MINUTES_A_DAY: u64 = 24 * 60;

/// A line that a person said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spoken<'a> {
    pub(crate) minute: u64,
    pub(crate) nick: &'a str,
    pub(crate) text: &'a str,
}

/// What a notice reports about a nick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice<'a> {
    Joined,
    Left,
    /// The person has this nick from here on.
    Renamed(&'a str),
}

/// Parses a notice: the nick, and what happened to it.
pub(crate) fn notice(line: &str) -> Option<(&str, Notice<'_>)> {
    let (nick, rest) = line.strip_prefix("=== ")?.split_once(' ').filter(|(nick, _)| !nick.is_empty())?;
    let rest = rest.trim();
    if let Some(name) = rest.strip_prefix("is now known as ") {
        return (!name.is_empty()).then_some((nick, Notice::Renamed(name)));
    }
    // `[n=user@host]  has joined #ubuntu`
    let (_, what) = rest.strip_prefix('[')?.split_once(']')?;
    let what = what.trim_start();
    let is = |begin| what.starts_with(begin).then_some(());
    is("has joined #")
        .map(|()| (nick, Notice::Joined))
        .or_else(|| is("has left #").map(|()| (nick, Notice::Left)))
}

/// Parses a line; `None` if it is not something that a person said.
pub(crate) fn parse(line: &str) -> Option<Spoken<'_>> {
    let (clock, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (hours, minutes) = clock.split_once(':')?;
    let minute = below(24, hours)? * 60 + below(60, minutes)?;
    let rest = rest.trim_end_matches('\r');
    let (nick, text) = said(rest).or_else(|| acted(rest))?;
    // A message needs at least one character. An empty line becomes a blank, so that every line is a message.
    let text = if text.is_empty() { " " } else { text };
    (!nick.is_empty()).then_some(Spoken { minute, nick, text })
}

fn below(limit: u64, digits: &str) -> Option<u64> {
    digits.parse().ok().filter(|number| *number < limit)
}

fn said(rest: &str) -> Option<(&str, &str)> {
    let (nick, text) = rest.strip_prefix('<')?.split_once('>')?;
    Some((nick.trim(), text.strip_prefix(' ').unwrap_or(text)))
}

/// `* nick does something`: the text includes the nick.
fn acted(rest: &str) -> Option<(&str, &str)> {
    let action = rest.trim_start();
    let nick = action.strip_prefix("* ")?.split_whitespace().next()?;
    Some((nick, action))
}

/// The time of each line since the first one: the lines of one minute are spread evenly over it. Where a clock steps
/// back a little, time stands still; a step back of more than half a day is midnight.
pub(crate) fn spread(lines: &[Spoken<'_>]) -> Vec<Duration> {
    let minutes = unrolled(lines);
    let mut times = Vec::with_capacity(lines.len());
    for minute in minutes.chunk_by(|one, two| one == two) {
        let start = Duration::from_secs((minute[0] - minutes[0]) * 60);
        let step = Duration::from_secs(60) / u32::try_from(minute.len()).unwrap_or(u32::MAX);
        times.extend((0..minute.len()).map(|index| start + step * u32::try_from(index).unwrap_or(u32::MAX)));
    }
    times
}

fn unrolled(lines: &[Spoken<'_>]) -> Vec<u64> {
    let mut days = 0;
    let mut last = lines.first().map_or(0, |line| line.minute);
    let place = |line: &Spoken<'_>| {
        let mut at = line.minute + days * MINUTES_A_DAY;
        if at + MINUTES_A_DAY / 2 < last {
            days += 1;
            at += MINUTES_A_DAY;
        }
        last = last.max(at);
        last
    };
    lines.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: u64) -> Spoken<'static> {
        Spoken { minute, nick: "n", text: "t" }
    }

    #[test]
    fn only_lines_that_persons_said_are_parsed() {
        let spoken = |minute, nick, text| Some(Spoken { minute, nick, text });
        assert_eq!(parse("[09:21] <bur[n] er> a > b"), spoken(561, "bur[n] er", "a > b"));
        assert_eq!(parse("[00:00]  * ghoti waves"), spoken(0, "ghoti", "* ghoti waves"));
        assert_eq!(parse("[00:00] <a>"), spoken(0, "a", " "));
        for line in [
            "",
            "=== x has left",
            "[01:26] -spam:#ubuntu- buy",
            "[xx:00] <a> b",
            "[24:00] <a> b",
            "[18446744073709551615:00] <a> b",
            "[00:00] <> b",
            "Licence",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn only_notices_about_joins_departures_and_nicks_are_parsed() {
        assert_eq!(notice("=== a [n=x@y]  has joined #ubuntu"), Some(("a", Notice::Joined)));
        assert_eq!(notice("=== a [n=x@y]  has left #ubuntu [\"Bye\"]"), Some(("a", Notice::Left)));
        assert_eq!(notice("=== a is now known as a|b"), Some(("a", Notice::Renamed("a|b"))));
        for line in [
            "=== a happy new year",
            "=== mode/#ubuntu [+o a]  by ChanServ",
            "[10:00] <a> hi",
            "=== ",
            "===  [n=x@y]  has left #ubuntu",
        ] {
            assert_eq!(notice(line), None, "{line}");
        }
    }

    #[test]
    fn the_lines_of_a_minute_are_spread_over_it() {
        let times = spread(&[at(10), at(10), at(10), at(12)]);
        assert_eq!(times, [0, 20, 40, 120].map(Duration::from_secs));
    }

    #[test]
    fn clocks_stand_still_instead_of_stepping_back_except_at_midnight() {
        let times = spread(&[at(100), at(99), at(101)]);
        assert_eq!(times, [0, 30, 60].map(Duration::from_secs));
        let times = spread(&[at(1439), at(0)]);
        assert_eq!(times, [0, 60].map(Duration::from_secs));
    }
}
