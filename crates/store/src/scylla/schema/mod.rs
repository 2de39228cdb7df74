//! The schema of a keyspace: `madang schema apply` makes it and brings it up to date, `madang schema check` compares it.
//!
//! The tables are those of [`schema.cql`](../../../../../../schema.cql). A row in `schema_version` says which version a keyspace
//! has; it is written last, so that a keyspace whose tables are incomplete has none.

mod apply;
mod check;
#[cfg(feature = "conformance")]
mod fresh;
mod options;
mod tables;

pub use apply::{ApplyOptions, apply};
pub use check::{SchemaReport, check};
#[cfg(feature = "conformance")]
pub use fresh::{break_schema, drop_keyspace, fresh_keyspace};

use super::cluster::Cluster;
use super::connect::ConnectError;

use tables::tables;

/// The version of `schema.cql`. Raise it with every change, and add a change of a table that existed before to [`apply`], which makes
/// new tables by itself.
pub(super) const VERSION: i32 = 4;

/// The version of a keyspace beside the one of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    Same,
    /// There is no complete schema.
    None,
    Older {
        found: i32,
        needed: i32,
    },
    Newer {
        found: i32,
        known: i32,
    },
}

/// Reads the version of a keyspace that exists.
pub(super) async fn version(cluster: &Cluster, keyspace: &str) -> Result<Versions, ConnectError> {
    const TABLE: &str = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'schema_version'";
    let table: Vec<(String,)> = cluster.rows(TABLE, (keyspace,), None).await?;
    if table.is_empty() {
        return Ok(Versions::None);
    }
    let row = format!("SELECT version FROM {} WHERE id = 0", quoted(keyspace, "schema_version"));
    let row: Vec<(i32,)> = cluster.rows(&row, (), None).await?;
    Ok(match row.first() {
        None => Versions::None,
        Some((found,)) if *found < VERSION => Versions::Older { found: *found, needed: VERSION },
        Some((found,)) if *found > VERSION => Versions::Newer { found: *found, known: VERSION },
        Some(_) => Versions::Same,
    })
}

/// The full name of a table.
fn quoted(keyspace: &str, table: &str) -> String {
    format!("\"{keyspace}\".{table}")
}
