//! Options and output that the commands about accounts and invitations share.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use madang_proto::rest::{DeviceCard, Page};
use serde::Serialize;

use super::operator::{AdminAnswer, Ask, ask_folder};
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
        part: impl FnOnce(AdminAnswer) -> AdminAnswer,
    ) -> anyhow::Result<()> {
        let answer = part(ask_folder(config, self.data, ask)?);
        let json = self.json;
        match &answer {
            AdminAnswer::Refused(error) => bail!("{error}"),
            AdminAnswer::Accounts(page) => show_page(page, json)?,
            AdminAnswer::Account(account) => show(&**account, json)?,
            AdminAnswer::Devices(devices) if json => say!("{}", serde_json::to_string(devices)?),
            AdminAnswer::Devices(devices) => devices.iter().for_each(|device| say!("{}", device.text())),
            AdminAnswer::Invitations(page) => show_page(page, json)?,
            // Only the code, so that a script can pass it on.
            AdminAnswer::Invitation(made) if json => show(&**made, json)?,
            AdminAnswer::Invitation(made) => say!("{}", made.code.as_deref().unwrap_or_default()),
            AdminAnswer::Revoked(revoked) if json => say!("{}", serde_json::json!({ "revoked": revoked })),
            AdminAnswer::Revoked(revoked) => eprintln!("revoked {revoked} devices"),
            AdminAnswer::Exported(end) if json => say!("{}", serde_json::to_string(end)?),
            AdminAnswer::Exported(end) => {
                eprintln!("{} lines, of which {} messages", end.lines, end.messages)
            }
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
