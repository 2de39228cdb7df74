//! Accepts connections, bounds their number, and finds the address of the client.

pub(super) mod addresses;
pub mod listen;
pub(crate) mod places;
pub mod proxies;
pub(super) mod write_timeout;
