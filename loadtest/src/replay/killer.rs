//! Runs the server that this tool started: kills it during sends, starts it again, and measures its memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::world::{World, count};
use crate::report::ServerRss;
use crate::server::{Server, rss_kib};

/// Longest wait of a kill for a send in flight. Killing at that moment is most likely to reveal faults.
const AIM: Duration = Duration::from_secs(1);
/// Longest further wait, so that kills hit every step between frame and ack.
const TREMBLE: Duration = Duration::from_millis(2);
/// Interval between two measurements of memory.
const SAMPLE: Duration = Duration::from_millis(200);

/// The tasks beside the replay.
pub(crate) struct Keeper {
    stop: CancellationToken,
    killer: JoinHandle<anyhow::Result<Option<Server>>>,
    sampler: JoinHandle<Option<ServerRss>>,
}

impl Keeper {
    /// Starts to measure the server, and to kill it if requested.
    pub(crate) fn start(world: &Arc<World>, server: Option<Server>) -> Self {
        let stop = CancellationToken::new();
        let group = Arc::new(AtomicU32::new(server.as_ref().and_then(Server::group).unwrap_or_default()));
        let sampler = world.tasks.spawn(sample(Arc::clone(world), Arc::clone(&group), stop.clone()));
        let killer = world.tasks.spawn(kill_often(Arc::clone(world), server, group, stop.clone()));
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

async fn kill_often(
    world: Arc<World>,
    server: Option<Server>,
    group: Arc<AtomicU32>,
    stop: CancellationToken,
) -> anyhow::Result<Option<Server>> {
    let (mut server, every) = match (server, world.args.kill_every) {
        (Some(server), Some(every)) => (server, every),
        (server, _) => return Ok(server),
    };
    let mut random = StdRng::seed_from_u64(world.args.seed ^ 0x006b_696c_6c65_7273);
    loop {
        let wait = Duration::from_secs_f64(every * random.random_range(0.75..1.25));
        if stop.run_until_cancelled(sleep(wait)).await.is_none() || is_over(&world) {
            stop.cancelled().await;
            return Ok(Some(server));
        }
        aim(&world, &mut random).await;
        world.server_up.send_replace(false);
        let in_flight = world.counters.in_flight.load(Ordering::SeqCst);
        server.kill().await?;
        count(&world.counters.kills);
        if in_flight > 0 {
            count(&world.counters.kills_in_flight);
        }
        server.start_again().await?;
        group.store(server.group().unwrap_or_default(), Ordering::SeqCst);
        world.server_up.send_replace(true);
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
