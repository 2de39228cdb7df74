//! A stand-in for the services that deliver notices to devices: APNs, FCM, push services of browsers, and receivers of webhooks.
//!
//! Tests start a [`Sandbox`] in their own process. It listens on loopback, speaks real TLS and HTTP/2, refuses what the real
//! services refuse, and causes faults on demand. A [`Ledger`] holds everything that was taken and everything that was refused.
//!
//! The way of a request: `server` accepts a connection and reads a request; `faults` says whether a fault was ordered for it; the
//! face (`apns`, `fcm`, `web_push` or `webhook`) checks it and writes an answer; the `ledger` records it.
//!
//! The crate depends on no other crate of the project, so that it checks what is on the wire, and not what our types say.

mod answer;
mod apns;
mod clock;
mod config;
mod faults;
mod fcm;
mod jwt;
mod keys;
mod ledger;
mod notice;
mod sandbox;
mod server;
mod tls;
mod web_push;
mod webhook;

pub use apns::{Apns, ApnsKey, ApnsToken};
pub use clock::Now;
pub use faults::{Delivery, Fault};
pub use fcm::{Fcm, FcmToken};
pub use ledger::{Ledger, TimedOut};
pub use notice::{Blame, Counters, Event, Face, Notice, Refusal, shown};
pub use sandbox::{Sandbox, Settings, StartError};
pub use web_push::{Subscription, SubscriptionState, WebPush};
pub use webhook::{Hook, Webhook};
