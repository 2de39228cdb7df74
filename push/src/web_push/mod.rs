//! Web Push (RFC 8030): browsers, and Android devices with UnifiedPush.

pub mod answer;
pub mod encrypt;
pub mod endpoint;
pub mod payload;
pub mod vapid;
