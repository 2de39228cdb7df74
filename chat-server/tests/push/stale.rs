//! A queue of alerts that has lost what was written last, as that of a fleet may after a failover.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use madang_engine::alerts::{Fold, Folded, Outstanding, Shown};
use madang_ids::{ChannelId, Cursor, Epoch, Millis, Position, Seq, UserId};
use madang_store::{AlertQueue, OutstandingChange, StoreResult};

use super::Stage;

/// The queue of a store, which says of itself that it may lack writes.
struct Stale(Arc<dyn AlertQueue>);

#[async_trait]
impl AlertQueue for Stale {
    async fn take_due(&self, now: Millis, until: Millis, limit: usize) -> StoreResult<Vec<Outstanding>> {
        self.0.take_due(now, until, limit).await
    }

    async fn outstanding(&self, user: UserId, channel: ChannelId) -> StoreResult<Outstanding> {
        self.0.outstanding(user, channel).await
    }

    async fn shown_and_read(&self, user: UserId, limit: usize) -> StoreResult<Vec<(ChannelId, Shown)>> {
        self.0.shown_and_read(user, limit).await
    }

    async fn change_outstanding(&self, change: &OutstandingChange) -> StoreResult<bool> {
        self.0.change_outstanding(change).await
    }

    async fn fold_alerts(&self, folds: &[Fold]) -> StoreResult<()> {
        self.0.fold_alerts(folds).await
    }

    async fn may_lack_writes(&self) -> StoreResult<bool> {
        Ok(true)
    }

    fn comparable(&self, received: Cursor) -> Cursor {
        self.0.comparable(received)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_back_to_the_queue_is_not_alerted_again() {
    let kept = Arc::new(Mutex::new(None));
    let of_test = Arc::clone(&kept);
    let stage = Stage::with(
        |_, _| {},
        move |backends| {
            let alerts = backends.alerts.as_mut().unwrap();
            *kept.lock().unwrap() = Some(Arc::clone(&alerts.queue));
            alerts.queue = Arc::new(Stale(Arc::clone(&alerts.queue)));
        },
    )
    .await;
    stage.subscribe_bob().await;
    let first = stage.say("one").await;
    assert_eq!(stage.alerts(1).await, ["one"]);
    assert_eq!(stage.outcomes(first, 1).await, ["taken"]);
    let at = Cursor { epoch: Epoch::from_raw(0), position: Position::new(1 << 40) };
    let (due_at, expires_at) = (Millis::new(1), Millis::new(u64::MAX));
    let what = Folded::Message { seq: Seq::new(first), at, due_at, expires_at };
    let (user, channel) = (stage.bob.id.parse().unwrap(), stage.channel.parse().unwrap());
    let queue = of_test.lock().unwrap().clone().unwrap();
    queue.fold_alerts(&[Fold { user, channel, what }]).await.unwrap();
    stage.pass(2).await;
    let items = stage.why(first, |items| items.len() == 2).await;
    assert_eq!((&items[1]["outcome"], &items[1]["detail"]), (&"dropped".into(), &"repeated".into()));
    // A new message is alerted, and counts both.
    stage.say("two").await;
    assert_eq!(stage.alerts(2).await, ["one", "two (+1)"]);
    stage.end().await;
}
