//! The store in memory, for simulation and transcripts: as weak as the weakest real one. Between two awaits anything
//! may happen; outcomes may be unknown, and an append of unknown outcome may still happen until a `tail` settles it;
//! changes of rows may be there without the rows that tell of them; a write to several partitions may be half done.
//! Everything is drawn from a seed, and nothing sleeps: a delay is a number of yields.

mod accounts;
mod channels;
mod commit_order;
mod contacts;
mod devices;
mod faults;
mod group_invitations;
mod invitations;
mod log;
mod mutants;
mod rows;
mod settings;
mod trim;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use madang_ids::{ChannelId, DeviceId, LogId, Millis, Seq, UserId};
use madang_proto::ChannelSettings;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::accounts::{Claim, User};
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
pub use mutants::Mutant;

/// Commits that wait in the feed before an append waits for its reader.
const FEED_COMMITS: usize = 1024;

/// How the model behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelConfig {
    /// Where its dice begin. The same seed and the same calls give the same run.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Faults,
}

/// The store in memory.
#[derive(Debug)]
pub struct Model {
    state: Mutex<State>,
    dice: Mutex<Dice>,
    feed: mpsc::Sender<Commit>,
    /// Only the mutants of the feed put something here.
    held: Mutex<Option<Commit>>,
    mutant: Option<Mutant>,
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
    /// Channels that one more read shows as they were; only a mutant puts something here.
    old_channels: Mutex<BTreeMap<ChannelId, Channel>>,
    seats: BTreeMap<ChannelId, Seats>,
    members: BTreeMap<(ChannelId, UserId), Member>,
    memberships: BTreeMap<(UserId, ChannelId), Membership>,
    /// The position at which a channel was left.
    left_at: BTreeMap<(UserId, ChannelId), u64>,
    /// Rows of inboxes up to here may be gone, with stays that are forgotten.
    forgotten_upto: BTreeMap<UserId, u64>,
    markers: BTreeMap<(UserId, ChannelId), Marker>,
    /// Whom messages mention, with the sender; `None` is everybody.
    mentions: BTreeMap<(ChannelId, Option<UserId>, Seq), UserId>,
    reactions: BTreeMap<(ChannelId, Seq, String), BTreeSet<UserId>>,
    handles: BTreeMap<String, UserId>,
    kept_handles: BTreeMap<String, Millis>,
    deletions: BTreeSet<UserId>,
    invitations: BTreeMap<[u8; 32], (Invitation, BTreeSet<UserId>)>,
    sign_in_revs: BTreeMap<UserId, u64>,
    users: BTreeMap<UserId, (User, String)>,
    devices: BTreeMap<DeviceId, Device>,
    refresh: BTreeMap<DeviceId, Refresh>,
    /// The device of each token that was ever put.
    refresh_index: BTreeMap<[u8; 32], DeviceId>,
    blocks: BTreeSet<(UserId, UserId)>,
    claims: BTreeMap<(String, String), Claim>,
    /// The list of each user: what is known there of the pairs.
    contacts: BTreeMap<(UserId, UserId), Contact>,
    /// The pairs, by the lower id first, as the lower one sees them.
    pairs: BTreeMap<(UserId, UserId), Contact>,
    presence: BTreeMap<UserId, PresenceRow>,
    settings: BTreeMap<(UserId, ChannelId), ChannelSettings>,
    hidden: BTreeSet<(UserId, ChannelId, Seq)>,
    erasures: BTreeMap<ChannelId, Erasure>,
    group_invitations: BTreeMap<(UserId, ChannelId), GroupInvitation>,
    /// Writes so far, for mutants that do something every so often.
    appends: u64,
}

#[derive(Debug, Default)]
struct Log {
    head: Head,
    head_before: Head,
    rows: Vec<Stored>,
    /// Rows that were forgotten before these.
    trimmed: u64,
    /// Appends of unknown outcome that may still happen.
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

    /// A store with a fault of the programmer in it, to see that the suite finds it.
    #[must_use]
    pub fn with_mutant(config: ModelConfig, mutant: Option<Mutant>) -> Arc<Self> {
        let (feed, receiver) = mpsc::channel(FEED_COMMITS);
        let state = State { feed: Some(receiver), ..State::default() };
        let dice = Mutex::new(Dice::new(config.seed, config.faults));
        Arc::new(Self { state: Mutex::new(state), dice, feed, held: Mutex::new(None), mutant })
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.dice.lock().set_faults(faults);
    }

    /// What becomes of the next append to `log`, whatever the dice say. Several are taken in turn.
    pub fn script(&self, log: LogId, fate: Fate) {
        self.dice.lock().script(log, fate);
    }

    fn is_mutant(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Lets others go first, as often as the dice say.
    async fn delay(&self) {
        let yields = self.dice.lock().yields();
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

    /// A write to one partition: done or not, and known or not.
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

    /// A write to several partitions, one after the other. What fails in between leaves the first ones done.
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
