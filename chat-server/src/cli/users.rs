//! `madang users`: accounts and their devices.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};
use madang_ids::DeviceId;
use madang_proto::ErrorBody;
use serde::{Deserialize, Serialize};

use super::operator::{Ask, Told, ask_folder, read_password};
use crate::operations::{Account, Operations};

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub(super) enum Users {
    /// Accounts by handle, a page at a time.
    List(List),
    /// One account, with its devices.
    Show(One),
    /// Make an account; the password is read from standard input.
    Create(Create),
    /// Close an account: its devices are revoked, and nobody logs in.
    Disable(One),
    /// Open a disabled account again.
    Enable(One),
    /// Delete an account. Its messages stay, by a deleted user.
    Delete(One),
    /// The devices of an account.
    Devices(One),
    /// Revoke one device of an account, or all of them.
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
pub(super) struct One {
    /// The user's handle.
    handle: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only handles that begin with this.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Only handles after this one, the last of the page before.
    #[arg(long, default_value = "")]
    after: String,
    /// Accounts of a page, 1 to 500.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The user's handle, which may be a reserved one.
    handle: String,
    /// The name for people; default the handle.
    #[arg(long)]
    display_name: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// The user's handle.
    handle: String,
    /// Which device.
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    device: Option<DeviceId>,
    /// Every device: the user is logged out everywhere.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

/// What a server is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "users", rename_all = "snake_case")]
pub(super) enum UsersAsk {
    List { prefix: String, after: String, limit: u32 },
    Show { handle: String },
    Create { handle: String, display_name: String, password: String },
    Disable { handle: String, is_disabled: bool },
    Delete { handle: String },
    Revoke { handle: String, device: Option<DeviceId> },
}

impl Users {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let shows_devices = matches!(self, Self::Devices(_));
        let (ask, common) = self.into_ask()?;
        let Common { json, data } = common;
        match ask_folder(config, data, Ask::Users(ask))? {
            Told::Refused(error) => bail!("{error}"),
            Told::Accounts(page) if json => say!("{}", serde_json::to_string(&page)?),
            Told::Accounts(page) => {
                page.items.iter().for_each(show_line);
                if let Some(next) = page.next {
                    eprintln!("there may be more: --after {next}");
                }
            }
            Told::Account(account) if json && shows_devices => {
                say!("{}", serde_json::to_string(&account.devices)?);
            }
            Told::Account(account) if json => say!("{}", serde_json::to_string(&account)?),
            Told::Account(account) => show(&account, shows_devices),
            Told::Revoked(count) if json => say!("{{\"revoked\":{count}}}"),
            Told::Revoked(count) => eprintln!("{count} devices were revoked"),
            _ if json => say!("{{}}"),
            _ => eprintln!("done"),
        }
        Ok(())
    }

    fn into_ask(self) -> anyhow::Result<(UsersAsk, Common)> {
        Ok(match self {
            Self::List(List { prefix, after, limit, common }) => {
                (UsersAsk::List { prefix, after, limit }, common)
            }
            Self::Show(One { handle, common }) | Self::Devices(One { handle, common }) => {
                (UsersAsk::Show { handle }, common)
            }
            Self::Create(Create { handle, display_name, common }) => {
                let display_name = display_name.unwrap_or_else(|| handle.clone());
                (UsersAsk::Create { handle, display_name, password: read_password()? }, common)
            }
            Self::Disable(One { handle, common }) => {
                (UsersAsk::Disable { handle, is_disabled: true }, common)
            }
            Self::Enable(One { handle, common }) => {
                (UsersAsk::Disable { handle, is_disabled: false }, common)
            }
            Self::Delete(One { handle, common }) => (UsersAsk::Delete { handle }, common),
            Self::Revoke(Revoke { handle, device, common, .. }) => {
                (UsersAsk::Revoke { handle, device }, common)
            }
        })
    }
}

fn show_line(account: &Account) {
    let Account { user, created_at, disabled, .. } = account;
    let state = if *disabled { "disabled" } else { "active" };
    say!("{}\t{}\t{state}\t{}\t{}", user.handle, user.id, created_at.get(), user.display_name);
}

fn show(account: &Account, shows_devices_only: bool) {
    if !shows_devices_only {
        show_line(account);
    }
    for device in &account.devices {
        let until = device.signed_in_until.map_or_else(String::new, |until| until.get().to_string());
        say!("{}\t{}\t{until}\t{}", device.id, device.created_at.get(), device.name);
    }
}

/// Carries out what an operator asks.
pub(super) async fn tell(operations: &Operations, ask: UsersAsk) -> Result<Told, ErrorBody> {
    match ask {
        UsersAsk::List { prefix, after, limit } => {
            operations.accounts(&prefix, &after, limit).await.map(Told::Accounts)
        }
        UsersAsk::Show { handle } => {
            operations.account(&handle).await.map(|account| Told::Account(Box::new(account)))
        }
        UsersAsk::Create { handle, display_name, password } => {
            let made = operations.make_account(&handle, &display_name, password).await;
            made.map(|account| Told::Account(Box::new(account)))
        }
        UsersAsk::Disable { handle, is_disabled } => {
            operations.disable_account(&handle, is_disabled).await.map(|()| Told::Done)
        }
        UsersAsk::Delete { handle } => operations.remove_account(&handle).await.map(|()| Told::Done),
        UsersAsk::Revoke { handle, device } => {
            operations.revoke_for(&handle, device).await.map(Told::Revoked)
        }
    }
}
