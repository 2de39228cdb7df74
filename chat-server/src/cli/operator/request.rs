//! What an operator asks of a server, and the answers: one JSON object in a line each way.

use std::path::PathBuf;

use madang_ids::DeviceId;
use madang_proto::ErrorBody;
use madang_proto::rest::{DeviceCard, ExportEnd, Page, SignedIn};
use serde::{Deserialize, Serialize};

use crate::operations::{Account, InvitationCard, TopPeriod};

/// A request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(in crate::cli) enum Ask {
    Token { handle: String, device_name: String },
    ResetPassword { handle: String, password: String, keep_devices: bool },
    Users(UsersAsk),
    Invitations(InvitationsAsk),
    Backup { to: PathBuf },
    Top { limit: usize },
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
    Done,
    Refused(ErrorBody),
}
