//! What the workers of a fleet share.

use std::io;

use async_trait::async_trait;
use madang_bus::redis::{Redis, SharedText};

use crate::shelf::{Keep, Shelf};

/// Keeps the token for APNs in Redis: all workers use the same one.
struct RedisShelf(SharedText);

impl Keep {
    /// The keys of all processes of a fleet.
    #[must_use]
    pub fn in_redis(redis: Redis) -> Self {
        Self::Shared(std::sync::Arc::new(RedisShelf(SharedText::new(redis, "apns-token"))))
    }
}

#[async_trait]
impl Shelf for RedisShelf {
    async fn load(&self) -> io::Result<Option<String>> {
        self.0.load().await.map_err(io::Error::other)
    }

    async fn replace(&self, before: Option<&str>, after: &str) -> io::Result<bool> {
        self.0.replace(before, after).await.map_err(io::Error::other)
    }
}
