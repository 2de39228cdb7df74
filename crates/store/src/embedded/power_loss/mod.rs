//! No ack precedes its fsync (G1): on a disk that forgets what was not synced, everything acked is there.

mod disk;
mod faults;

use std::collections::BTreeMap;
use std::path::Path;

use madang_ids::{ChannelId, LogId, Millis, Seq, UserId};
use madang_proto::{Content, Entry};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::*;
use crate::commit_order::CommitOrder;
use crate::error::StoreError;
use crate::log::{Append, AppendOutcome, Head, LogStore, Row};

const WRITERS: u64 = 6;
const APPENDS: u64 = 40;

type Acked = Arc<Mutex<BTreeMap<LogId, Seq>>>;

fn open_on_disk(folder: &Path, synchronous: &'static str, checkpoint_pages: u64) -> Arc<Embedded> {
    let config = EmbeddedConfig { path: folder.to_owned(), ..EmbeddedConfig::default() };
    let medium = Medium { vfs: Some(disk::vfs()), synchronous, checkpoint_pages, ..Medium::default() };
    Embedded::open_on(&config, medium).unwrap()
}

/// Three rows of some length.
fn append(log: LogId, expected: Head) -> Append {
    let name = "n".repeat(1_500);
    let (mut head, mut rows) = (expected, Vec::new());
    for _ in 0..3 {
        let content = Content::Renamed { name: name.clone(), by: UserId::from_raw(1) };
        let entry = Entry { seq: head.seq.next(), at: Millis::new(head.at.get() + 1), content };
        let row = Row { entry, ordinal: head.ordinal, key: None };
        head = Head::after(&row);
        rows.push(row);
    }
    Append::of(log, expected, rows.into())
}

async fn write_one_log(store: Arc<Embedded>, log: LogId, acked: Acked) {
    let mut head = Head::default();
    for _ in 0..APPENDS {
        let append = append(log, head);
        head = append.head();
        assert_eq!(store.append(append).await, Ok(AppendOutcome::Appended));
        acked.lock().insert(log, head.seq);
    }
}

/// A run that ends with a loss of power.
struct Run {
    synchronous: &'static str,
    seed: u64,
    /// The power fails after about this number of acknowledged rows.
    rows: u64,
    /// Checkpoints move pages to the database file and begin the log again; each syncs, whatever `synchronous` is.
    checkpoint_pages: u64,
    /// The share of writes that reach the disk although nobody synced them.
    survive: f64,
}

/// Answers with what was acked, and with the folder that is left.
async fn lose_power(run: Run) -> (BTreeMap<LogId, Seq>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = open_on_disk(folder.path(), run.synchronous, run.checkpoint_pages);
    let (acked, mut writers) = (Acked::default(), JoinSet::new());
    for id in 1..=WRITERS {
        let log = LogId::Channel(ChannelId::from_raw(id));
        writers.spawn(write_one_log(Arc::clone(&store), log, Arc::clone(&acked)));
    }
    let count = |acked: &Acked| acked.lock().values().map(|seq| seq.get()).sum::<u64>();
    while count(&acked) < run.rows {
        tokio::task::yield_now().await;
    }
    let known = acked.lock().clone();
    let mut rng = StdRng::seed_from_u64(run.seed);
    let left = disk::after_power_loss(folder.path(), || rng.random_bool(run.survive));
    writers.join_all().await;
    let after = tempfile::tempdir().unwrap();
    for (path, image) in left {
        std::fs::write(after.path().join(path.file_name().unwrap()), image).unwrap();
    }
    (known, after)
}

/// Acked rows that are gone; all, if the file is damaged.
async fn lost_rows(acked: &BTreeMap<LogId, Seq>, folder: &Path) -> u64 {
    let all: u64 = acked.values().map(|seq| seq.get()).sum();
    let config = EmbeddedConfig { path: folder.to_owned(), ..EmbeddedConfig::default() };
    let Ok(store) = Embedded::open(config) else { return all };
    let (mut lost, mut rows) = (0, 0);
    for id in 1..=WRITERS {
        let log = LogId::Channel(ChannelId::from_raw(id));
        let Ok(tail) = store.tail(log, 1_000).await else { return all };
        let is_dense = tail.rows.iter().zip(1..).all(|(row, seq)| row.entry.seq == Seq::new(seq));
        if !is_dense || tail.rows.last().map(Head::after).unwrap_or_default() != tail.head {
            return all;
        }
        rows += tail.head.seq.get();
        lost += acked.get(&log).map_or(0, |acked| acked.get().saturating_sub(tail.head.seq.get()));
    }
    // Every position is a row's.
    if store.position().get() == rows { lost } else { all }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acked_survives_a_loss_of_power() {
    for seed in 0..12 {
        let rows = 1 + seed * 50;
        let run = Run { synchronous: "FULL", seed, rows, checkpoint_pages: 25, survive: 0.5 };
        let (acked, folder) = lose_power(run).await;
        assert_eq!(lost_rows(&acked, folder.path()).await, 0, "seed {seed}");
    }
}

/// The test above can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_before_the_fsync_are_seen_to_be_lost() {
    for synchronous in ["OFF", "NORMAL"] {
        let rows = WRITERS * APPENDS * 3;
        let run = Run { synchronous, seed: 1, rows, checkpoint_pages: 10_000, survive: 0.0 };
        let (acked, folder) = lose_power(run).await;
        assert_eq!(lost_rows(&acked, folder.path()).await, rows, "synchronous = {synchronous}");
    }
}
