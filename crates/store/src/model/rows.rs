//! Changes of the rows of logs, in memory.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use madang_ids::{ChannelId, ClientMsgId, LogId, Seq, UserId};
use madang_proto::Reaction;

use super::{Log, State, Stored};
use crate::log::{Deleted, Head, Mentions, Row, RowChange, SendRecord, kept};

impl State {
    pub(super) fn send(
        &self,
        channel: ChannelId,
        (sender, id): (UserId, ClientMsgId),
        is_blind: bool,
    ) -> Option<SendRecord> {
        let exact = self.sends.get(&(channel, sender, id.value()));
        let blind = || self.sends.values().find(|record| is_blind && record.key.client_msg_id == id);
        exact.or_else(blind).copied()
    }

    pub(super) fn head(&self, log: LogId) -> Head {
        self.logs.get(&log).map(|log| log.head).unwrap_or_default()
    }

    /// The head before the last append.
    pub(super) fn head_before(&self, log: LogId) -> Head {
        self.logs.get(&log).map(|log| log.head_before).unwrap_or_default()
    }

    pub(super) fn stored(
        &self,
        log: LogId,
        range: &RangeInclusive<Seq>,
    ) -> impl DoubleEndedIterator<Item = &Stored> {
        let rows = self.logs.get(&log).map_or(&[][..], |log| &log.rows[..]);
        rows.iter().filter({
            let range = range.clone();
            move |stored| range.contains(&stored.row.entry.seq)
        })
    }

    pub(super) fn append(
        &mut self,
        log: LogId,
        rows: &[Row],
        head: Head,
        stands_still: bool,
        keeps_messages: bool,
    ) {
        let Log { rows: stored, head: old, head_before, trimmed, .. } = self.logs.entry(log).or_default();
        *head_before = *old;
        let before = rows.first().map_or(0, |row| row.entry.seq.get().saturating_sub(*trimmed + 1));
        stored.truncate(usize::try_from(before).unwrap_or(usize::MAX));
        *old = head;
        for (index, row) in rows.iter().enumerate() {
            if index == 0 || !stands_still {
                self.position += 1;
            }
            let version = row.entry.content.message().map_or(1, |message| message.version);
            let mut row = row.clone();
            if !keeps_messages {
                row.entry.content = kept(&row.entry.content).into_owned();
            }
            stored.push(Stored { row, position: self.position, version });
        }
    }

    pub(super) fn reactions_to(&self, channel: ChannelId, target: Seq, named: usize) -> Vec<Reaction> {
        let here = self
            .reactions
            .iter()
            .filter(|((place, to, _), users)| (*place, *to) == (channel, target) && !users.is_empty());
        let reaction = |((_, _, emoji), users): (&(ChannelId, Seq, String), &BTreeSet<UserId>)| Reaction {
            emoji: emoji.clone(),
            count: u32::try_from(users.len()).unwrap_or(u32::MAX),
            users: users.iter().copied().take(named).collect(),
        };
        here.map(reaction).collect()
    }

    /// Writes the new content of a row.
    pub(super) fn change_row(&mut self, log: LogId, change: &RowChange) {
        let rows = &mut self.logs.entry(log).or_default().rows;
        if let Some(stored) = rows.iter_mut().find(|stored| stored.row.entry.seq == change.target) {
            stored.version = change.if_version + 1;
            stored.row.entry.content = change.content.clone();
        }
        if let LogId::Channel(channel) = log
            && change.deletes()
        {
            self.forget_notes_of(channel, change.target);
        }
    }

    /// Deleting a message removes the reactions to it and the records of its mentions.
    pub(super) fn forget_notes_of(&mut self, channel: ChannelId, target: Seq) {
        self.forget_reactions(channel, target);
        self.mentions.retain(|(of, _, seq), _| (*of, *seq) != (channel, target));
    }

    pub(super) fn note_mention(&mut self, channel: ChannelId, mentions: &Mentions, user: Option<UserId>) {
        self.mentions.insert((channel, user, mentions.seq), mentions.sender);
    }

    pub(super) fn forget_mention(&mut self, channel: ChannelId, deleted: &Deleted, user: Option<UserId>) {
        self.mentions.remove(&(channel, user, deleted.target));
    }

    pub(super) fn forget_reactions(&mut self, channel: ChannelId, target: Seq) {
        self.reactions.retain(|(of, to, _), _| (*of, *to) != (channel, target));
    }
}
