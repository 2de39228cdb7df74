//! Redis loses what it had, or cannot be reached.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::probe::Probe;
use super::super::report::millis;
use super::super::stage::until;
use super::super::{Figures, Tools};
use super::link::Link;
use super::stage::{BACK, Stage, redis};

const WHILE: Duration = Duration::from_secs(8);
/// Longer than any wait of a node for an answer of Redis.
const FROZEN: Duration = Duration::from_secs(20);
const REPLICATES: Duration = Duration::from_secs(30);
/// Devices may have to take snapshots, because the inboxes are lost.
const LOSES: [&str; 1] = ["--snapshots"];

/// Its memory and its files are gone.
pub(super) fn empty(tools: &Tools) -> Result<Figures> {
    let stage = Stage::up(tools, "fleet-redis-empty", |_| ())?;
    let mut probe = Probe::sign_up(stage.addr("chat-1")?)?;
    let talk = stage.talk(&LOSES)?;
    let mut without = Duration::ZERO;
    for _ in 0..2 {
        sleep(WHILE);
        stage.place.kill("redis-1")?;
        let data = stage.place.services_root().join("redis-1/appendonlydir");
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
        without = without.max(probe.say(BACK)?);
        sleep(WHILE / 2);
        stage.place.restart("redis-1")?;
        probe.say(BACK)?;
    }
    let mut figures = talk.finish()?;
    probe.check()?;
    happened(&figures, &["snapshots_taken"])?;
    figures.insert("longest_ack_without_redis_ms".to_owned(), millis(without).into());
    Ok(figures)
}

/// A replica whose link was cut misses the last seconds; then it becomes the master.
pub(super) fn stale_replica(tools: &Tools) -> Result<Figures> {
    let stage = Stage::new(tools, "fleet-redis-stale")?;
    let servers = stage.place.redis(2)?;
    let (for_nodes, for_replica) = (Link::to(servers[0])?, Link::to(servers[0])?);
    let of_replica = for_replica.addr;
    redis(servers[1], &format!("REPLICAOF {} {}", of_replica.ip(), of_replica.port()))?;
    stage.start(|shape| shape.redis_through = Some(for_nodes.addr))?;
    until("the replica has the data", REPLICATES, || {
        Ok(redis(servers[1], "INFO replication")?.contains("master_link_status:up"))
    })?;
    let mut probe = Probe::sign_up(stage.addr("chat-1")?)?;
    let talk = stage.talk(&LOSES)?;
    sleep(WHILE);
    for_replica.refuse(true);
    for_replica.cut();
    for _ in 0..10 {
        probe.say(BACK)?;
    }
    sleep(WHILE);
    redis(servers[1], "REPLICAOF NO ONE")?;
    for_nodes.redirect(servers[1]);
    for_nodes.cut();
    stage.place.kill("redis-1")?;
    let without = probe.say(BACK)?;
    let mut figures = talk.finish()?;
    probe.check()?;
    happened(&figures, &["snapshots_taken"])?;
    figures.insert("ack_after_promotion_ms".to_owned(), millis(without).into());
    Ok(figures)
}

/// Every write is refused (`OOM`), every read is answered.
pub(super) fn full(tools: &Tools) -> Result<Figures> {
    let stage = Stage::up(tools, "fleet-redis-full", |_| ())?;
    let server = stage.place.redis(1)?[0];
    let mut probe = Probe::sign_up(stage.addr("chat-1")?)?;
    let talk = stage.talk(&LOSES)?;
    sleep(WHILE);
    redis(server, "CONFIG SET maxmemory 1mb")?;
    let mut during = Duration::ZERO;
    for _ in 0..10 {
        during = during.max(probe.say(BACK)?);
        sleep(WHILE / 10);
    }
    redis(server, "CONFIG SET maxmemory 0")?;
    probe.say(BACK)?;
    let mut figures = talk.finish()?;
    probe.check()?;
    figures.insert("longest_ack_while_full_ms".to_owned(), millis(during).into());
    Ok(figures)
}

/// Each fault for a while, and Redis itself lives.
pub(super) fn links(tools: &Tools) -> Result<Figures> {
    let stage = Stage::new(tools, "fleet-redis-links")?;
    let link = Link::to(stage.place.redis(1)?[0])?;
    stage.start(|shape| shape.redis_through = Some(link.addr))?;
    let mut probe = Probe::sign_up(stage.addr("chat-1")?)?;
    let talk = stage.talk(&LOSES)?;
    sleep(WHILE / 2);
    let mut figures = spoil(&link, &mut probe)?;
    figures.extend(talk.finish()?);
    probe.check()?;
    Ok(figures)
}

/// Slow, cut, frozen, half-open, one after another. While a link is spoiled, the probe sends, and must be answered: with an ack or a
/// refusal that says when to try again.
pub(super) fn spoil(link: &Link, probe: &mut Probe) -> Result<Figures> {
    ensure!(link.connections() > 0, "the members do not use the link");
    let mut figures = Figures::new();
    let mut note = |name: &str, took: Duration| {
        figures.insert(format!("ack_{name}_ms"), millis(took).into());
    };
    link.delay(Duration::from_millis(200));
    note("slow", probe.say(BACK)?);
    sleep(WHILE);
    link.delay(Duration::ZERO);
    link.refuse(true);
    link.cut();
    sleep(WHILE);
    link.refuse(false);
    note("after_cut", probe.say(BACK)?);
    sleep(WHILE / 2);
    link.freeze(true);
    sleep(FROZEN);
    link.freeze(false);
    note("after_frozen", probe.say(BACK)?);
    sleep(WHILE / 2);
    link.strand();
    note("half_open", probe.say(BACK)?);
    sleep(WHILE);
    Ok(figures)
}

/// A run proves nothing about what did not happen in it.
pub(super) fn happened(figures: &Figures, names: &[&str]) -> Result<()> {
    for name in names {
        ensure!(figures[*name].as_u64() > Some(0), "the run had no {name}: it proves nothing about them");
    }
    Ok(())
}
