//! Kills during sends: the server that this tool started, which it starts again and whose memory it measures, or one
//! member of a fleet after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::world::{World, count, lock};
use crate::fleet::{Fleet, choose};
use crate::report::ServerRss;
use crate::server::{Server, rss_kib};

/// Longest wait of a kill for a send in flight. Killing at that moment is most likely to reveal faults.
const AIM: Duration = Duration::from_secs(1);
/// Longest further wait, so that kills hit every step between frame and ack.
const TREMBLE: Duration = Duration::from_millis(2);
/// Interval between two measurements of memory.
const SAMPLE: Duration = Duration::from_millis(200);

/// What is killed.
pub(crate) enum Victim {
    /// Nothing: the run does not own the server.
    Nothing,
    /// The server that this tool started.
    Server(Box<Server>),
    /// Members of a fleet, at most one at a time.
    Fleet(Fleet),
}

/// The tasks beside the replay.
pub(crate) struct Keeper {
    stop: CancellationToken,
    killer: JoinHandle<anyhow::Result<Option<Server>>>,
    sampler: JoinHandle<Option<ServerRss>>,
}

impl Keeper {
    /// Starts to measure the server, and to kill if requested.
    pub(crate) fn start(world: &Arc<World>, victim: Victim) -> Self {
        let stop = CancellationToken::new();
        let group = match &victim {
            Victim::Server(server) => server.group().unwrap_or_default(),
            _ => 0,
        };
        let group = Arc::new(AtomicU32::new(group));
        let sampler = world.tasks.spawn(sample(Arc::clone(world), Arc::clone(&group), stop.clone()));
        let killer = Killer::new(world, &stop);
        let killer = world.tasks.spawn(async move {
            match victim {
                Victim::Nothing => Ok(None),
                Victim::Server(server) => killer.kill_server(*server, group).await.map(Some),
                Victim::Fleet(fleet) => killer.kill_members(&fleet).await.map(|()| None),
            }
        });
        Self { stop, killer, sampler }
    }

    /// Stops killing and measuring, and returns the server.
    pub(crate) async fn finish(self) -> anyhow::Result<(Option<Server>, Option<ServerRss>)> {
        self.stop.cancel();
        let rss = self.sampler.await.context("watching the server's memory failed")?;
        let server = self.killer.await.context("the killer failed")??;
        Ok((server, rss))
    }
}

/// Kills at random times.
struct Killer {
    world: Arc<World>,
    stop: CancellationToken,
    random: StdRng,
}

impl Killer {
    fn new(world: &Arc<World>, stop: &CancellationToken) -> Self {
        let random = StdRng::seed_from_u64(world.args.seed ^ 0x006b_696c_6c65_7273);
        Self { world: Arc::clone(world), stop: stop.clone(), random }
    }

    async fn kill_server(mut self, mut server: Server, group: Arc<AtomicU32>) -> anyhow::Result<Server> {
        while self.is_time().await {
            aim(&self.world, &mut self.random).await;
            self.world.server_up.send_replace(false);
            self.world.uptime.stop();
            let in_flight = self.world.counters.in_flight.load(Ordering::SeqCst);
            server.kill().await?;
            self.count_kill(in_flight);
            server.start_again().await?;
            group.store(server.group().unwrap_or_default(), Ordering::SeqCst);
            self.world.uptime.start();
            self.world.server_up.send_replace(true);
        }
        Ok(server)
    }

    async fn kill_members(mut self, fleet: &Fleet) -> anyhow::Result<()> {
        while self.is_time().await {
            let done = self.kill_member(fleet).await;
            // After a failed restart too: otherwise nobody would run out of patience.
            self.world.uptime.start();
            if done.is_err() {
                self.stop.cancelled().await;
                return done;
            }
        }
        // A member that ended by itself is a fault, also if it was the last thing that happened. Without kills the members
        // are the business of somebody else.
        if self.world.args.kill_every.is_some() { fleet.members().map(drop) } else { Ok(()) }
    }

    async fn kill_member(&mut self, fleet: &Fleet) -> anyhow::Result<()> {
        let members = fleet.members()?;
        let Some(member) = choose(&mut self.random, &members, &self.world.args.kill) else {
            bail!("the fleet has no member with one of the roles to kill");
        };
        aim(&self.world, &mut self.random).await;
        self.world.uptime.stop();
        let (in_flight, killed) = (self.world.counters.in_flight.load(Ordering::SeqCst), Instant::now());
        fleet.kill(member).await?;
        self.count_kill(in_flight);
        {
            let mut kills = lock(&self.world.kills);
            let kills = kills.entry(member.role).or_default();
            kills.kills += 1;
            kills.with_appends_in_flight += u64::from(in_flight > 0);
        }
        fleet.restart(member).await?;
        let mut kills = lock(&self.world.kills);
        let kills = kills.entry(member.role).or_default();
        kills.longest_restart_s = kills.longest_restart_s.max(killed.elapsed().as_secs_f64());
        Ok(())
    }

    /// Waits for the time of the next kill; `false` if there is none. Returns then only after the end of the run.
    async fn is_time(&mut self) -> bool {
        let Some(every) = self.world.args.kill_every else {
            self.stop.cancelled().await;
            return false;
        };
        let wait = Duration::from_secs_f64(every * self.random.random_range(0.75..1.25));
        if self.stop.run_until_cancelled(sleep(wait)).await.is_none() || is_over(&self.world) {
            self.stop.cancelled().await;
            return false;
        }
        true
    }

    fn count_kill(&self, in_flight: usize) {
        count(&self.world.counters.kills);
        if in_flight > 0 {
            count(&self.world.counters.kills_in_flight);
        }
    }
}

/// Waits until a send was written, and a moment longer. The moment is shorter than a timer tick, so it is a busy loop.
async fn aim(world: &World, random: &mut StdRng) {
    let _ = timeout(AIM, world.send_written.notified()).await;
    let moment = Instant::now() + TREMBLE.mul_f64(random.random());
    while Instant::now() < moment {
        tokio::task::yield_now().await;
    }
}

/// Whether all lines and changes are done, so that nothing is left to interrupt.
fn is_over(world: &World) -> bool {
    let is_changing = world.days.iter().any(|day| day.changing.load(Ordering::SeqCst) > 0);
    world.counters.settled.load(Ordering::Relaxed) >= world.lines() && !is_changing
}

async fn sample(world: Arc<World>, group: Arc<AtomicU32>, stop: CancellationToken) -> Option<ServerRss> {
    let mut rss = None;
    while stop.run_until_cancelled(sleep(SAMPLE)).await.is_some() {
        let Some(now) = rss_kib(group.load(Ordering::SeqCst)) else { continue };
        let kept: &mut ServerRss = rss.get_or_insert_default();
        kept.peak = kept.peak.max(now);
        let settled = world.counters.settled.load(Ordering::Relaxed);
        if kept.quarter == 0 && settled * 4 >= world.lines() {
            kept.quarter = now;
        }
        // The last sample before the devices leave counts as the end.
        if kept.end == 0 || settled < world.lines() {
            kept.end = now;
        }
    }
    rss
}
