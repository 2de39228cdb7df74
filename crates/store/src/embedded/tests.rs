//! What only this store does: its file, its groups, its feed.

mod apart;
mod forgotten;
mod trimmed;
mod waits;

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use madang_ids::{ChannelId, ClientMsgId, LogId, MessageId, Millis, Ordinal, Seq, UserId};
use madang_proto::{Body, Content, Entry, Message};
use tokio::task::JoinSet;

use super::*;
use crate::commit_order::CommitOrder;
use crate::error::StoreError;
use crate::log::{Append, AppendOutcome, Head, LogStore, Row};
use crate::upkeep::Upkeep;

/// Does something to a file.
type Harm = fn(&mut Vec<u8>);

pub(super) fn config(path: &std::path::Path) -> EmbeddedConfig {
    EmbeddedConfig { path: path.to_owned(), ..EmbeddedConfig::default() }
}

pub(super) fn log(id: u64) -> LogId {
    LogId::Channel(ChannelId::from_raw(id))
}

pub(super) fn append(log: LogId, expected: Head) -> Append {
    let row = Row {
        entry: Entry {
            seq: expected.seq.next(),
            at: Millis::new(expected.at.get() + 1),
            content: Content::Created { by: UserId::from_raw(1) },
        },
        ordinal: Ordinal::ZERO,
        key: None,
    };
    Append::of(log, expected, Arc::new([row]))
}

#[test]
fn a_folder_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Embedded::open(config(folder.path())).unwrap());
    let db = Connection::open(folder.path().join("madang.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let refusal = Embedded::open(config(folder.path())).unwrap_err();
    assert!(matches!(refusal, OpenError::Newer { found: 99, .. }), "{refusal}");
}

#[tokio::test]
async fn a_statement_is_compiled_once_whatever_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    for count in 1..4 {
        let read = store.readers.read(move |db| {
            let mut statement = db.prepare_cached("SELECT seq FROM log WHERE id > ?1 LIMIT ?2")?;
            let found = statement.query((count, count))?.next()?.is_some();
            Ok((found, statement.get_status(rusqlite::StatementStatus::RePrepare)))
        });
        assert_eq!(read.await.unwrap(), (false, 0), "call {count}");
    }
}

#[tokio::test]
async fn a_database_that_is_gone_leaves_its_log_as_it_is() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Embedded::open(config(folder.path())).unwrap();
    let head = fill(&store, log(1), Head::default(), 20).await;
    // As a kill leaves it: nothing has moved from the log to the file.
    let files = ["madang.db", "madang.db-wal", "acked"];
    for name in files {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    drop(store);
    let (file, wal) = (copy.path().join("madang.db"), copy.path().join("madang.db-wal"));
    let (bytes, written) = (std::fs::read(&file).unwrap(), std::fs::read(&wal).unwrap());
    for empty in [false, true] {
        if empty {
            std::fs::write(&file, []).unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
        }
        for accept_loss in [false, true] {
            let refusal = Embedded::open(EmbeddedConfig { accept_loss, ..config(copy.path()) }).unwrap_err();
            assert!(matches!(refusal, OpenError::Gone { .. }) && refusal.is_lasting(), "{refusal}");
            assert_eq!(std::fs::read(&wal).unwrap(), written);
        }
    }
    std::fs::write(&file, bytes).unwrap();
    let store = Embedded::open(config(copy.path())).unwrap();
    assert_eq!(store.tail(log(1), 1).await.unwrap().head, head);
}

#[test]
fn another_programs_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let db = Connection::open(folder.path().join("madang.db")).unwrap();
    db.pragma_update(None, "application_id", 7).unwrap();
    drop(db);
    assert!(matches!(Embedded::open(config(folder.path())), Err(OpenError::Foreign { .. })));
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("madang.db"), [7; 8192]).unwrap();
    assert!(matches!(Embedded::open(config(folder.path())), Err(OpenError::Damaged { .. })));
}

/// Appends `rows` rows to a log, each alone; returns its head.
pub(super) async fn fill(store: &Embedded, log: LogId, mut head: Head, rows: u64) -> Head {
    for _ in 0..rows {
        let next = append(log, head);
        head = next.head();
        assert_eq!(store.append(next).await, Ok(AppendOutcome::Appended));
    }
    head
}

/// What a kill of this process would leave.
pub(super) fn as_after_a_kill(folder: &std::path::Path) -> tempfile::TempDir {
    let left = tempfile::tempdir().unwrap();
    for name in ["madang.db", "madang.db-wal", "acked"] {
        std::fs::copy(folder.join(name), left.path().join(name)).unwrap();
    }
    left
}

