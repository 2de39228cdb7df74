//! The queue of alerts over a real Redis: the suite of every queue, and how rows that are brought to inboxes get into it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use madang_bus::redis::{AlertTimes, BusConfig, Redis, RedisAlerts, RedisBus, Streams};
use madang_bus::{Bus, Inbox};
use madang_engine::alerts::{CallEnd, Outstanding, Taking};
use madang_engine::seats::{Member, SeatChange};
use madang_engine::spans::Spans;
use madang_ids::{
    ChannelId, Cursor, DeviceId, LogId, Millis, NodeEpoch, NodeId, NodeRun, Ordinal, Seq, UserId,
};
use madang_proto::{ApnsEnvironment, ChannelCard, ChannelKind, Content, Entry, PushTarget, Role};
use madang_store::conformance::{QueueSubject, queue_cases, say_many};
use madang_store::model::{Model, ModelConfig};
use madang_store::{
    AlertQueue, Append, Channel, ChannelStore, Device, DeviceStore, Head, LogStore, OutstandingChange,
    PushStore, Row, Subscription,
};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

const ANNA: UserId = UserId::from_raw(1);
const BEN: UserId = UserId::from_raw(2);
const ROOM: ChannelId = ChannelId::from_raw(7);
const OPEN: ChannelId = ChannelId::from_raw(8);
const PHONE: DeviceId = DeviceId::from_raw(3);
const TIMES: AlertTimes = AlertTimes { delay_ms: 5_000, kept_ms: 1_000_000 };
/// Far above the time that it takes.
const PATIENCE: Duration = Duration::from_secs(30);
const LATER: Millis = Millis::new(1 << 45);

struct Queue(BusConfig);

