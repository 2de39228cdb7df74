//! Basics of a server process: clock, configuration, telemetry, metrics, health, drain and tasks.
//!
//! No message passes through this crate, but every role depends on it. It knows nothing of chat except the type of
//! times.

#![warn(missing_docs)]

mod clock;
pub mod config;
mod drain;
mod health;
mod metrics;
#[cfg(feature = "pages")]
pub mod pages;
#[cfg(feature = "pages")]
pub mod process;
mod signals;
mod spread;
mod systemd;
mod tasks;
pub mod telemetry;

pub use clock::{Clock, ManualClock};
pub use config::ConfigError;
pub use drain::{Drain, Phase};
pub use health::{Check, Health, Readiness};
pub use metrics::{METRICS_CONTENT_TYPE, Metrics};
pub use signals::{Hangups, Signals};
pub use spread::spread;
pub use systemd::Systemd;
pub use tasks::{Stragglers, Tasks};
pub use telemetry::{LogFormat, TelemetryConfig};
