//! How many one-row appends a second the embedded store takes, beside a bare loop of group commits with the same
//! bytes on the same disk. `cargo run --release -p madang-store --example appends`; with `bare 256` it runs the bare loop
//! only, with 256 rows for each commit, and prints its rows a second; with `store 64` the store only, and the processor
//! time of a row beside it; with `backup` appends while a store of some size is backed up.
#![expect(clippy::unwrap_used, reason = "a bench that fails says where")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_ids::{ChannelId, ClientMsgId, LogId, MessageId, Millis, Ordinal, Position, Seq, UserId};
use madang_proto::{Body, Content, Entry, Message};
use madang_store::embedded::{Embedded, EmbeddedConfig};
use madang_store::{
    Append, AppendOutcome, BodyHash, ChannelStore, CommitOrder, Head, LogStore, Membership, Row, RowKey,
    Spans,
};
use tokio::task::JoinSet;

const ROUND: Duration = Duration::from_secs(3);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare", group] => {
            let folder = tempfile::tempdir_in(".").unwrap();
            println!("{:.0}", bare_commits(&folder.path().join("bare.db"), group.parse().unwrap()));
        }
        ["backup"] => backups(),
        ["store", in_flight] => store_alone(in_flight.parse().unwrap()),
        _ => compare(),
    }
}

fn store_alone(in_flight: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let path = tempfile::tempdir_in(".").unwrap();
    let config = EmbeddedConfig { path: path.path().to_owned(), ..EmbeddedConfig::default() };
    let store = Embedded::open(config).unwrap();
    let (rows, _) = runtime.block_on(appends(&store, in_flight));
    let used = processor_seconds() / store.position().get() as f64;
    println!("{rows:.0} rows/s, {:.1} µs of processor a row", used * 1e6);
}

fn backups() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir_in(".").unwrap();
    let path = folder.path().join("store");
    let store = Embedded::open(EmbeddedConfig { path: path.clone(), ..EmbeddedConfig::default() }).unwrap();
    runtime.block_on(async {
        let mut heads = vec![Head::default(); 500];
        for _ in 0..50 {
            fill(&store, &mut heads, 20).await;
        }
        let (rows, worst) = appends_from(&store, 64, 1_000).await;
        println!("alone: {rows:.0} rows/s (worst ack {worst:?})");
        let began = Instant::now();
        let target = folder.path().join("backup");
        let ((rows, worst), made) = tokio::join!(appends_from(&store, 64, 2_000), store.back_up(&target));
        let wal_mib = path.join("madang.db-wal").metadata().unwrap().len() / 1024 / 1024;
        println!("beside a backup: {rows:.0} rows/s (worst ack {worst:?}), WAL of {wal_mib} MiB");
        println!("{:?}, {:?} with its appends", made.unwrap(), began.elapsed());
    });
}

/// Of this process, from the kernel's clock ticks of a hundredth of a second.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn compare() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir_in(".").unwrap();
    for in_flight in [1, 16, 64, 256] {
        let path = folder.path().join(format!("store-{in_flight}"));
        let store = Embedded::open(EmbeddedConfig { path, ..EmbeddedConfig::default() }).unwrap();
        let (rows, worst) = runtime.block_on(appends(&store, in_flight));
        let bare = bare_commits(&folder.path().join(format!("bare-{in_flight}.db")), in_flight);
        println!(
            "{in_flight:>4} in flight: {rows:>7.0} rows/s (worst ack {worst:?}), bare loop {bare:>7.0} rows/s"
        );
    }
    let path = folder.path().join("read-all-the-time");
    let store = Embedded::open(EmbeddedConfig { path: path.clone(), ..EmbeddedConfig::default() }).unwrap();
    let (rows, worst) = runtime.block_on(appends_while_read(&store));
    let wal_mib = path.join("madang.db-wal").metadata().unwrap().len() / 1024 / 1024;
    println!(
        "  64 in flight, read all the time: {rows:>7.0} rows/s (worst ack {worst:?}), WAL of {wal_mib} MiB"
    );
    let path = folder.path().join("scan");
    let store = Embedded::open(EmbeddedConfig { path: path.clone(), ..EmbeddedConfig::default() }).unwrap();
    runtime.block_on(scans(&store));
    drop(store);
    let start = Instant::now();
    let store = Embedded::open(EmbeddedConfig { path, ..EmbeddedConfig::default() }).unwrap();
    println!("open with {} rows: {:?}", store.position().get(), start.elapsed());
}

fn message(channel: u64, expected: Head) -> Append {
    let sender_id = UserId::from_raw(channel + 1_000_000);
    let seq = expected.seq.next();
    let client_msg_id = ClientMsgId::from_uuid((u128::from(channel) << 64) | u128::from(seq.get()));
    let body = Body {
        text: "a line of about eighty characters, as people write them in a chat all day".into(),
        ..Body::default()
    };
    let message_id = MessageId::from_raw(seq.get());
    let message = Message::new(message_id, Ordinal::new(seq.get()), sender_id, client_msg_id, body);
    let key = Some(RowKey { sender: sender_id, client_msg_id, body_hash: BodyHash([7; 16]) });
    let entry = Entry { seq, at: Millis::new(seq.get()), content: Content::Message(Box::new(message)) };
    let rows = Arc::new([Row { entry, ordinal: Ordinal::new(seq.get()), key }]);
    Append::of(LogId::Channel(ChannelId::from_raw(channel)), expected, rows)
}

