//! Nodes whose wall clocks differ.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::probe::Probe;
use super::super::shim::{Shim, Switch};
use super::super::{Figures, Tools};
use super::stage::{BACK, Stage};

const HOUR_MS: i64 = 3_600_000;
const WHILE: Duration = Duration::from_secs(8);

/// Ids and times rise with the seq although the clocks disagree; a node whose clock is far ahead is refused at its start.
pub(super) fn apart(tools: &Tools) -> Result<Figures> {
    let stage = Stage::new(tools, "fleet-clocks")?;
    let behind = Shim::build(&stage.place.folder_of("chat-1")?)?.0;
    let stepping = Shim::build(&stage.place.folder_of("chat-2")?)?.0;
    let ahead = Shim::build(&stage.place.folder_of("chat-3")?)?.0;
    for name in ["chat-1", "chat-2", "chat-3"] {
        stage.place.set_environment(name, &Shim::environment(&stage.place.folder_of(name)?))?;
    }
    behind.set(Switch::ClockMs, -200)?;
    stage.start(|_| ())?;
    // One probe on each node: their channels have homes on any node.
    let mut probes = Vec::new();
    for (number, name) in ["chat-1", "chat-2"].into_iter().enumerate() {
        probes.push(Probe::sign_up_as(stage.addr(name)?, &format!("probe{number}"))?);
    }
    let talk = stage.talk(&[])?;
    let say = |probes: &mut [Probe]| -> Result<()> {
        for probe in probes.iter_mut() {
            for _ in 0..5 {
                probe.say(BACK)?;
            }
        }
        sleep(WHILE);
        Ok(())
    };
    say(&mut probes)?;
    stepping.set(Switch::ClockMs, -HOUR_MS)?;
    say(&mut probes)?;
    // A clock that is set forward is seen when the node asks for its number.
    stage.place.kill("chat-3")?;
    ahead.set(Switch::ClockMs, HOUR_MS)?;
    let refused = stage.place.restart("chat-3").err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("clock"), "a node whose clock is an hour ahead was not refused: {refused}");
    say(&mut probes)?;
    ahead.set(Switch::ClockMs, 0)?;
    stage.place.restart("chat-3")?;
    stepping.set(Switch::ClockMs, 0)?;
    say(&mut probes)?;
    let figures = talk.finish()?;
    probes.iter().try_for_each(Probe::check)?;
    Ok(figures)
}
