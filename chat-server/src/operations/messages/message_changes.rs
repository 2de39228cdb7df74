//! Edits and deletes messages, and changes reactions.

use std::sync::atomic::{AtomicU64, Ordering};

use madang_engine::home::{ChangeRequest, Command, MessageChange, ReactRequest, Reply};
use madang_engine::log::ReactionChange;
use madang_engine::overload::Class;
use madang_engine::{body, emoji};
use madang_ids::{ChannelId, LogId, Millis, Seq, UserId};
use madang_proto::rest::{Page, PageQuery};
use madang_proto::{Body, Changed, ErrorBody, ErrorCode, UserCard, limits};
use madang_store::urgently;
use tokio::sync::oneshot;

use crate::operations::accounts::card;
use crate::operations::costs::Cost;
use crate::operations::messages::history::readable;
use crate::operations::{Caller, Operations, check_not_deleted, pages};
use crate::refusal::Result;

/// A change of a message.
#[derive(Debug, Clone)]
pub enum Change {
    /// Replaces the body.
    Edit {
        body: Body,
        /// Edits only if this is the message's version. `None` for any version.
        version: Option<u32>,
    },
    /// Deletes the message.
    Delete,
    /// Adds or removes a reaction of the caller.
    React {
        emoji: String,
        /// Whether the reaction is there afterwards.
        on: bool,
    },
}

impl Operations {
    /// Checks a change of a message and hands it to the home of its channel. `answer` is called once, when the change is durable
    /// or refused. Repeating it is harmless.
    ///
    /// # Errors
    /// Refusals that need no answer of the home. `answer` is not called then.
    pub async fn change(
        &self,
        caller: Caller,
        channel_id: ChannelId,
        target: Seq,
        mut change: Change,
        answer: impl FnOnce(Result<Changed, ErrorBody>) + Send + 'static,
    ) -> Result<()> {
        self.shedding.admit(Class::Messages, caller.user_id.raw())?;
        match &mut change {
            Change::Edit { body, .. } => body::check(body)?,
            Change::React { emoji, .. } => *emoji = emoji::canonical(emoji)?,
            Change::Delete => {}
        }
        let (price, bytes) = match &change {
            Change::Edit { body, .. } => (Cost::mentions(body), body::json_bytes(body)),
            Change::React { .. } | Change::Delete => (Cost::default(), 0),
        };
        self.callers.take_send(caller.user_id, price, bytes)?;
        // Only the home knows how many bytes a reaction or a deletion writes.
        let (callers, by) = (self.callers.clone(), caller.user_id);
        let answer = move |reply: Reply| {
            if let Reply::Changed { caused_bytes, .. } = &reply {
                callers.charge_bytes(by, caused_bytes.saturating_sub(bytes));
            }
            answer(changed(channel_id, reply));
        };
        let channel = urgently(self.channel(channel_id)).await?;
        let command = command(caller.user_id, target, change, self.times.next_us(self.clock.now_ms()));
        self.homes.submit(&channel, command, Box::new(answer));
        Ok(())
    }

    /// Changes a message and waits for the answer. Dropping the future does not cancel the change.
    ///
    /// # Errors
    /// The refusal.
    pub async fn change_and_wait(
        &self,
        caller: Caller,
        channel_id: ChannelId,
        target: Seq,
        change: Change,
    ) -> Result<Changed> {
        let (sender, receiver) = oneshot::channel();
        self.change(caller, channel_id, target, change, move |answer| drop(sender.send(answer))).await?;
        Ok(receiver.await.unwrap_or_else(|_| Err(ErrorBody::unavailable("the server is stopping", 1000)))?)
    }

    /// The users who reacted to a message with one emoji, by id.
    ///
    /// # Errors
    /// `not_found` for a message that is deleted, or that the caller may not read; `after` or `limit` out of bounds.
    pub async fn reactors(
        &self,
        caller: Caller,
        channel: ChannelId,
        target: Seq,
        emoji: &str,
        query: PageQuery,
    ) -> Result<Page<UserCard>> {
        let (after, limit) = pages::bounds::<UserId>(&query)?;
        let emoji = emoji::canonical(emoji)?;
        let overview = self.overview_of(caller.user_id, channel).await?;
        check_not_deleted(&overview.channel)?;
        if !readable(overview.channel.card.kind, &overview.membership.spans)?.contains(target) {
            return Err(ErrorBody::not_found("seq").into());
        }
        let rows = self.logs.rows_at(LogId::Channel(channel), &[target], limits::BATCH_BYTES_OUT).await?;
        let message = rows.first().and_then(Option::as_ref).and_then(|row| row.entry.content.message());
        // The reactions of a deleted message are gone.
        if message.is_none_or(|message| message.deleted.is_some()) {
            return Err(ErrorBody::not_found("seq").into());
        }
        let ids = self.logs.reactors(channel, target, &emoji, after, limit).await?;
        self.callers.charge(caller.user_id, Cost::rows(ids.len()));
        let next = pages::next(&ids, limit, |id| *id);
        let users = self.store.users(&ids).await?;
        Ok(Page { items: users.into_iter().flatten().map(card).collect(), next })
    }
}

/// Times of requests of this process, each behind the one before.
#[derive(Debug, Default)]
pub struct RequestTimes(AtomicU64);

impl RequestTimes {
    /// The time of a request that came now, in microseconds.
    fn next_us(&self, now: Millis) -> u64 {
        let next = |last: u64| (last + 1).max(now.get() * 1_000);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).map_or(0, next)
    }
}

fn command(by: UserId, target: Seq, change: Change, at_us: u64) -> Command {
    let change = match change {
        Change::Edit { body, version } => MessageChange::Edit { body, if_version: version },
        Change::Delete => MessageChange::Delete,
        Change::React { emoji, on } => {
            let change = ReactionChange { user_id: by, emoji, on, at_us };
            return Command::React(ReactRequest { target, change });
        }
    };
    Command::Change(ChangeRequest { by, target, change })
}

fn changed(channel_id: ChannelId, reply: Reply) -> Result<Changed, ErrorBody> {
    match reply {
        Reply::Changed { target, version, seq, .. } => {
            Ok(Changed { id: None, channel_id, target, version, seq })
        }
        Reply::Refused(error) => Err(error),
        _ => Err(ErrorBody::new(ErrorCode::Internal, "internal server error")),
    }
}
