//! Joins, departures and changes of nick between the lines of a day.
//!
//! A nick follows its person: after `Ann` changes to `Ann_`, the lines of `Ann_` belong to the user `Ann` for the rest
//! of the day. Persons who never speak are left out, as everywhere here. The first speaker stays all day, because that
//! user creates the channel and decides on its members.

use std::collections::{HashMap, HashSet};

use super::irc::{self, Notice, Spoken};

/// A day as it is played.
#[derive(Debug, Default)]
pub(super) struct Script<'a> {
    /// The lines, each with the first nick of its speaker.
    pub(super) spoken: Vec<Spoken<'a>>,
    pub(super) moves: Vec<ScriptMove<'a>>,
    /// Persons who are not there when the day begins.
    pub(super) latecomers: Vec<&'a str>,
}

/// An event before a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScriptMove<'a> {
    pub(super) before: usize,
    pub(super) person: &'a str,
    pub(super) what: Notice<'a>,
}

impl<'a> Script<'a> {
    /// The first `lines` of a day on which all speakers are there from the start.
    pub(super) fn fixed(text: &'a str, lines: usize) -> Self {
        let spoken = text.lines().filter_map(irc::parse).take(lines).collect();
        Self { spoken, ..Self::default() }
    }

    /// The first `lines` of a day, and the events between them.
    pub(super) fn moving(text: &'a str, lines: usize) -> Self {
        let mut script = Self::default();
        let mut names: HashMap<&str, &str> = HashMap::new();
        let mut noticed = Vec::new();
        for line in text.lines() {
            if script.spoken.len() == lines {
                break;
            }
            if let Some(spoken) = irc::parse(line) {
                let nick = names.get(spoken.nick).copied().unwrap_or(spoken.nick);
                script.spoken.push(Spoken { nick, ..spoken });
            } else if let Some((nick, what)) = irc::notice(line) {
                let person = names.get(nick).copied().unwrap_or(nick);
                if let Notice::Renamed(name) = what {
                    names.remove(nick);
                    names.insert(name, person);
                }
                noticed.push(ScriptMove { before: script.spoken.len(), person, what });
            }
        }
        script.settle(noticed);
        script
    }

    /// Keeps only events that change something: a person who is there cannot join, and a person who speaks must be
    /// there.
    fn settle(&mut self, noticed: Vec<ScriptMove<'a>>) {
        let owner = self.spoken.first().map(|line| line.nick);
        let speakers: HashSet<&str> = self.spoken.iter().map(|line| line.nick).collect();
        let mut here: HashMap<&str, bool> = owner.into_iter().map(|owner| (owner, true)).collect();
        let mut noticed = noticed.into_iter().filter(|moved| speakers.contains(moved.person)).peekable();
        for (index, line) in self.spoken.iter().enumerate() {
            while let Some(moved) = noticed.next_if(|moved| moved.before <= index) {
                let is_here = here.get(moved.person).copied();
                let counts = match moved.what {
                    Notice::Joined => is_here != Some(true),
                    Notice::Left => is_here != Some(false) && Some(moved.person) != owner,
                    Notice::Renamed(_) => true,
                };
                if !counts {
                    continue;
                }
                match moved.what {
                    Notice::Joined if is_here.is_none() => self.latecomers.push(moved.person),
                    _ => {}
                }
                if !matches!(moved.what, Notice::Renamed(_)) {
                    here.insert(moved.person, moved.what == Notice::Joined);
                }
                self.moves.push(moved);
            }
            if here.insert(line.nick, true) == Some(false) {
                self.moves.push(ScriptMove { before: index, person: line.nick, what: Notice::Joined });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: &str = "[10:00] <Ann> hi\n=== Bob [n=b@x]  has joined #ubuntu\n=== Eve [n=e@x]  has joined #ubuntu\n\
                       === Ann [n=a@x]  has left #ubuntu []\n[10:00] <Bob> ho\n=== Bob is now known as Bob_\n\
                       [10:01] <Bob_> it is me\n=== Bob_ [n=b@x]  has left #ubuntu [\"Bye\"]\n[10:02] <Cyd> oh\n\
                       [10:03] <Bob_> back\n";

    #[test]
    fn persons_join_leave_and_keep_their_identity() {
        let script = Script::moving(DAY, usize::MAX);
        let said: Vec<&str> = script.spoken.iter().map(|line| line.nick).collect();
        assert_eq!(said, ["Ann", "Bob", "Bob", "Cyd", "Bob"]);
        assert_eq!(script.latecomers, ["Bob"], "Eve never speaks, Cyd was there unseen");
        let moved = |before, what| ScriptMove { before, person: "Bob", what };
        let expected = [
            moved(1, Notice::Joined),
            moved(2, Notice::Renamed("Bob_")),
            moved(3, Notice::Left),
            moved(4, Notice::Joined),
        ];
        assert_eq!(script.moves, expected, "Ann made the channel and stays");
    }

    #[test]
    fn a_fixed_day_has_no_moves() {
        let script = Script::fixed(DAY, 3);
        assert_eq!(script.spoken.len(), 3);
        assert_eq!((script.moves.len(), script.latecomers.len()), (0, 0));
    }
}
