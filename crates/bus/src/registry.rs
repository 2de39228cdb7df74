//! Which processes of a fleet are alive: each registers its card, and keeps it by a lease.
//!
//! [`MemoryRegistry`] serves one process and tests; the one of a fleet is `RedisRegistry` (feature `redis`). Time is judged by
//! the registry alone, so the clocks of the processes need not agree.

mod memory;
#[cfg(feature = "redis")]
mod redis;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use madang_ids::{NodeEpoch, NodeId};
use serde::{Deserialize, Serialize};

pub use memory::MemoryRegistry;
#[cfg(feature = "redis")]
pub use redis::RedisRegistry;

/// Longest name, region and version of a card, in bytes.
pub const CARD_TEXT_BYTES: usize = 128;
/// Longest URL of a card, in bytes.
pub const CARD_URL_BYTES: usize = 512;
/// Most processes in a view. Above it some are left out.
pub const VIEW_PROCESSES: usize = 4_096;
/// Epochs are numbers that a double represents exactly, because scripts of Redis compare them.
const EPOCH_END: u64 = 1 << 53;

/// What a process does in the fleet. Numbers and names of processes are unique within their role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Accepts sockets.
    Chat,
    /// Knows who is online.
    Presence,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chat => "chat",
            Self::Presence => "presence",
        })
    }
}

/// One life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessRun {
    /// Its role.
    pub role: Role,
    /// Its number.
    pub id: NodeId,
    /// Its life: a later process with the same number has a higher one. Below 2^53.
    pub epoch: NodeEpoch,
}

/// What a process says about itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessCard {
    /// Its number and life.
    #[serde(flatten)]
    pub run: ProcessRun,
    /// Its name, unique within its role; from the configuration.
    pub name: String,
    /// Its public URL, such as `wss://chat-1.example`. Empty: the processes share one URL behind a load balancer.
    #[serde(default)]
    pub url: String,
    /// Where it is; clients of the same region are preferred. May be empty.
    #[serde(default)]
    pub region: String,
    /// Most connections that it accepts.
    #[serde(default)]
    pub capacity: u32,
    /// The version of its program.
    #[serde(default)]
    pub version: String,
}

impl ProcessCard {
    /// Checks the lengths and the epoch.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`].
    pub fn check(&self) -> Result<(), RegistryError> {
        let fits = |text: &str| text.len() <= CARD_TEXT_BYTES;
        match self {
            Self { name, .. } if name.is_empty() || !fits(name) => {
                Err(RegistryError::Invalid("the name must have 1 to 128 bytes".into()))
            }
            Self { url, .. } if url.len() > CARD_URL_BYTES => {
                Err(RegistryError::Invalid("the URL is longer than 512 bytes".into()))
            }
            Self { region, version, .. } if !fits(region) || !fits(version) => {
                Err(RegistryError::Invalid("region and version must have at most 128 bytes".into()))
            }
            Self { run, .. } if run.epoch.0 >= EPOCH_END => {
                Err(RegistryError::Invalid("the epoch must be below 2^53".into()))
            }
            _ => Ok(()),
        }
    }
}

/// What a process reports with every renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessState {
    /// Its open connections.
    pub load: u32,
    /// Whether it accepts no new work and will leave.
    pub is_draining: bool,
}

/// A process whose lease has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveProcess {
    /// What it registered.
    pub card: ProcessCard,
    /// What it reported last.
    pub state: ProcessState,
    /// Rises with every registration and renewal of the process.
    pub renewal: u64,
}

/// What a registry knows at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryView {
    /// Changes when the registry has lost its data: Redis was restarted empty. Processes that are missing then may be alive.
    pub incarnation: u64,
    /// The processes whose lease has not ended, in no order; at most [`VIEW_PROCESSES`].
    pub processes: Vec<LiveProcess>,
}

/// What a renewal has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Renewal {
    /// The lease is prolonged.
    Kept,
    /// The registry does not know this process, or its lease has ended: it must register again. So it is after a restart of
    /// Redis without its data.
    Unknown,
}

/// Why the registry has not done what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// A later life of the same number has registered. This process must not go on under its number.
    #[error("a later process has the same number: its epoch is {known}", known = known.0)]
    OlderEpoch {
        /// The epoch of the later process.
        known: NodeEpoch,
    },
    /// Another live process of the same role has this name. If it has crashed, its lease ends soon.
    #[error("another live process has the same name: it is number {id}; names must be unique in the fleet", id = id.0)]
    NameTaken {
        /// The number of the process that has the name.
        id: NodeId,
    },
    /// The card breaks a rule.
    #[error("invalid registration: {0}")]
    Invalid(Cow<'static, str>),
    /// The registry did not answer in time. Whether it has done what was asked for is unknown; every call may be repeated.
    #[error("the registry is unavailable: {0}")]
    Unavailable(String),
}

/// The live processes of a fleet. Every call ends within 2 s and is cancel safe: it may or may not have had its effect.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Registers a process for the time of `lease`, or replaces what it registered before. From then on earlier lives of its
    /// number are refused, for an hour after the end of its lease.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn register(
        &self,
        card: &ProcessCard,
        state: ProcessState,
        lease: Duration,
    ) -> Result<(), RegistryError>;

    /// Prolongs a lease: it ends `lease` from now.
    ///
    /// # Errors
    /// [`RegistryError::OlderEpoch`], [`RegistryError::Unavailable`].
    async fn renew(
        &self,
        run: ProcessRun,
        state: ProcessState,
        lease: Duration,
    ) -> Result<Renewal, RegistryError>;

    /// Ends a lease now. Does nothing for an earlier life of the number.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`].
    async fn leave(&self, run: ProcessRun) -> Result<(), RegistryError>;

    /// The live processes.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`].
    async fn view(&self) -> Result<RegistryView, RegistryError>;

    /// Whether `id` is used for the first time. The registry remembers it for `ttl`, which must reach beyond the time at
    /// which the ticket expires; otherwise it could be used again.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`]: the ticket must not be accepted.
    async fn use_ticket(&self, id: &str, ttl: Duration) -> Result<bool, RegistryError>;
}
