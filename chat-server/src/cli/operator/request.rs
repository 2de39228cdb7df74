//! What an operator asks of a server, and the answers: one JSON object in a line each way.

use std::path::PathBuf;

use madang_ids::{ChannelId, DeviceId, Seq};
use madang_proto::ErrorBody;
use madang_proto::rest::{
    ActCard, ActQuery, AlertHistory, Board, DeadLetterCard, DeviceCard, ExportEnd, OperatorConfig,
    OperatorScope, Page, PushTest, RuntimeConfig, SignedIn,
};
use serde::{Deserialize, Serialize};

use crate::operations::{Account, InvitationCard, TopPeriod};
use crate::operators::OperatorCard;

/// A request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(in crate::cli) enum Ask {
    Token { handle: String, device_name: String },
    ResetPassword { handle: String, password: String, keep_devices: bool },
    Users(UsersAsk),
    Invitations(InvitationsAsk),
    Push(PushAsk),
    Operator(OperatorAsk),
    Config(ConfigAsk),
    Backup { to: PathBuf },
    Top { limit: usize },
}

/// A request about operators.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "operator", rename_all = "snake_case")]
pub(in crate::cli) enum OperatorAsk {
    Add { name: String, scope: OperatorScope },
    List,
    Remove { name: String },
    Board,
}

/// A request about the configuration that may change while the server runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "config", rename_all = "snake_case")]
pub(in crate::cli) enum ConfigAsk {
    Get,
    Set {
        wanted: Box<RuntimeConfig>,
        /// The version that is replaced; the present one by default.
        version: Option<u64>,
        why: String,
    },
    Diff {
        wanted: Box<RuntimeConfig>,
    },
    History(ActQuery),
}

/// A request about push notifications.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "push", rename_all = "snake_case")]
pub(in crate::cli) enum PushAsk {
    Test { handle: String },
    Why { handle: String, channel: ChannelId, seq: Seq },
    Dead { after: u64 },
    Redrive { id: Option<u64> },
}

/// A request about accounts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "users", rename_all = "snake_case")]
pub(in crate::cli) enum UsersAsk {
    List { prefix: String, after: String, limit: u32 },
    Show { handle: String },
    Create { handle: String, display_name: String, password: String },
    Disable { handle: String, is_disabled: bool },
    Delete { handle: String },
    Revoke { handle: String, device: Option<DeviceId> },
    Export { handle: String, to: PathBuf },
}

/// A request about invitations.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "invitations", rename_all = "snake_case")]
pub(in crate::cli) enum InvitationsAsk {
    Create { label: String, uses: u32, days: u32 },
    List { after: Option<String> },
    Revoke { id: String },
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum AdminAnswer {
    SignedIn(Box<SignedIn>),
    Accounts(Page<Account>),
    Account(Box<Account>),
    Devices(Vec<DeviceCard>),
    Exported(Box<ExportEnd>),
    Revoked(usize),
    Invitations(Page<InvitationCard>),
    Invitation(Box<InvitationCard>),
    BackedUp { position: u64, bytes: u64 },
    Top(Vec<TopPeriod>),
    PushTests(Vec<PushTest>),
    AlertHistory(AlertHistory),
    DeadLetters(Page<DeadLetterCard>),
    Redriven(usize),
    OperatorSecret(String),
    Operators(Vec<OperatorCard>),
    Board(Box<Board>),
    Config(Box<OperatorConfig>),
    Difference(String),
    Acts(Page<ActCard>),
    Done,
    Refused(ErrorBody),
}
