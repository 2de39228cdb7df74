//! The suite of every store.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_store::conformance::{Case, Subject, cases, say_many};
use madang_store::scylla::{Scylla, connect};
use madang_store::{AppendOutcome, Head, LogStore, Store, StoreConfig, StoreError};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::{PATIENCE, config, fresh};

/// A keyspace of a cluster.
struct Keyspace(StoreConfig);

#[async_trait]
impl Subject for Keyspace {
    async fn open(&self) -> Arc<dyn Store> {
        connect(&self.0, true, PATIENCE).await.unwrap()
    }

    async fn spoil(&self, log: LogId, seq: Seq) {
        connect(&self.0, true, PATIENCE).await.unwrap().spoil(log, seq).await.unwrap();
    }
}

/// All cases one after another, because they share a keyspace: making the tables of another one takes longer than emptying them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn a_cluster_passes_the_suite_of_every_store() {
    let failed = run(&config("madang_test"), selected()).await;
    assert!(failed.is_empty(), "{failed:?}");
}

/// Half of the cases run on three nodes. Then one is killed while appends are in flight, and the others run on two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the addresses of three CQL nodes in MADANG_TEST_CQL, and the command that kills one in MADANG_TEST_KILL"]
async fn three_replicas_survive_the_loss_of_one() {
    let config = config("madang_test");
    assert_eq!(config.nodes.len(), 3);
    let mut before = selected();
    let after = before.split_off(before.len() / 2);
    let mut failed = run(&config, before).await;
    let store = fresh(&config).await;
    let mut writers = JoinSet::new();
    for log in 1..=8 {
        writers.spawn(write(Arc::clone(&store), LogId::Channel(ChannelId::from_raw(log))));
    }
    kill_one().await;
    let unknown: usize = writers.join_all().await.into_iter().sum();
    println!("one node is killed; appends without an answer: {unknown}");
    failed.extend(run(&config, after).await);
    assert!(failed.is_empty(), "{failed:?}");
}

/// Appends for 10 s and repeats what has no answer, as a home does. Every row is there once, in order. Returns how many appends had
/// no answer.
async fn write(store: Arc<Scylla>, log: LogId) -> usize {
    let (begin, mut head, mut number, mut failures) = (Instant::now(), Head::default(), 0, 0);
    while begin.elapsed() < Duration::from_secs(10) {
        number += 1;
        let sent = say_many(log, head, UserId::from_raw(9), number, 1);
        loop {
            match store.append(sent.clone()).await {
                Ok(AppendOutcome::Appended) => break,
                Ok(AppendOutcome::SentBefore(before)) => {
                    assert_eq!(before[0].seq, sent.head().seq);
                    break;
                }
                Ok(other) => panic!("the only writer of {log}: {other:?}"),
                Err(StoreError::Corrupt(error)) => panic!("{error}"),
                Err(_) => failures += 1,
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{log} gets no answer");
        }
        head = sent.head();
    }
    assert!(number > 10, "{log}: {number}");
    let rows = store.rows(log, Seq::new(1)..=head.seq, usize::MAX).await.unwrap();
    let seqs: Vec<u64> = rows.iter().map(|row| row.entry.seq.get()).collect();
    assert_eq!(seqs, (1..=number).collect::<Vec<_>>());
    let keys: HashSet<_> = rows.iter().filter_map(|row| Some(row.key?.client_msg_id)).collect();
    assert_eq!(keys.len() as u64, number);
    failures
}

/// Kills a node after the writers have begun.
async fn kill_one() {
    // waits for: appends that are in flight
    tokio::time::sleep(Duration::from_secs(3)).await;
    let command = std::env::var("MADANG_TEST_KILL").unwrap();
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status().await.unwrap();
    assert!(status.success(), "{command}");
}

fn selected() -> Vec<Case<dyn Subject>> {
    let only = std::env::var("MADANG_CASE").unwrap_or_default();
    cases().into_iter().filter(|case| case.name.contains(&only)).collect()
}

/// Runs cases; returns the names of those that failed.
async fn run(config: &StoreConfig, cases: Vec<Case<dyn Subject>>) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for case in cases {
        fresh(config).await;
        let started = Instant::now();
        // A task of its own: a case fails by a panic.
        let mut task = JoinSet::new();
        task.spawn((case.run)(Arc::new(Keyspace(config.clone()))));
        let outcome = task.join_next().await.unwrap();
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("{:6.1} s  {word}  {}", started.elapsed().as_secs_f64(), case.name);
        if outcome.is_err() {
            failed.push(case.name);
        }
    }
    failed
}
