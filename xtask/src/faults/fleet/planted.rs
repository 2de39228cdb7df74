//! Faults that are planted in the nodes of a fleet: each must be found, and nothing without one. And nodes that owe rows for ten
//! seconds after their acknowledgement, one of which is killed meanwhile: another node must bring them.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::socket::Socket;
use super::super::talk::Replay;
use super::super::{Figures, Tools};
use super::stage::Stage;
use super::user::User;

/// A fault of `chat-server/src/plant.rs`; each node lets it strike once in this many cases; the figure of the judge's report that must
/// not be zero.
const FAULTS: [(&str, &str); 6] = [
    ("ack_without_writing:60", "lost"),
    ("skip_fanout:100", "lost"),
    ("deliver_twice:100", "duplicated"),
    ("swap_two:15", "reordered"),
    ("history_without_row:4", "lost"),
    ("edit_not_delivered:10", "stale"),
];
const REPLAY: &str = "--synthetic 2 --lines 400 --patience 8 --edits 0.1";
const NODES: [&str; 3] = ["chat-1", "chat-2", "chat-3"];
/// With 12, each node is the home of one almost certainly.
const CHANNELS: usize = 12;
/// A dead node leaves the view after 15 s, and is found dead after two more looks.
const REDRIVEN: Duration = Duration::from_secs(60);

pub(super) fn in_a_fleet(tools: &Tools) -> Result<Figures> {
    let stage = Stage::new(tools, "fleet-planted")?;
    stage.place.take_faulty_programs()?;
    stage.start(|_| ())?;
    let args: Vec<String> = REPLAY.split(' ').map(str::to_owned).collect();
    Replay::start(&stage, "nothing", &args)?.finish().context("nothing was planted")?;
    let mut figures = Figures::new();
    for (fault, figure) in FAULTS {
        plant(&stage, fault)?;
        let report = Replay::start(&stage, "planted", &args)?.find().context(fault)?;
        ensure!(
            report[figure].as_u64() > Some(0),
            "{fault} was not found: the report counts nothing as {figure}"
        );
        let name = fault.split(':').next().unwrap_or_default();
        figures.insert(format!("{name}_{figure}"), report[figure].clone());
    }
    let owed = undelivered(&stage, "fanout_late")?;
    ensure!(owed.is_empty(), "nobody brought what a dead node owed: {owed:?}");
    let owed = undelivered(&stage, "redrive_skipped")?;
    ensure!(!owed.is_empty(), "a skipped re-drive was not found");
    figures.insert("redrive_skipped_undelivered".to_owned(), owed.len().into());
    Ok(figures)
}

/// Starts every chat node again with a fault.
fn plant(stage: &Stage<'_>, fault: &str) -> Result<()> {
    println!("planted: {fault}");
    for name in NODES {
        stage.place.stop(name)?;
        stage.place.set_environment(name, &[("PLANTED_FAULT", fault.to_owned())])?;
    }
    NODES.iter().try_for_each(|name| stage.place.restart(name))
}

/// Messages that were acknowledged, and did not come to every socket although their node was killed before it brought them.
fn undelivered(stage: &Stage<'_>, fault: &str) -> Result<BTreeSet<String>> {
    plant(stage, &format!("{fault}:1"))?;
    let (one, other) = (stage.addr("chat-1")?, stage.addr("chat-3")?);
    let name = fault.replace('_', "");
    let (ada, bob) =
        (User::sign_up(one, &format!("ada{name}"))?, User::sign_up(other, &format!("bob{name}"))?);
    let mut sockets = [Socket::open(one, &ada.token)?, Socket::open(other, &bob.token)?];
    // What is appended before the first snapshot of a user need not be brought to the inbox.
    [&ada, &bob]
        .into_iter()
        .try_for_each(|user| user.call("POST", "/v1/snapshot", Some(&json!({}))).map(drop))?;
    let mut said = BTreeSet::new();
    for number in 0..CHANNELS {
        let text = format!("{fault} {number}");
        let channel = ada.make_channel(&json!({ "kind": "group", "name": text, "members": [bob.id] }))?;
        let key = format!("01920000-0000-7000-8000-{number:012}");
        let body: Value = json!({ "client_msg_id": key, "body": { "text": text } });
        ada.call("POST", &format!("/v1/channels/{channel}/messages"), Some(&body))?;
        said.insert(text);
    }
    stage.place.kill("chat-2")?;
    let (said, mut missing) = (&said, BTreeSet::new());
    thread::scope(|scope| -> Result<()> {
        let listening = sockets.each_mut().map(|socket| scope.spawn(|| socket.texts(said.len(), REDRIVEN)));
        for came in listening {
            let came = came.join().ok().context("a thread failed")??;
            missing.extend(said.difference(&came).cloned());
        }
        Ok(())
    })?;
    stage.place.restart("chat-2")?;
    Ok(missing)
}
