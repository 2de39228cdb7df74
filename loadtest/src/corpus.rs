//! The conversations that are replayed: days, lines, and their speakers.
//!
//! Every nick becomes a user, every day a channel of those who speak in it, every line a message. Day files are read
//! from a folder or a tar ([`read`]), or generated in the same shape ([`synthetic`]).

mod handle;
mod irc;
mod moves;
pub(crate) mod read;
pub(crate) mod synthetic;

use std::collections::HashMap;
use std::time::Duration;

use handle::Handles;
use irc::{Notice, Spoken};
use moves::Script;

use crate::args::Membership;

/// All days and nicks.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    pub(crate) nicks: Vec<Nick>,
    pub(crate) days: Vec<Day>,
}

/// A person who speaks on at least one day.
#[derive(Debug)]
pub(crate) struct Nick {
    /// The name as the corpus spells it; becomes the display name.
    pub(crate) name: String,
    /// A unique handle `[a-z0-9_.-]{2,32}` that resembles the name.
    pub(crate) handle: String,
}

/// Index into [`Corpus::nicks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NickIndex(pub(crate) u32);

impl NickIndex {
    pub(crate) const fn get(self) -> usize {
        self.0 as usize
    }
}

/// One day file.
#[derive(Debug)]
pub(crate) struct Day {
    pub(crate) name: String,
    pub(crate) lines: Vec<Line>,
    /// The speakers of the day, in the order of their first lines.
    pub(crate) members: Vec<NickIndex>,
    /// Those of them who are not there from the start.
    pub(crate) latecomers: Vec<NickIndex>,
    /// Joins, departures and changes of nick, in order.
    pub(crate) moves: Vec<Move>,
}

/// An event between the lines: it happens before a line.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub(crate) before: usize,
    pub(crate) nick: NickIndex,
    pub(crate) what: Moved,
}

/// An event about one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Moved {
    Joins,
    Leaves,
    /// The person's name changes to this one.
    Renames(String),
}

/// One message of a day.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) nick: NickIndex,
    /// Time since the first line of the day.
    pub(crate) after: Duration,
    pub(crate) text: String,
}

impl Corpus {
    /// Parses the first `lines` of each day file, in the given order.
    pub(crate) fn from_files(
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
        lines: usize,
        membership: Membership,
    ) -> Self {
        let mut cast = Cast::default();
        let days = files.into_iter().map(|(name, bytes)| {
            let text = String::from_utf8_lossy(&bytes);
            let script = match membership {
                Membership::Fixed => Script::fixed(&text, lines),
                Membership::Corpus => Script::moving(&text, lines),
            };
            cast.day(name, &script)
        });
        let days = days.filter(|day| !day.lines.is_empty()).collect();
        Self { nicks: cast.nicks, days }
    }

    /// Number of lines of all days.
    pub(crate) fn lines(&self) -> usize {
        self.days.iter().map(|day| day.lines.len()).sum()
    }
}

/// Gives each nick an index and a handle when it first speaks.
#[derive(Default)]
struct Cast {
    nicks: Vec<Nick>,
    places: HashMap<String, NickIndex>,
    handles: Handles,
}

impl Cast {
    fn day(&mut self, name: String, script: &Script<'_>) -> Day {
        let spoken: &[Spoken<'_>] = &script.spoken;
        let lines = Vec::with_capacity(spoken.len());
        let mut day = Day { name, lines, members: Vec::new(), latecomers: Vec::new(), moves: Vec::new() };
        let mut present = std::collections::HashSet::new();
        for (spoken, after) in spoken.iter().zip(irc::spread(spoken)) {
            let nick = self.nick(spoken.nick);
            if present.insert(nick) {
                day.members.push(nick);
            }
            day.lines.push(Line { nick, after, text: spoken.text.to_owned() });
        }
        day.latecomers = script.latecomers.iter().map(|person| self.nick(person)).collect();
        for moved in &script.moves {
            let what = match moved.what {
                Notice::Joined => Moved::Joins,
                Notice::Left => Moved::Leaves,
                Notice::Renamed(name) => Moved::Renames(name.to_owned()),
            };
            day.moves.push(Move { before: moved.before, nick: self.nick(moved.person), what });
        }
        day
    }

    fn nick(&mut self, name: &str) -> NickIndex {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = NickIndex(u32::try_from(self.nicks.len()).unwrap_or(u32::MAX));
        self.nicks.push(Nick { name: name.to_owned(), handle: self.handles.derive(name) });
        self.places.insert(name.to_owned(), place);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_its_lines_and_members_but_no_notices() {
        let text = b"[10:00] <Ann> hi\n=== Bob has joined #ubuntu\n[10:00] <Bob[x]> hello \xff\n[10:02]  * Ann waves\n\
                     [10:02] <Ann>  two spaces\nlicence text\n";
        let corpus = Corpus::from_files(
            [("d1".to_owned(), text.to_vec()), ("empty".to_owned(), Vec::new())],
            usize::MAX,
            Membership::Fixed,
        );
        assert_eq!(corpus.days.len(), 1);
        let day = &corpus.days[0];
        let said: Vec<(&str, &str)> = day
            .lines
            .iter()
            .map(|line| (corpus.nicks[line.nick.get()].name.as_str(), line.text.as_str()))
            .collect();
        let expected =
            [("Ann", "hi"), ("Bob[x]", "hello \u{fffd}"), ("Ann", "* Ann waves"), ("Ann", " two spaces")];
        assert_eq!(said, expected);
        assert_eq!(day.members, [NickIndex(0), NickIndex(1)]);
    }

    #[test]
    fn a_shorter_day_has_fewer_members() {
        let text = b"[10:00] <Ann> hi\n[10:00] <Bob> ho\n".to_vec();
        let corpus = Corpus::from_files([("d".to_owned(), text)], 1, Membership::Fixed);
        assert_eq!((corpus.lines(), corpus.nicks.len(), corpus.days[0].members.len()), (1, 1, 1));
    }

    #[test]
    fn a_nick_of_two_days_is_one_user() {
        let day = |name: &str| (name.to_owned(), b"[10:00] <Ann> hi\n".to_vec());
        let corpus = Corpus::from_files([day("a"), day("b")], usize::MAX, Membership::Fixed);
        assert_eq!((corpus.nicks.len(), corpus.days.len(), corpus.lines()), (1, 2, 2));
    }
}
