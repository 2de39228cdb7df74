//! Where to begin in a log of which an inbox knows nothing.
//!
//! An inbox learns of a log by its rows, and by a snapshot ([`Inbox::know`](crate::Inbox::know)). It knows nothing of a log whose user
//! has just joined, and after its server has lost everything. In the first case rows since the join may be missing: the fan-out of
//! another home failed, or is behind. They are all brought. In the second case a device that was there before takes a snapshot, which
//! contains what was appended before; bringing that again would be a second delivery.

use std::collections::HashMap;
use std::time::Duration;

use madang_engine::log::Row;
use madang_ids::{LogId, Millis, Seq};
use madang_store::{Store, StoreResult};

use crate::roster::Part;

/// The clocks of nodes and of the inbox's server may differ by this much. Longer than a server takes to begin again: rows that a device
/// received before are older.
const MARGIN: Duration = Duration::from_secs(2);
/// Bytes of entries that one read takes, for the times of the rows alone.
const READ_BYTES: usize = 1024 * 1024;

/// The times of the rows of one log.
pub(super) struct Beginnings<'a, S: Store + ?Sized> {
    store: &'a S,
    log: LogId,
    /// Whether the rows were appended just now, and not long ago.
    is_live: bool,
    /// The times of the rows at which stays begin.
    stays: HashMap<Seq, Option<Millis>>,
}

impl<'a, S: Store + ?Sized> Beginnings<'a, S> {
    pub(super) fn new(store: &'a S, log: LogId, is_live: bool) -> Self {
        Self { store, log, is_live, stays: HashMap::new() }
    }

    /// For each part, and the time at which its inbox began: the first row to bring. Behind the last one if nobody needs any.
    pub(super) async fn of(mut self, unknown: Vec<(Part, Millis)>) -> StoreResult<Vec<(Part, Option<Seq>)>> {
        let mut decided = Vec::with_capacity(unknown.len());
        for (part, begun) in unknown {
            let begin = self.begin(&part, begun).await?;
            decided.push((part, Some(begin)));
        }
        Ok(decided)
    }

    async fn begin(&mut self, part: &Part, begun: Millis) -> StoreResult<Seq> {
        let is_after = |at: Millis| at.get() + margin_ms() >= begun.get();
        if self.time_of_stay(part.stay_from).await?.is_some_and(is_after) {
            return Ok(part.stay_from);
        }
        if self.is_live {
            return Ok(*part.range.start());
        }
        // Rows of which nobody knows when they were brought: those that are older than the inbox are in every snapshot.
        let mut from = *part.range.start();
        while from <= *part.range.end() {
            let rows = self.store.rows(self.log, from..=*part.range.end(), READ_BYTES).await?;
            let Some(last) = rows.last().map(|row| row.entry.seq) else { break };
            if let Some(row) = rows.iter().find(|row| is_after(row.entry.at)) {
                return Ok(row.entry.seq);
            }
            from = last.next();
        }
        Ok(part.range.end().next())
    }

    async fn time_of_stay(&mut self, seq: Seq) -> StoreResult<Option<Millis>> {
        if let Some(known) = self.stays.get(&seq) {
            return Ok(*known);
        }
        let rows: Vec<Row> = self.store.rows(self.log, seq..=seq, 1).await?;
        let at = rows.first().map(|row| row.entry.at);
        self.stays.insert(seq, at);
        Ok(at)
    }
}

fn margin_ms() -> u64 {
    u64::try_from(MARGIN.as_millis()).unwrap_or(u64::MAX)
}
