//! The suite of the inbox over a real Redis.

#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod alerts;
mod nodes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use madang_bus::Inbox;
use madang_bus::conformance::{Opened, Subject, cases};
use madang_bus::redis::{BusConfig, BusKind, Redis, RedisBus, Reports, Streams};
use madang_ids::{NodeEpoch, NodeId, NodeRun, UserId};
use madang_proto::SnapshotReason;
use madang_store::CommitOrder;
use madang_store::model::{Model, ModelConfig};
use parking_lot::Mutex;
use tokio::task::JoinSet;

/// No case has more users.
const USERS: u64 = 64;

/// A server whose memory is emptied for each case.
struct Server {
    config: BusConfig,
    store: Arc<Model>,
    epochs: AtomicU64,
    drains: Mutex<JoinSet<()>>,
}

#[async_trait]
impl Subject for Server {
    async fn open(&self) -> Opened {
        let redis = Redis::open(&self.config).unwrap();
        let streams = Streams::new(redis.clone());
        let epoch = NodeEpoch(self.epochs.fetch_add(1, Ordering::Relaxed));
        let run = NodeRun { node: NodeId(1), epoch };
        let (bus, work) = RedisBus::open(redis.clone(), streams.clone(), self.store.clone(), run, None);
        let mut tasks = JoinSet::new();
        if let Some(mut feed) = self.store.take_feed() {
            // Nobody needs it here, and a full one would hold up the store.
            self.drains.lock().spawn(async move { while feed.recv().await.is_some() {} });
        }
        tasks.spawn(work);
        tasks.spawn(streams.run());
        tasks.spawn(redis.probe());
        // The devices of a case begin with a cursor, as if they had taken a snapshot.
        for user in (1..=USERS).map(UserId::from_raw) {
            bus.know(user, &[], true).await.unwrap();
        }
        Opened { store: self.store.clone(), inbox: bus.clone(), bus, tasks }
    }

    fn rows_behind_max(&self) -> u64 {
        512
    }

    fn rows_an_append(&self) -> usize {
        1
    }

    fn has_epoch_of_start(&self) -> bool {
        false
    }

    fn reason_of_another_epoch(&self) -> SnapshotReason {
        SnapshotReason::InboxReset
    }
}

/// Of the server that all tests share; they run one after another.
fn config() -> BusConfig {
    let url = format!("redis://{}", std::env::var("MADANG_TEST_REDIS").unwrap());
    BusConfig { kind: BusKind::Redis, url, ..BusConfig::default() }
}

/// All cases one after another, because they share a server. `MADANG_CASE` selects those whose name contains it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn a_fleet_passes_the_suite_of_every_inbox() {
    let only = std::env::var("MADANG_CASE").unwrap_or_default();
    let config = config();
    let mut failed = Vec::new();
    for case in cases().into_iter().filter(|case| case.name.contains(&only)) {
        Redis::open(&config).unwrap().empty().await.unwrap();
        let store = Model::new(ModelConfig::default());
        let subject =
            Server { config: config.clone(), store, epochs: AtomicU64::new(1), drains: Mutex::default() };
        let started = Instant::now();
        // A task of its own: a case fails by a panic.
        let mut task = JoinSet::new();
        task.spawn((case.run)(Arc::new(subject)));
        let outcome = task.join_next().await.unwrap();
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("{:6.1} s  {word}  {}", started.elapsed().as_secs_f64(), case.name);
        if outcome.is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn a_report_holds_until_the_next_one_or_for_half_a_minute() {
    let redis = Redis::open(&config()).unwrap();
    let (reports, others) = (Reports::of(redis.clone(), "tests"), Reports::of(redis, "others"));
    reports.put("one", "{\"taken\": 1}").await.unwrap();
    reports.put("one", "{\"taken\": 2}").await.unwrap();
    others.put("three", "3").await.unwrap();
    // A process that has reported long ago, by the clock of the server.
    let client = redis::Client::open(config().url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("HSET")
        .arg("reports:tests")
        .arg("gone")
        .arg("1000000 {}")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(reports.all().await.unwrap(), ["{\"taken\": 2}"]);
    let left: u64 = redis::cmd("HLEN").arg("reports:tests").query_async(&mut connection).await.unwrap();
    let life: i64 = redis::cmd("TTL").arg("reports:tests").query_async(&mut connection).await.unwrap();
    assert_eq!((left, (1..=30).contains(&life)), (1, true), "{life}");
    assert_eq!(Reports::of(Redis::open(&config()).unwrap(), "none").all().await.unwrap(), [""; 0]);
}
