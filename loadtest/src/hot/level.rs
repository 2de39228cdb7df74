//! The level that the server gives the channel, from its metrics: how soon it rises, and how soon it is normal again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::bench::socket::source;
use crate::instruments::http::Http;

/// Time between two reads of the metrics.
const EVERY: Duration = Duration::from_millis(100);

/// Time after which a normal level is no longer awaited.
const COOL: Duration = Duration::from_secs(200);

/// A level of heat; the highest one of all channels of all nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    #[default]
    Normal,
    Warm,
    Hot,
    Blazing,
}

/// Watches the metrics until it is dropped.
#[derive(Debug)]
pub(super) struct Levels {
    nodes: Vec<Arc<Mutex<History>>>,
    _tasks: JoinSet<()>,
}

/// The levels of one node.
#[derive(Debug, Default)]
struct History {
    changes: Vec<(Instant, Level)>,
    /// The metrics were read at least once, or cannot be read.
    is_known: bool,
    failure: Option<String>,
}

impl Levels {
    pub(super) const ALL: [Level; 4] = [Level::Normal, Level::Warm, Level::Hot, Level::Blazing];

    /// Watches the servers at these addresses.
    pub(super) fn watch(addrs: &[String]) -> Self {
        let mut tasks = JoinSet::new();
        let nodes = addrs.iter().cloned().map(|addr| {
            let history = Arc::new(Mutex::new(History::default()));
            let of_task = Arc::clone(&history);
            tasks.spawn(async move {
                if let Err(error) = watch(&addr, &of_task).await {
                    let mut history = lock(&of_task);
                    (history.is_known, history.failure) = (true, Some(format!("{addr}: {error:#}")));
                }
            });
            history
        });
        Self { nodes: nodes.collect(), _tasks: tasks }
    }

    /// Whether all nodes have said their level: before that, [`Self::now`] means nothing.
    fn are_known(&self) -> bool {
        self.nodes.iter().all(|node| lock(node).is_known)
    }

    /// Waits until the level is normal on all nodes, for at most `COOL`. Returns whether it is.
    pub(super) async fn wait_until_normal(&self) -> bool {
        let begun = Instant::now();
        while !self.are_known() || self.now() > Level::Normal {
            if begun.elapsed() > COOL {
                return false;
            }
            sleep(EVERY).await;
        }
        true
    }

    /// The present level.
    pub(super) fn now(&self) -> Level {
        self.nodes.iter().map(|node| lock(node).level()).max().unwrap_or_default()
    }

    /// The highest level after `from`, where it was normal.
    pub(super) fn highest(&self, from: Instant) -> Level {
        self.changes()
            .into_iter()
            .filter(|(at, _)| *at >= from)
            .map(|(_, level)| level)
            .max()
            .unwrap_or_default()
    }

    /// The first time after `from`, where the level was normal, at which it was above on some node.
    pub(super) fn first_above(&self, from: Instant) -> Option<Instant> {
        self.changes().into_iter().find(|(at, level)| *at >= from && *level > Level::Normal).map(|(at, _)| at)
    }

    /// The time at which the present level became normal on all nodes; `None` if it is above.
    pub(super) fn normal_since(&self) -> Option<Instant> {
        if self.now() > Level::Normal {
            return None;
        }
        self.changes().last().map(|(at, _)| *at)
    }

    /// Why the levels of a node are not known.
    pub(super) fn failure(&self) -> Option<String> {
        self.nodes.iter().find_map(|node| lock(node).failure.clone())
    }

    fn changes(&self) -> Vec<(Instant, Level)> {
        let mut all: Vec<(Instant, Level)> =
            self.nodes.iter().flat_map(|node| lock(node).changes.clone()).collect();
        all.sort();
        all
    }
}

impl History {
    fn level(&self) -> Level {
        self.changes.last().map_or(Level::Normal, |(_, level)| *level)
    }
}

async fn watch(addr: &str, history: &Mutex<History>) -> anyhow::Result<()> {
    let mut http = Http::connect(addr, source(0)).await?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = http.call("GET /metrics", None).await?;
        anyhow::ensure!(answer.status == 200, "GET /metrics was answered with {}", answer.status);
        let level = parse(&String::from_utf8_lossy(answer.body));
        let mut history = lock(history);
        history.is_known = true;
        if history.level() != level {
            history.changes.push((Instant::now(), level));
        }
    }
}

/// The highest level that some channel has. A level without a gauge has no channel.
fn parse(metrics: &str) -> Level {
    let gauges =
        metrics.lines().filter_map(|line| line.strip_prefix(r#"hot_channels{level=""#)?.split_once(r#""} "#));
    let above = gauges.filter(|(_, count)| count.trim().parse::<f64>().is_ok_and(|count| count > 0.0));
    let named = above.filter_map(|(name, _)| match name {
        "warm" => Some(Level::Warm),
        "hot" => Some(Level::Hot),
        "blazing" => Some(Level::Blazing),
        _ => None,
    });
    named.max().unwrap_or_default()
}

fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_level_counts() {
        let metrics = "# HELP hot_channels x\nhot_channels{level=\"warm\"} 2\nhot_channels{level=\"hot\"} 1\n\
                       hot_channels{level=\"blazing\"} 0\nhot_channel_changes_total 9\n";
        assert_eq!(parse(metrics), Level::Hot);
        assert_eq!(parse("hot_channel_changes_total 9\n"), Level::Normal);
    }

    #[test]
    fn times_of_changes_are_found() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let changes = vec![(at(1), Level::Blazing), (at(5), Level::Hot), (at(9), Level::Normal)];
        let history = Arc::new(Mutex::new(History { changes, is_known: true, failure: None }));
        let levels = Levels { nodes: vec![Arc::clone(&history)], _tasks: JoinSet::new() };
        assert_eq!(levels.first_above(begun), Some(at(1)));
        assert_eq!(levels.first_above(at(6)), None);
        assert_eq!(levels.highest(begun), Level::Blazing);
        assert_eq!(levels.normal_since(), Some(at(9)));
        lock(&history).changes.pop();
        assert_eq!((levels.now(), levels.normal_since()), (Level::Hot, None));
    }
}
