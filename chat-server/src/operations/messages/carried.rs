//! Adds to changes the messages that they are about, each as it is now, and only for users who may read it. Users who have left
//! see nothing that was edited into a message after they left.

use std::collections::HashMap;

use madang_engine::body;
use madang_engine::log::Row;
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, LogId, Millis, Seq};
use madang_proto::{Body, Content, Message};

use crate::operations::Operations;
use crate::refusal::Result;

/// Messages that are read at once.
const READ_AT_ONCE: usize = 16;
/// Bytes of messages that are read for one page; the read that crosses it is the last. A change is small, while its message may
/// have half a megabyte, and reactions are served without the message, so the bytes of the page alone do not bound this.
const READ_BYTES: usize = 1024 * 1024;

/// The cost of a page of changes.
#[derive(Debug, Clone, Copy)]
pub(in crate::operations) struct Carried {
    /// Bytes of the entries of the page.
    pub(in crate::operations) bytes: usize,
    /// Bytes of the messages that were read for the page, served or not.
    pub(in crate::operations) read_bytes: usize,
    /// Whether all rows are still in the page.
    pub(in crate::operations) is_whole: bool,
}

/// The messages that were read, by place. `None` for a place that holds no message.
#[derive(Default)]
struct Targets {
    messages: HashMap<Seq, Option<Box<Message>>>,
    bytes: usize,
}

impl Targets {
    fn get(&self, target: Seq) -> Option<&Message> {
        self.messages.get(&target)?.as_deref()
    }
}

impl Operations {
    /// Completes the changes among `rows` of a channel's log, for a user whose stays are `spans`. The page ends after `max_bytes`
    /// of entries or [`READ_BYTES`] of messages, but has at least one row.
    pub(in crate::operations) async fn carry(
        &self,
        channel: ChannelId,
        spans: &Spans,
        rows: &mut Vec<Row>,
        max_bytes: usize,
    ) -> Result<Carried> {
        let left_at = self.left_at(channel, spans).await?;
        let mut targets = Targets::default();
        let mut bytes = 0;
        for index in 0..rows.len() {
            let target = target(&rows[index], spans);
            let unread = target.filter(|target| !targets.messages.contains_key(target));
            let is_full = unread.is_some() && targets.bytes >= READ_BYTES;
            if unread.is_some() && !is_full {
                self.read_targets(channel, spans, &rows[index..], &mut targets).await?;
            }
            let content = &mut rows[index].entry.content;
            content.carry(target.and_then(|target| served_with(content, targets.get(target)?, left_at)));
            if let Some(left_at) = left_at {
                withhold_later(content, left_at);
            }
            bytes += body::entry_bytes(content);
            if is_full || (bytes > max_bytes && index > 0) {
                rows.truncate(index);
                return Ok(Carried { bytes, read_bytes: targets.bytes, is_whole: false });
            }
        }
        Ok(Carried { bytes, read_bytes: targets.bytes, is_whole: true })
    }

    /// The time at which the user left, if they have.
    async fn left_at(&self, channel: ChannelId, spans: &Spans) -> Result<Option<Millis>> {
        let Some(until) = spans.last().and_then(|span| span.until) else { return Ok(None) };
        let rows = self.logs.rows(LogId::Channel(channel), until..=until, 1).await?;
        Ok(rows.first().map(|row| row.entry.at))
    }

    /// Reads the next messages that `rows` are about and that are not in `known`, at least the first of them.
    async fn read_targets(
        &self,
        channel: ChannelId,
        spans: &Spans,
        rows: &[Row],
        known: &mut Targets,
    ) -> Result<()> {
        let mut targets: Vec<Seq> = Vec::new();
        for target in rows.iter().filter_map(|row| target(row, spans)) {
            let is_new = !targets.contains(&target) && !known.messages.contains_key(&target);
            if targets.len() < READ_AT_ONCE && is_new {
                targets.push(target);
            }
        }
        let found = self.logs.rows_at(LogId::Channel(channel), &targets, READ_BYTES).await?;
        known.bytes += found.iter().flatten().map(|row| body::entry_bytes(&row.entry.content)).sum::<usize>();
        let message =
            |row: Option<Row>| row.and_then(|row| row.entry.content.message().cloned()).map(Box::new);
        known.messages.extend(targets.into_iter().zip(found.into_iter().map(message)));
        Ok(())
    }
}

/// The message that a change is served with. Reactions name the version of the body that they belong to, so they are not served
/// for a body that the user may not read.
fn served_with<'a>(content: &Content, message: &'a Message, left_at: Option<Millis>) -> Option<&'a Message> {
    let is_withheld = left_at.is_some_and(|left_at| was_edited_after(message, left_at));
    (!is_withheld || !matches!(content, Content::Reactions(_))).then_some(message)
}

fn was_edited_after(message: &Message, left_at: Millis) -> bool {
    message.edited.is_some_and(|edited| edited.at > left_at)
}

/// Removes the body of a message that was edited after the user left. The body from before the edit is not kept anywhere.
fn withhold_later(content: &mut Content, left_at: Millis) {
    let message = match content {
        Content::Message(message) => Some(message),
        Content::Edited(change) | Content::Deleted(change) => change.message.as_mut(),
        _ => None,
    };
    if let Some(message) = message.filter(|message| was_edited_after(message, left_at)) {
        message.body = Body { reply_to: message.body.reply_to, ..Body::default() };
        // The version is one lower, so that no older copy is replaced by this one, and the whole message replaces it if the user
        // comes back.
        message.version = message.version.saturating_sub(1);
    }
}

/// The place of the message that a row is about, if the user may read it.
fn target(row: &Row, spans: &Spans) -> Option<Seq> {
    row.entry.content.change().map(|change| change.target).filter(|target| spans.contains(*target))
}
