//! Push: alerts for users who are away, over APNs, FCM, Web Push (browsers and UnifiedPush) and webhooks.
//!
//! [`core`] has the rules, [`web_push`], [`apns`], [`fcm`] and [`webhook`] the formats and answers of the providers, and [`Push`] is the
//! role: it makes alerts of messages, decides those that are due, and calls the providers. A user is alerted at most once of a message
//! (G9).
#![warn(missing_docs)]

pub mod apns;
mod config;
pub mod core;
pub mod fcm;
#[cfg(feature = "redis")]
mod fleet;
mod http;
mod lanes;
mod metrics;
mod notice;
mod processes;
mod providers;
mod service;
mod shelf;
pub mod web_push;
pub mod webhook;

pub use core::QuietHours;

pub use config::{ApnsConfig, FcmConfig, Placement, PushConfig, WebPushConfig, WebhookConfig};
#[cfg(feature = "redis")]
pub use fleet::RedisProcesses;
pub use http::{LookUp, SystemLookUp};
pub use metrics::PushMetrics;
pub use notice::{Answer, Notice, Provider};
pub use processes::PushProcesses;
pub use providers::Providers;
pub use providers::destination;
pub use service::{Elsewhere, Nearby, Push, PushParts, Redriven};
pub use shelf::{Keep, Shelf};
pub use webhook::new_secret;
