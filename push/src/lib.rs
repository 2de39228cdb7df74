//! Push: a user who is away is alerted once for each message, with what is true at that moment.
//!
//! A message makes a job for each user who may want to know of it. When the job is due, [`core`] decides from what is true then: read
//! elsewhere, muted, deleted and blocked messages are left out. The job is claimed before the provider is called, so that no crash
//! alerts anybody twice (G9).
#![warn(missing_docs)]

pub mod apns;
pub mod core;
pub mod fcm;
pub mod web_push;
