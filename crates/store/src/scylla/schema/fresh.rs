//! Keyspaces for tests.

use std::time::Duration;

use scylla::value::Row;

use super::{ApplyOptions, Versions, apply, quoted, tables, version};
use crate::config::StoreConfig;
use crate::scylla::connect::{self, ConnectError};

const PATIENCE: Duration = Duration::from_secs(60);

/// Tables that are written USING TIMESTAMP of a value. In an empty one a removal may be left that hides such a write.
const WITH_OWN_TIMES: [&str; 8] = [
    "log_place",
    "markers",
    "memberships",
    "open_channels",
    "presence",
    "reactions",
    "reactions_by_user",
    "received",
];

/// Empties the keyspace of a test; creates it with its tables if it is not there.
///
/// # Errors
/// Those of the cluster.
pub async fn fresh_keyspace(config: &StoreConfig, replication: u32) -> Result<(), ConnectError> {
    let mut cluster = connect::reach(config, PATIENCE).await?;
    let is_there = cluster.keyspace(&config.keyspace).await?.is_some();
    if !is_there || version(&cluster, &config.keyspace).await? != Versions::Same {
        apply(config, ApplyOptions { replication }, PATIENCE).await?;
        cluster = connect::reach(config, PATIENCE).await?;
    }
    for table in tables().iter().filter(|table| table.name != "schema_version") {
        let name = quoted(&config.keyspace, &table.name);
        let any = cluster.rows::<Row>(&format!("SELECT * FROM {name} LIMIT 1"), (), None).await?;
        if any.is_empty() && !WITH_OWN_TIMES.contains(&table.name.as_str()) {
            continue;
        }
        if cluster.change("empty a table", &format!("TRUNCATE {name}")).await.is_err() {
            // A table is emptied by all replicas or by none. If one is down, another table takes its place.
            cluster.change("remove a table", &format!("DROP TABLE {name}")).await?;
            cluster.change("create a table", &format!("CREATE TABLE {name} {}", table.definition)).await?;
        }
    }
    Ok(())
}

/// Removes a keyspace.
///
/// # Errors
/// Those of the cluster.
pub async fn drop_keyspace(config: &StoreConfig) -> Result<(), ConnectError> {
    let cluster = connect::reach(config, PATIENCE).await?;
    let drop = format!("DROP KEYSPACE IF EXISTS \"{}\"", config.keyspace);
    cluster.change("remove a keyspace", &drop).await
}

/// Executes a statement that the product does not; `{keyspace}` stands for the name.
///
/// # Errors
/// Those of the cluster.
pub async fn break_schema(config: &StoreConfig, cql: &str) -> Result<(), ConnectError> {
    let cluster = connect::reach(config, PATIENCE).await?;
    cluster.change(cql, &cql.replace("{keyspace}", &format!("\"{}\"", config.keyspace))).await
}
