//! `madang token` and `madang reset-password`

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::operator::{AdminAnswer, Ask, ask_folder};

/// Mint an access token.
#[derive(Debug, Args)]
pub(super) struct TokenCommand {
    /// The user's handle.
    handle: String,
    /// The name of the new device.
    #[arg(long, default_value = "token")]
    device_name: String,
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Change the password of a user.
#[derive(Debug, Args)]
pub(super) struct ResetPassword {
    /// The user's handle.
    handle: String,
    /// Leave the devices of the user signed in; without it they are revoked.
    #[arg(long)]
    keep_devices: bool,
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
}

impl TokenCommand {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let ask = Ask::Token { handle: self.handle, device_name: self.device_name };
        match ask_folder(config, self.data, ask)? {
            AdminAnswer::SignedIn(signed_in) => say!("{}", serde_json::to_string_pretty(&signed_in)?),
            AdminAnswer::Refused(error) => bail!("{error}"),
            _ => {}
        }
        Ok(())
    }
}

impl ResetPassword {
    pub(super) fn run(self, config: Option<&Path>) -> anyhow::Result<()> {
        let (handle, keep_devices) = (self.handle, self.keep_devices);
        let ask = Ask::ResetPassword { handle: handle.clone(), password: read_password()?, keep_devices };
        match ask_folder(config, self.data, ask)? {
            AdminAnswer::Refused(error) => bail!("{error}"),
            _ if keep_devices => eprintln!("changed the password of {handle}; the devices stay signed in"),
            _ => eprintln!("changed the password of {handle}; every device must log in again"),
        }
        Ok(())
    }
}

/// Reads a password from standard input, so that it appears in no list of processes.
pub(super) fn read_password() -> anyhow::Result<String> {
    let mut password = String::new();
    std::io::stdin().take(1024).read_to_string(&mut password).context(
        "cannot read the password from standard \
         input",
    )?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}
