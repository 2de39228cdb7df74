//! The suite of the store over a real CQL server.

#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use madang_ids::{LogId, Seq};
use madang_store::Store;
use madang_store::conformance::{Subject, cases};
use madang_store::scylla::{ScyllaConfig, connect, fresh_keyspace};
use tokio::task::JoinSet;

/// A keyspace of a cluster.
struct Cluster(ScyllaConfig);

#[async_trait]
impl Subject for Cluster {
    async fn open(&self) -> Arc<dyn Store> {
        connect(&self.0).await.unwrap()
    }

    async fn spoil(&self, log: LogId, seq: Seq) {
        connect(&self.0).await.unwrap().spoil(log, seq).await.unwrap();
    }
}

/// All cases one after another, because they share a keyspace: making the tables of another one takes longer than emptying them.
/// `MADANG_CASE` selects those whose name contains it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn a_cluster_passes_the_suite_of_every_store() {
    let nodes = vec![std::env::var("MADANG_TEST_CQL").unwrap()];
    let only = std::env::var("MADANG_CASE").unwrap_or_default();
    let mut failed = Vec::new();
    for case in cases().into_iter().filter(|case| case.name.contains(&only)) {
        let config = ScyllaConfig { nodes: nodes.clone(), keyspace: "madang_test".into() };
        fresh_keyspace(&config).await.unwrap();
        let started = Instant::now();
        // A task of its own: a case fails by a panic.
        let mut task = JoinSet::new();
        task.spawn((case.run)(Arc::new(Cluster(config))));
        let outcome = task.join_next().await.unwrap();
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("{:6.1} s  {word}  {}", started.elapsed().as_secs_f64(), case.name);
        if outcome.is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
