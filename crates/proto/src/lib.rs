//! The client wire, defined in one place: frames of the socket, bodies of REST, error codes, close reasons, limits.
//!
//! Everything here is data. `docs/protocol.md` says what it means, and a test of this crate parses the examples of that
//! page.
#![warn(missing_docs)]

mod alerts;
mod cards;
mod channel_settings;
mod client_frame;
mod close;
mod consent;
mod entry;
mod error;
mod heat;
pub mod json;
pub mod limits;
mod own_log;
mod presence;
mod reactions;
pub mod rest;
mod server_frame;

pub use alerts::{
    AlertLevel, AlertNote, AlertOutcome, AlertPreview, AlertSettings, ApnsEnvironment, PushProvider,
    PushTarget, QuietHours, WebPushKeys,
};
pub use cards::{ChannelCard, ChannelKind, Role, UserCard};
pub use channel_settings::ChannelSettings;
pub use client_frame::{ClientFrame, Edit, Hello, KINDS, Mode, ParseError, Request, RequestId, Send};
pub use close::CloseReason;
pub use consent::{AccountSettings, Audience, InvitationCard};
pub use entry::{Body, Change, ChangeOf, Content, DeletionMark, EditMark, Entry, Message, Unreadable};
pub use error::{ErrorBody, ErrorCode};
pub use heat::{CapacityConfig, Costs, HeatConfig, HeatLevel, LevelPacing, Pacing, PacingConfig};
pub use json::Data;
pub use own_log::{JoinedState, UnreadMentions};
pub use presence::{
    Availability, ContactCard, ContactState, PresenceCounts, PresenceList, PresenceQuery, SetPresence,
    UserPresence,
};
pub use reactions::{ReactedState, Reaction, ReactionsChange};
pub use server_frame::{Ack, Changed, ChannelHead, LogKind, Resume, ServerFrame, SnapshotReason, Welcome};

/// The WebSocket subprotocol of JSON text frames.
pub const SUBPROTOCOL_JSON: &str = "madang.v1.json";
