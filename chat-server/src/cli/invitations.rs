//! `madang invitations`: codes that let people sign up.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};
use madang_proto::ErrorBody;
use serde::{Deserialize, Serialize};

use super::operator::{Ask, Told, ask_folder};
use crate::operations::{InvitationCard, Operations};

/// What to do with invitations.
#[derive(Debug, Subcommand)]
pub(super) enum Invitations {
    /// Make an invitation. Its code is shown once and kept nowhere.
    Create(Create),
    /// All invitations, a page at a time.
    List(List),
    /// Take an invitation back.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(super) struct Common {
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// How many people may sign up with it.
    #[arg(long, default_value_t = 1)]
    uses: u32,
    /// How many days it lasts.
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
    /// Only those after this id, the last of the page before.
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

/// What a server is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "invitations", rename_all = "snake_case")]
pub(super) enum InvitationsAsk {
    Create { label: String, uses: u32, days: u32 },
    List { after: Option<String> },
    Revoke { id: String },
}

impl Invitations {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let (ask, Common { json, data }) = match self {
            Self::Create(Create { uses, days, label, common }) => {
                (InvitationsAsk::Create { label, uses, days }, common)
            }
            Self::List(List { after, common }) => (InvitationsAsk::List { after }, common),
            Self::Revoke(Revoke { id, common }) => (InvitationsAsk::Revoke { id }, common),
        };
        match ask_folder(config, data, Ask::Invitations(ask))? {
            Told::Refused(error) => bail!("{error}"),
            Told::Invitation(made) if json => say!("{}", serde_json::to_string(&made)?),
            Told::Invitation(made) => say!("{}", made.code.unwrap_or_default()),
            Told::Invitations(page) if json => say!("{}", serde_json::to_string(&page)?),
            Told::Invitations(page) => {
                page.items.iter().for_each(show_line);
                if let Some(next) = page.next {
                    eprintln!("there may be more: --after {next}");
                }
            }
            _ if json => say!("{{}}"),
            _ => eprintln!("done"),
        }
        Ok(())
    }
}

fn show_line(one: &InvitationCard) {
    say!("{}\t{}/{}\t{}\t{}", one.id, one.used, one.uses, one.ends_at.get(), one.label);
}

/// Carries out what an operator asks.
pub(super) async fn tell(operations: &Operations, ask: InvitationsAsk) -> Result<Told, ErrorBody> {
    match ask {
        InvitationsAsk::Create { label, uses, days } => {
            operations.invite(&label, uses, days).await.map(|made| Told::Invitation(Box::new(made)))
        }
        InvitationsAsk::List { after } => {
            operations.invitations(after.as_deref()).await.map(Told::Invitations)
        }
        InvitationsAsk::Revoke { id } => operations.take_invitation_back(&id).await.map(|()| Told::Done),
    }
}
