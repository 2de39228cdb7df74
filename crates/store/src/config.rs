//! The section `[store]` of the configuration: which store, and where a cluster is.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which store keeps everything durable, and where a cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `embedded` (the default): a file in the data folder, for one process. `scylla`: a cluster of ScyllaDB or Cassandra, for a
    /// fleet.
    pub kind: StoreKind,
    /// Addresses of some nodes of the cluster, `host:port`; default none. The others are found through them, so name at least two
    /// that do not fail together.
    pub nodes: Vec<String>,
    /// The keyspace; default `madang`. `madang schema apply` makes it with its tables.
    pub keyspace: String,
    /// The data center whose replicas order the logs. It must be the same on every node of the fleet. Default empty: that of the
    /// first node that answers, which is right if the cluster has one.
    pub data_center: String,
    /// The role to log in as; default empty: the cluster asks for none.
    pub user: String,
    /// The file with the password of the role; a line break at its end is ignored. Set it together with `user`.
    pub password_file: PathBuf,
}

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A file, for one process.
    #[default]
    Embedded,
    /// A cluster that speaks CQL, for a fleet.
    Scylla,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            kind: StoreKind::default(),
            nodes: Vec::new(),
            keyspace: "madang".to_owned(),
            data_center: String::new(),
            user: String::new(),
            password_file: PathBuf::new(),
        }
    }
}
