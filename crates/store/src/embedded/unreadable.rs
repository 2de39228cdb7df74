//! Damaged rows, and rows that this version cannot read: each is left out alone and counted, and a line of the log names the place
//! of the last one.

use std::sync::Arc;

use madang_ids::{ChannelId, LogId, Seq};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use super::log_limit::LogLimit;

/// Counts and logs them. Clones share their state.
#[derive(Debug, Clone)]
pub(super) struct Unreadables {
    count: Counter,
    log_limit: Arc<Mutex<LogLimit>>,
}

impl Unreadables {
    pub(super) fn new(count: Counter) -> Self {
        Self { count, log_limit: Arc::default() }
    }

    /// Counts a row that a reader found.
    pub(super) fn note(&self, log: LogId, seq: Seq) {
        self.count.inc();
        if let Some(unlogged) = self.log_limit.lock().unlogged() {
            tracing::error!(
                %log, %seq, unlogged,
                "a row cannot be read and is served as `unreadable`; `madang check` finds all of them"
            );
        }
    }

    /// Counts a row that a reader left out of its answer, or replaced by data from elsewhere.
    pub(super) fn note_other(&self, what: &str, channel: ChannelId) {
        self.count.inc();
        if let Some(unlogged) = self.log_limit.lock().unlogged() {
            tracing::error!(
                channel.id = %channel, what, unlogged,
                "a row cannot be read; `madang check` finds all of them"
            );
        }
    }
}
