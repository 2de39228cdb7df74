//! Pages of the history of hot channels: many users ask for the same rows at the same moment, and the store reads them once.
//!
//! What was read serves the same question for `shared_read_ms` of the level. Rows never change their place; a change of a message on
//! this node begins new pages, so that a user who has edited or deleted a message never reads it as it was. On other nodes of a fleet
//! that can happen for the same time, as if the read had been that much earlier.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use madang_engine::body;
use madang_engine::log::Row;
use madang_ids::{ChannelId, LogId, Seq};
use madang_store::{StoreError, StoreResult};
use moka::future::Cache;

use crate::heat::Saving;
use crate::operations::Operations;

/// Bytes of rows that are kept.
pub(crate) const KEPT_BYTES: u64 = 32 * 1024 * 1024;
/// Longer than any `shared_read_ms`.
const KEPT: Duration = Duration::from_secs(2);

/// The rows that a reader asks for: those of a range, until the bytes are used up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) channel: ChannelId,
    pub(super) range: RangeInclusive<Seq>,
    pub(super) max_bytes: usize,
    pub(super) order: Order,
}

/// One question, within one slot of time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    wanted: Wanted,
    slot: u128,
    /// Changes of messages before the read.
    changes: u64,
}

/// The order in which rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Order {
    Rising,
    Falling,
}

/// The pages that were read a moment ago.
#[derive(Debug)]
pub struct SharedReads(Cache<Question, Arc<[Row]>>);

impl Default for SharedReads {
    fn default() -> Self {
        let weigh = |_: &Question, rows: &Arc<[Row]>| {
            let bytes: usize =
                rows.iter().map(|row| body::entry_bytes(&row.entry.content) + size_of::<Row>()).sum();
            u32::try_from(bytes + size_of::<Question>()).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(KEPT_BYTES).weigher(weigh).time_to_live(KEPT).build())
    }
}

impl Operations {
    /// Rows of a channel, as the store reads them; those of a hot channel perhaps with others.
    pub(super) async fn read_rows(&self, wanted: Wanted) -> StoreResult<Vec<Row>> {
        // Each question counts, also one that is answered with what was read: else the channel would seem to cool down.
        self.heats.read(wanted.channel);
        let hot = self.heats.hot(wanted.channel).filter(|hot| hot.pacing.shared_read_ms > 0);
        let Some(hot) = hot else { return self.read_alone(wanted).await };
        let slot = self.clock.elapsed().as_millis() / u128::from(hot.pacing.shared_read_ms);
        let question = Question { wanted: wanted.clone(), slot, changes: hot.changes() };
        let is_reader = AtomicBool::new(false);
        let read = async {
            is_reader.store(true, Ordering::Relaxed);
            self.read_alone(wanted).await.map(Arc::from)
        };
        let rows = self.shared_reads.0.try_get_with(question, read).await;
        let rows = rows.map_err(|error: Arc<StoreError>| StoreError::clone(&error))?;
        if !is_reader.into_inner() {
            hot.spare(Saving::Read, 1);
            self.metrics.reads_shared.inc();
        }
        Ok(rows.to_vec())
    }

    async fn read_alone(&self, wanted: Wanted) -> StoreResult<Vec<Row>> {
        let Wanted { channel, range, max_bytes, order } = wanted;
        let log = LogId::Channel(channel);
        // A page that goes on in another shard is rare.
        let first = match order {
            Order::Rising => *range.start(),
            Order::Falling => *range.end(),
        };
        let shard = self.logs.shard(log, first);
        let read = async {
            match order {
                Order::Rising => self.logs.rows(log, range, max_bytes).await,
                Order::Falling => self.logs.rows_back(log, range, max_bytes).await,
            }
        };
        let key = self.heats.hot(channel).map(|_| channel);
        self.bulkheads.history.of(shard).call(key, read).await
    }
}
