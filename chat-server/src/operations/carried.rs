//! Puts the messages into the changes that are about them: each as it is now, and only for who may read it.

use std::collections::HashMap;

use madang_engine::body;
use madang_engine::log::Row;
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, LogId, Seq};
use madang_proto::{ErrorBody, Message};

use super::Operations;
use crate::refusal::refusal;

impl Operations {
    /// Fills in the changes among `rows` of a channel's log. Ends after `max_bytes` of messages (at least one row); says
    /// whether all rows are there still.
    pub(super) async fn carry(
        &self,
        channel: ChannelId,
        spans: &Spans,
        rows: &mut Vec<Row>,
        max_bytes: usize,
    ) -> Result<bool, ErrorBody> {
        let changes = rows.iter().filter_map(|row| row.entry.content.change());
        let mut targets: Vec<Seq> = changes.map(|change| change.target).collect();
        targets.retain(|target| spans.contains(*target));
        targets.sort_unstable();
        targets.dedup();
        if targets.is_empty() {
            return Ok(true);
        }
        let found = self.store.rows_at(LogId::Channel(channel), &targets).await;
        let found = found.map_err(|error| refusal(&error))?;
        let message = |row: Option<Row>| row.and_then(|row| row.entry.content.message().cloned());
        let messages: HashMap<Seq, Option<Message>> =
            targets.into_iter().zip(found.into_iter().map(message)).collect();
        let mut bytes = 0;
        for index in 0..rows.len() {
            if let Some(change) = rows[index].entry.content.change_mut() {
                let message = messages.get(&change.target).and_then(Option::as_ref);
                change.message = message.cloned().map(Box::new);
            }
            let carried = rows[index].entry.content.carried();
            bytes += carried.map_or(0, |message| body::json_bytes(&message.body));
            if bytes > max_bytes && index > 0 {
                rows.truncate(index);
                return Ok(false);
            }
        }
        Ok(true)
    }
}
