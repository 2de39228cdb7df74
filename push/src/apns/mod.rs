//! Apple's push notification service.

pub mod answer;
