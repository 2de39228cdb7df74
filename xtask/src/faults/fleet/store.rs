//! The CQL cluster is away, in part or as a whole.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::probe::Probe;
use super::super::report::millis;
use super::super::stage::until;
use super::super::{Figures, Tools};
use super::link::Link;
use super::redis::spoil;
use super::stage::{BACK, Stage};

const WHILE: Duration = Duration::from_secs(8);
/// A refusal must come within this time.
const REFUSED: Duration = Duration::from_secs(30);

/// Nodes reach the only replica through a link.
pub(super) fn links(tools: &Tools) -> Result<Figures> {
    let stage = Stage::new(tools, "fleet-store-links")?;
    let link = Link::to(stage.place.cassandra(1)?[0])?;
    stage.start(|shape| shape.store_through = Some(link.addr))?;
    let mut probe = Probe::sign_up(stage.addr("chat-1")?)?;
    let talk = stage.talk(&[])?;
    sleep(WHILE / 2);
    let mut figures = spoil(&link, &mut probe)?;
    figures.extend(talk.finish()?);
    probe.check()?;
    Ok(figures)
}

/// With one of three replicas down everything works. With two down sends are refused and nothing that was acked is lost.
pub(super) fn replicas(tools: &Tools) -> Result<Figures> {
    let stage = Stage::up(tools, "fleet-replicas", |shape| shape.cassandra = 3)?;
    let mut probe = Probe::sign_up(stage.addr("chat-1")?)?;
    let talk = stage.talk(&[])?;
    sleep(WHILE);
    stage.place.kill("cassandra-3")?;
    let first = probe.say(BACK)?;
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        longest = longest.max(probe.say(BACK)?);
        sleep(WHILE / 10);
    }
    stage.place.kill("cassandra-2")?;
    let refused = until("a send is refused as unavailable", REFUSED, || {
        Ok(probe.try_say().is_ok_and(|answer| answer.status == 503 && answer.code() == "unavailable"))
    })?;
    sleep(WHILE);
    let answer = probe.try_say()?;
    ensure!(!answer.is_success(), "a message was acked with one of three replicas: {}", answer.body);
    stage.place.restart("cassandra-2")?;
    stage.place.restart("cassandra-3")?;
    let back = probe.say(BACK)?;
    let mut figures = talk.finish()?;
    probe.check()?;
    for (name, took) in [
        ("ack_after_first", first),
        ("longest_ack_with_two", longest),
        ("refused_after_second", refused),
        ("ack_after_return", back),
    ] {
        figures.insert(format!("{name}_ms"), millis(took).into());
    }
    Ok(figures)
}
