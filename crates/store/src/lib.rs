//! The durable model behind every role: one log per channel, appended by compare-and-set on its head, and the rows
//! around it. The store alone arbitrates order; every other part may be wrong, late or dead.
//!
//! Three implementations stand behind these traits: [`embedded`] (SQLite, one process), [`model`] (memory, with delayed and
//! unknown outcomes and no atomicity across partitions, for simulation and transcripts), and `scylla` (CQL, for a fleet).
//! All pass the suite in [`conformance`].
#![warn(missing_docs)]

mod accounts;
mod acts;
mod alerts;
mod channels;
mod commit_order;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contacts;
mod devices;
mod directory;
pub mod embedded;
mod erasure;
mod error;
mod group_invitations;
#[cfg(any(feature = "model", feature = "scylla"))]
mod group_invitations_of_user;
mod invitations;
mod lane;
mod log;
#[cfg(feature = "model")]
pub mod model;
mod push;
#[cfg(feature = "scylla")]
pub mod scylla;
mod settings;
mod shared_rows;
mod trim;
mod upkeep;
mod waits;

pub use accounts::{AccountStore, Claim, Claimed, Created, Credentials, Profile, User, UserState};
pub use acts::{Act, ActStore};
pub use alerts::{AlertEvent, AlertOutbox, AlertQueue, OutstandingChange, Unmade};
pub use channels::{
    Channel, ChannelStore, Member, Membership, Overview, OverviewOrder, Pending, PendingChange, SeatChange,
    SeatOutcome, Seating, Seats,
};
pub use commit_order::{Commit, CommitFeed, CommitOrder, EpochRow, Scan, ScanItem};
pub use config::{StoreConfig, StoreKind};
pub use contacts::{
    Contact, ContactLimits, ContactOutcome, ContactStore, PresenceChange, PresenceRow, PutContact, Relation,
    Relations,
};
pub use devices::{Device, DeviceStore, PutDevice, REVOKED_KEPT, Refresh, Replaced, Rotated};
pub use directory::{DirectoryStore, FoundChannel, FoundPage};
pub use erasure::{Erasure, ErasureStore};
pub use error::{StoreError, StoreResult};
pub use group_invitations::{
    Ending, GroupInvitation, GroupInvitationLimits, GroupInvitationState, GroupInvitationStore,
    OpenInvitation,
};
pub use invitations::{Invitation, InvitationStore};
pub use lane::{patiently, urgently};
pub use log::{
    Append, AppendOutcome, BodyHash, ChannelState, Consequences, Deleted, Details, Head, LogStore,
    MAX_APPEND_BYTES, MAX_APPEND_ROWS, Marker, Mention, MentionPlace, Mentions, OwnReactions, ReactionChange,
    ReactionPlace, Row, RowChange, RowKey, SendRecord, SentRows, Tail,
};
pub use madang_engine::spans::{Span, Spans};
pub use push::{
    AlertFacts, AlertMessages, BADGE_CHANNELS, DeadLetter, NOTES_KEPT, NOTES_KEPT_DAYS, NoteOf, PushStore,
    Subscription,
};
pub use settings::SettingStore;
pub use shared_rows::SharedRows;
pub use trim::{TrimStep, TrimStore, Trimmed};
pub use upkeep::Upkeep;
pub use waits::{Waited, Waits};

/// Everything durable.
pub trait Store:
    AccountStore
    + ActStore
    + ChannelStore
    + ContactStore
    + DeviceStore
    + DirectoryStore
    + ErasureStore
    + GroupInvitationStore
    + InvitationStore
    + LogStore
    + PushStore
    + SettingStore
    + TrimStore
{
}

impl<T> Store for T where
    T: AccountStore
        + ActStore
        + ChannelStore
        + ContactStore
        + DeviceStore
        + DirectoryStore
        + ErasureStore
        + GroupInvitationStore
        + InvitationStore
        + LogStore
        + PushStore
        + SettingStore
        + TrimStore
{
}
