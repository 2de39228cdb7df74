//! What callers may do, one use case a file: *check*, then *apply*. The socket and REST both call these.

mod accounts;
mod blocks;
mod callers;
mod carried;
mod changes;
mod channel_settings;
mod channels;
mod consent;
mod contacts;
mod costs;
mod deletion;
mod details;
mod devices;
mod erasure;
mod events;
mod export;
mod guesses;
mod handles;
mod hidden;
mod history;
mod invitations;
mod members;
mod mentioned;
mod moderation;
mod names;
mod open;
mod operators;
mod pages;
mod passwords;
mod people;
mod postponed;
mod presence;
mod read;
mod received;
mod send;
mod server_info;
mod sign_in;
mod snapshot;
mod sync;
mod texts;
mod top;
mod trim;
mod turns;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use madang_auth::{Cursors, Passwords, Tokens};
use madang_bus::Inbox;
use madang_engine::home::deleted_channel;
use madang_ids::{ChannelId, ConnectionId, DeviceId, Millis, Snowflakes, UserId};
use madang_presence::Local;
use madang_proto::{ErrorBody, PresenceCounts};
use madang_service::{Check, Clock};
use madang_store::{Channel, ChannelState, Store};
use moka::future::Cache;

use crate::config::Config;
use crate::home::Homes;
use crate::metrics::ChatMetrics;
use crate::refusal::refusal;

pub(crate) use callers::RATE_BYTES;
pub use callers::{Callers, network};
pub use changes::Change;
pub use deletion::Deletions;
pub use devices::Revocations;
pub(crate) use events::TYPING_BYTES;
pub use events::Writers;
pub use export::{Export, Exports};
pub(crate) use guesses::GUESS_BYTES;
pub use guesses::Guesses;
pub use invitations::UntoldInvitations;
pub use operators::{Account, InvitationCard};
pub use received::ReceivedMarks;
pub use sync::{PAGE_BYTES, Standing, SyncPage};
pub use top::{TopChannel, TopPeriod, TopUser};
pub use turns::Turns;

/// Devices whose rows are kept in memory.
const DEVICES: u64 = 50_000;
/// All of them.
pub(crate) const DEVICE_BYTES: u64 = DEVICES * 200;
/// Channels whose rows are kept in memory: 60,000 of a usual size, 8,000 of the largest.
pub(crate) const CHANNEL_BYTES: u64 = 32 * 1024 * 1024;
/// How long a device is taken for valid without looking again; G5 allows five seconds.
const DEVICE_KNOWN: Duration = Duration::from_secs(4);

/// Channels whose counts of who is there are kept, and for how long.
const COUNTS: u64 = 1_000;
const COUNTS_KNOWN: Duration = Duration::from_secs(3);

/// Who asks, as the verified token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The person.
    pub user_id: UserId,
    /// Her device.
    pub device_id: DeviceId,
    /// The connection, if she asks over one.
    pub origin: Option<ConnectionId>,
}

/// Everything that the use cases stand on.
pub struct Operations {
    /// The durable model.
    pub store: Arc<dyn Store>,
    /// The inboxes.
    pub inbox: Arc<dyn Inbox>,
    /// The homes of this node.
    pub homes: Homes,
    /// Ids of users, devices and channels.
    pub ids: Arc<Snowflakes>,
    /// The clock.
    pub clock: Clock,
    /// Access tokens.
    pub tokens: Tokens,
    /// What cursors are to clients.
    pub cursors: Arc<Cursors>,
    /// Password hashes.
    pub passwords: Passwords,
    /// Rates of users and addresses.
    pub callers: Callers,
    /// Passwords that are tried.
    pub guesses: Guesses,
    /// How far devices have received, on its way to the store.
    pub received: ReceivedMarks,
    /// Devices that are being revoked.
    pub revocations: Revocations,
    /// Accounts that are being deleted.
    pub deletions: Deletions,
    /// Exports that are under way.
    pub exports: Exports,
    /// Invitations whose users' devices have not been notified.
    pub untold_invitations: UntoldInvitations,
    /// Who is writing.
    pub writers: Writers,
    /// Who changes what now.
    pub turns: Turns,
    /// Who is there.
    pub presence: Local,
    /// What was read before.
    pub known: Known,
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
    /// What they are.
    devices: Cache<DeviceId, devices::DeviceState>,
    /// Of large channels.
    counts: Cache<ChannelId, PresenceCounts>,
}

impl Default for Known {
    fn default() -> Self {
        let devices = Cache::builder().max_capacity(DEVICES).time_to_live(DEVICE_KNOWN).build();
        let counts = Cache::builder().max_capacity(COUNTS).time_to_live(COUNTS_KNOWN).build();
        let weigh = |_: &ChannelId, channel: &Arc<Channel>| channel_bytes(channel);
        let channels = Cache::builder().max_capacity(CHANNEL_BYTES).weigher(weigh).build();
        Self { channels, devices, counts }
    }
}

/// About what a channel's row takes in memory.
fn channel_bytes(channel: &Channel) -> u32 {
    const AROUND_BYTES: usize = 512;
    let card = &channel.card;
    let texts = card.name.as_ref().map_or(0, String::len) + card.topic.len() + card.avatar.len();
    u32::try_from(AROUND_BYTES + texts + size_of_val(&channel.pins[..])).unwrap_or(u32::MAX)
}

impl Operations {
    /// A channel's row, of which the details may have changed since: what is read from this cache are those parts that
    /// never do.
    ///
    /// A channel that was deleted is refused. A row that was read before the deletion is dropped where it was asked for;
    /// elsewhere the home refuses what it is asked.
    async fn channel(&self, id: ChannelId) -> Result<Arc<Channel>, ErrorBody> {
        let channel = match self.known.channels.get(&id).await {
            Some(channel) => channel,
            None => {
                let channel = self.store.channel(id).await.map_err(|error| refusal(&error))?;
                let channel = Arc::new(channel.ok_or_else(|| ErrorBody::not_found("channel_id"))?);
                self.known.channels.insert(id, Arc::clone(&channel)).await;
                channel
            }
        };
        check_not_deleted(&channel)?;
        Ok(channel)
    }

    fn mint(&self) -> u64 {
        self.mint_row(1)
    }

    /// Mints so many ids, each one above the one before; returns the first.
    fn mint_row(&self, count: u64) -> u64 {
        self.ids.mint(self.clock.now_ms(), Millis::ZERO, count).raw()
    }
}

/// Nobody reads a deleted channel, whatever they were in it.
fn check_not_deleted(channel: &Channel) -> Result<(), ErrorBody> {
    match channel.state {
        ChannelState::Deleted => Err(deleted_channel()),
        ChannelState::Active | ChannelState::Archived => Ok(()),
    }
}
