//! Bytes that the bus of a node of a fleet holds at most.

/// Rows that have come from Redis and are not delivered yet.
pub const ROWS_BYTES: usize = 32 * 1024 * 1024;
/// Frames to other nodes that wait to be sent. Beyond that frames are dropped.
pub const WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Frames of other nodes that wait, and commands of other nodes that are carried out. Beyond that frames are lost, and their nodes
/// carry the commands out themselves.
pub const PEER_BYTES: usize = 64 * 1024 * 1024;
/// Audiences of channels that are kept in memory.
pub const AUDIENCE_BYTES: usize = 128 * 1024 * 1024;
