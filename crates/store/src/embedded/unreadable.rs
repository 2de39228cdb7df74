//! Rows that are not what was written, or that this version cannot read: each costs itself alone, is counted, and the
//! log says where the last one was.

use std::sync::Arc;

use madang_ids::{ChannelId, LogId, Seq};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use super::seldom::Seldom;

/// Counts and logs them. Clones are one.
#[derive(Debug, Clone)]
pub(super) struct Unreadables {
    count: Counter,
    seldom: Arc<Mutex<Seldom>>,
}

impl Unreadables {
    pub(super) fn new(count: Counter) -> Self {
        Self { count, seldom: Arc::default() }
    }

    /// A reader found one.
    pub(super) fn note(&self, log: LogId, seq: Seq) {
        self.count.inc();
        if let Some(unlogged) = self.seldom.lock().tell() {
            tracing::error!(
                %log, %seq, unlogged,
                "a row cannot be read and is served as `unreadable`; `madang check` finds all of them"
            );
        }
    }

    /// A reader left a row out of what it was asked for, or took what it says from elsewhere.
    pub(super) fn note_other(&self, what: &str, channel: ChannelId) {
        self.count.inc();
        if let Some(unlogged) = self.seldom.lock().tell() {
            tracing::error!(
                channel.id = %channel, what, unlogged,
                "a row cannot be read; `madang check` finds all of them"
            );
        }
    }
}
