//! `madang schema apply`.

use std::time::Duration;

use super::check::{found_columns, found_compactions};
use super::options::{as_cql, compaction, has};
use super::{VERSION, Versions, quoted, tables, version};
use crate::config::StoreConfig;
use crate::scylla::cluster::{Cluster, Keyspace, Product};
use crate::scylla::connect::{self, ConnectError};
use crate::scylla::strength::{replicas, tablets_are_safe};

/// Changes that bring a keyspace from one version to the next: (the version that they lead to, statements with `{keyspace}`). Each
/// must be harmless if it is repeated, because another program may be at it too.
const CHANGES: [(i32, &[&str]); 0] = [];

/// How a keyspace is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Replicas in the local data center.
    pub replication: u32,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self { replication: 3 }
    }
}

/// Creates the keyspace and its tables where they are missing, and brings an older schema up to date; returns one line for each
/// thing that was done. Repeating it is harmless, and so are two at once. It never removes a table or a column, and does not
/// change the replication of a keyspace that exists, because that needs a repair afterwards.
///
/// # Errors
/// See [`ConnectError`]: the cluster cannot be reached, the schema is newer than this program, or the cluster refuses a change.
pub async fn apply(
    config: &StoreConfig,
    options: ApplyOptions,
    patience: Duration,
) -> Result<Vec<String>, ConnectError> {
    let cluster = connect::reach(config, patience).await?;
    let mut done = Vec::new();
    let keyspace = make_keyspace(&cluster, &config.keyspace, options, &mut done).await?;
    let keyspace = keyspace.name.as_str();
    let before = version(&cluster, keyspace).await?;
    if let Versions::Newer { found, known } = before {
        return Err(ConnectError::NewerSchema { keyspace: keyspace.to_owned(), found, known });
    }
    make_tables(&cluster, keyspace, &mut done).await?;
    if let Versions::Older { found, .. } = before {
        for (leads_to, statements) in CHANGES.iter().filter(|(leads_to, _)| *leads_to > found) {
            for statement in *statements {
                let statement = statement.replace("{keyspace}", &format!("\"{keyspace}\""));
                cluster.change(&format!("go to version {leads_to}"), &statement).await?;
            }
            done.push(format!("changed the tables of version {}", leads_to - 1));
        }
    }
    set_compactions(&cluster, keyspace, &mut done).await?;
    record_version(&cluster, keyspace, before, &mut done).await?;
    Ok(done)
}

async fn make_keyspace(
    cluster: &Cluster,
    name: &str,
    options: ApplyOptions,
    done: &mut Vec<String>,
) -> Result<Keyspace, ConnectError> {
    if let Some(made) = cluster.keyspace(name).await? {
        let found = replicas(&made, &cluster.data_center).unwrap_or(0);
        if found != options.replication {
            done.push(format!(
                "the keyspace {name} has {found} replicas in {} and keeps them: change it with ALTER KEYSPACE, then repair it",
                cluster.data_center
            ));
        }
        return Ok(made);
    }
    let (data_center, replication) = (&cluster.data_center, options.replication);
    let mut create = format!(
        "CREATE KEYSPACE IF NOT EXISTS \"{name}\" WITH replication = {{'class': 'NetworkTopologyStrategy', \
         '{data_center}': {replication}}} AND durable_writes = true"
    );
    let without_tablets = cluster.release.product == Product::ScyllaDb && !tablets_are_safe(&cluster.release);
    if without_tablets {
        create += " AND tablets = {'enabled': false}";
    }
    cluster.change(&format!("create the keyspace {name}"), &create).await?;
    done.push(format!(
        "created the keyspace {name} with {replication} replicas in {data_center}{}",
        if without_tablets { ", without tablets" } else { "" }
    ));
    let made = cluster.keyspace(name).await?;
    made.ok_or_else(|| cluster.unreachable(&"a keyspace that was just created is not there"))
}

async fn make_tables(cluster: &Cluster, keyspace: &str, done: &mut Vec<String>) -> Result<(), ConnectError> {
    let found = found_columns(cluster, keyspace).await?;
    let missing: Vec<_> = tables().into_iter().filter(|table| !found.contains_key(&table.name)).collect();
    for table in &missing {
        let (name, definition) = (&table.name, &table.definition);
        let create = format!("CREATE TABLE IF NOT EXISTS {} {definition}", quoted(keyspace, name));
        cluster.change(&format!("create the table {name}"), &create).await?;
    }
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|table| table.name.as_str()).collect();
        done.push(format!("created {} tables: {}", names.len(), names.join(", ")));
    }
    Ok(())
}

async fn set_compactions(
    cluster: &Cluster,
    keyspace: &str,
    done: &mut Vec<String>,
) -> Result<(), ConnectError> {
    let found = found_compactions(cluster, keyspace).await?;
    for table in tables() {
        let Some(wanted) = compaction(&table.name) else { continue };
        if found.get(&table.name).is_some_and(|found| has(found, &wanted)) {
            continue;
        }
        let name = &table.name;
        let alter = format!("ALTER TABLE {} WITH compaction = {}", quoted(keyspace, name), as_cql(&wanted));
        cluster.change(&format!("set the compaction of {name}"), &alter).await?;
        done.push(format!("set the compaction of {name}"));
    }
    Ok(())
}

/// Conditional: of two programs of different versions the newer one must win, whichever writes last.
async fn record_version(
    cluster: &Cluster,
    keyspace: &str,
    before: Versions,
    done: &mut Vec<String>,
) -> Result<(), ConnectError> {
    let table = quoted(keyspace, "schema_version");
    let write = match before {
        Versions::Same | Versions::Newer { .. } => return Ok(()),
        Versions::None => {
            format!(
                "INSERT INTO {table} (id, version, applied_at) VALUES (0, {VERSION}, toTimestamp(now())) IF NOT EXISTS"
            )
        }
        Versions::Older { found, .. } => format!(
            "UPDATE {table} SET version = {VERSION}, applied_at = toTimestamp(now()) WHERE id = 0 IF version = {found}"
        ),
    };
    cluster.condition("record the version of the schema", &write).await?;
    // It does not matter which program wrote it: what counts is what is there.
    match version(cluster, keyspace).await? {
        Versions::Same => {}
        other => {
            let reason = format!("another program works on the same keyspace ({other:?}); try again");
            return Err(ConnectError::Refused {
                what: "record the version of the schema".to_owned(),
                reason,
            });
        }
    }
    done.push(format!("the schema of the keyspace {keyspace} has version {VERSION}"));
    Ok(())
}
