//! Repeats the fan-out of nodes that have died: a node announces the logs to which it appends, and when it is gone the new homes
//! of these logs bring their last rows to the inboxes once more. What was brought before is not brought again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use madang_engine::home::Scope;
use madang_engine::log::MAX_APPEND_ROWS;
use madang_ids::{LogId, NodeRun, Seq};
use madang_proto::ChannelKind;
use madang_store::StoreResult;

use super::forward::Forwards;
use super::{Cell, Homes};

/// How often a node looks for logs that others have left.
const LOOK: Duration = Duration::from_secs(5);
/// A node that has been missing from the view for this many looks is dead. One that only could not renew its lease for a moment
/// loses nothing but the announcements, and makes them again.
const MISSING_LOOKS: u32 = 2;

impl Homes {
    /// Announces a log before its first acknowledgement of a busy period.
    pub(super) async fn announce(&self, cell: &Cell) {
        if self.0.forwards.is_none() || cell.is_announced.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.0.inbox.announce(cell.log).await {
            tracing::debug!(log = %cell.log, %error, "a log was not announced");
            cell.is_announced.store(false, Ordering::Release);
        }
    }

    /// Withdraws the announcements of homes that were evicted.
    pub(super) fn retire(&self, logs: Vec<LogId>) {
        let homes = self.clone();
        self.0.tasks.spawn("retire", async move {
            if let Err(error) = homes.0.inbox.retire(&logs).await {
                tracing::debug!(%error, "announcements were not withdrawn");
            }
            // A home that began meanwhile may have been announced before the withdrawal.
            for log in logs {
                let cell = homes.0.cells.get(&(log, 0)).map(|cell| Arc::clone(&cell));
                if let Some(cell) = cell.filter(|cell| cell.is_announced.swap(false, Ordering::AcqRel)) {
                    homes.announce(&cell).await;
                }
            }
        });
    }

    /// Withdraws the announcements of a node that has drained: the other nodes need not repeat anything. Logs whose append
    /// or fan-out is unfinished stay announced, and so do those of open channels, whose mentions and read markers may
    /// not be written yet.
    pub async fn leave(&self) {
        let owes_nothing = |cell: &Cell| {
            let may_owe = cell.kind == Some(ChannelKind::Open) || cell.works(&cell.state.lock());
            !may_owe && cell.is_announced.swap(false, Ordering::AcqRel)
        };
        let logs: Vec<LogId> =
            self.0.cells.iter().filter(|cell| owes_nothing(cell)).map(|cell| cell.log).collect();
        if let Err(error) = self.0.inbox.retire(&logs).await {
            tracing::debug!(%error, "announcements were not withdrawn");
        }
    }

    /// Takes over from nodes that have died; never returns.
    pub async fn run_takeovers(self) {
        let Some(forwards) = self.0.forwards.clone() else { return };
        let mut missing = Vec::new();
        loop {
            self.0.clock.sleep(LOOK).await;
            if let Err(error) = self.take_over(&forwards, &mut missing).await {
                tracing::debug!(%error, "looking for what dead nodes have left failed");
            }
        }
    }

    async fn take_over(&self, forwards: &Forwards, missing: &mut Vec<(NodeRun, u32)>) -> StoreResult<()> {
        if !forwards.peers.is_listed().await? {
            self.announce_all().await;
        }
        let mut alive = forwards.others();
        alive.push(forwards.peers.me());
        let left = forwards.peers.left_logs(&alive).await?;
        missing.retain(|(run, _)| left.iter().any(|(other, _)| other == run));
        for (run, logs) in left {
            let looks = match missing.iter_mut().find(|(other, _)| *other == run) {
                Some((_, looks)) => {
                    *looks += 1;
                    *looks
                }
                None => {
                    missing.push((run, 1));
                    1
                }
            };
            if looks < MISSING_LOOKS {
                continue;
            }
            let mine: Vec<LogId> = logs.into_iter().filter(|log| forwards.home(*log).is_none()).collect();
            for log in &mine {
                self.repeat_last_rows(*log).await?;
            }
            if !mine.is_empty() {
                tracing::info!(%run, logs = mine.len(), "repeated the fan-out of a node that has died");
                self.0.metrics.redriven.inc_by(mine.len() as u64);
                forwards.peers.take_over(run, &mine).await?;
            }
        }
        Ok(())
    }

    async fn announce_all(&self) {
        let cells: Vec<Arc<Cell>> = self.0.cells.iter().map(|cell| Arc::clone(&cell)).collect();
        for cell in cells.iter().filter(|cell| cell.is_announced.swap(false, Ordering::AcqRel)) {
            self.announce(cell).await;
        }
    }

    /// Brings the last rows of a log to the inboxes, and repeats what follows from them.
    async fn repeat_last_rows(&self, log: LogId) -> StoreResult<()> {
        let head = self.0.logs.heads(&[log]).await?.first().map_or(Seq::ZERO, |head| head.seq);
        if head == Seq::ZERO {
            return Ok(());
        }
        let (scope, between) = match log {
            LogId::User(_) => (Scope::User, None),
            LogId::Channel(channel) => match self.0.store.channel(channel).await? {
                Some(row) => {
                    let (kind, capacity, created_by) = (row.card.kind, row.capacity, row.created_by);
                    (Scope::Channel { kind, capacity, created_by }, row.card.between)
                }
                None => return Ok(()),
            },
        };
        let place = (log, 0);
        let entry = self.0.cells.entry(place).or_insert_with(|| Arc::new(Cell::new(place, scope, between)));
        let cell = Arc::clone(&entry);
        drop(entry);
        // Announced before the announcement of the dead node is withdrawn.
        self.announce(&cell).await;
        self.owe_again(&cell, head.minus(MAX_APPEND_ROWS as u64 - 1).max(Seq::new(1))..=head).await;
        Ok(())
    }
}
