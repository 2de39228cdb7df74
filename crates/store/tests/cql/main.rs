//! The suite of the store over a real CQL server, whose address is in `MADANG_TEST_CQL`.

mod hybrid;

use std::sync::Arc;

use async_trait::async_trait;
use madang_ids::{LogId, Seq};
use madang_store::Store;
use madang_store::conformance::{Subject, cases};
use madang_store::model::{Model, ModelConfig};
use madang_store::scylla::{ScyllaConfig, connect, fresh_keyspace};

use hybrid::Hybrid;

struct Cluster {
    config: ScyllaConfig,
    model: Arc<Model>,
}

#[async_trait]
impl Subject for Cluster {
    async fn open(&self) -> Arc<dyn Store> {
        let cql = connect(&self.config).await.unwrap();
        Arc::new(Hybrid { model: Arc::clone(&self.model), cql })
    }

    async fn spoil(&self, log: LogId, seq: Seq) {
        connect(&self.config).await.unwrap().spoil(log, seq).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_pass() {
    let nodes = vec![std::env::var("MADANG_TEST_CQL").unwrap()];
    let only = std::env::var("MADANG_CASE").unwrap_or_default();
    let mut failed = Vec::new();
    for case in cases() {
        if !case.name.contains(&only) {
            continue;
        }
        let config = ScyllaConfig { nodes: nodes.clone(), keyspace: "madang_test".into() };
        fresh_keyspace(&config).await.unwrap();
        let subject = Arc::new(Cluster { config, model: Model::new(ModelConfig::default()) });
        let started = std::time::Instant::now();
        let run = tokio::spawn((case.run)(subject)).await;
        println!(
            "{} {} {:.1} s",
            if run.is_ok() { "ok    " } else { "FAILED" },
            case.name,
            started.elapsed().as_secs_f64()
        );
        if run.is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
