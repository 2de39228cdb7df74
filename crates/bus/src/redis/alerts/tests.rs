//! Parts of the queue, some of them over a real Redis: what happens between two of their steps.

use madang_engine::alerts::{CallEnd, Taking};
use madang_ids::DeviceId;
use madang_store::model::{Model, ModelConfig};

use super::*;

#[test]
fn texts_of_records_are_read() {
    let job = parse_messages("100 00000000000000ff:5:50:800 00000000000000ff:7:52:900").unwrap();
    assert_eq!((job.due_at, job.expires_at), (Millis::new(100), Millis::new(900)));
    assert_eq!(job.messages().map(Seq::get).collect::<Vec<_>>(), [5, 7]);
    let received = Cursor { epoch: Epoch::from_raw(255), position: Position::new(51) };
    assert_eq!(job.not_received(&[received]).map(Seq::get).collect::<Vec<_>>(), [7]);
    assert_eq!(parse_read("3100 9 100"), Some((Seq::new(9), Millis::new(100))));
    for text in ["", "100", "100 x:1:1:900", "x ff:1:1:900", "100 ff:1:1", "100 900"] {
        assert_eq!(parse_messages(text), None, "{text}");
    }
}

#[test]
fn leases_end_between_whole_milliseconds_and_at_different_times() {
    let ends: std::collections::BTreeSet<u64> = (0..STEPS).map(ten_thousandths).collect();
    assert_eq!(ends.len() as u64, STEPS);
    assert!(ends.iter().all(|end| (2_500..7_500).contains(end)));
}

#[test]
fn users_are_spread_over_the_sets() {
    let mut counts = [0_u32; SHARDS as usize];
    (0..16_000).for_each(|number| counts[shard(UserId::from_raw(number << 22)) as usize] += 1);
    assert!(counts.iter().all(|count| (700..1_300).contains(count)), "{counts:?}");
}

const PLACE: Place = (UserId::from_raw(1), ChannelId::from_raw(7));
const LATER: Millis = Millis::new(1 << 40);

async fn queue() -> RedisAlerts {
    let url = format!("redis://{}", std::env::var("MADANG_TEST_REDIS").unwrap());
    let config = crate::BusConfig { kind: crate::BusKind::Redis, url, ..crate::BusConfig::default() };
    let redis = Redis::open(&config).unwrap();
    redis.command(&redis::cmd("FLUSHALL")).await.unwrap();
    RedisAlerts::new(redis, Model::new(ModelConfig::default()))
}

async fn message(queue: &RedisAlerts, seq: u64) {
    let at = Cursor { epoch: Epoch::from_raw(1), position: Position::new(seq) };
    let (due_at, expires_at) = (Millis::new(100), LATER);
    let what = Folded::Message { seq: Seq::new(seq), at, due_at, expires_at };
    queue.fold_alerts(&[Fold { user: PLACE.0, channel: PLACE.1, what }]).await.unwrap();
}

/// A worker changes a record, a message comes, and only then the worker notes when somebody has to look again.
async fn message_in_between(queue: &RedisAlerts) {
    let (noted, found) = queue.record(PLACE).await.unwrap();
    let after = found.record(PLACE).without(Taking::Fresh);
    assert!(queue.try_change(PLACE, &found, &after, true).await.unwrap());
    message(queue, 2).await;
    queue.reschedule(&after, &noted).await.unwrap();
    let due = queue.take_due(LATER, LATER, 9).await.unwrap();
    assert_eq!(due[0].fresh.as_ref().unwrap().range(), (Seq::new(2), Seq::new(2)));
}

#[tokio::test]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn a_message_between_change_and_time_is_not_lost() {
    let queue = queue().await;
    message(&queue, 1).await;
    queue.take_due(LATER, LATER.next(), 9).await.unwrap();
    message_in_between(&queue).await;
    // The same without a lease: both messages have the same time.
    let queue = self::queue().await;
    message(&queue, 1).await;
    message_in_between(&queue).await;
}

#[tokio::test]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn a_record_is_changed_only_as_it_was_read() {
    let queue = queue().await;
    message(&queue, 1).await;
    let (_, before) = queue.record(PLACE).await.unwrap();
    let record = before.record(PLACE);
    let begun = record.begin(Taking::Fresh, &[DeviceId::from_raw(3)], &[], (LATER, LATER.next()));
    assert!(queue.try_change(PLACE, &before, &begun, true).await.unwrap());
    let (_, found) = queue.record(PLACE).await.unwrap();
    let ended = begun.finish(&[(DeviceId::from_raw(3), CallEnd::Shown { until: LATER })]);
    assert!(queue.try_change(PLACE, &found, &ended, false).await.unwrap());
    assert!(!queue.try_change(PLACE, &found, &begun.finish(&[]), false).await.unwrap(), "it has ended");
    let (_, shown) = queue.record(PLACE).await.unwrap();
    let read = Folded::Read { seq: Seq::new(1), at: Millis::new(200) };
    queue.fold_alerts(&[Fold { user: PLACE.0, channel: PLACE.1, what: read }]).await.unwrap();
    assert!(!queue.try_change(PLACE, &shown, &begun.finish(&[]), false).await.unwrap(), "it was read");
}

#[tokio::test]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn a_worker_that_has_looked_before_the_subscription_changes_nothing() {
    let queue = queue().await;
    let [heads, ..] = inbox_keys(PLACE.0);
    queue.subscribed(PLACE.0).await.unwrap();
    queue.subscribed(PLACE.0).await.unwrap();
    for (seen, then) in [("1", "2"), ("2", "-2")] {
        let command = call(&alert_scripts::UNSUBSCRIBED, &[&heads], &[seen.as_bytes()]);
        queue.redis.command(&command).await.unwrap();
        let found = queue.redis.command(redis::cmd("HGET").arg(&heads).arg("a")).await.unwrap();
        assert_eq!(found, Value::BulkString(then.into()));
    }
    queue.subscribed(PLACE.0).await.unwrap();
    let found = queue.redis.command(redis::cmd("HGET").arg(&heads).arg("a")).await.unwrap();
    assert_eq!(found, Value::BulkString("3".into()));
}
