//! The connection to Redis that everything shares: calls are bounded in time, and fail at once while the server is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use madang_store::{StoreError, StoreResult};
use parking_lot::RwLock;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ErrorKind, IntoConnectionInfo, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::scripts;
use crate::config::BusConfig;

/// How long a call may take: the wait for the connection, the server's work, and the answer. A server that is failed over answers
/// after seconds; nothing in this crate waits for that.
pub(super) const CALL: Duration =
    Duration::from_secs(if cfg!(feature = "conformance") { PATIENT } else { 1 });
/// The same in the suites, on machines that may stop for more than a second.
const PATIENT: u64 = 10;
/// The pause between two probes of a server that is gone.
const PROBE: Duration = Duration::from_millis(200);
/// Commands of one pipeline. A longer one would hold up the calls behind it.
pub(super) const PIPELINE: usize = 256;

/// A connection to one server. A clone shares it.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    client: Client,
    /// Replaced when the server does not answer: after a call that was not answered in time the connection may be half-open, and the
    /// manager would keep it.
    manager: RwLock<ConnectionManager>,
    /// The last call was answered, whatever the answer.
    is_up: AtomicBool,
    /// Wakes the prober.
    went_down: Notify,
    /// Wakes those who wait for the server.
    came_up: Notify,
}

/// A manager connects again whenever a call finds its connection broken. It does not retry: [`Redis::probe`] does, and callers fail
/// meanwhile.
fn manager_of(client: &Client) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(CALL))
        .set_response_timeout(Some(CALL));
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("is_up", &self.is_up()).finish_non_exhaustive()
    }
}

impl Redis {
    /// A connection, which is made by its first call. The caller runs [`Redis::probe`] as a task.
    ///
    /// # Errors
    /// The address is not one of Redis, or the password cannot be read.
    pub fn open(config: &BusConfig) -> StoreResult<Self> {
        // The text of the error may contain the URL, and with it the password.
        let invalid =
            |_: RedisError| StoreError::Unavailable("bus.url is not the address of a Redis server".into());
        let mut info = config.url.as_str().into_connection_info().map_err(invalid)?;
        if !config.password_file.as_os_str().is_empty() {
            let password = std::fs::read_to_string(&config.password_file)
                .map_err(|error| StoreError::Unavailable(format!("bus.password_file: {error}")))?;
            let settings = info.redis_settings().clone().set_password(password.trim_end());
            info = info.set_redis_settings(settings);
        }
        let client = Client::open(info).map_err(invalid)?;
        let manager = manager_of(&client).map_err(invalid)?;
        Ok(Self(Arc::new(Inner {
            client,
            manager: RwLock::new(manager),
            is_up: AtomicBool::new(true),
            went_down: Notify::new(),
            came_up: Notify::new(),
        })))
    }

    /// Looks for a server that is gone until it answers; never returns.
    pub async fn probe(self) {
        loop {
            self.0.went_down.notified().await;
            while !self.is_up() {
                sleep(PROBE).await;
                let Ok(mut manager) = manager_of(&self.0.client) else { continue };
                let answer = timeout(CALL, redis::cmd("PING").exec_async(&mut manager)).await;
                if matches!(answer, Ok(Ok(()))) {
                    tracing::info!("Redis answers again");
                    *self.0.manager.write() = manager;
                    self.0.is_up.store(true, Ordering::Release);
                    self.0.came_up.notify_waiters();
                }
            }
        }
    }

    /// Removes everything from the server of a test.
    ///
    /// # Errors
    /// Redis does not answer.
    #[cfg(feature = "conformance")]
    pub async fn empty(&self) -> StoreResult<()> {
        self.command(&redis::cmd("FLUSHALL")).await.map(drop)
    }

    /// Asks the server whether it is there.
    ///
    /// # Errors
    /// It is not.
    pub async fn ping(&self) -> StoreResult<()> {
        self.command(&redis::cmd("PING")).await.map(drop)
    }

    /// Whether the server answered the last call.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.is_up.load(Ordering::Acquire)
    }

    /// Waits until the server answers, at most for `patience`. Cancel safe.
    pub(super) async fn answers(&self, patience: Duration) {
        let came_up = self.0.came_up.notified();
        if !self.is_up() {
            let _ = timeout(patience, came_up).await;
        }
    }

    /// A client for a connection of its own, such as one that blocks.
    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }

    /// One command.
    pub(super) async fn command(&self, command: &Cmd) -> StoreResult<Value> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command.clone());
        let mut values = self.pipeline(&pipeline).await?;
        Ok(values.pop().unwrap_or(Value::Nil))
    }

    /// Commands, sent together and answered in their order. Fails if one of them fails, and others may have been executed then:
    /// every command of this crate may be repeated.
    pub(super) async fn pipeline(&self, pipeline: &Pipeline) -> StoreResult<Vec<Value>> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        if !self.is_up() {
            return Err(StoreError::Unavailable("Redis does not answer".into()));
        }
        match self.try_pipeline(pipeline).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                // The server was started again, or is another one.
                self.checked(self.try_pipeline(&scripts::load_all()).await)?;
                self.checked(self.try_pipeline(pipeline).await)
            }
            answer => self.checked(answer),
        }
    }

    async fn try_pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let mut manager = self.0.manager.read().clone();
        match timeout(CALL, pipeline.query_async(&mut manager)).await {
            Ok(answer) => answer,
            Err(_) => Err(RedisError::from((ErrorKind::Io, "no answer in time"))),
        }
    }

    fn checked(&self, answer: Result<Vec<Value>, RedisError>) -> StoreResult<Vec<Value>> {
        answer.map_err(|error| {
            // Any other error is an answer of a server that is there, such as `OOM` or `READONLY`.
            if (error.is_io_error() || error.is_timeout() || error.is_connection_dropped())
                && self.0.is_up.swap(false, Ordering::AcqRel)
            {
                tracing::warn!(%error, "Redis does not answer");
                self.0.went_down.notify_one();
            }
            StoreError::Unavailable(format!("Redis: {error}"))
        })
    }
}
