//! `madang schema check`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::options::{Compaction, compaction, has};
use super::tables::{Column, Table};
use super::{VERSION, Versions, tables, version};
use crate::config::StoreConfig;
use crate::scylla::cluster::{Cluster, Keyspace};
use crate::scylla::connect::{self, ConnectError};
use crate::scylla::strength::replicas;

/// What a check has found.
#[derive(Debug)]
pub struct SchemaReport {
    /// What the cluster and the keyspace are, one fact a line.
    pub facts: Vec<String>,
    /// How the tables differ from those of this program, one difference a line.
    pub differences: Vec<String>,
    /// The reason why `madang serve` would not start, if there is one.
    pub refusal: Option<ConnectError>,
}

/// Compares a cluster with what this program needs. It changes nothing.
///
/// # Errors
/// The cluster cannot be reached, or does not let this role look.
pub async fn check(config: &StoreConfig, patience: Duration) -> Result<SchemaReport, ConnectError> {
    let cluster = connect::reach(config, patience).await?;
    let name = &config.keyspace;
    let mut facts = vec![format!(
        "{} {}, data center {}, {} of its nodes are up",
        cluster.release.product,
        cluster.release.text,
        cluster.data_center,
        cluster.live_nodes().len()
    )];
    let mut differences = Vec::new();
    if let Some(made) = cluster.keyspace(name).await? {
        facts.push(keyspace_fact(&made, &cluster));
        facts.push(match version(&cluster, name).await? {
            Versions::Same => format!("schema of version {VERSION}, as this program needs"),
            Versions::None => format!("no schema; this program needs version {VERSION}"),
            Versions::Older { found, .. } | Versions::Newer { found, .. } => {
                format!("schema of version {found}; this program has version {VERSION}")
            }
        });
        differences = compare(&cluster, name).await?;
    }
    let refusal = connect::inspect(&cluster, config, false).await.err();
    Ok(SchemaReport { facts, differences, refusal })
}

fn keyspace_fact(made: &Keyspace, cluster: &Cluster) -> String {
    let here = replicas(made, &cluster.data_center);
    format!(
        "keyspace {} with {} replicas here, {}, {}",
        made.name,
        here.map_or_else(|| "no".to_owned(), |here| here.to_string()),
        if made.durable_writes { "durable writes" } else { "no durable writes" },
        if made.has_tablets { "tablets" } else { "no tablets" },
    )
}

async fn compare(cluster: &Cluster, keyspace: &str) -> Result<Vec<String>, ConnectError> {
    let (columns, compactions) =
        (found_columns(cluster, keyspace).await?, found_compactions(cluster, keyspace).await?);
    let mut differences = Vec::new();
    for table in tables() {
        match columns.get(&table.name) {
            None => differences.push(format!("the table {} is missing", table.name)),
            Some(found) => differences.extend(compare_table(&table, found)),
        }
        let differs = |found: &Compaction| compaction(&table.name).is_some_and(|wanted| !has(found, &wanted));
        if compactions.get(&table.name).is_some_and(differs) {
            differences.push(format!("the table {} has another compaction", table.name));
        }
    }
    Ok(differences)
}

/// Columns that this program does not know are of no consequence: it names the columns that it reads and writes.
fn compare_table(table: &Table, found: &BTreeMap<String, FoundColumn>) -> Vec<String> {
    let name = &table.name;
    let mut differences = Vec::new();
    for (column, Column { cql_type, kind, position }) in &table.columns {
        match found.get(column) {
            None => differences.push(format!("the column {name}.{column} is missing")),
            Some((found_type, found_kind, found_position)) => {
                if found_type != cql_type {
                    differences.push(format!("the column {name}.{column} is {found_type}, needs {cql_type}"));
                }
                if (found_kind.as_str(), *found_position) != (*kind, *position) {
                    differences.push(format!("the column {name}.{column} has another place in the key"));
                }
            }
        }
    }
    differences
}

/// Type, kind and position.
pub(super) type FoundColumn = (String, String, i32);

/// The columns of all tables of a keyspace.
pub(super) async fn found_columns(
    cluster: &Cluster,
    keyspace: &str,
) -> Result<BTreeMap<String, BTreeMap<String, FoundColumn>>, ConnectError> {
    const COLUMNS: &str = "SELECT table_name, column_name, type, kind, position FROM system_schema.columns WHERE keyspace_name = ?";
    let rows: Vec<(String, String, String, String, i32)> = cluster.rows(COLUMNS, (keyspace,), None).await?;
    let mut tables: BTreeMap<String, BTreeMap<String, FoundColumn>> = BTreeMap::new();
    for (table, column, cql_type, kind, position) in rows {
        tables.entry(table).or_default().insert(column, (cql_type, kind, position));
    }
    Ok(tables)
}

/// The compaction of all tables of a keyspace.
pub(super) async fn found_compactions(
    cluster: &Cluster,
    keyspace: &str,
) -> Result<BTreeMap<String, Compaction>, ConnectError> {
    const TABLES: &str = "SELECT table_name, compaction FROM system_schema.tables WHERE keyspace_name = ?";
    Ok(cluster.rows::<(String, Compaction)>(TABLES, (keyspace,), None).await?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_a_table_are_named() {
        let table = tables().into_iter().find(|table| table.name == "workers").unwrap();
        let mut found: BTreeMap<String, FoundColumn> = table
            .columns
            .iter()
            .map(|(name, column)| {
                (name.clone(), (column.cql_type.clone(), column.kind.to_owned(), column.position))
            })
            .collect();
        found.insert("later".into(), ("int".into(), "regular".into(), -1));
        assert!(compare_table(&table, &found).is_empty());
        found.remove("holder");
        found.insert("epoch".into(), ("int".into(), "regular".into(), -1));
        found.insert("worker".into(), ("int".into(), "regular".into(), -1));
        assert_eq!(
            compare_table(&table, &found),
            [
                "the column workers.epoch is int, needs bigint",
                "the column workers.holder is missing",
                "the column workers.worker has another place in the key"
            ]
        );
    }
}
