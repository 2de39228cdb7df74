//! The messages that mention a user by name, latest first. A new device cannot find these in its logs.

use std::collections::HashMap;
use std::sync::Arc;

use madang_engine::body;
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, LogId, Millis, Seq, UserId};
use madang_proto::rest::{ChannelMessage, Page, PageQuery};
use madang_proto::{Content, ErrorBody, limits};
use madang_store::{Mention, MentionPlace};

use crate::operations::costs::Cost;
use crate::operations::messages::history::readable;
use crate::operations::{Caller, Operations, pages};
use crate::refusal::Result;

/// Mentions that are looked at for one page.
const LOOKED_AT: usize = 100;

/// Results of look-ups for one page.
#[derive(Default)]
struct Seen {
    /// The spans that the caller may read, by channel. `None` if there are none.
    spans: HashMap<ChannelId, Option<Arc<Spans>>>,
    /// Whether the caller blocks a sender.
    blocked: HashMap<UserId, bool>,
}

impl Operations {
    /// Messages that mention the caller by name and that the caller may read, latest first. A page may be short or empty although
    /// there are more.
    ///
    /// # Errors
    /// `after` or `limit` out of bounds.
    pub async fn mentions(&self, caller: Caller, query: PageQuery) -> Result<Page<ChannelMessage>> {
        let PageQuery { after, limit } = query;
        let (_, limit) = pages::bounds::<u64>(&PageQuery { after: None, limit })?;
        let before = after.as_deref().map(parse_place).transpose()?;
        let limit = limit.min(LOOKED_AT);
        let found = self.logs.mentions_of(caller.user_id, before, limit).await?;
        let (mut items, mut seen, mut bytes) = (Vec::new(), Seen::default(), 0);
        let mut next = found.last().filter(|_| found.len() == limit).map(|last| last.place);
        for (index, mention) in found.iter().enumerate() {
            let Some(item) = self.mention(caller.user_id, mention, &mut seen).await? else { continue };
            bytes += body::entry_bytes(&item.entry.content);
            if bytes > limits::BATCH_BYTES_OUT && !items.is_empty() {
                // This message begins the next page.
                next = found.get(index.wrapping_sub(1)).map(|last| last.place);
                break;
            }
            items.push(item);
        }
        self.callers.charge(caller.user_id, Cost::rows(2 * found.len()).and(Cost::bytes(bytes)));
        Ok(Page { items, next: next.map(|(at, channel, seq)| format!("{at}-{channel}-{seq}")) })
    }

    /// The message, unless the caller may not read it, has deleted it for themselves, or blocks its sender.
    async fn mention(
        &self,
        user: UserId,
        mention: &Mention,
        seen: &mut Seen,
    ) -> Result<Option<ChannelMessage>> {
        let (_, channel, seq) = mention.place;
        let spans = match seen.spans.get(&channel) {
            Some(spans) => spans.clone(),
            None => {
                let spans = self.readable_spans(user, channel).await?;
                seen.spans.insert(channel, spans.clone());
                spans
            }
        };
        let Some(spans) = spans.filter(|spans| spans.contains(seq)) else { return Ok(None) };
        if self.blocks_sender(user, mention.sender, seen).await? {
            return Ok(None);
        }
        let log = LogId::Channel(channel);
        let mut rows = self.logs.rows(log, seq..=seq, 1).await?;
        self.carry(channel, &spans, &mut rows, limits::BATCH_BYTES_OUT).await?;
        let hidden = self.hidden_from(user, [(log, &rows[..])]).await?;
        let entry = rows.into_iter().next().map(|row| row.entry);
        let entry =
            entry.filter(|entry| matches!(entry.content, Content::Message(_)) && !hidden.hides(channel, seq));
        Ok(entry.map(|entry| ChannelMessage { channel_id: channel, entry }))
    }

    async fn readable_spans(&self, user: UserId, channel: ChannelId) -> Result<Option<Arc<Spans>>> {
        let membership = self.store.membership(user, channel).await?;
        let Some(membership) = membership else { return Ok(None) };
        let row = match self.channel(channel).await {
            Ok(row) => row,
            Err(error) => {
                tracing::debug!(channel.id = %channel, %error, "a mention was left out: its channel cannot be read");
                return Ok(None);
            }
        };
        let spans = readable(row.card.kind, &membership.spans).ok();
        Ok(spans.map(|spans| Arc::new(spans.into_owned())))
    }

    async fn blocks_sender(&self, user: UserId, sender: UserId, seen: &mut Seen) -> Result<bool> {
        if let Some(blocked) = seen.blocked.get(&sender) {
            return Ok(*blocked);
        }
        let blockers = self.store.who_block(sender, &[user]).await?;
        seen.blocked.insert(sender, !blockers.is_empty());
        Ok(!blockers.is_empty())
    }
}

fn parse_place(after: &str) -> Result<MentionPlace, ErrorBody> {
    let mut parts = after.splitn(3, '-');
    let mut part = || parts.next();
    let place = (|| {
        let (at, channel, seq) = (part()?.parse().ok()?, part()?.parse().ok()?, part()?.parse().ok()?);
        Some((Millis::new(at), channel, Seq::new(seq)))
    })();
    place.ok_or_else(|| {
        ErrorBody::invalid(
            "after",
            "after is not the next of an earlier page of this list of this \
         list",
        )
    })
}