fn flip(file: &std::path::Path, offset: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[offset] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_file_that_lost_its_header_or_its_end_is_refused_and_stays() {
    let damage: [(&str, Harm); 4] = [
        ("starts with zeros", |bytes| bytes.fill(0)),
        ("ends within its header", |bytes| bytes.truncate(60)),
        ("does not start with the header of an SQLite database", |bytes| bytes[3] ^= 1),
        ("its header says", |bytes| bytes.truncate(bytes.len() / 2)),
    ];
    for (told, damage) in damage {
        let folder = tempfile::tempdir().unwrap();
        drop(Embedded::open(config(folder.path())).unwrap());
        let file = folder.path().join("madang.db");
        let mut bytes = std::fs::read(&file).unwrap();
        damage(&mut bytes);
        std::fs::write(&file, &bytes).unwrap();
        let refusal = Embedded::open(config(folder.path())).unwrap_err().to_string();
        assert!(refusal.contains(told) && refusal.contains("madang restore"), "{refusal}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "{told}");
    }
}

#[tokio::test]
async fn a_flipped_byte_in_the_log_of_a_killed_server_is_detected_and_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    fill(&store, log(1), Head::default(), 100).await;
    acked::write(folder.path(), store.position(), false).unwrap();
    let left = as_after_a_kill(folder.path());
    let wal = left.path().join("madang.db-wal");
    flip(&wal, std::fs::metadata(&wal).unwrap().len() as usize / 2);
    let before = std::fs::read(&wal).unwrap();
    let refusal = Embedded::open(config(left.path())).unwrap_err();
    let OpenError::Lost { acked, found, .. } = refusal else { panic!("{refusal}") };
    assert_eq!(acked.get(), 100);
    assert!((1..100).contains(&found.get()), "{found:?}");
    assert_eq!(std::fs::read(&wal).unwrap(), before, "what is left is there for who knows more");
    // An operator who goes on gets a store that ends there, and is not asked again.
    let nowhere = EmbeddedConfig { accept_loss: true, ..config(&left.path().join("nowhere")) };
    assert!(Embedded::open(nowhere).unwrap_err().to_string().contains("nowhere/madang.db"));
    assert!(!left.path().join("nowhere").exists());
    let accepted = EmbeddedConfig { accept_loss: true, ..config(left.path()) };
    assert_eq!(Embedded::open(accepted).unwrap().position(), found);
    let store = Embedded::open(config(left.path())).unwrap();
    assert_eq!(store.tail(log(1), 9).await.unwrap().head.seq.get(), found.get());
}

#[tokio::test]
async fn without_damage_what_a_kill_leaves_is_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    fill(&store, log(1), Head::default(), 100).await;
    acked::write(folder.path(), store.position(), false).unwrap();
    let left = as_after_a_kill(folder.path());
    assert_eq!(Embedded::open(config(left.path())).unwrap().position().get(), 100);
}

#[tokio::test]
async fn a_row_that_changed_on_the_disk_costs_itself_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    let head = fill(&store, log(1), Head::default(), 3).await;
    fill(&store, log(2), Head::default(), 1).await;
    let rot = |transaction: &mut Transaction<'_>| {
        let sql = "UPDATE log SET content = replace(content, '\"1\"', '\"2\"') WHERE id = 1 AND seq = 2";
        transaction.db().execute(sql, [])
    };
    assert_eq!(store.write(rot).await, Ok(1));
    let is_lost = |row: &Row| matches!(row.entry.content, Content::Unreadable(_));
    let lost = |rows: &[Row]| rows.iter().map(is_lost).collect::<Vec<_>>();
    let range = Seq::new(1)..=Seq::new(3);
    assert_eq!(lost(&store.rows(log(1), range.clone(), usize::MAX).await.unwrap()), [false, true, false]);
    assert_eq!(store.metrics().damaged.get(), 1);
    assert_eq!(
        lost(&store.rows_back(log(1), range.clone(), usize::MAX).await.unwrap()),
        [false, true, false]
    );
    assert_eq!(lost(&store.tail(log(1), 2).await.unwrap().rows), [true, false]);
    assert_eq!(lost(&store.rows_of(&[(log(1), range)], usize::MAX).await.unwrap()[0]), [false, true, false]);
    let single = store.rows_at(log(1), &[Seq::new(2)], 1).await.unwrap().remove(0).unwrap();
    assert!(is_lost(&single) && single.entry.seq.get() == 2);
    assert_eq!(store.rows(log(2), Seq::new(1)..=Seq::new(1), usize::MAX).await.unwrap().len(), 1);
    assert_eq!(store.append(append(log(1), head)).await, Ok(AppendOutcome::Appended));
}

