//! `madang users`: accounts and their devices.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use madang_ids::DeviceId;

use super::answers::Common;
use super::operator::{AdminAnswer, Ask, UsersAsk};
use super::sign_in::read_password;

/// Manage accounts.
#[derive(Debug, Subcommand)]
pub(super) enum Users {
    /// List accounts by handle, one page at a time.
    List(List),
    /// Show one account with its devices.
    Show(One),
    /// Create an account; reads the password from standard input.
    Create(Create),
    /// Disable an account: revokes its devices and refuses logins.
    Disable(One),
    /// Enable a disabled account.
    Enable(One),
    /// Delete an account. Its messages stay, as messages of a deleted user.
    Delete(One),
    /// List the devices of an account.
    Devices(One),
    /// Revoke one device of an account, or all of them.
    Revoke(Revoke),
    /// Write the data that the server stores about a user into a file, as lines of JSON. A running server writes the file.
    Export(Export),
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
    /// Only handles with this prefix.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Only handles after this one, the last of the previous page.
    #[arg(long, default_value = "")]
    after: String,
    /// Number of accounts per page, 1 to 500.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The user's handle; may be a reserved one.
    handle: String,
    /// The display name; default the handle.
    #[arg(long)]
    display_name: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// The user's handle.
    handle: String,
    /// The id of the device to revoke.
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    device: Option<DeviceId>,
    /// Revoke every device of the user.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The user's handle.
    handle: String,
    /// The file to write; it must not exist yet.
    #[arg(long)]
    to: PathBuf,
    #[command(flatten)]
    common: Common,
}

impl Users {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let shows_devices = matches!(self, Self::Devices(_));
        let (ask, common) = self.into_ask()?;
        common.ask(config, Ask::Users(ask), |answer| match answer {
            AdminAnswer::Account(account) if shows_devices => AdminAnswer::Devices(account.devices),
            answer => answer,
        })
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
            Self::Export(Export { handle, to, common }) => {
                // Absolute, because the server has another working directory.
                let to = std::path::absolute(&to).context("the file to write")?;
                (UsersAsk::Export { handle, to }, common)
            }
        })
    }
}
