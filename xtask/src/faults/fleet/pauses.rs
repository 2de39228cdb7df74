//! Members are stopped with SIGSTOP: their connections stay open, and nothing answers.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::super::probe::Probe;
use super::super::report::millis;
use super::super::{Figures, Tools};
use super::stage::{BACK, Stage};

const BEFORE: Duration = Duration::from_secs(5);
const STOPPED: Duration = Duration::from_secs(40);

/// A node that orders channels stops in the middle of its appends, and finds that others have ordered them since.
pub(super) fn of_a_home(tools: &Tools) -> Result<Figures> {
    let stage = Stage::up(tools, "fleet-pause-home", |_| ())?;
    let mut probe = Probe::sign_up(stage.addr("chat-1")?)?;
    let talk = stage.talk(&[])?;
    sleep(BEFORE);
    stage.place.signal("chat-2", "STOP")?;
    // The node before the channel's home, or a node beside it: either way a message is acked within some seconds.
    let during = probe.say(BACK)?;
    sleep(STOPPED);
    stage.place.signal("chat-2", "CONT")?;
    let back = stage.wait_until_ready()?;
    probe.say(BACK)?;
    let mut figures = talk.finish()?;
    probe.check()?;
    figures.insert("ack_while_paused_ms".to_owned(), millis(during).into());
    figures.insert("ready_again_after_ms".to_owned(), millis(back).into());
    Ok(figures)
}

/// Nobody assigns clients, renews leases or knows who is online; messages go on.
pub(super) fn of_services(tools: &Tools) -> Result<Figures> {
    let stage = Stage::up(tools, "fleet-pause-services", |_| ())?;
    let mut probe = Probe::sign_up(stage.addr("chat-1")?)?;
    let talk = stage.talk(&[])?;
    sleep(BEFORE);
    let services = ["discovery-1", "discovery-2", "presence-1", "presence-2"];
    services.iter().try_for_each(|name| stage.place.signal(name, "STOP"))?;
    let mut during = Duration::ZERO;
    let begun = std::time::Instant::now();
    while begun.elapsed() < STOPPED {
        during = during.max(probe.say(BACK)?);
        sleep(Duration::from_millis(500));
    }
    services.iter().try_for_each(|name| stage.place.signal(name, "CONT"))?;
    let back = stage.wait_until_ready()?;
    probe.say(BACK)?;
    let mut figures = talk.finish()?;
    probe.check()?;
    figures.insert("longest_ack_while_paused_ms".to_owned(), millis(during).into());
    figures.insert("ready_again_after_ms".to_owned(), millis(back).into());
    Ok(figures)
}
