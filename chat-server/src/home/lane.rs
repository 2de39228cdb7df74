//! What a log owes behind its acks, in order: its rows go to the inboxes, and their consequences to other partitions.
//!
//! An ack waits for none of it. With a local inbox and the embedded store both are done before they could be waited for, so
//! the home's driver carries them out itself; where they take time, a task of the log goes on, and the next append does not
//! wait for it. What fails is repeated with back-off.
//!
//! Bounds: rows wait up to [`ROWS_BYTES`] on the node. Beyond it, and behind a failure, a log keeps only the range of its rows
//! and reads them again: [`Inbox::moved_again`](madang_bus::Inbox::moved_again) covers all of the range at once. What a process
//! owes when it dies is repeated by the next home of the log (`Effect::Redrive`).

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::poll;
use madang_engine::body;
use madang_engine::consequences::Consequences;
use madang_engine::home::WINDOW_ROWS;
use madang_engine::log::Row;
use madang_ids::{LogId, Seq};
use madang_proto::ChannelKind;
use madang_store::{StoreResult, patiently};

use super::{Cell, Homes};

/// Bytes of rows that wait in the lanes of all logs.
pub(super) const ROWS_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of rows of one log that are paid together. Beyond them they do not wait for others.
const PAID_BYTES: usize = 256 * 1024;
/// Bytes of rows that are read at once to repeat their consequences.
const READ_BYTES: usize = 1024 * 1024;
/// Pauses between repetitions: they double from the first to the last one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// Messages older than this when the log's last row was appended have had their mentions noted, or nobody misses the notes.
const MENTIONS_OWED_MS: u64 = 60_000;

/// What waits for one log.
#[derive(Debug, Default)]
pub(super) struct Lane {
    waiting: VecDeque<Debt>,
    /// The driver or a task pays.
    is_paid: bool,
}

/// Bytes that wait in the lanes of a node.
#[derive(Debug, Default)]
pub(super) struct LaneBytes(AtomicUsize);

#[derive(Debug)]
enum Debt {
    Rows { rows: Arc<[Row]>, consequences: Consequences, bytes: usize },
    Again(RangeInclusive<Seq>),
}

impl Debt {
    fn range(&self) -> RangeInclusive<Seq> {
        let place = |row: Option<&Row>| row.map_or(Seq::ZERO, |row| row.entry.seq);
        match self {
            Self::Rows { rows, .. } => place(rows.first())..=place(rows.last()),
            Self::Again(range) => range.clone(),
        }
    }

    const fn bytes(&self) -> usize {
        match self {
            Self::Rows { bytes, .. } => *bytes,
            Self::Again(_) => 0,
        }
    }
}

impl Lane {
    /// Whether nothing waits and nobody pays.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_paid
    }

    fn push(&mut self, debt: Debt, bytes: &LaneBytes) {
        let is_full = bytes.0.load(Ordering::Relaxed) + debt.bytes() > ROWS_BYTES;
        match (self.waiting.back_mut(), &debt) {
            // Behind rows that are to be read again, all are: the inboxes move in order.
            (Some(Debt::Again(last)), Debt::Rows { .. }) => *last = *last.start()..=*debt.range().end(),
            (_, Debt::Rows { .. }) if is_full => self.waiting.push_back(Debt::Again(debt.range())),
            _ => {
                bytes.0.fetch_add(debt.bytes(), Ordering::Relaxed);
                self.waiting.push_back(debt);
            }
        }
    }

    /// The number of debts that are paid next: the first one, with the rows behind it as far as all are at most [`PAID_BYTES`].
    fn next_count(&self) -> usize {
        let mut size = 0;
        let fits = |debt: &&Debt| {
            size += debt.bytes();
            matches!(debt, Debt::Rows { .. }) && size <= PAID_BYTES
        };
        self.waiting.iter().take_while(fits).count().max(1).min(self.waiting.len())
    }

    /// Whether rows wait, and more may be paid together with them.
    fn may_wait_for_more(&self) -> bool {
        let (count, bytes) = (self.waiting.len(), self.waiting.iter().map(Debt::bytes).sum::<usize>());
        let are_rows = matches!(self.waiting.front(), Some(Debt::Rows { .. }));
        are_rows && count == self.next_count() && bytes < PAID_BYTES
    }

    fn pop(&mut self, bytes: &LaneBytes) -> Option<Debt> {
        let count = self.next_count();
        let mut debt = self.waiting.pop_front();
        if let Some(Debt::Rows { rows, consequences, bytes }) = debt.as_mut().filter(|_| count > 1) {
            let mut all = rows.to_vec();
            for next in self.waiting.drain(..count - 1) {
                *bytes += next.bytes();
                if let Debt::Rows { rows: more, consequences: later, .. } = next {
                    all.extend_from_slice(&more);
                    consequences.append(later);
                }
            }
            *rows = all.into();
        }
        bytes.0.fetch_sub(debt.as_ref().map_or(0, Debt::bytes), Ordering::Relaxed);
        self.is_paid = debt.is_some();
        debt
    }

    /// Puts back what failed; everything behind it becomes one range with it.
    fn put_back(&mut self, failed: RangeInclusive<Seq>, bytes: &LaneBytes) {
        let mut range = failed;
        while let Some(debt) = self.waiting.pop_front() {
            bytes.0.fetch_sub(debt.bytes(), Ordering::Relaxed);
            let (first, last) = (*debt.range().start(), *debt.range().end());
            range = first.min(*range.start())..=last.max(*range.end());
        }
        self.waiting.push_back(Debt::Again(range));
    }
}

