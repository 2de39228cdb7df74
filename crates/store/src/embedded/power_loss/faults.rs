//! A disk that is full, read-only, slow, or fails its syncs: nothing is acked that is not durable, what was acked stays,
//! reads go on, and writes go on by themselves where they can.

use std::time::Duration;

use super::disk::{Fault, set_fault, slow_syncs};
use super::*;

fn log() -> LogId {
    LogId::Channel(ChannelId::from_raw(1))
}

async fn acked(store: &Embedded, head: Head) -> Head {
    let next = append(log(), head);
    let head = next.head();
    assert_eq!(store.append(next).await, Ok(AppendOutcome::Appended));
    head
}

async fn refused(store: &Embedded, head: Head) {
    let outcome = store.append(append(log(), head)).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
}

/// What is there after a loss of power that keeps what was never synced, and after one that does not.
async fn heads_after_power_loss(folder: &Path) -> [Head; 2] {
    let mut heads = Vec::new();
    for survives in [true, false] {
        let after = tempfile::tempdir().unwrap();
        for (path, image) in disk::after_power_loss(folder, || survives) {
            std::fs::write(after.path().join(path.file_name().unwrap()), image).unwrap();
        }
        let config = EmbeddedConfig { path: after.path().to_owned(), ..EmbeddedConfig::default() };
        heads.push(Embedded::open(config).unwrap().tail(log(), 1).await.unwrap().head);
    }
    [heads[0], heads[1]]
}

/// The disk refuses writes for a while: to all files, or to the database file only, where checkpoints go.
async fn refuses_for_a_while(fault: Fault) {
    let folder = tempfile::tempdir().unwrap();
    let store = open_on_disk(folder.path(), "FULL", 25);
    let mut head = Head::default();
    for _ in 0..5 {
        head = acked(&store, head).await;
    }
    set_fault(folder.path(), Some(fault));
    // A full disk takes what fits into the log that was there before.
    let before = head;
    while let Ok(outcome) = store.append(append(log(), head)).await {
        assert_eq!(outcome, AppendOutcome::Appended);
        head = append(log(), head).head();
        assert!(head.seq < before.seq.plus(1_000), "the fault has no effect");
    }
    refused(&store, head).await;
    assert_eq!(store.tail(log(), 1).await.unwrap().head, head);
    assert_eq!(
        store.rows(log(), Seq::new(1)..=head.seq, usize::MAX).await.unwrap().len() as u64,
        head.seq.get()
    );
    assert_eq!(heads_after_power_loss(folder.path()).await, [head, head]);
    set_fault(folder.path(), None);
    for _ in 0..30 {
        head = acked(&store, head).await;
    }
    assert_eq!(store.tail(log(), 1).await.unwrap().head, head);
    assert_eq!(heads_after_power_loss(folder.path()).await, [head, head]);
}

#[tokio::test]
async fn a_full_disk_refuses_until_there_is_room() {
    refuses_for_a_while(Fault::Full).await;
}

#[tokio::test]
async fn a_read_only_disk_refuses_until_it_takes_writes() {
    refuses_for_a_while(Fault::ReadOnly).await;
}

#[tokio::test]
async fn a_checkpoint_without_room_loses_nothing_and_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_on_disk(folder.path(), "FULL", 25);
    let database = folder.path().join("madang.db");
    set_fault(&database, Some(Fault::Full));
    let mut head = Head::default();
    for _ in 0..60 {
        head = acked(&store, head).await;
    }
    assert!(store.metrics().checkpoint_failures.get() > 0);
    let length = || database.metadata().unwrap().len();
    let before = length();
    assert_eq!(heads_after_power_loss(folder.path()).await, [head, head]);
    set_fault(&database, None);
    for _ in 0..60 {
        head = acked(&store, head).await;
    }
    assert!(length() > before, "the log has moved to the file");
    assert_eq!(heads_after_power_loss(folder.path()).await, [head, head]);
}

#[tokio::test]
async fn a_slow_disk_acks_late_and_does_not_hold_up_readers() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_on_disk(folder.path(), "FULL", 1_000);
    let head = acked(&store, Head::default()).await;
    set_fault(folder.path(), Some(Fault::SlowSync(500)));
    let began = std::time::Instant::now();
    let slow = append(log(), head);
    let mut writing = Box::pin(store.append(slow));
    let before = slow_syncs();
    let reads = async {
        while slow_syncs() == before {
            tokio::task::yield_now().await;
        }
        for _ in 0..20 {
            store.heads(&[log()]).await.unwrap();
        }
    };
    tokio::select! {
        biased;
        outcome = &mut writing => panic!("acked before its sync: {outcome:?}"),
        () = reads => {}
    }
    assert_eq!(writing.await, Ok(AppendOutcome::Appended));
    assert!(began.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn a_failed_sync_is_never_acked_and_ends_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_on_disk(folder.path(), "FULL", 1_000);
    let head = acked(&store, Head::default()).await;
    set_fault(folder.path(), Some(Fault::FailingSync));
    let outcome = store.append(append(log(), head)).await;
    assert!(matches!(outcome, Err(StoreError::Unknown(_))), "{outcome:?}");
    store.broken().await;
    // Not even when the disk says that it is well again: what it dropped it does not tell.
    set_fault(folder.path(), None);
    let tail = store.tail(log(), 1).await;
    assert!(
        matches!(tail, Err(StoreError::Unavailable(_))),
        "a tail would have to say how it ended: {tail:?}"
    );
    refused(&store, head).await;
    assert_eq!(store.position().get(), 3);
    assert_eq!(store.rows(log(), Seq::new(1)..=Seq::new(3), usize::MAX).await.unwrap().len(), 3);
    let length = || folder.path().join("madang.db").metadata().unwrap().len();
    let before = length();
    drop(store);
    assert_eq!(length(), before, "nothing is written on the way out");
    assert_eq!(heads_after_power_loss(folder.path()).await[1], head);
}

#[tokio::test]
async fn a_checkpoint_whose_sync_fails_ends_the_store_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_on_disk(folder.path(), "FULL", 25);
    set_fault(&folder.path().join("madang.db"), Some(Fault::FailingSync));
    let mut head = Head::default();
    while let Ok(outcome) = store.append(append(log(), head)).await {
        assert_eq!(outcome, AppendOutcome::Appended);
        head = append(log(), head).head();
        assert!(head.seq.get() < 1_000, "no checkpoint was made");
    }
    store.broken().await;
    assert!(head.seq.get() > 0);
    assert_eq!(heads_after_power_loss(folder.path()).await, [head, head]);
}
