//! Options and output that the commands about accounts and invitations share.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use madang_proto::rest::{ActCard, AlertHistory, DeadLetterCard, DeviceCard, Page, PushTest};
use madang_proto::{AlertNote, AlertOutcome};
use serde::Serialize;

use super::operator::{AdminAnswer, Ask, ask_folder};
use crate::operations::{Account, InvitationCard};
use crate::operators::OperatorCard;

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
            AdminAnswer::PushTests(tests) if json => say!("{}", serde_json::to_string(tests)?),
            AdminAnswer::PushTests(tests) => tests.iter().for_each(|test| say!("{}", test.text())),
            AdminAnswer::AlertHistory(history) if json => say!("{}", serde_json::to_string(history)?),
            AdminAnswer::AlertHistory(history) => say!("{}", history.text()),
            AdminAnswer::DeadLetters(page) => show_page(page, json)?,
            AdminAnswer::Redriven(count) if json => say!("{}", serde_json::json!({ "redriven": count })),
            AdminAnswer::Redriven(count) => eprintln!("{count} alerts are in the queue again"),
            AdminAnswer::OperatorSecret(secret) if json => {
                say!("{}", serde_json::json!({ "secret": secret }))
            }
            // Only the secret, so that a script can pass it on.
            AdminAnswer::OperatorSecret(secret) => say!("{secret}"),
            AdminAnswer::Operators(operators) if json => say!("{}", serde_json::to_string(operators)?),
            AdminAnswer::Operators(operators) => operators.iter().for_each(|one| say!("{}", one.text())),
            AdminAnswer::Config(config) => say!("{}", serde_json::to_string_pretty(config)?),
            AdminAnswer::Difference(lines) => say!("{}", lines.replace("; ", "\n")),
            AdminAnswer::Acts(page) => show_page(page, json)?,
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

impl Shown for PushTest {
    fn text(&self) -> String {
        let Self { device_id, provider, outcome, status, answer, took_ms } = self;
        let status = status.map_or_else(String::new, |status| format!("{status} "));
        format!("{device_id}\t{}\t{}\t{took_ms} ms\t{status}{answer}", provider.as_str(), word(outcome))
    }
}

impl Shown for AlertHistory {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.items.iter().map(Shown::text).collect();
        match (self.is_waiting, lines.is_empty()) {
            (true, _) => lines.push("it still waits to be decided or sent".to_owned()),
            (false, true) => lines.push(
                "nothing is known: there is no such message for this user, the user had no subscription at the time, \
                 or it is older than 7 days"
                    .to_owned(),
            ),
            (false, false) => {}
        }
        lines.join("\n")
    }
}

impl Shown for AlertNote {
    fn text(&self) -> String {
        let Self { at, first_seq, last_seq, device_id, outcome, detail } = self;
        let device = device_id.map_or_else(|| "all devices".to_owned(), |device| device.to_string());
        format!("{}\t{first_seq}..{last_seq}\t{device}\t{}\t{detail}", at.get(), word(outcome))
    }
}

impl Shown for DeadLetterCard {
    fn text(&self) -> String {
        format!("{}\t{}\t{}\t{}", self.id, self.user_id, self.channel_id, self.note.text())
    }
}

impl Shown for OperatorCard {
    fn text(&self) -> String {
        format!("{}\t{}\t{}", self.name, self.scope.as_str(), self.added_at.get())
    }
}

impl Shown for ActCard {
    fn text(&self) -> String {
        let Self { seq, at, by, from, channel_id, change, why, .. } = self;
        let channel = channel_id.map_or_else(String::new, |channel| channel.to_string());
        format!("{seq}\t{}\t{by}\t{from}\t{channel}\t{change}\t{why}", at.get())
    }
}

/// The word on the wire.
fn word(outcome: &AlertOutcome) -> String {
    serde_json::to_string(outcome).unwrap_or_default().trim_matches('"').to_owned()
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
