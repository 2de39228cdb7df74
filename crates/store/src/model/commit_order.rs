//! The order of commits, in memory. The scan is written exactly as it is defined, so that other stores can be compared
//! with it.

use async_trait::async_trait;
use madang_ids::{Epoch, LogId, Position, Seq, UserId};

use super::{Model, Mutant, State};
use crate::commit_order::{CommitFeed, CommitOrder, EpochRow, Scan, ScanItem};
use crate::error::StoreResult;

#[async_trait]
impl CommitOrder for Model {
    fn take_feed(&self) -> Option<CommitFeed> {
        let mut state = self.state.lock();
        let feed = state.feed.take()?;
        state.feed_is_taken = true;
        Some(feed)
    }

    fn position(&self) -> Position {
        Position::new(self.state.lock().position)
    }

    async fn begin_epoch(&self, epoch: Epoch) -> StoreResult<EpochRow> {
        let _call = self.journal.begin("begin_epoch");
        self.write(|state| {
            if let Some(row) = state.epochs.iter().find(|row| row.epoch == epoch) {
                return *row;
            }
            let row = EpochRow { epoch, start: Position::new(state.position) };
            state.epochs.push(row);
            row
        })
        .await
    }

    async fn epochs(&self) -> StoreResult<Vec<EpochRow>> {
        let _call = self.journal.begin("epochs");
        self.read(|state| state.epochs.clone()).await
    }

    async fn scan(
        &self,
        user: UserId,
        after: Position,
        max_rows: usize,
        give_up: usize,
    ) -> StoreResult<Option<Scan>> {
        let _call = self.journal.begin("scan");
        self.read(|state| {
            let mut rows = self.rows_of_user(state, user, after);
            let lacks_trimmed =
                state.lacks_trimmed(user, after) && !self.is_mutant(Mutant::ScanIgnoresTrimmed);
            if rows.len() > give_up || lacks_trimmed {
                return None;
            }
            rows.sort_by_key(|row| row.position);
            let mut scan = page(&rows, max_rows.max(1), Position::new(state.position));
            if self.is_mutant(Mutant::ScanHidesMore) {
                scan.more = false;
                scan.upto = Position::new(state.position);
            }
            Some(scan)
        })
        .await
    }
}

impl Model {
    fn rows_of_user(&self, state: &State, user: UserId, after: Position) -> Vec<ScanItem> {
        let sees_all = self.is_mutant(Mutant::ScanIgnoresUntil);
        let sees_open = self.is_mutant(Mutant::ScanShowsOpenChannels);
        let is_theirs = |log: LogId, seq: Seq| match log {
            LogId::User(owner) => owner == user && !self.is_mutant(Mutant::ScanIgnoresOwnLog),
            LogId::Channel(channel) => state.memberships.get(&(user, channel)).is_some_and(|membership| {
                let from = membership.spans.iter().next().map_or(Seq::ZERO, |span| span.from);
                (membership.in_inbox || sees_open)
                    && (membership.spans.contains(seq) || (sees_all && from <= seq))
            }),
        };
        let mut rows = Vec::new();
        for (&log, stored) in &state.logs {
            for stored in &stored.rows {
                let (seq, position) = (stored.row.entry.seq, Position::new(stored.position));
                if position > after && is_theirs(log, seq) {
                    rows.push(ScanItem { log, from: seq, to: seq, position });
                }
            }
        }
        rows
    }
}

impl State {
    /// Whether rows after `after` of the user's own log or of the user's stays may have been trimmed.
    fn lacks_trimmed(&self, user: UserId, after: Position) -> bool {
        if self.forgotten_upto.get(&user).is_some_and(|upto| Position::new(*upto) > after) {
            return true;
        }
        let own = self.logs.get(&LogId::User(user)).filter(|log| log.trimmed > 0);
        let first = own.and_then(|log| log.rows.first());
        first.is_some_and(|first| Position::new(first.position) > after)
    }
}

fn page(rows: &[ScanItem], max_rows: usize, committed: Position) -> Scan {
    let shown = &rows[..max_rows.min(rows.len())];
    let more = shown.len() < rows.len();
    let mut items: Vec<ScanItem> = Vec::new();
    for row in shown {
        match items.last_mut() {
            Some(run) if run.log == row.log && run.to.next() == row.from => {
                (run.to, run.position) = (row.to, row.position);
            }
            _ => items.push(*row),
        }
    }
    let upto = shown.last().filter(|_| more).map_or(committed, |row| row.position);
    Scan { items, upto, more }
}
