//! The limits that hold: those of the configuration file, with the rates that operators have set over them.

use arc_swap::ArcSwap;
use madang_proto::rest::RateLimits;

use crate::config::LimitConfig;

/// The limits of a node. They change while it runs.
#[derive(Debug)]
pub struct LiveLimits {
    file: LimitConfig,
    present: ArcSwap<LimitConfig>,
}

impl LiveLimits {
    /// Those of the configuration file.
    #[must_use]
    pub fn new(file: LimitConfig) -> Self {
        Self { file, present: ArcSwap::from_pointee(file) }
    }

    /// The limits that hold.
    #[must_use]
    pub fn present(&self) -> LimitConfig {
        **self.present.load()
    }

    /// The rates of the file.
    #[must_use]
    pub const fn of_file(&self) -> RateLimits {
        let file = &self.file;
        RateLimits {
            user_sends: Some(file.user_sends),
            user_write_kib: Some(file.user_write_kib),
            user_requests: Some(file.user_requests),
            address_requests: Some(file.address_requests),
            address_logins: Some(file.address_logins),
        }
    }

    /// Other rates hold from now on. What callers have used up stays used up.
    pub fn configure(&self, set: RateLimits) {
        let file = &self.file;
        let present = LimitConfig {
            user_sends: set.user_sends.unwrap_or(file.user_sends),
            user_write_kib: set.user_write_kib.unwrap_or(file.user_write_kib),
            user_requests: set.user_requests.unwrap_or(file.user_requests),
            address_requests: set.address_requests.unwrap_or(file.address_requests),
            address_logins: set.address_logins.unwrap_or(file.address_logins),
            ..*file
        };
        self.present.store(present.into());
    }
}
