//! Mentions and answers in open channels, told in the own logs of those whom they concern: an open channel comes to nobody
//! by itself.
//!
//! It is done before the ack leaves. If the process dies before, the message was not acked, and its retry does it.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use madang_engine::log::Row;
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::{Content, Message};
use madang_store::StoreResult;

use super::Homes;

/// Entries of an own log among which a repeated note looks for itself.
const RECENT: usize = 64;

impl Homes {
    /// Tells members whom `rows` mention or answer. `again`: unless they were told.
    pub(super) async fn tell_mentioned(&self, log: LogId, rows: &[Row], again: bool) {
        let LogId::Channel(channel) = log else { return };
        for row in rows {
            let Some(message) = row.entry.content.message().filter(|message| concerns_others(message)) else {
                continue;
            };
            // The message is durable whatever happens here.
            if let Err(error) = self.tell_of(channel, row.entry.seq, message, again).await {
                tracing::warn!(channel.id = %channel, %error, "who was mentioned could not be told");
            }
        }
    }

    /// A retry found its row.
    pub(super) async fn tell_mentioned_again(&self, log: LogId, seq: Seq) {
        match self.0.store.rows(log, seq..=seq, usize::MAX).await {
            Ok(rows) => self.tell_mentioned(log, &rows, true).await,
            Err(error) => tracing::warn!(%log, %error, "a message could not be read again"),
        }
    }

    async fn tell_of(&self, channel: ChannelId, seq: Seq, message: &Message, again: bool) -> StoreResult<()> {
        // An answer is told as one, also if it mentions her too.
        let mut concerned: BTreeMap<UserId, bool> =
            message.body.mentions.iter().map(|user| (*user, false)).collect();
        if let Some(target) = message.body.reply_to {
            let rows = self.0.store.rows_at(LogId::Channel(channel), &[target]).await?;
            let answered = rows.first().and_then(Option::as_ref).and_then(|row| row.entry.content.message());
            concerned.extend(answered.map(|answered| (answered.sender_id, true)));
        }
        concerned.remove(&message.sender_id);
        let users: Vec<UserId> = concerned.keys().copied().collect();
        let members = self.0.store.members_of(channel, &users).await?;
        let is_member = |member: &Option<madang_engine::seats::Member>| {
            member.as_ref().is_some_and(|member| member.spans.is_open())
        };
        let told = concerned.into_iter().zip(&members).filter(|(_, member)| is_member(member));
        let notes = told.map(|((user, is_reply), _)| async move {
            if again && self.was_told(user, channel, seq).await? {
                return Ok(());
            }
            let content = Content::Mentioned { channel_id: channel, seq, by: message.sender_id, is_reply };
            if let Err(error) = self.note(user, content).await {
                tracing::warn!(channel.id = %channel, user.id = %user, %error, "a mention was not told");
            }
            Ok(())
        });
        join_all(notes).await.into_iter().collect()
    }

    async fn was_told(&self, user: UserId, channel: ChannelId, at: Seq) -> StoreResult<bool> {
        let tail = self.0.store.tail(LogId::User(user), RECENT).await?;
        Ok(tail.rows.iter().any(|row| {
            matches!(row.entry.content, Content::Mentioned { channel_id, seq, .. } if channel_id == channel && seq == at)
        }))
    }
}

fn concerns_others(message: &Message) -> bool {
    !message.body.mentions.is_empty() || message.body.reply_to.is_some()
}
