//! Changes of the messages of a channel: which were requested, and which were acked.

use std::collections::HashMap;

use madang_proto::{Message, Reaction};

use super::faults::FaultKind;

/// The reactions that are used.
pub(crate) const EMOJI: [&str; 5] = ["🍵", "👍", "❤️", "😂", "+1"];

/// One change of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The sender replaces the text by the text number 1, 2, … from [`edited`].
    Edit(u8),
    /// The sender deletes it.
    Delete,
    /// A user adds or removes the reaction with this index in [`EMOJI`].
    React { emoji: u8, on: bool },
}

impl Step {
    /// The name of a reaction.
    pub(crate) fn emoji(emoji: u8) -> &'static str {
        EMOJI[usize::from(emoji) % EMOJI.len()]
    }
}

/// The text after an edit.
pub(crate) fn edited(said: &str, number: u8) -> String {
    format!("{said} ✎{number}")
}

/// The changed messages of one channel, by line.
#[derive(Debug, Default)]
pub(crate) struct Fates(HashMap<usize, Fate>);

#[derive(Debug, Default)]
struct Fate {
    edits_asked: u8,
    edits_acked: u8,
    delete_asked: bool,
    delete_acked: bool,
    reactions: Vec<ReactionFate>,
    /// Places of entries that acks named.
    entries: Vec<u64>,
}

#[derive(Debug)]
struct ReactionFate {
    user: u64,
    emoji: u8,
    /// Whether the reaction was set by the change that was acked last.
    acked: bool,
    /// Whether another change was requested since, whose outcome is unknown.
    is_open: bool,
}

/// A fault of a message in the store.
pub(super) type Broken = (FaultKind, String);

impl Fates {
    /// Records that a request was written to a socket.
    pub(crate) fn ask(&mut self, line: usize, step: Step, user: u64) {
        let fate = self.0.entry(line).or_default();
        match step {
            Step::Edit(number) => fate.edits_asked = fate.edits_asked.max(number),
            Step::Delete => fate.delete_asked = true,
            Step::React { emoji, .. } => fate.reaction(user, emoji).is_open = true,
        }
    }

    /// Records an ack. `entry` is the place of the entry that records the change, if there is one.
    pub(crate) fn ack(&mut self, line: usize, step: Step, user: u64, entry: Option<u64>) {
        let fate = self.0.entry(line).or_default();
        match step {
            Step::Edit(number) => fate.edits_acked = fate.edits_acked.max(number),
            Step::Delete => fate.delete_acked = true,
            Step::React { emoji, on } => {
                let reaction = fate.reaction(user, emoji);
                (reaction.acked, reaction.is_open) = (on, false);
            }
        }
        fate.entries.extend(entry);
    }

    /// Records that the first attempt was refused, so the change was not made.
    pub(crate) fn refuse(&mut self, line: usize, step: Step, user: u64) {
        if let Step::React { emoji, .. } = step {
            self.0.entry(line).or_default().reaction(user, emoji).is_open = false;
        }
    }

    /// Whether the sender has requested the deletion. Then all other changes may be refused.
    pub(crate) fn is_delete_asked(&self, line: usize) -> bool {
        self.0.get(&line).is_some_and(|fate| fate.delete_asked)
    }

    /// Whether a changed message may have this text.
    pub(super) fn allows(&self, line: usize, said: &str, text: &str, is_deleted: bool) -> bool {
        let Some(fate) = self.0.get(&line) else { return text == said && !is_deleted };
        if is_deleted {
            return fate.delete_asked && text.is_empty();
        }
        text == said || (1..=fate.edits_asked).any(|number| text == edited(said, number))
    }

    /// Compares the acked changes with the message in the store.
    pub(super) fn judge(&self, line: usize, said: &str, row: &Message) -> Vec<Broken> {
        let nothing = Fate::default();
        let fate = self.0.get(&line).unwrap_or(&nothing);
        let text = row.body.text.as_str();
        if row.deleted.is_some() {
            return fate.judge_deleted(line, text);
        }
        if fate.delete_acked {
            return vec![(
                FaultKind::Undeleted,
                format!("line {line} was deleted, and history still has it"),
            )];
        }
        let mut broken = fate.judge_text(line, said, text);
        broken.extend(fate.judge_reactions(line, &row.reactions));
        broken
    }

    /// Lines with the places of the entries that acks of changes named.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, u64)> {
        self.0.iter().flat_map(|(line, fate)| fate.entries.iter().map(|seq| (*line, *seq)))
    }
}

impl Fate {
    fn reaction(&mut self, user: u64, emoji: u8) -> &mut ReactionFate {
        let is_it = |fate: &ReactionFate| (fate.user, fate.emoji) == (user, emoji);
        let index = self.reactions.iter().position(is_it).unwrap_or_else(|| {
            self.reactions.push(ReactionFate { user, emoji, acked: false, is_open: false });
            self.reactions.len() - 1
        });
        &mut self.reactions[index]
    }

    fn judge_deleted(&self, line: usize, text: &str) -> Vec<Broken> {
        let mut broken = Vec::new();
        if !self.delete_asked {
            broken.push((
                FaultKind::Conflict,
                format!("line {line} is deleted, and no deletion was requested"),
            ));
        }
        if !text.is_empty() {
            broken.push((FaultKind::Undeleted, format!("line {line} is deleted, but still has its text")));
        }
        broken
    }

    /// The text must be that of the last acked edit, or of one that was requested after it.
    fn judge_text(&self, line: usize, said: &str, text: &str) -> Vec<Broken> {
        let number = (0..=self.edits_asked).rev().find(|number| match number {
            0 => text == said,
            _ => text == edited(said, *number),
        });
        match number {
            Some(number) if number >= self.edits_acked => Vec::new(),
            Some(number) => {
                let acked = self.edits_acked;
                let what = format!("edit {acked} of line {line} was acked, but history has edit {number}");
                vec![(FaultKind::EditLost, what)]
            }
            None => vec![(FaultKind::Conflict, format!("line {line} has a text that was never sent"))],
        }
    }

    fn judge_reactions(&self, line: usize, there: &[Reaction]) -> Vec<Broken> {
        let mut broken = Vec::new();
        for fate in self.reactions.iter().filter(|fate| !fate.is_open) {
            let emoji = Step::emoji(fate.emoji);
            let is_there = there.iter().any(|reaction| {
                reaction.emoji == emoji && reaction.users.iter().any(|user| user.raw() == fate.user)
            });
            if is_there != fate.acked {
                let (word, user) = (if fate.acked { "lacks" } else { "still has" }, fate.user);
                let what =
                    format!("history {word} {emoji} of user {user} to line {line}, unlike the last ack");
                broken.push((FaultKind::ReactionLost, what));
            }
        }
        for reaction in there {
            let is_known = |user: u64| {
                let mut fates = self.reactions.iter();
                fates.any(|fate| fate.user == user && Step::emoji(fate.emoji) == reaction.emoji)
            };
            if let Some(stranger) = reaction.users.iter().find(|user| !is_known(user.raw())) {
                let what =
                    format!("line {line} has {} of user {stranger}, who never added it", reaction.emoji);
                broken.push((FaultKind::Conflict, what));
            }
        }
        broken
    }
}
