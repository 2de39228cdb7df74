//! The store in memory, for simulation and transcripts. It is as weak as the weakest real store. Anything may happen
//! between two awaits; outcomes may be unknown, and an append of unknown outcome may still take effect until a `tail`
//! settles it; changes of rows may exist without the rows that record them; a write to several partitions may be
//! incomplete. Everything is drawn from a seed, and nothing sleeps: a delay is a number of yields.

mod accounts;
mod acts;
mod channels;
mod commit_order;
mod contacts;
mod devices;
mod faults;
mod group_invitations;
mod invitations;
mod journal;
mod log;
mod mutants;
mod push;
mod rows;
mod settings;
mod trim;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use madang_ids::{ChannelId, DeviceId, LogId, Millis, Seq, UserId};
use madang_proto::ChannelSettings;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::accounts::{Claim, User};
use crate::acts::Act;
use crate::channels::{Channel, Member, Membership, Seats};
use crate::commit_order::{Commit, CommitFeed, EpochRow};
use crate::contacts::{Contact, PresenceRow};
use crate::devices::{Device, Refresh};
use crate::erasure::Erasure;
use crate::error::{StoreError, StoreResult};
use crate::group_invitations::GroupInvitation;
use crate::invitations::Invitation;
use crate::log::{Append, Head, Marker, Row, SendRecord};

use faults::Dice;
pub use faults::{Fate, Faults};
pub use journal::Call;
use journal::Journal;
pub use mutants::Mutant;
use push::{AlertSwitch, Pushed};

/// Most commits in the feed. Beyond that an append waits for the reader of the feed.
const FEED_COMMITS: usize = 1024;

/// Settings of the model.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelConfig {
    /// Seed of the random generator. The same seed and the same calls give the same run.
    pub seed: u64,
    /// Rates of faults.
    pub faults: Faults,
}

/// The store in memory.
#[derive(Debug)]
pub struct Model {
    state: Mutex<State>,
    dice: Mutex<Dice>,
    feed: mpsc::Sender<Commit>,
    /// A commit that is held back. Only the mutants of the feed use it.
    held: Mutex<Option<Commit>>,
    mutant: Option<Mutant>,
    journal: Journal,
    alerts: AlertSwitch,
    /// The shard whose logs do not answer.
    stalled: watch::Sender<Option<u64>>,
}

#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<LogId, Log>,
    position: u64,
    feed: Option<CommitFeed>,
    feed_is_taken: bool,
    epochs: Vec<EpochRow>,
    sends: BTreeMap<(ChannelId, UserId, u128), SendRecord>,
    channels: BTreeMap<ChannelId, Channel>,
    directs: BTreeMap<(UserId, UserId), ChannelId>,
    /// Channels of which the next read returns the old row. Only a mutant uses it.
    old_channels: Mutex<BTreeMap<ChannelId, Channel>>,
    seats: BTreeMap<ChannelId, Seats>,
    members: BTreeMap<(ChannelId, UserId), Member>,
    memberships: BTreeMap<(UserId, ChannelId), Membership>,
    /// The position at which the user left the channel.
    left_at: BTreeMap<(UserId, ChannelId), u64>,
    /// Rows of the user's inbox up to this position may be missing, because stays were forgotten.
    forgotten_upto: BTreeMap<UserId, u64>,
    markers: BTreeMap<(UserId, ChannelId), Marker>,
    /// Mentioned users with the sender of the message; `None` means everybody.
    mentions: BTreeMap<(ChannelId, Option<UserId>, Seq), UserId>,
    reactions: BTreeMap<(ChannelId, Seq, String), BTreeSet<UserId>>,
    /// The times of the last changes.
    reacted: BTreeMap<((ChannelId, Seq, String), UserId), u64>,
    handles: BTreeMap<String, UserId>,
    kept_handles: BTreeMap<String, Millis>,
    deletions: BTreeSet<UserId>,
    invitations: BTreeMap<[u8; 32], (Invitation, BTreeSet<UserId>)>,
    acts: Vec<Act>,
    sign_in_revs: BTreeMap<UserId, u64>,
    users: BTreeMap<UserId, (User, String)>,
    devices: BTreeMap<DeviceId, Device>,
    refresh: BTreeMap<DeviceId, Refresh>,
    /// The device of each token that was ever put.
    refresh_index: BTreeMap<[u8; 32], DeviceId>,
    blocks: BTreeSet<(UserId, UserId)>,
    claims: BTreeMap<(String, String), Claim>,
    /// The list of each user: what the list contains of each pair.
    contacts: BTreeMap<(UserId, UserId), Contact>,
    /// The pairs. The key has the lower id first, and the row is as the user with the lower id sees it.
    pairs: BTreeMap<(UserId, UserId), Contact>,
    presence: BTreeMap<UserId, PresenceRow>,
    settings: BTreeMap<(UserId, ChannelId), ChannelSettings>,
    hidden: BTreeSet<(UserId, ChannelId, Seq)>,
    erasures: BTreeMap<ChannelId, Erasure>,
    group_invitations: BTreeMap<(UserId, ChannelId), GroupInvitation>,
    push: Pushed,
    /// Number of appends so far, for mutants that act on every n-th append.
    appends: u64,
}

