//! Deletes channels. One entry ends the log; then memberships end and messages are erased, a page at a time. If this is
//! interrupted, upkeep continues where it stopped.

use madang_engine::home::{Command, DetailChange};
use madang_engine::log::{ChannelState, RowChange};
use madang_ids::{ChannelId, LogId, Millis, Seq, UserId};
use madang_proto::{Body, ChannelKind, Content, DeletionMark, Message};
use madang_store::{
    Channel, Ending, Erasure, Head, Member, Membership, Row, SeatChange, SeatOutcome, StoreResult,
};

use crate::operations::{Caller, Operations};
use crate::refusal::Result;

/// Members whose memberships end in one commit.
const MEMBERS_AT_ONCE: usize = 256;
/// Rows that are read and erased in one commit.
const ROWS_AT_ONCE: u64 = 256;
const BYTES_AT_ONCE: usize = 1024 * 1024;
/// Pages in one round of upkeep, so that other work gets its turn: 2,560 rows a second.
const PAGES_A_ROUND: usize = 10;
/// Channels that are continued in one round.
const CHANNELS_A_ROUND: usize = 16;
/// An erasure is dropped if its deletion has not been appended after this time. It is longer than any append takes.
const FORGET_AFTER_MS: u64 = 10 * 60 * 1_000;

impl Operations {
    /// Deletes a group or an open channel for everybody. Repeating it is harmless.
    ///
    /// Members are notified by the entry `channel_deleted`. From then on nobody can read the log, and its messages are erased in
    /// the background.
    ///
    /// # Errors
    /// `forbidden` unless the caller is the owner, and for a direct channel; `not_found`.
    pub async fn delete_channel(&self, caller: Caller, id: ChannelId) -> Result<()> {
        let channel = self.channel(id).await?;
        let erasure = Erasure { channel_id: id, at: self.clock.now_ms(), upto: Seq::ZERO };
        self.check_is_member(caller, id).await?;
        // The erasure is written before the entry: once the entry is durable, upkeep will find the work even after a crash.
        self.store.put_erasure(erasure).await?;
        let change = DetailChange::State(ChannelState::Deleted);
        let asked = self.homes.ask(&channel, Command::Detail { by: caller.user_id, change }).await;
        self.known.channels.invalidate(&id).await;
        asked?;
        Ok(())
    }

    /// Continues erasures, some thousand rows at a time. Upkeep calls this once a second.
    pub async fn finish_erasures(&self) {
        let erasures = match self.store.erasures(CHANNELS_A_ROUND).await {
            Ok(erasures) => erasures,
            Err(error) => return tracing::debug!(%error, "reading erasures failed"),
        };
        for erasure in erasures {
            if let Err(error) = self.go_on_erasing(erasure).await {
                tracing::warn!(channel.id = %erasure.channel_id, %error, "erasing a deleted channel failed");
            }
        }
    }

    async fn go_on_erasing(&self, erasure: Erasure) -> StoreResult<()> {
        let id = erasure.channel_id;
        match self.store.channel(id).await? {
            Some(channel) if channel.state == ChannelState::Deleted => self.erase(&channel, erasure).await,
            // The append is in progress, or it was refused.
            _ if self.clock.now_ms() < erasure.at.plus(FORGET_AFTER_MS) => Ok(()),
            _ => self.store.end_erasure(id).await,
        }
    }

    async fn erase(&self, channel: &Channel, mut erasure: Erasure) -> StoreResult<()> {
        let (id, log) = (channel.card.id, LogId::Channel(channel.card.id));
        let heads = self.logs.heads(&[log]).await?;
        let head = heads.first().copied().unwrap_or_default();
        if erasure.upto == Seq::ZERO {
            self.end_memberships(channel, head).await?;
            self.end_invitations_to(id).await?;
        }
        for _ in 0..PAGES_A_ROUND {
            if erasure.upto >= head.seq {
                return self.store.end_erasure(id).await;
            }
            let first = erasure.upto.next();
            let last = first.plus(ROWS_AT_ONCE - 1).min(head.seq);
            let rows = self.logs.rows(log, first..=last, BYTES_AT_ONCE).await?;
            let changes: Vec<RowChange> =
                rows.iter().filter_map(|row| erased(row, channel.created_by, erasure.at)).collect();
            if !changes.is_empty() {
                self.store.replace_rows(id, &changes).await?;
            }
            // The place is written behind the rows: after a crash some rows are erased again, which changes nothing.
            erasure.upto = rows.last().map_or(last, |row| row.entry.seq);
            self.store.put_erasure(erasure).await?;
        }
        Ok(())
    }

    async fn end_invitations_to(&self, channel: ChannelId) -> StoreResult<()> {
        loop {
            let ended = self.store.end_invitations(Ending::To(channel), MEMBERS_AT_ONCE).await?;
            if ended.is_empty() {
                return Ok(());
            }
            self.note_invitations(self.unnoted(ended)).await;
        }
    }

    /// Ends the memberships, so that the channel is not counted among its members' channels any more. Nothing is noted in their
    /// own logs, because they have received the last entry of the channel.
    async fn end_memberships(&self, channel: &Channel, head: Head) -> StoreResult<()> {
        let id = channel.card.id;
        loop {
            let members = self.store.members(id, None, MEMBERS_AT_ONCE).await?;
            if members.is_empty() {
                return Ok(());
            }
            let seats = self.store.seats(id).await?;
            let left = u32::try_from(members.len()).unwrap_or(u32::MAX);
            let members: Vec<Member> = members.into_iter().map(|member| ended(member, head.seq)).collect();
            let memberships: Vec<Membership> =
                members.iter().map(|member| membership(channel, member, head.seq)).collect();
            let count = seats.count.saturating_sub(left);
            let change = SeatChange { channel: id, if_rev: seats.rev, count, members };
            // Another node erases the same channel and continues.
            if let SeatOutcome::Moved = self.store.change_seats(change, &memberships).await? {
                return Ok(());
            }
        }
    }
}

/// The member with their stay ended at the end of the log.
fn ended(mut member: Member, at: Seq) -> Member {
    member.spans.close(at);
    Member { pending: None, ..member }
}

fn membership(channel: &Channel, member: &Member, at: Seq) -> Membership {
    let in_inbox = channel.card.kind != ChannelKind::Open;
    let (user_id, role, spans) = (member.user_id, member.role, member.spans.clone());
    let (channel_id, has_accepted) = (channel.card.id, member.has_accepted);
    Membership { user_id, channel_id, role, spans, version: at, in_inbox, has_accepted }
}

/// The change that removes the content of a message. `None` if there is none, or if it is removed already.
fn erased(row: &Row, by: UserId, at: Millis) -> Option<RowChange> {
    let lost = row.lost_message();
    let message =
        row.entry.content.message().or(lost.as_ref()).filter(|message| message.deleted.is_none())?;
    let if_version = message.version;
    let message = Message {
        body: Body::default(),
        version: if_version + 1,
        edited: None,
        deleted: Some(DeletionMark { at, by }),
        reactions: Vec::new(),
        ..message.clone()
    };
    Some(RowChange { target: row.entry.seq, if_version, content: Content::Message(Box::new(message)) })
}