impl Homes {
    /// Owes rows that were appended.
    pub(super) async fn owe(&self, cell: &Arc<Cell>, rows: Arc<[Row]>, consequences: Consequences) {
        let row_bytes = rows.iter().map(|row| body::entry_bytes(&row.entry.content) + size_of::<Row>());
        let bytes = row_bytes.sum::<usize>() + consequences.size_bytes();
        self.push_debt(cell, Debt::Rows { rows, consequences, bytes }).await;
    }

    /// Owes rows whose fan-out or consequences may be lost.
    pub(super) async fn owe_again(&self, cell: &Arc<Cell>, range: RangeInclusive<Seq>) {
        self.push_debt(cell, Debt::Again(range)).await;
    }

    /// Pays at once as far as nothing has to be waited for.
    async fn push_debt(&self, cell: &Arc<Cell>, debt: Debt) {
        let must_pay = {
            let mut lane = cell.lane.lock();
            lane.push(debt, &self.0.lane_bytes);
            !std::mem::replace(&mut lane.is_paid, true)
        };
        if !must_pay {
            return;
        }
        let mut paying = Box::pin(self.clone().pay_lane(Arc::clone(cell)));
        if poll!(&mut paying).is_pending() {
            self.0.tasks.spawn("lane", paying);
        }
    }

