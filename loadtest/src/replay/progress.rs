//! Progress for the person who runs the tool: bars on a terminal, a few lines otherwise.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::world::World;
use crate::corpus::Corpus;

/// One bar after another: users, lines, channels checked.
pub(crate) struct Progress {
    people: ProgressBar,
    lines: ProgressBar,
    checks: ProgressBar,
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn new(corpus: &Corpus) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let progress = Self {
            people: bar(corpus.nicks.len(), is_terminal),
            lines: bar(corpus.lines(), is_terminal),
            checks: bar(corpus.days.len(), is_terminal),
            is_terminal,
        };
        let (days, lines, people) = (corpus.days.len(), corpus.lines(), corpus.nicks.len());
        progress.say(&format!("{days} days, {lines} lines, {people} people"));
        progress
    }

    /// Prints a line.
    pub(crate) fn say(&self, line: &str) {
        if self.is_terminal {
            self.lines.suspend(|| eprintln!("{line}"));
        } else {
            eprintln!("{line}");
        }
    }

    /// A user signed up.
    pub(crate) fn user(&self) {
        self.people.set_message("people");
        self.people.inc(1);
        if self.people.length() == Some(self.people.position()) {
            self.people.finish_and_clear();
        }
    }

    /// A channel was compared with its history.
    pub(crate) fn checked(&self) {
        self.checks.set_message("channels checked");
        self.checks.inc(1);
    }

    /// Shows the progress of the lines until it is aborted.
    pub(crate) fn watch(&self, world: Arc<World>) -> JoinHandle<()> {
        let (bar, is_terminal) = (self.lines.clone(), self.is_terminal);
        let every = Duration::from_millis(if is_terminal { 250 } else { 10_000 });
        let tasks = world.tasks.clone();
        tasks.spawn(async move {
            let started = Instant::now();
            loop {
                let counters = &world.counters;
                bar.set_position(counters.settled.load(Ordering::Relaxed));
                let state = format!(
                    "{} deliveries, {} sockets, {} kills, {} faults",
                    counters.delivered.load(Ordering::Relaxed),
                    world.sockets(),
                    counters.kills.load(Ordering::Relaxed),
                    world.faults.total(),
                );
                bar.set_message(state.clone());
                if !is_terminal {
                    let (seconds, done) = (started.elapsed().as_secs(), bar.position());
                    eprintln!("{seconds:>5} s: {done} of {} lines, {state}", world.lines());
                }
                sleep(every).await;
            }
        })
    }

    pub(crate) fn finish(&self) {
        for bar in [&self.people, &self.lines, &self.checks] {
            bar.finish_and_clear();
        }
    }
}

fn bar(length: usize, is_terminal: bool) -> ProgressBar {
    if !is_terminal {
        let hidden = ProgressBar::hidden();
        hidden.set_length(length as u64);
        return hidden;
    }
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {eta} {msg}") {
        bar.set_style(style);
    }
    bar
}
