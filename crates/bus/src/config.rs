//! The configuration of inbox and bus.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The bus of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusConfig {
    /// `local` (the default): one process. `redis`: a fleet.
    pub kind: BusKind,
    /// Of Redis or Valkey: `redis://host:port/database`.
    pub url: String,
    /// The file with its password; empty (the default): none.
    pub password_file: PathBuf,
}

/// The transport between nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusKind {
    /// One process.
    #[default]
    Local,
    /// Redis or Valkey.
    Redis,
}