#[tokio::test]
async fn a_poison_job_hurts_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    let poison = store.write(|transaction| transaction.db().execute("INSERT INTO nowhere VALUES (1)", []));
    let (first, poisoned, last) = tokio::join!(
        store.append(append(log(1), Head::default())),
        poison,
        store.append(append(log(2), Head::default())),
    );
    assert_eq!((first, last), (Ok(AppendOutcome::Appended), Ok(AppendOutcome::Appended)));
    assert!(matches!(poisoned, Err(StoreError::Unavailable(_))), "{poisoned:?}");
    assert_eq!(store.position().get(), 2);
}

#[tokio::test]
async fn a_full_disk_is_not_done_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    let pages = |count: i64| {
        store.write(move |transaction| {
            transaction
                .db()
                .pragma_update_and_check(None, "max_page_count", count, |row| row.get::<_, i64>(0))
        })
    };
    let full = pages(1).await.unwrap();
    let mut head = Head::default();
    let refusal = loop {
        let next = append(log(1), head);
        let after = next.head();
        match store.append(next).await {
            Ok(outcome) => assert_eq!(outcome, AppendOutcome::Appended),
            Err(error) => break error,
        }
        head = after;
    };
    assert!(matches!(refusal, StoreError::Unavailable(_)), "{refusal}");
    assert_eq!(store.tail(log(1), 1).await.unwrap().head, head);
    pages(full + 1000).await.unwrap();
    assert_eq!(store.append(append(log(1), head)).await, Ok(AppendOutcome::Appended));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_overlap_do_not_let_the_log_grow() {
    let folder = tempfile::tempdir().unwrap();
    let medium = Medium { wal_limit_bytes: 2_000_000, checkpoint_pages: 100, ..Medium::default() };
    let store = Embedded::open_on(&config(folder.path()), medium).unwrap();
    let reads = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..8 {
        let (store, reads) = (Arc::clone(&store), Arc::clone(&reads));
        readers.spawn(async move {
            loop {
                store.heads(&[log(1); 300]).await.unwrap();
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let (mut head, name) = (Head::default(), "n".repeat(100_000));
    for _ in 0..100 {
        let mut next = append(log(1), head);
        let mut row = next.rows[0].clone();
        row.entry.content = Content::Renamed { name: name.clone(), by: UserId::from_raw(1) };
        next.rows = Arc::new([row]);
        head = next.head();
        assert_eq!(store.append(next).await, Ok(AppendOutcome::Appended));
    }
    assert!(readers.try_join_next().is_none(), "a reader has ended");
    readers.shutdown().await;
    assert!(reads.load(Ordering::Relaxed) > 100, "{reads:?}");
    let length = folder.path().join("madang.db-wal").metadata().unwrap().len();
    assert!(length < 4_000_000, "{length} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_reads_the_file_for_long_does_not_hold_up_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let medium = Medium { forget_after: Duration::ZERO, ..Medium::default() };
    let store = Embedded::open_on(&config(folder.path()), medium).unwrap();
    let head = fill(&store, log(1), Head::default(), 1).await;
    let outside = rusqlite::Connection::open(folder.path().join("madang.db")).unwrap();
    outside.execute_batch("BEGIN; SELECT * FROM log").unwrap();
    store
        .write(|transaction: &mut Transaction<'_>| {
            transaction.forget_soon();
            Ok(())
        })
        .await
        .unwrap();
    let began = std::time::Instant::now();
    fill(&store, log(1), head, 20).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(outside);
}

#[tokio::test]
async fn a_probe_writes_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    let log = || std::fs::read(folder.path().join("madang.db-wal")).unwrap();
    for _ in 0..2 {
        let before = log();
        store.probe().await.unwrap();
        assert!(log() != before, "nothing was written");
    }
    assert_eq!(store.position().get(), 0);
}

#[test]
fn a_folder_of_somebody_else_is_not_for_root() {
    let folder = tempfile::tempdir().unwrap();
    drop(Embedded::open(config(folder.path())).unwrap());
    if std::os::unix::fs::chown(folder.path().join("madang.db"), Some(1), Some(1)).is_err() {
        eprintln!("we are not root: not tried");
        return;
    }
    let refusal = Embedded::open(config(folder.path())).unwrap_err();
    assert!(matches!(refusal, OpenError::NotOwner { owner: 1, .. }), "{refusal}");
}

#[test]
fn a_database_of_another_program_is_named_as_such_also_where_something_was_acked() {
    let folder = tempfile::tempdir().unwrap();
    drop(Embedded::open(config(folder.path())).unwrap());
    for name in ["madang.db", "madang.db-wal", "madang.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(name));
    }
    let other = rusqlite::Connection::open(folder.path().join("madang.db")).unwrap();
    other.execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    drop(other);
    let refusal = Embedded::open(config(folder.path())).unwrap_err();
    assert!(matches!(refusal, OpenError::Foreign { .. }), "{refusal}");
}

#[test]
fn the_files_of_sqlite_are_private_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let _store = Embedded::open(config(folder.path())).unwrap();
    let files: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{file:?}");
    }
}

#[tokio::test]
async fn dropping_the_store_ends_a_writer_that_waits_for_the_feed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(EmbeddedConfig { feed_commits: 1, ..config(folder.path()) }).unwrap();
    let feed = store.take_feed().unwrap();
    assert!(store.take_feed().is_none());
    store.append(append(log(1), Head::default())).await.unwrap();
    // It is durable, so it is acknowledged although the feed is full; the writer waits behind it.
    store.append(append(log(2), Head::default())).await.unwrap();
    let held = tokio::time::timeout(Duration::from_millis(50), store.append(append(log(3), Head::default())));
    assert!(held.await.is_err());
    drop(store);
    assert_eq!(feed.len(), 1);
    let store = Embedded::open(config(folder.path())).unwrap();
    assert_eq!(store.position().get(), 3);
}

