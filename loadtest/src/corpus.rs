//! The conversations that are replayed: days, lines, and who says them.
//!
//! Every nick is a user, every day a channel with those who speak in it, every line a message. Files come from a
//! folder or a tar ([`read`]), or are made up in the same shape ([`synthetic`]).

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

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    pub(crate) nicks: Vec<Nick>,
    pub(crate) days: Vec<Day>,
}

/// Somebody who speaks on one day or more.
#[derive(Debug)]
pub(crate) struct Nick {
    /// As the corpus spells it; becomes the display name.
    pub(crate) name: String,
    /// A unique `[a-z0-9_.-]{2,32}` that resembles it.
    pub(crate) handle: String,
}

/// Which of [`Corpus::nicks`].
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
    /// Who speaks, in the order of their first line.
    pub(crate) members: Vec<NickIndex>,
    /// Who of them comes only later.
    pub(crate) latecomers: Vec<NickIndex>,
    /// Who comes, goes or is renamed, in order.
    pub(crate) moves: Vec<Move>,
}

/// Something that happens before a line.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub(crate) before: usize,
    pub(crate) nick: NickIndex,
    pub(crate) what: Moved,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Moved {
    Joins,
    Leaves,
    /// Her name for people is another.
    Renames(String),
}

/// One message.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) nick: NickIndex,
    /// Since the day's first line.
    pub(crate) after: Duration,
    pub(crate) text: String,
}

impl Corpus {
    /// Reads the first `lines` of the text of each day file, in the order given.
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

    /// Lines of all days.
    pub(crate) fn lines(&self) -> usize {
        self.days.iter().map(|day| day.lines.len()).sum()
    }
}

/// Gives every nick its place and its handle as it first speaks.
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
    fn a_day_has_its_lines_its_members_and_nothing_of_the_notices() {
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
