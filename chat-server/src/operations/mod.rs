//! The use cases, one in each file: *check*, then *apply*. The socket and REST both call these.

mod accounts;
mod callers;
mod channels;
mod costs;
mod live_limits;
mod messages;
mod pages;
mod people;
mod postponed;
mod push;
mod server_info;
mod snapshot;
mod sync;
mod top;
mod trim;
mod turns;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use madang_auth::{Cursors, Passwords, Tokens};
use madang_bus::{Bus, Inbox};
use madang_engine::home::deleted_channel;
use madang_ids::{ChannelId, DeviceId, LeaseOver, Millis, NodeRun, Origin, Snowflakes, UserId};
use madang_presence::Presence;
use madang_proto::{ErrorBody, PresenceCounts};
use madang_push::Push;
use madang_service::{Check, Clock};
use madang_store::{Channel, ChannelState, LogStore, Store, StoreError, Upkeep, urgently};
use moka::future::Cache;

use crate::config::Config;
use crate::heat::Heats;
use crate::home::Homes;
use crate::metrics::ChatMetrics;
use crate::operators::Operators;
use crate::overload::{Bulkheads, Shedding};
use crate::refusal::Result;

pub use accounts::deletion::Deletions;
pub use accounts::devices::Revocations;
pub use accounts::export::{Export, Exports};
pub(crate) use accounts::guesses::GUESS_BYTES;
pub use accounts::guesses::Guesses;
pub use accounts::operators::{Account, InvitationCard};
pub(crate) use callers::RATE_BYTES;
pub use callers::{Callers, network};
pub use channels::group_invitations::DueInvitations;
pub use live_limits::LiveLimits;
pub(crate) use messages::events::TYPING_BYTES;
pub use messages::events::Writers;
pub use messages::message_changes::{Change, RequestTimes};
pub use messages::received::ReceivedMarks;
pub(crate) use messages::shared_reads::KEPT_BYTES as SHARED_READ_BYTES;
pub use messages::shared_reads::SharedReads;
pub use sync::{PAGE_BYTES, Standing, SyncPage};
pub use top::{TopChannel, TopPeriod, TopUser};
pub use turns::Turns;

/// Devices whose state is cached.
const DEVICES: u64 = 50_000;
/// The memory of all of them: 200 bytes each.
pub(crate) const DEVICE_BYTES: u64 = DEVICES * 200;
/// The memory of cached channel rows: 60,000 channels of a usual size, or 8,000 of the largest.
pub(crate) const CHANNEL_BYTES: u64 = 32 * 1024 * 1024;
/// How long the state of a device is cached. A revocation must take effect within five seconds (G5).
const DEVICE_KNOWN: Duration = Duration::from_secs(4);

/// Channels that are known to be absent, and for how long.
const ABSENT: u64 = 10_000;
const ABSENT_KNOWN: Duration = Duration::from_secs(1);
/// The memory of all of them: 100 bytes each.
pub(crate) const ABSENT_BYTES: u64 = ABSENT * 100;

/// Channels whose presence counts are cached, and for how long.
const COUNTS: u64 = 1_000;
const COUNTS_KNOWN: Duration = Duration::from_secs(3);

/// The caller of a use case, as the verified token names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user_id: UserId,
    /// The user's device.
    pub device_id: DeviceId,
    /// The connection, if the request came over a socket.
    pub origin: Option<Origin>,
}

/// Everything that the use cases need.
pub struct Operations {
    /// The logs of the store.
    pub logs: Arc<dyn LogStore>,
    /// Everything else in the store.
    pub store: Arc<dyn Store>,
    /// Removal of what is old; a store with times to live has none.
    pub upkeep: Option<Arc<dyn Upkeep>>,
    /// The inboxes.
    pub inbox: Arc<dyn Inbox>,
    /// The transport between nodes.
    pub bus: Arc<dyn Bus>,
    /// The times of changes that are not ordered by their log.
    pub times: RequestTimes,
    /// This node, and which life of it.
    pub node: NodeRun,
    /// The homes of this node.
    pub homes: Homes,
    /// Mints the ids of users, devices and channels.
    pub ids: Arc<Snowflakes>,
    pub clock: Clock,
    /// Mints and verifies access tokens.
    pub tokens: Tokens,
    /// Seals and opens the cursors of clients.
    pub cursors: Arc<Cursors>,
    /// Computes password hashes.
    pub passwords: Passwords,
    /// The rates of users and addresses.
    pub callers: Callers,
    /// The rate of passwords that are tried.
    pub guesses: Guesses,
    /// What channels cost, and how hot they are.
    pub heats: Arc<Heats>,
    /// What is refused because the node is overloaded.
    pub shedding: Arc<Shedding>,
    /// The bounds of calls of the store.
    pub bulkheads: Arc<Bulkheads>,
    /// The operators, and what they have set.
    pub operators: Arc<Operators>,
    /// Positions up to which devices have received, before they are written.
    pub received: ReceivedMarks,
    /// Devices that are being revoked.
    pub revocations: Revocations,
    /// Accounts that are being deleted.
    pub deletions: Deletions,
    /// Exports that are under way.
    pub exports: Exports,
    /// Invitations whose users' devices have not been notified.
    pub due_invitations: DueInvitations,
    /// When users were last published as writing.
    pub writers: Writers,
    /// Lets callers that change the same thing take turns.
    pub turns: Turns,
    /// The presence role.
    pub presence: Presence,
    /// The push role.
    pub push: Push,
    /// Held while alerts that were given up are sent again.
    pub sending_again: tokio::sync::Mutex<()>,
    /// Rows that were read before.
    pub known: Known,
    /// Pages of hot channels that were read a moment ago.
    pub shared_reads: SharedReads,
    /// The configuration.
    pub config: Arc<Config>,
    /// The metrics.
    pub metrics: ChatMetrics,
    /// Whether the store takes writes.
    pub store_health: Check,
}

