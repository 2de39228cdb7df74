//! Puts the messages into the changes that are about them: each as it is now, and only for who may read it. Who has left
//! reads nothing that a message says since.

use std::collections::HashMap;

use madang_engine::body;
use madang_engine::log::Row;
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, LogId, Millis, Seq};
use madang_proto::{Body, Content, ErrorBody, Message};

use super::Operations;
use crate::refusal::refusal;

/// Messages read at once, and the bytes of entries that they have at most: a change is small, and what it carries may have
/// half a megabyte.
const READ_AT_ONCE: usize = 16;
const READ_BYTES: usize = 1024 * 1024;

impl Operations {
    /// Fills in the changes among `rows` of a channel's log, for who was a member as `spans` say. Ends after `max_bytes` of entries (at least one row);
    /// says how many bytes there are, or `None` if not all rows are there still.
    pub(super) async fn carry(
        &self,
        channel: ChannelId,
        spans: &Spans,
        rows: &mut Vec<Row>,
        max_bytes: usize,
    ) -> Result<Option<usize>, ErrorBody> {
        let left_at = self.left_at(channel, spans).await?;
        let mut messages = HashMap::new();
        let mut bytes = 0;
        for index in 0..rows.len() {
            if let Some(target) = target(&rows[index], spans) {
                if !messages.contains_key(&target) {
                    self.read_targets(channel, spans, &rows[index..], &mut messages).await?;
                }
                if let Some(change) = rows[index].entry.content.change_mut() {
                    change.message = messages.get(&target).and_then(Option::as_ref).cloned();
                }
            }
            if let Some(left_at) = left_at {
                withhold_later(&mut rows[index].entry.content, left_at);
            }
            bytes += body::entry_bytes(&rows[index].entry.content);
            if bytes > max_bytes && index > 0 {
                rows.truncate(index);
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    }

    /// When who has left did so.
    async fn left_at(&self, channel: ChannelId, spans: &Spans) -> Result<Option<Millis>, ErrorBody> {
        let Some(until) = spans.last().and_then(|span| span.until) else { return Ok(None) };
        let rows = self.store.rows(LogId::Channel(channel), until..=until, 1).await;
        let rows = rows.map_err(|error| refusal(&error))?;
        Ok(rows.first().map(|row| row.entry.at))
    }

    /// Reads the next messages that `rows` are about and that are not among `messages`; at least the first of them.
    async fn read_targets(
        &self,
        channel: ChannelId,
        spans: &Spans,
        rows: &[Row],
        messages: &mut HashMap<Seq, Option<Box<Message>>>,
    ) -> Result<(), ErrorBody> {
        let mut targets: Vec<Seq> = Vec::new();
        for target in rows.iter().filter_map(|row| target(row, spans)) {
            if targets.len() < READ_AT_ONCE && !targets.contains(&target) && !messages.contains_key(&target) {
                targets.push(target);
            }
        }
        let found = self.store.rows_at(LogId::Channel(channel), &targets, READ_BYTES).await;
        let found = found.map_err(|error| refusal(&error))?;
        let message =
            |row: Option<Row>| row.and_then(|row| row.entry.content.message().cloned()).map(Box::new);
        messages.extend(targets.into_iter().zip(found.into_iter().map(message)));
        Ok(())
    }
}

/// What a message says since somebody has left is not for her; what it said before, nobody knows any more.
fn withhold_later(content: &mut Content, left_at: Millis) {
    let message = match content {
        Content::Message(message) => Some(message),
        other => other.change_mut().and_then(|change| change.message.as_mut()),
    };
    if let Some(message) = message.filter(|it| it.edited.is_some_and(|edited| edited.at > left_at)) {
        message.body = Body { reply_to: message.body.reply_to, ..Body::default() };
        // No copy that she has from before gives way to it, and it gives way to the whole one if she comes again.
        message.version = message.version.saturating_sub(1);
    }
}

/// The message that a row is about, if it may be read.
fn target(row: &Row, spans: &Spans) -> Option<Seq> {
    row.entry.content.change().map(|change| change.target).filter(|target| spans.contains(*target))
}
