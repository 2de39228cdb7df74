//! How many rows a second reach inboxes in Redis, beside bare calls of a script that appends to a stream.
//! `cargo run --release -p madang-bus --features redis --example inbox ADDRESS`; the server is emptied. With `alerts` behind the address
//! the rows are also noted for alerts, of users who have a subscription.
#![expect(clippy::unwrap_used, reason = "a bench that fails says where")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use madang_bus::Inbox;
use madang_bus::redis::{AlertTimes, BusConfig, BusKind, Redis, RedisBus, Streams};
use madang_ids::{ChannelId, LogId, Millis, NodeEpoch, NodeId, NodeRun, Ordinal, Seq, UserId};
use madang_proto::{Content, Entry};
use madang_store::Row;
use madang_store::model::{Model, ModelConfig};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
/// Callers, each with a user of its own and one call under way.
const CALLERS: u64 = 64;
/// As much as the inbox keeps of an item.
const BARE: &str = "redis.call('XADD', KEYS[1], 'MAXLEN', '=', 512, '*', 'r', ARGV[1]) return 1";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let address = std::env::args().nth(1).unwrap();
    let url = format!("redis://{address}");
    let config = BusConfig { kind: BusKind::Redis, url: url.clone(), ..BusConfig::default() };
    let (redis, store) = (Redis::open(&config).unwrap(), Model::new(ModelConfig::default()));
    let streams = Streams::new(redis.clone());
    let run = NodeRun { node: NodeId(1), epoch: NodeEpoch(1) };
    let times = AlertTimes { delay_ms: 5_000, kept_ms: 3_600_000 };
    let alerts = (std::env::args().nth(2).as_deref() == Some("alerts")).then_some(times);
    let (bus, work) = RedisBus::open(redis.clone(), streams.clone(), store, run, alerts);
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    tasks.spawn(streams.run());
    tasks.spawn(redis.clone().probe());
    bus.ready().await.unwrap();
    let client = redis::Client::open(url).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    redis.empty().await.unwrap();
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let bare = bare(&connection).await;
        let inbox = inbox(&bus, round as u64 * 10_000_000).await;
        println!("inbox {inbox:.0} rows/s, bare script {bare:.0} calls/s, ratio {:.2}", inbox / bare);
        ratios.push(inbox / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("inbox script beside a bare one: {:.2} (at least 0.5)", ratios[ROUNDS / 2]);
}

async fn inbox(bus: &Arc<RedisBus>, first: u64) -> f64 {
    let count = Arc::new(AtomicU64::new(0));
    let (begun, mut callers) = (Instant::now(), JoinSet::new());
    for user in 1..=CALLERS {
        let (bus, count) = (Arc::clone(bus), Arc::clone(&count));
        callers.spawn(async move {
            let user = UserId::from_raw(user);
            let mut seq = first;
            while begun.elapsed() < ROUND {
                seq += 1;
                let channel_id = ChannelId::from_raw(1);
                let content =
                    Content::Mentioned { channel_id, seq: Seq::new(seq), by: user, is_reply: false };
                let entry = Entry { seq: Seq::new(seq), at: Millis::new(seq), content };
                let rows: Arc<[Row]> = Arc::new([Row { entry, ordinal: Ordinal::ZERO, key: None }]);
                bus.moved(LogId::User(user), &rows).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    callers.join_all().await;
    per_second(&count, begun)
}

async fn bare(connection: &MultiplexedConnection) -> f64 {
    let script = Arc::new(redis::Script::new(BARE));
    let count = Arc::new(AtomicU64::new(0));
    let (begun, mut callers) = (Instant::now(), JoinSet::new());
    for user in 1..=CALLERS {
        let (mut connection, script, count) = (connection.clone(), Arc::clone(&script), Arc::clone(&count));
        callers.spawn(async move {
            let key = format!("bare:{user}");
            while begun.elapsed() < ROUND {
                let done: u32 = script.key(&key).arg("u7:1:1").invoke_async(&mut connection).await.unwrap();
                count.fetch_add(u64::from(done), Ordering::Relaxed);
            }
        });
    }
    callers.join_all().await;
    per_second(&count, begun)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
fn per_second(count: &AtomicU64, begun: Instant) -> f64 {
    count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}
