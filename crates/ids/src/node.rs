//! Nodes, and what is named across them.

use serde::{Deserialize, Serialize};

use crate::numeric::ConnectionId;

/// The number of a node among the live nodes of a fleet, which is also its snowflake worker. A later node may have it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u16);

/// A life of a node: a restart or a lost lease begins another. Only rises, over all nodes of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeEpoch(pub u64);

/// A connection anywhere in a fleet, at any time: a [`ConnectionId`] alone is unique within one life of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The node of the connection.
    pub node: NodeId,
    /// The life of that node.
    pub epoch: NodeEpoch,
    /// The connection.
    pub connection: ConnectionId,
}

/// One run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeRun {
    /// The node.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: NodeEpoch,
}

impl NodeRun {
    /// The node of a process that is alone.
    pub const ALONE: Self = Self { node: NodeId(0), epoch: NodeEpoch(0) };
}

impl std::fmt::Display for NodeRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.node.0, self.epoch.0)
    }
}

impl Origin {
    /// A connection of the only node of a fleet of one process.
    #[must_use]
    pub const fn of_one_process(connection: ConnectionId) -> Self {
        Self { node: NodeId(0), epoch: NodeEpoch(0), connection }
    }
}
