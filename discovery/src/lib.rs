//! Discovery: which processes of a fleet are alive, and which node serves a client.
//!
//! [`core`] decides. [`api`] reaches the registry of live processes: [`Local`] over the registry itself, or [`Remote`] through a
//! discovery process. [`service`] keeps the lease of this process ([`Lease`]) and the view of all others ([`LiveView`]). With
//! these a node assigns clients itself ([`Connector`]) and judges the sockets that come ([`Gate`]), so it does both while
//! discovery is away; [`NodeDiscovery`] has all four. The process `madang-discovery` does the same for clients and nodes over
//! HTTP ([`http`]).
//!
//! No message passes through this crate.

#![warn(missing_docs)]

pub mod api;
pub mod config;
mod connect;
pub mod core;
mod gate;
#[cfg(feature = "fleet")]
pub mod http;
mod metrics;
mod node;
pub mod service;

#[cfg(feature = "fleet")]
pub use api::Remote;
pub use api::{Discovery, Local};
pub use config::{DiscoveryConfig, Placement};
pub use connect::{Connector, SOCKET_PATH};
pub use core::{View, ViewRevision};
pub use gate::{Admission, Gate};
pub use metrics::DiscoveryMetrics;
pub use node::{NodeDiscovery, NodeParts};
pub use service::{Lease, LiveView, Standing};