#[derive(Debug, Default)]
struct Log {
    head: Head,
    head_before: Head,
    rows: Vec<Stored>,
    /// Number of rows that were trimmed before these.
    trimmed: u64,
    /// Appends of unknown outcome that may still take effect.
    late: Vec<Append>,
}

#[derive(Debug, Clone)]
struct Stored {
    row: Row,
    position: u64,
    version: u32,
}

impl Model {
    /// An empty store.
    #[must_use]
    pub fn new(config: ModelConfig) -> Arc<Self> {
        Self::with_mutant(config, None)
    }

    /// A store with a planted error, to check that the suite finds it.
    #[must_use]
    pub fn with_mutant(config: ModelConfig, mutant: Option<Mutant>) -> Arc<Self> {
        let (feed, receiver) = mpsc::channel(FEED_COMMITS);
        let state = State { feed: Some(receiver), ..State::default() };
        let dice = Mutex::new(Dice::new(config.seed, config.faults));
        Arc::new(Self {
            state: Mutex::new(state),
            dice,
            feed,
            held: Mutex::new(None),
            mutant,
            journal: Journal::default(),
            alerts: AlertSwitch::default(),
            stalled: watch::Sender::default(),
        })
    }

    /// Sets the rates of faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.dice.lock().set_faults(faults);
    }

    /// Sets the fate of the next append to `log`, in place of a random one. Several calls are used in order.
    pub fn script(&self, log: LogId, fate: Fate) {
        self.dice.lock().script(log, fate);
    }

    /// From now on calls of logs in this shard wait; with `None` all go on.
    pub fn stall(&self, shard: Option<u64>) {
        self.stalled.send_replace(shard);
    }

    /// Waits while the shard of a log is stalled.
    async fn reach(&self, log: LogId) {
        let mut stalled = self.stalled.subscribe();
        // The sender is a part of this store.
        let _ = stalled.wait_for(|stalled| *stalled != Some(log::shard_of(log))).await;
    }

    /// Begins to record which methods are called, and returns those since the last time. While they are recorded each call yields,
    /// so that calls that are made at once are in one round.
    pub fn take_calls(&self) -> Vec<Call> {
        self.journal.restart()
    }

    fn is_mutant(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Yields to other tasks a random number of times.
    async fn delay(&self) {
        let yields = self.dice.lock().yields().max(if self.journal.is_on() { 3 } else { 0 });
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
    }

    async fn read<T>(&self, job: impl FnOnce(&State) -> T) -> StoreResult<T> {
        self.delay().await;
        if self.dice.lock().is_unavailable() {
            return Err(unavailable());
        }
        let answer = job(&self.state.lock());
        Ok(answer)
    }

    /// A write to one partition. It may fail, and its outcome may be unknown.
    async fn write<T>(&self, job: impl FnOnce(&mut State) -> T) -> StoreResult<T> {
        self.delay().await;
        let fate = self.dice.lock().fate();
        match fate {
            Fate::Done => Ok(job(&mut self.state.lock())),
            Fate::Unavailable => Err(unavailable()),
            Fate::UnknownDone | Fate::UnknownLate => {
                job(&mut self.state.lock());
                Err(unknown())
            }
            Fate::UnknownLost | Fate::UnknownChangesOnly => Err(unknown()),
        }
    }

    /// Writes to several partitions, one after another. A failure in between leaves the earlier ones written.
    async fn write_each<I>(&self, items: &[I], job: impl Fn(&mut State, &I)) -> StoreResult<()> {
        for (index, item) in items.iter().enumerate() {
            match self.write(|state| job(state, item)).await {
                Err(StoreError::Unavailable(why)) if index > 0 => return Err(StoreError::Unknown(why)),
                outcome => outcome?,
            }
        }
        Ok(())
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("the model says so".into())
}

fn unknown() -> StoreError {
    StoreError::Unknown("the model says so".into())
}