/// Rows per second, and the longest that an append waited.
async fn appends(store: &Arc<Embedded>, in_flight: u64) -> (f64, Duration) {
    appends_from(store, in_flight, 1).await
}

async fn appends_from(store: &Arc<Embedded>, in_flight: u64, first: u64) -> (f64, Duration) {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for channel in first..first + in_flight {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let (mut head, mut rows, mut worst) = (Head::default(), 0_u64, Duration::ZERO);
            while start.elapsed() < ROUND {
                let append = message(channel, head);
                head = append.head();
                let asked = Instant::now();
                assert_eq!(store.append(append).await.unwrap(), AppendOutcome::Appended);
                worst = worst.max(asked.elapsed());
                rows += 1;
            }
            (rows, worst)
        });
    }
    let done = tasks.join_all().await;
    let rows: u64 = done.iter().map(|(rows, _)| rows).sum();
    let worst = done.iter().map(|(_, worst)| *worst).max().unwrap();
    (rows as f64 / start.elapsed().as_secs_f64(), worst)
}

/// Readers that overlap keep SQLite from beginning its write-ahead log again; the store must see to it.
async fn appends_while_read(store: &Arc<Embedded>) -> (f64, Duration) {
    let mut readers = JoinSet::new();
    for reader in 1..=8 {
        let store = Arc::clone(store);
        readers.spawn(async move {
            loop {
                let log = LogId::Channel(ChannelId::from_raw(reader));
                store.rows_back(log, Seq::new(1)..=Seq::new(u64::MAX), 64 * 1024).await.unwrap();
            }
        });
    }
    let measured = appends(store, 64).await;
    readers.shutdown().await;
    measured
}

/// One thread, no queue, no heads, no markers: what the disk and SQLite give at most.
fn bare_commits(path: &std::path::Path, group: u64) -> f64 {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
         CREATE TABLE log (pos INTEGER PRIMARY KEY, id INTEGER, seq INTEGER, a INTEGER, b INTEGER, c INTEGER, d INTEGER,
         e BLOB, f BLOB, content TEXT);
         CREATE UNIQUE INDEX log_places ON log (id, seq);",
    )
    .unwrap();
    let (start, mut seq) = (Instant::now(), 0_u64);
    while start.elapsed() < ROUND {
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
        for channel in 1..=group {
            let expected = Head { seq: Seq::new(seq), ..Head::default() };
            let content = serde_json::to_string(&message(channel, expected).rows[0].entry.content).unwrap();
            let mut insert = db
                .prepare_cached("INSERT INTO log VALUES (NULL, ?1, ?2, ?2, ?2, 1, ?1, ?3, ?3, ?4)")
                .unwrap();
            insert.execute(rusqlite::params![channel as i64, seq as i64, [7_u8; 16], content]).unwrap();
        }
        db.execute_batch("COMMIT").unwrap();
        seq += 1;
    }
    (seq * group) as f64 / start.elapsed().as_secs_f64()
}

/// A user of 500 channels of 400 rows returns 1,000 entries in 50 of them behind.
async fn scans(store: &Arc<Embedded>) {
    let user = UserId::from_raw(1);
    let mut heads = vec![Head::default(); 500];
    for _ in 0..100 {
        fill(store, &mut heads, 4).await;
    }
    let memberships: Vec<Membership> = (1..=500)
        .map(|channel| Membership {
            user_id: user,
            channel_id: ChannelId::from_raw(channel),
            role: madang_proto::Role::Member,
            spans: Spans::since(Seq::new(1)),
            version: Seq::new(1),
            in_inbox: true,
            has_accepted: true,
        })
        .collect();
    store.put_memberships(&memberships).await.unwrap();
    let after = store.position();
    for _ in 0..5 {
        fill(store, &mut heads[..50], 4).await;
    }
    for (what, after) in [("1,000 missed entries", after), ("nothing missed", store.position())] {
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..50 {
            let start = Instant::now();
            let scan = store.scan(user, after, 1_000, 10_000).await.unwrap().unwrap();
            times.push(start.elapsed());
            assert_eq!(scan.upto, store.position());
        }
        times.sort_unstable();
        println!("scan of 500 channels, {what}: median {:?}, worst {:?}", times[25], times[49]);
    }
    let start = Instant::now();
    assert!(store.scan(user, Position::ZERO, 1_000, 10_000).await.unwrap().is_none());
    println!("scan that gives up at 10,000: {:?}", start.elapsed());
}

async fn fill(store: &Arc<Embedded>, heads: &mut [Head], rows: u64) {
    let mut tasks = JoinSet::new();
    for (index, head) in heads.iter_mut().enumerate() {
        let mut append = message(index as u64 + 1, *head);
        let mut all = append.rows.to_vec();
        for _ in 1..rows {
            all.extend(message(index as u64 + 1, Head::after(&all[all.len() - 1])).rows.to_vec());
        }
        append.rows = all.into();
        *head = append.head();
        let store = Arc::clone(store);
        tasks.spawn(async move { store.append(append).await });
    }
    for outcome in tasks.join_all().await {
        assert_eq!(outcome.unwrap(), AppendOutcome::Appended);
    }
}