    async fn pay_lane(self, cell: Arc<Cell>) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.wait_for_more(&cell).await;
            let Some(debt) = cell.lane.lock().pop(&self.0.lane_bytes) else { return };
            let range = debt.range();
            let Err(error) = self.pay_debt(&cell, debt).await else {
                pause = FIRST_PAUSE;
                continue;
            };
            tracing::warn!(log = %cell.log, seq = %range.end(), %error, "fan-out failed; it is repeated");
            self.0.metrics.fanout_failures.inc();
            cell.lane.lock().put_back(range, &self.0.lane_bytes);
            tokio::select! {
                () = self.0.clock.sleep(pause) => {}
                () = self.0.tasks.drain().draining() => {
                    tracing::warn!(log = %cell.log, "fan-out is left to the next home of this log");
                    return;
                }
            }
            pause = LAST_PAUSE.min(pause * 2);
        }
    }

    /// Lets rows of a hot group or direct channel wait for others, so that they leave together. The rows of an open channel wait on
    /// the nodes of its subscribers. In one process nothing waits: there the inbox follows the commits, and rows that came later than
    /// those behind them would make their receivers read their inboxes.
    async fn wait_for_more(&self, cell: &Cell) {
        let LogId::Channel(channel) = cell.log else { return };
        if cell.kind == Some(ChannelKind::Open) || self.0.forwards.is_none() {
            return;
        }
        let window = self.0.heats.window(channel);
        if window.is_zero() || !cell.lane.lock().may_wait_for_more() {
            return;
        }
        tokio::select! {
            () = self.0.clock.sleep(window) => {}
            () = self.0.tasks.drain().draining() => {}
        }
    }

    async fn pay_debt(&self, cell: &Cell, debt: Debt) -> StoreResult<()> {
        match debt {
            Debt::Rows { rows, consequences, .. } => {
                // Independent of each other: an inbox that is gone must not hold up markers, and the other way round.
                let moved = self.0.inbox.moved(cell.log, &rows);
                let (moved, applied) = tokio::join!(moved, self.apply(cell.log, &consequences));
                if cell.kind == Some(ChannelKind::Open) {
                    self.owe_mentions(cell.log, rows.iter());
                    self.owe_markers(cell.log, &rows);
                }
                moved.and(applied)?;
                if let Some(last) = rows.last() {
                    let waited = self.0.clock.now_ms().get().saturating_sub(last.entry.at.get());
                    self.0.metrics.fanout_seconds.observe(Duration::from_millis(waited).as_secs_f64());
                }
                Ok(())
            }
            Debt::Again(range) => {
                self.0.inbox.moved_again(cell.log, range.clone()).await?;
                patiently(self.apply_again(cell, range)).await
            }
        }
    }

    async fn apply(&self, log: LogId, consequences: &Consequences) -> StoreResult<()> {
        match log {
            LogId::Channel(channel) if !consequences.is_empty() => {
                self.0.logs.apply_consequences(channel, consequences).await
            }
            _ => Ok(()),
        }
    }

    /// Reads the last rows of a range, and repeats what follows from them.
    async fn apply_again(&self, cell: &Cell, range: RangeInclusive<Seq>) -> StoreResult<()> {
        let owes_mentions = cell.kind == Some(ChannelKind::Open);
        let is_applied = self.0.logs.applies_consequences_with_rows();
        if matches!(cell.log, LogId::User(_)) || (is_applied && !owes_mentions) {
            return Ok(());
        }
        let oldest = range.end().minus(WINDOW_ROWS as u64 - 1).max(*range.start());
        let (mut upto, mut last_at) = (*range.end(), None);
        while upto >= oldest && upto > Seq::ZERO {
            let rows = self.0.logs.rows_back(cell.log, oldest..=upto, READ_BYTES).await?;
            let Some(first) = rows.last() else { break };
            let last_at = *last_at.get_or_insert(rows[0].entry.at);
            self.apply(cell.log, &Consequences::of(&rows)).await?;
            let is_recent = |row: &&Row| row.entry.at.plus(MENTIONS_OWED_MS) >= last_at;
            if owes_mentions {
                self.owe_mentions(cell.log, rows.iter().rev().filter(is_recent));
            }
            if is_applied && !is_recent(&first) {
                break;
            }
            upto = first.entry.seq.minus(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use madang_ids::{Millis, Ordinal, UserId};
    use madang_proto::{Content, Entry};

    use super::*;

    fn rows(seqs: RangeInclusive<u64>, bytes: usize) -> Debt {
        let row = |seq| {
            let content = Content::Created { by: UserId::from_raw(1) };
            let entry = Entry { seq: Seq::new(seq), at: Millis::ZERO, content };
            Row { entry, ordinal: Ordinal::ZERO, key: None }
        };
        Debt::Rows { rows: seqs.map(row).collect(), consequences: Consequences::default(), bytes }
    }

    fn range(debt: Option<Debt>) -> Option<(u64, u64, bool)> {
        let debt = debt?;
        let (is_rows, range) = (matches!(debt, Debt::Rows { .. }), debt.range());
        Some((range.start().get(), range.end().get(), is_rows))
    }

    #[test]
    fn rows_that_wait_are_paid_together_up_to_a_bound() {
        let (mut lane, total) = (Lane::default(), LaneBytes::default());
        assert!(!lane.may_wait_for_more());
        for (seqs, bytes) in [(1..=2, 100), (3..=3, 50), (4..=9, PAID_BYTES), (10..=10, 7)] {
            lane.push(rows(seqs, bytes), &total);
        }
        assert!(!lane.may_wait_for_more(), "more than is paid at once waits");
        assert_eq!(range(lane.pop(&total)), Some((1, 3, true)));
        assert_eq!(range(lane.pop(&total)), Some((4, 9, true)), "alone, as it is too large");
        assert_eq!(total.0.load(Ordering::Relaxed), 7);
        assert!(lane.may_wait_for_more());
        lane.push(Debt::Again(Seq::new(11)..=Seq::new(12)), &total);
        assert!(!lane.may_wait_for_more());
        lane.push(rows(13..=13, 9), &total);
        assert_eq!(range(lane.pop(&total)), Some((10, 10, true)));
        assert!(!lane.may_wait_for_more(), "what is read again does not wait");
        assert_eq!(
            range(lane.pop(&total)),
            Some((11, 13, false)),
            "behind rows that are read again, all are"
        );
        assert_eq!(range(lane.pop(&total)), None);
        assert!(lane.is_idle() && total.0.load(Ordering::Relaxed) == 0);
    }
}
