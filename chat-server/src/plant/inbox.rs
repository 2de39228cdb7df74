//! Around the inbox: rows that are brought late, and that no other node brings when this one has died.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use madang_bus::{Inbox, InboxRead};
use madang_ids::{Cursor, LogId, Seq, UserId};
use madang_store::{Row, StoreResult};
use tokio::time::sleep;

use super::{Fault, strikes};

/// How late rows of a channel are brought: the node can be killed meanwhile.
const LATE: Duration = Duration::from_secs(10);

/// An inbox to which nodes owe rows for a long time.
pub(crate) struct LateInbox(pub(crate) Arc<dyn Inbox>);

#[async_trait]
impl Inbox for LateInbox {
    async fn moved(&self, log: LogId, rows: &Arc<[Row]>) -> StoreResult<()> {
        if matches!(log, LogId::Channel(_)) && (strikes(Fault::FanoutLate) || strikes(Fault::RedriveSkipped))
        {
            sleep(LATE).await;
        }
        self.0.moved(log, rows).await
    }

    async fn moved_again(&self, log: LogId, range: RangeInclusive<Seq>) -> StoreResult<()> {
        if strikes(Fault::RedriveSkipped) {
            return Ok(());
        }
        self.0.moved_again(log, range).await
    }

    async fn announce(&self, log: LogId) -> StoreResult<()> {
        self.0.announce(log).await
    }

    async fn retire(&self, logs: &[LogId]) -> StoreResult<()> {
        self.0.retire(logs).await
    }

    fn wants_to_know(&self) -> bool {
        self.0.wants_to_know()
    }

    async fn know(&self, user: UserId, heads: &[(LogId, Seq)], is_last: bool) -> StoreResult<bool> {
        self.0.know(user, heads, is_last).await
    }

    async fn end(&self, user: UserId) -> StoreResult<Cursor> {
        self.0.end(user).await
    }

    async fn read(&self, user: UserId, after: Cursor, max_rows: usize) -> StoreResult<InboxRead> {
        self.0.read(user, after, max_rows).await
    }
}
