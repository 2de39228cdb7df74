//! Options and output that the commands about accounts and invitations share.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use madang_proto::rest::{DeviceCard, Page};
use serde::Serialize;

use super::operator::{Ask, Told, ask_folder};
use crate::operations::{Account, InvitationCard};

/// What every such command takes.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The data folder; default madang-data.
    #[arg(long)]
    data: Option<PathBuf>,
}

impl Common {
    /// Asks the server or the folder, and prints the answer: as JSON, or one line for each item.
    pub(super) fn ask(
        self,
        config: Option<&Path>,
        ask: Ask,
        part: impl FnOnce(Told) -> Told,
    ) -> anyhow::Result<()> {
        let told = part(ask_folder(config, self.data, ask)?);
        let json = self.json;
        match &told {
            Told::Refused(error) => bail!("{error}"),
            Told::Accounts(page) => show_page(page, json)?,
            Told::Account(account) => show(&**account, json)?,
            Told::Devices(devices) if json => say!("{}", serde_json::to_string(devices)?),
            Told::Devices(devices) => devices.iter().for_each(|device| say!("{}", device.text())),
            Told::Invitations(page) => show_page(page, json)?,
            // Only the code, so that a script can pass it on.
            Told::Invitation(made) if json => show(&**made, json)?,
            Told::Invitation(made) => say!("{}", made.code.as_deref().unwrap_or_default()),
            Told::Revoked(revoked) if json => say!("{}", serde_json::json!({ "revoked": revoked })),
            Told::Revoked(revoked) => eprintln!("revoked {revoked} devices"),
            Told::Exported(end) if json => say!("{}", serde_json::to_string(end)?),
            Told::Exported(end) => eprintln!("{} lines, of which {} messages", end.lines, end.messages),
            _ if json => say!("{{}}"),
            _ => eprintln!("done"),
        }
        Ok(())
    }
}

/// An item that is shown in one or more lines.
trait Shown: Serialize {
    fn text(&self) -> String;
}

impl Shown for Account {
    fn text(&self) -> String {
        let Self { user, created_at, disabled, devices } = self;
        let state = if *disabled { "disabled" } else { "active" };
        let account =
            format!("{}\t{}\t{state}\t{}\t{}", user.handle, user.id, created_at.get(), user.display_name);
        let lines = std::iter::once(account).chain(devices.iter().map(Shown::text));
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Shown for DeviceCard {
    fn text(&self) -> String {
        let until = self.signed_in_until.map_or_else(String::new, |until| until.get().to_string());
        format!("{}\t{}\t{until}\t{}", self.id, self.created_at.get(), self.name)
    }
}

impl Shown for InvitationCard {
    fn text(&self) -> String {
        format!("{}\t{}/{}\t{}\t{}", self.id, self.used, self.uses, self.ends_at.get(), self.label)
    }
}

fn show<T: Shown>(thing: &T, json: bool) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string(thing)? } else { thing.text() };
    say!("{text}");
    Ok(())
}

fn show_page<T: Shown>(page: &Page<T>, json: bool) -> anyhow::Result<()> {
    if json {
        say!("{}", serde_json::to_string(page)?);
        return Ok(());
    }
    page.items.iter().for_each(|thing| say!("{}", thing.text()));
    if let Some(next) = &page.next {
        eprintln!("there may be more: continue with --after {next}");
    }
    Ok(())
}
