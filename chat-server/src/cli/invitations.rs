//! `madang invitations`: codes that let people sign up.

use std::path::Path;

use clap::{Args, Subcommand};

use super::answers::Common;
use super::operator::{Ask, InvitationsAsk};

/// Manage invitations to sign up.
#[derive(Debug, Subcommand)]
pub(super) enum Invitations {
    /// Create an invitation. Its code is printed once and is not stored.
    Create(Create),
    /// List all invitations, one page at a time.
    List(List),
    /// Revoke an invitation.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Number of users who may sign up with it.
    #[arg(long, default_value_t = 1)]
    uses: u32,
    /// Days until it expires.
    #[arg(long, default_value_t = 7)]
    days: u32,
    /// A note for yourself.
    #[arg(long, default_value = "")]
    label: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only invitations after this id, the last id of the previous page.
    #[arg(long)]
    after: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// The id that `list` shows.
    id: String,
    #[command(flatten)]
    common: Common,
}

impl Invitations {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let (ask, common) = match self {
            Self::Create(Create { uses, days, label, common }) => {
                (InvitationsAsk::Create { label, uses, days }, common)
            }
            Self::List(List { after, common }) => (InvitationsAsk::List { after }, common),
            Self::Revoke(Revoke { id, common }) => (InvitationsAsk::Revoke { id }, common),
        };
        common.ask(config, Ask::Invitations(ask), |answer| answer)
    }
}