#[tokio::test]
async fn the_feed_is_bounded_in_bytes_until_its_rows_are_delivered() {
    const ROW_BYTES: usize = 400_000;
    const FEED_BYTES: usize = 32 * 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    let mut feed = store.take_feed().unwrap();
    let mut head = Head::default();
    let large = |head: Head| {
        let next = append(log(1), head);
        let mut row = next.rows[0].clone();
        let body = Body { text: "n".repeat(ROW_BYTES), ..Body::default() };
        let (id, sender) = (MessageId::from_raw(next.head().seq.get()), UserId::from_raw(1));
        let message = Message::new(id, Ordinal::ZERO, sender, ClientMsgId::from_uuid(1), body);
        row.entry.content = Content::Message(Box::new(message));
        Append { rows: Arc::new([row]), ..next }
    };
    let mut acked = 0;
    loop {
        let next = large(head);
        let after = next.head();
        match tokio::time::timeout(Duration::from_secs(2), store.append(next)).await {
            Ok(outcome) => assert_eq!(outcome, Ok(AppendOutcome::Appended)),
            Err(_) => break,
        }
        (head, acked) = (after, acked + 1);
    }
    assert!((40..=FEED_BYTES / ROW_BYTES + 2).contains(&acked), "{acked} appends before the feed is full");
    // What the reader holds counts as well.
    let mut held = Vec::new();
    while let Ok(commit) = feed.try_recv() {
        held.push(commit.rows);
    }
    let more =
        tokio::time::timeout(Duration::from_millis(200), store.append(append(log(2), Head::default())));
    assert!(more.await.is_err(), "rows that were taken and not delivered are not counted");
    drop(held);
    let mut reader = JoinSet::new();
    reader.spawn(async move { while feed.recv().await.is_some() {} });
    assert_eq!(store.append(append(log(3), Head::default())).await, Ok(AppendOutcome::Appended));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_an_ack_waits_for_do_not_stand_behind_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let mut others = JoinSet::new();
    // As many reads as there are readers, which do not end, and more behind them.
    for _ in 0..20 {
        let (store, gate) = (Arc::clone(&store), Arc::clone(&gate));
        others.spawn(async move {
            let wait = move |_: &Connection| {
                let _ = gate.lock().recv();
                Ok(())
            };
            store.read(wait).await
        });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let logs = [log(1)];
    let first = tokio::time::timeout(Duration::from_millis(200), store.heads(&logs));
    assert!(first.await.is_err(), "the readers are taken");
    for _ in 0..50 {
        let tail = crate::urgently(store.tail(log(1), 9));
        tokio::time::timeout(Duration::from_secs(5), tail).await.expect("an urgent read goes first").unwrap();
    }
    drop(open);
    while let Some(other) = others.join_next().await {
        other.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_tail_shows_what_a_caller_who_left_had_queued() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    for id in 1..50 {
        // Polled once, which queues it, then dropped.
        let mut abandoned = Box::pin(store.append(append(log(id), Head::default())));
        let _ = futures_poll(&mut abandoned).await;
        drop(abandoned);
        let shown = store.tail(log(id), 1).await.unwrap().head.seq;
        assert_eq!(shown, Seq::new(1));
    }
}

/// Polls a future once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}
