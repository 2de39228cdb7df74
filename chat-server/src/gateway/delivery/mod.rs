//! Brings envelopes and rows of open channels to the connections of this node.

pub mod encode;
pub mod envelopes;
pub mod open_channels;
pub mod pacing;
pub(super) mod presence;
