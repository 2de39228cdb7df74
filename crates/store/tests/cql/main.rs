//! The store over a real CQL server.
//!
//! `MADANG_TEST_CQL` has the addresses of the nodes, separated by commas; with three the keyspaces have three replicas.
//! `MADANG_CASE` selects the cases of the suite whose name contains it.

#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod handles;
mod links;
mod proxy;
mod reactions;
mod refusals;
mod revocations;
mod shards;
mod suite;
mod trim;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use madang_store::scylla::{Scylla, connect, schema};
use madang_store::{StoreConfig, StoreKind};

/// How long a test waits for the cluster.
const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration of a keyspace of the cluster.
fn config(keyspace: &str) -> StoreConfig {
    let nodes = std::env::var("MADANG_TEST_CQL").unwrap();
    StoreConfig {
        kind: StoreKind::Scylla,
        nodes: nodes.split(',').map(str::to_owned).collect(),
        keyspace: keyspace.to_owned(),
        ..StoreConfig::default()
    }
}

/// Replicas of a keyspace: one on each node.
fn replication(config: &StoreConfig) -> u32 {
    u32::try_from(config.nodes.len()).unwrap()
}

/// A store over an empty keyspace. The test cluster syncs its commit log periodically, which is weak.
async fn fresh(config: &StoreConfig) -> Arc<Scylla> {
    schema::fresh_keyspace(config, replication(config)).await.unwrap();
    connect(config, true, PATIENCE).await.unwrap()
}