/// Rows of the store that are kept in memory.
#[derive(Debug)]
pub struct Known {
    channels: Cache<ChannelId, Arc<Channel>>,
    /// Channels that were not there a moment ago. A client knows an id only once its channel is there.
    absent: Cache<ChannelId, ()>,
    /// Whether a device is valid, revoked or unknown.
    devices: Cache<DeviceId, accounts::devices::DeviceState>,
    /// Presence counts of large channels.
    counts: Cache<ChannelId, PresenceCounts>,
}

impl Default for Known {
    fn default() -> Self {
        let devices = Cache::builder().max_capacity(DEVICES).time_to_live(DEVICE_KNOWN).build();
        let counts = Cache::builder().max_capacity(COUNTS).time_to_live(COUNTS_KNOWN).build();
        let weigh = |_: &ChannelId, channel: &Arc<Channel>| channel_bytes(channel);
        let channels = Cache::builder().max_capacity(CHANNEL_BYTES).weigher(weigh).build();
        let absent = Cache::builder().max_capacity(ABSENT).time_to_live(ABSENT_KNOWN).build();
        Self { channels, absent, devices, counts }
    }
}

/// About the memory that a channel's row takes, in bytes.
fn channel_bytes(channel: &Channel) -> u32 {
    const AROUND_BYTES: usize = 512;
    let card = &channel.card;
    let texts = card.name.as_ref().map_or(0, String::len) + card.topic.len() + card.avatar.len();
    u32::try_from(AROUND_BYTES + texts + size_of_val(&channel.pins[..])).unwrap_or(u32::MAX)
}

impl Operations {
    /// A channel's row from the cache. Its details may have changed since; callers use only the parts that never change.
    ///
    /// A deleted channel is refused. The node that deletes a channel drops the row from its cache; on other nodes the home
    /// refuses commands for it.
    ///
    /// # Errors
    /// `not_found`, and those of the store.
    pub(crate) async fn channel(&self, id: ChannelId) -> Result<Arc<Channel>> {
        let not_found = || ErrorBody::not_found("channel_id");
        if self.known.absent.contains_key(&id) {
            return Err(not_found().into());
        }
        // A send may wait for this read, also if somebody else has begun it.
        let read = async {
            match urgently(self.store.channel(id)).await {
                Ok(Some(channel)) => Ok(Arc::new(channel)),
                Ok(None) => Err(None),
                Err(error) => Err(Some(error)),
            }
        };
        // Thousands who ask for it at the same moment cause one read.
        let found = self.known.channels.try_get_with(id, read).await;
        let channel = match found.map_err(|error: Arc<Option<StoreError>>| Option::clone(&error)) {
            Ok(channel) => channel,
            Err(Some(error)) => return Err(error.into()),
            Err(None) => {
                self.known.absent.insert(id, ()).await;
                return Err(not_found().into());
            }
        };
        check_not_deleted(&channel)?;
        Ok(channel)
    }

    fn mint(&self) -> Result<u64> {
        self.mint_row(1)
    }

    /// Mints `count` ids in a row, each greater by one. Returns the first.
    fn mint_row(&self, count: u64) -> Result<u64> {
        let now = (self.clock.now_ms(), self.clock.elapsed());
        let minted = self.ids.mint(now, Millis::ZERO, count);
        minted.map(|minted| minted.raw()).map_err(|LeaseOver| {
            ErrorBody::unavailable("this node is not registered at present; try again", 1_000).into()
        })
    }
}

/// Nobody can read a deleted channel, whatever role they had in it.
fn check_not_deleted(channel: &Channel) -> Result<(), ErrorBody> {
    match channel.state {
        ChannelState::Deleted => Err(deleted_channel()),
        ChannelState::Active | ChannelState::Archived => Ok(()),
    }
}