#[async_trait]
impl QueueSubject for Queue {
    async fn open(&self) -> Arc<dyn AlertQueue> {
        let store = Model::new(ModelConfig::default());
        Arc::new(RedisAlerts::new(Redis::open(&self.0).unwrap(), store))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn a_fleet_passes_the_suite_of_every_queue_of_alerts() {
    let config = super::config();
    for case in queue_cases() {
        Redis::open(&config).unwrap().empty().await.unwrap();
        println!("{}", case.name);
        (case.run)(Arc::new(Queue(config.clone()))).await;
    }
}

/// A node with the queue of alerts, over an empty server, and a group of Anna and Ben.
struct Stage {
    store: Arc<Model>,
    bus: Arc<RedisBus>,
    alerts: RedisAlerts,
    head: Head,
    _work: JoinSet<()>,
}

impl Stage {
    async fn open() -> Self {
        let redis = Redis::open(&super::config()).unwrap();
        redis.empty().await.unwrap();
        let store = Model::new(ModelConfig::default());
        let streams = Streams::new(redis.clone());
        let run = NodeRun { node: NodeId(1), epoch: NodeEpoch(1) };
        let (bus, work) = RedisBus::open(redis.clone(), streams.clone(), store.clone(), run, Some(TIMES));
        let mut tasks = JoinSet::new();
        tasks.spawn(work);
        tasks.spawn(streams.run());
        let alerts = RedisAlerts::new(redis, store.clone());
        bus.know(ANNA, &[], true).await.unwrap();
        let card = ChannelCard::new(ROOM, ChannelKind::Group, None, None);
        store.create_channel(&Channel::new(card, ANNA, Millis::new(1), 500)).await.unwrap();
        let members = [ANNA, BEN].map(member).to_vec();
        store.change_seats(SeatChange { channel: ROOM, if_rev: 0, count: 2, members }, &[]).await.unwrap();
        Self { store, bus, alerts, head: Head::default(), _work: tasks }
    }

    async fn append(&mut self, append: Append) -> Arc<[Row]> {
        let rows = Arc::clone(&append.rows);
        self.store.append(append).await.unwrap();
        rows
    }

    /// Messages are appended, as by a home that dies before the fan-out.
    async fn say_unheard(&mut self, sender: UserId, count: u64) -> Arc<[Row]> {
        let append = say_many(LogId::Channel(ROOM), self.head, sender, self.head.seq.get() + 1, count);
        self.head = append.head();
        self.append(append).await
    }

    async fn say(&mut self, sender: UserId, count: u64) {
        let rows = self.say_unheard(sender, count).await;
        self.bus.moved(LogId::Channel(ROOM), &rows).await.unwrap();
    }

    async fn note(&mut self, content: Content) -> Arc<[Row]> {
        let log = LogId::User(ANNA);
        let head = self.store.heads(&[log]).await.unwrap()[0];
        let entry = Entry { seq: head.seq.next(), at: head.at.plus(10), content };
        let rows: Arc<[Row]> = Arc::new([Row { entry, ordinal: Ordinal::ZERO, key: None }]);
        self.append(Append::of(log, head, rows)).await
    }

    async fn redrive(&self, log: LogId, range: RangeInclusive<u64>) {
        let range = Seq::new(*range.start())..=Seq::new(*range.end());
        self.bus.moved_again(log, range).await.unwrap();
    }

    async fn record(&self, channel: ChannelId) -> Outstanding {
        self.alerts.outstanding(ANNA, channel).await.unwrap()
    }

    async fn waiting(&self, channel: ChannelId) -> Vec<u64> {
        self.record(channel).await.fresh.iter().flat_map(|job| job.messages()).map(Seq::get).collect()
    }

    /// Everything that is in the queue, which is empty afterwards.
    async fn take(&self) -> Vec<(UserId, ChannelId)> {
        let taken = self.alerts.take_due(LATER, LATER.next(), 100).await.unwrap();
        for record in &taken {
            let after = record.without(Taking::Fresh);
            assert!(self.change(record, &after).await);
        }
        taken.iter().map(|record| (record.user, record.channel)).collect()
    }

    async fn change(&self, before: &Outstanding, after: &Outstanding) -> bool {
        self.alerts.change_outstanding(&OutstandingChange::between(before, after)).await.unwrap()
    }

    async fn subscribe(&self) {
        let device = Device {
            id: PHONE,
            user_id: ANNA,
            name: "phone".to_owned(),
            created_at: Millis::new(1),
            revoked_at: None,
            received: None,
            signed_in_until: None,
        };
        self.store.put_device(&device, 9, 0).await.unwrap();
        let (token, topic) = ("aa".to_owned(), "example.app".to_owned());
        let subscription = Subscription {
            user_id: ANNA,
            device_id: PHONE,
            target: PushTarget::Apns { token, topic, environment: ApnsEnvironment::Production },
            signing_secret: None,
            registered_at: Millis::new(1),
            seen_at: Millis::new(1),
            app_version: String::new(),
            locale: String::new(),
            halted: None,
        };
        self.store.put_subscription(&subscription).await.unwrap();
        self.alerts.subscribed(ANNA).await.unwrap();
    }
}

fn member(user_id: UserId) -> Member {
    Member {
        user_id,
        role: Role::Member,
        joined_at: Millis::new(1),
        spans: Spans::since(Seq::new(1)),
        has_accepted: true,
        muted: None,
        banned: None,
        pending: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn messages_of_others_are_noted_with_their_places() {
    let mut stage = Stage::open().await;
    stage.say(BEN, 2).await;
    stage.say(ANNA, 1).await;
    stage.say(BEN, 1).await;
    assert_eq!(stage.waiting(ROOM).await, [1, 2, 4]);
    let end = stage.bus.end(ANNA).await.unwrap();
    let job = stage.record(ROOM).await.fresh.unwrap();
    let upto = |back: u64| Cursor { position: madang_ids::Position::new(end.position.get() - back), ..end };
    let left = |received: Cursor| job.not_received(&[received]).map(Seq::get).collect::<Vec<_>>();
    assert_eq!(left(upto(0)), [0; 0]);
    assert_eq!(left(upto(1)), [4]);
    assert_eq!(left(upto(3)), [2, 4]);
    assert_eq!(job.expires_at, job.due_at.plus(TIMES.kept_ms).max(job.expires_at));
    let mut taken = stage.take().await;
    taken.sort_unstable();
    assert_eq!(taken, [(ANNA, ROOM), (BEN, ROOM)]);
    assert_eq!(stage.take().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn alerts_of_a_connected_user_wait() {
    let mut stage = Stage::open().await;
    stage.say(BEN, 1).await;
    let away = stage.record(ROOM).await.fresh.unwrap().due_at;
    stage.take().await;
    stage.bus.attach(ANNA).await.unwrap();
    stage.say(BEN, 1).await;
    let job = stage.record(ROOM).await.fresh.unwrap();
    assert!(job.due_at >= away.plus(TIMES.delay_ms), "{job:?}");
    assert_eq!(stage.alerts.take_due(away.plus(TIMES.delay_ms / 2), LATER, 9).await.unwrap(), []);
    assert_eq!(stage.alerts.take_due(job.due_at, LATER, 9).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn alerts_of_a_hot_channel_wait_longer() {
    const HOLD: u64 = 30_000;
    let mut stage = Stage::open().await;
    stage.say(BEN, 1).await;
    let normal = stage.record(ROOM).await.fresh.unwrap().due_at;
    stage.take().await;
    stage.bus.hold_alerts(Box::new(|channel| if channel == ROOM { HOLD } else { 0 }));
    stage.say(BEN, 1).await;
    let held = stage.record(ROOM).await.fresh.unwrap();
    assert!(held.due_at >= normal.plus(HOLD), "{held:?}");
    assert_eq!(stage.alerts.take_due(normal.plus(HOLD / 2), LATER, 9).await.unwrap(), []);
    // The messages that follow wait no longer than the first one.
    stage.say(BEN, 1).await;
    assert_eq!(stage.record(ROOM).await.fresh.unwrap().due_at, held.due_at);
    assert_eq!(stage.alerts.take_due(held.due_at, LATER, 9).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn what_a_dead_home_left_is_noted_once() {
    let mut stage = Stage::open().await;
    // The home died before the script: the one that repeats the fan-out notes it.
    stage.say_unheard(BEN, 1).await;
    stage.redrive(LogId::Channel(ROOM), 1..=1).await;
    assert_eq!(stage.waiting(ROOM).await, [1]);
    stage.say_unheard(BEN, 2).await;
    stage.redrive(LogId::Channel(ROOM), 1..=3).await;
    assert_eq!(stage.waiting(ROOM).await, [1, 2, 3]);
    // It died after the script, before the queue: the entry is noted by the repetition, although it brings nothing.
    let mut lost = stage.take().await;
    lost.sort_unstable();
    assert_eq!(lost, [(ANNA, ROOM), (BEN, ROOM)]);
    let rows = stage.say_unheard(BEN, 1).await;
    forgetting_the_queue(&stage, &rows).await;
    assert_eq!(stage.alerts.take_due(LATER, LATER, 9).await.unwrap(), []);
    stage.redrive(LogId::Channel(ROOM), 1..=4).await;
    assert_eq!(stage.waiting(ROOM).await, [4]);
    assert_eq!(stage.take().await.iter().filter(|(user, _)| *user == ANNA).count(), 1);
    // What was decided does not come back.
    stage.redrive(LogId::Channel(ROOM), 1..=4).await;
    assert_eq!(stage.take().await, []);
    assert_eq!(stage.waiting(ROOM).await, [0; 0]);
}

/// Brings rows as a home does that dies before it notes when workers have to look.
async fn forgetting_the_queue(stage: &Stage, rows: &Arc<[Row]>) {
    stage.bus.moved(LogId::Channel(ROOM), rows).await.unwrap();
    let client = redis::Client::open(super::config().url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for shard in 0..16 {
        let _: () = redis::cmd("DEL")
            .arg(format!("{{alerts{shard}}}:due"))
            .query_async(&mut connection)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn rows_whose_fan_out_was_lost_are_noted_with_the_next() {
    let mut stage = Stage::open().await;
    stage.say(BEN, 1).await;
    stage.take().await;
    stage.say_unheard(BEN, 2).await;
    // A message of Anna brings the others.
    stage.say(ANNA, 1).await;
    assert_eq!(
        stage.waiting(ROOM).await,
        [2, 3, 4],
        "which of them is Anna's own is found when it is decided"
    );
    // The same in Anna's own log.
    let mention = |seq| Content::Mentioned { channel_id: OPEN, seq: Seq::new(seq), by: BEN, is_reply: false };
    let own = LogId::User(ANNA);
    let rows = stage.note(mention(40)).await;
    stage.bus.moved(own, &rows).await.unwrap();
    assert_eq!(stage.waiting(OPEN).await, [40]);
    stage.note(mention(41)).await;
    let rows = stage.note(mention(42)).await;
    stage.bus.moved(own, &rows).await.unwrap();
    assert_eq!(stage.waiting(OPEN).await, [40, 41, 42]);
    stage.take().await;
    // Of rows that are not at hand, the log says what they are.
    stage.note(mention(43)).await;
    stage.redrive(own, 1..=4).await;
    assert_eq!(stage.waiting(OPEN).await, [43]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn a_read_marker_withdraws_what_a_device_shows() {
    let mut stage = Stage::open().await;
    let read =
        |seq| Content::Read { channel_id: ROOM, seq: Seq::new(seq), ordinal: Ordinal::new(seq), left: None };
    let own = LogId::User(ANNA);
    let rows = stage.note(read(1)).await;
    stage.bus.moved(own, &rows).await.unwrap();
    assert_eq!(stage.take().await, [], "nothing is shown");
    stage.say(BEN, 2).await;
    let record = stage.record(ROOM).await;
    let begun = record.begin(Taking::Fresh, &[PHONE], &[], (LATER, LATER));
    assert!(stage.change(&record, &begun).await);
    let shown = begun.finish(&[(PHONE, CallEnd::Shown { until: LATER })]);
    assert!(stage.change(&begun, &shown).await);
    let rows = stage.note(read(2)).await;
    stage.bus.moved(own, &rows).await.unwrap();
    let found = stage.alerts.shown_and_read(ANNA, 9).await.unwrap();
    assert_eq!(
        found.iter().map(|(channel, it)| (*channel, it.last)).collect::<Vec<_>>(),
        [(ROOM, Seq::new(2))]
    );
    let record = stage.record(ROOM).await;
    assert_eq!(record.held.withdraw_at, Some(rows[0].entry.at.plus(3_000)));
    let due = stage.alerts.take_due(rows[0].entry.at.plus(3_000), LATER, 9).await.unwrap();
    assert_eq!(due, [record]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn nothing_is_noted_for_users_without_a_subscription() {
    let mut stage = Stage::open().await;
    stage.say(BEN, 1).await;
    assert_eq!(stage.waiting(ROOM).await, [1], "nobody knows whether there is one");
    stage.alerts.unsubscribed(ANNA).await.unwrap();
    stage.say(BEN, 1).await;
    assert_eq!(stage.waiting(ROOM).await, [1]);
    stage.subscribe().await;
    stage.say(BEN, 1).await;
    assert_eq!(stage.waiting(ROOM).await, [1, 3]);
    stage.alerts.unsubscribed(ANNA).await.unwrap();
    stage.say(BEN, 1).await;
    assert_eq!(stage.waiting(ROOM).await, [1, 3, 4], "there is one: the worker was wrong");
    stage.store.remove_subscription(ANNA, PHONE, None).await.unwrap();
    stage.alerts.unsubscribed(ANNA).await.unwrap();
    stage.say(BEN, 1).await;
    assert_eq!(stage.waiting(ROOM).await, [1, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn a_server_that_has_begun_anew_may_lack_writes() {
    let stage = Stage::open().await;
    assert!(stage.alerts.may_lack_writes().await.unwrap(), "nobody knows for how long it is there");
    assert!(stage.alerts.may_lack_writes().await.unwrap());
    let client = redis::Client::open(super::config().url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let text: String = redis::cmd("GET").arg("alerts:epoch").query_async(&mut connection).await.unwrap();
    let (epoch, since) = text.split_once(' ').unwrap();
    let mut put = async |text: String| {
        let _: () =
            redis::cmd("SET").arg("alerts:epoch").arg(text).query_async(&mut connection).await.unwrap();
    };
    let long_ago = since.parse::<u64>().unwrap() - 600_000;
    put(format!("{epoch} {long_ago}")).await;
    assert!(!stage.alerts.may_lack_writes().await.unwrap());
    put(format!("another {long_ago}")).await;
    assert!(stage.alerts.may_lack_writes().await.unwrap(), "a replica was promoted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn a_record_keeps_the_last_messages() {
    let mut stage = Stage::open().await;
    stage.say(BEN, 1).await;
    stage.say(BEN, 100).await;
    for _ in 0..3 {
        stage.say(BEN, 1).await;
    }
    assert_eq!(stage.waiting(ROOM).await, (73..=104).collect::<Vec<_>>());
}

/// Takes what is due, and decides it as a worker of push does: writes the calls, makes them, and writes their end.
async fn work(alerts: RedisAlerts, called: Arc<Mutex<Vec<u64>>>) {
    let change = async |before: &Outstanding, after: &Outstanding| {
        alerts.change_outstanding(&OutstandingChange::between(before, after)).await.unwrap()
    };
    loop {
        for mut record in alerts.take_due(LATER, LATER.next(), 8).await.unwrap() {
            let (user, channel) = (record.user, record.channel);
            // The worker of calls that are under way goes on with the record.
            while record.held.calls.is_none() {
                let Some(job) = record.fresh.clone() else {
                    change(&record, &record).await;
                    break;
                };
                let mut begun = record.begin(Taking::Fresh, &[PHONE], &[], (LATER, LATER.next()));
                if change(&record, &begun).await {
                    if user == ANNA {
                        called.lock().extend(job.messages().map(Seq::get));
                    }
                    while !change(&begun, &begun.finish(&[(PHONE, CallEnd::Over)])).await {
                        begun = alerts.outstanding(user, channel).await.unwrap();
                    }
                }
                record = alerts.outstanding(user, channel).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn workers_and_homes_at_once_decide_each_message_once() {
    const MESSAGES: u64 = 2_000;
    let mut stage = Stage::open().await;
    let (called, mut workers) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
    for _ in 0..4 {
        let alerts = RedisAlerts::new(Redis::open(&super::config()).unwrap(), stage.store.clone());
        workers.spawn(work(alerts, Arc::clone(&called)));
    }
    let done = timeout(PATIENCE, async {
        for number in 1..=MESSAGES {
            stage.say(BEN, 1).await;
            // A record keeps 32 messages.
            while number > called.lock().len() as u64 + 24 {
                tokio::task::yield_now().await;
            }
        }
        while (called.lock().len() as u64) < MESSAGES {
            tokio::task::yield_now().await;
        }
    });
    done.await.unwrap_or_else(|_| panic!("messages are stuck: {:?}", called.lock().last()));
    workers.shutdown().await;
    let mut called = called.lock().clone();
    called.sort_unstable();
    assert_eq!(called, (1..=MESSAGES).collect::<Vec<_>>());
    assert!(stage.record(ROOM).await.fresh.is_none());
}
