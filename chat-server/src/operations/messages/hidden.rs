//! Removes the content of messages that a user has deleted for themselves from what that user is served.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use madang_engine::log::Row;
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::{Body, Content, Message};

use crate::operations::Operations;
use crate::refusal::Result;

/// The messages of a page that the user has deleted for themselves.
#[derive(Debug, Default)]
pub(in crate::operations) struct Hidden(HashSet<(ChannelId, Seq)>);

impl Operations {
    /// The hidden messages of these pages of logs, including the targets of changes. One read of the store.
    pub(in crate::operations) async fn hidden_from(
        &self,
        user: UserId,
        pages: impl IntoIterator<Item = (LogId, &[Row])>,
    ) -> Result<Hidden> {
        let mut ranges = Vec::new();
        for (log, rows) in pages {
            let LogId::Channel(channel) = log else { continue };
            ranges.extend(range(rows).map(|range| (channel, range)));
        }
        if ranges.is_empty() {
            return Ok(Hidden::default());
        }
        let found = self.store.hidden_messages(user, &ranges).await?;
        Ok(Hidden(found.into_iter().collect()))
    }
}

/// From the lowest place that the rows are about to the last row.
fn range(rows: &[Row]) -> Option<RangeInclusive<Seq>> {
    let place = |row: &Row| row.entry.content.change().map_or(row.entry.seq, |change| change.target);
    let first = rows.iter().map(place).min()?;
    Some(first..=rows.last()?.entry.seq)
}

impl Hidden {
    /// Removes hidden content: that of messages, and the messages that changes carry.
    pub(in crate::operations) fn withhold(&self, channel: ChannelId, rows: &mut [Row]) {
        if self.0.is_empty() {
            return;
        }
        for row in rows {
            let seq = row.entry.seq;
            match &mut row.entry.content {
                Content::Message(message) if self.0.contains(&(channel, seq)) => hide(message),
                content if self.hides_target(channel, content) => content.carry(None),
                _ => {}
            }
        }
    }

    /// Whether this message is hidden.
    pub(in crate::operations) fn hides(&self, channel: ChannelId, seq: Seq) -> bool {
        self.0.contains(&(channel, seq))
    }

    fn hides_target(&self, channel: ChannelId, content: &Content) -> bool {
        content.change().is_some_and(|change| self.0.contains(&(channel, change.target)))
    }
}

fn hide(message: &mut Message) {
    message.body = Body::default();
    message.reactions.clear();
    message.hidden = true;
}
