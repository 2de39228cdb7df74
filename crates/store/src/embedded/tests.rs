//! What only this store does: its file, its groups, its feed.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use madang_ids::{ChannelId, LogId, Millis, Ordinal, Seq, UserId};
use madang_proto::{Content, Entry};
use tokio::task::JoinSet;

use super::*;
use crate::commit_order::CommitOrder;
use crate::error::StoreError;
use crate::log::{Append, AppendOutcome, Head, LogStore, Row};

fn config(path: &std::path::Path) -> EmbeddedConfig {
    EmbeddedConfig { path: path.to_owned(), ..EmbeddedConfig::default() }
}

fn log(id: u64) -> LogId {
    LogId::Channel(ChannelId::from_raw(id))
}

fn append(log: LogId, expected: Head) -> Append {
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
    let mut readers = JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&store);
        readers.spawn(async move {
            loop {
                store.heads(&[log(1); 300]).await.unwrap();
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
    readers.shutdown().await;
    let length = folder.path().join("madang.db-wal").metadata().unwrap().len();
    assert!(length < 4_000_000, "{length} bytes");
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
    let held = tokio::time::timeout(Duration::from_millis(50), store.append(append(log(2), Head::default())));
    assert!(held.await.is_err());
    drop(store);
    assert_eq!(feed.len(), 1);
    let store = Embedded::open(config(folder.path())).unwrap();
    assert_eq!(store.position().get(), 2);
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
