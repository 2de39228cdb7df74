//! What the workers of a fleet share.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use madang_bus::redis::{Redis, Reports, SharedText};
use madang_proto::rest::PushProcess;
use madang_service::Clock;
use madang_store::StoreResult;

use crate::processes::PushProcesses;
use crate::service::Push;
use crate::shelf::{Keep, Shelf};

/// The pause between two reports of a process.
const REPORTED_EVERY: Duration = Duration::from_secs(2);
/// Processes of which operators see reports. A fleet has a few.
const SHOWN: usize = 64;

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

/// What push processes have sent, in Redis.
pub struct RedisProcesses(Reports);

impl RedisProcesses {
    /// Those of a fleet.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self(Reports::of(redis, "push"))
    }

    /// Reports what the process with this number has sent, as long as it lives. A report that is lost is replaced by the next one.
    pub async fn report(&self, number: u16, name: &str, push: &Push, clock: &Clock) {
        loop {
            let process = PushProcess {
                name: name.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                at: clock.now_ms(),
                push: push.figures(),
            };
            let put = match serde_json::to_string(&process) {
                Ok(report) => {
                    self.0.put(&number.to_string(), &report).await.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = put {
                tracing::debug!(error, "what this process has sent was not reported");
            }
            clock.sleep(REPORTED_EVERY).await;
        }
    }
}

#[async_trait]
impl PushProcesses for RedisProcesses {
    async fn all(&self) -> StoreResult<Vec<PushProcess>> {
        let reports = self.0.all().await?;
        // One of a newer version may have another form.
        let processes = reports.iter().filter_map(|report| serde_json::from_str(report).ok());
        let mut processes: Vec<PushProcess> = processes.take(SHOWN).collect();
        processes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(processes)
    }
}
