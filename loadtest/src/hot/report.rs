//! The figures of a run: printed, as JSON, and as plots.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::calls::Calls;
use super::check::Outcome;
use super::level::{Level, Levels};
use super::recorder::{Latencies, Second};
use super::senders::Acks;
use crate::bench::figures::{figure, quantile_ms};
use crate::instruments::bound::Bound;
use crate::instruments::history::Stored;
use crate::instruments::plot::{Band, Drawing, Line, Panel};
use crate::instruments::report::write_report;

/// Everything that is written.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) command: String,
    pub(super) conditions: Vec<String>,
    pub(super) holds: bool,
    pub(super) bounds: Vec<Bound>,
    pub(super) storm_seconds: f64,
    pub(super) figures: Figures,
    pub(super) seconds: Vec<Second>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Figures {
    pub(super) quiet: Phase,
    pub(super) storm: Phase,
    /// Freshness without what was delivered in the first seconds of the storm.
    pub(super) freshness_later_p99_ms: f64,
    /// Entries delivered to readers of the channel, from the begin of the storm until all readers had everything.
    pub(super) deliveries: u64,
    pub(super) deliveries_per_second: f64,
    pub(super) entries_per_frame: f64,
    pub(super) mib_delivered: f64,
    /// In the same time; absent if the server's process is not known.
    pub(super) server_cpu_seconds: Option<f64>,
    pub(super) deliveries_per_cpu_second: Option<f64>,
    pub(super) server_rss_max_mib: Option<f64>,
    pub(super) generator_cpu_seconds: f64,
    /// Of all other processes of the machine: if they used much, the latencies are not those of the server alone.
    pub(super) other_cpu_seconds: Option<f64>,
    /// Time in which the host let other machines run: no process of this one did.
    pub(super) stolen_cpu_seconds: Option<f64>,
    /// Time after the end of the storm until all readers had everything; absent if some never had.
    pub(super) drained_after_s: Option<f64>,
    pub(super) sends: Sends,
    pub(super) bystander_sends: Sends,
    pub(super) joins: CallFigures,
    pub(super) fetches: CallFigures,
    pub(super) levels: LevelFigures,
    pub(super) readers: ReaderFigures,
    pub(super) bystanders: ReaderFigures,
    pub(super) stored: Stored,
}

/// Latencies of a phase in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Phase {
    pub(super) freshness_p50_ms: f64,
    pub(super) freshness_p99_ms: f64,
    pub(super) freshness_max_ms: f64,
    pub(super) send_ack_p50_ms: f64,
    pub(super) send_ack_p99_ms: f64,
    /// Of the bystanders, as the following ones.
    pub(super) ack_p50_ms: f64,
    pub(super) ack_p99_ms: f64,
    pub(super) delivery_p50_ms: f64,
    pub(super) delivery_p99_ms: f64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Sends {
    pub(super) sent: u64,
    pub(super) acked: u64,
    /// With a time after which to try again.
    pub(super) refused: u64,
    pub(super) unanswered: u64,
    pub(super) errors: u64,
    /// Connections that ended. Their users connected again.
    pub(super) closed: u64,
    pub(super) first_error: Option<String>,
    /// How late the generator wrote messages.
    pub(super) late_p99_ms: f64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct CallFigures {
    pub(super) joined: u64,
    pub(super) left: u64,
    pub(super) fetched: u64,
    /// With a time after which to try again.
    pub(super) refused: u64,
    pub(super) longest_wait_ms: u64,
    /// Due while all connections were busy, and not made.
    pub(super) skipped: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct LevelFigures {
    pub(super) highest: Level,
    /// Time from the begin of the storm until the level was above normal.
    pub(super) hot_after_s: Option<f64>,
    /// Time from the end of the storm until the level was normal.
    pub(super) normal_after_s: Option<f64>,
    pub(super) failure: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ReaderFigures {
    pub(super) readers: u64,
    /// The sum of all readers; `base` and `last` have no meaning.
    pub(super) entries: Outcome,
    /// Connections that ended.
    pub(super) closed: u64,
    pub(super) first_reason: Option<String>,
}

impl Phase {
    pub(super) fn of(latencies: &Latencies) -> Self {
        let Latencies { freshness, send_ack, ack, delivery } = latencies;
        Self {
            freshness_p50_ms: quantile(freshness, 0.5),
            freshness_p99_ms: quantile(freshness, 0.99),
            freshness_max_ms: quantile(freshness, 1.0),
            send_ack_p50_ms: quantile(send_ack, 0.5),
            send_ack_p99_ms: quantile(send_ack, 0.99),
            ack_p50_ms: quantile(ack, 0.5),
            ack_p99_ms: quantile(ack, 0.99),
            delivery_p50_ms: quantile(delivery, 0.5),
            delivery_p99_ms: quantile(delivery, 0.99),
        }
    }
}

impl Sends {
    /// The figures at the end, when no message waits for an answer any longer.
    pub(super) fn of(acks: &Acks) -> Self {
        let (sent, acked, refused) = (of(&acks.sent), of(&acks.acked), of(&acks.refused));
        let errors = of(&acks.errors);
        Self {
            sent,
            acked,
            refused,
            unanswered: sent.saturating_sub(acked + refused + errors),
            errors,
            closed: of(&acks.closed),
            first_error: acks.first_error(),
            late_p99_ms: quantile_ms(&acks.late(), 0.99),
        }
    }
}

impl CallFigures {
    pub(super) fn of(calls: &Calls) -> Self {
        let latency = calls.latency();
        Self {
            joined: of(&calls.counts.joined),
            left: of(&calls.counts.left),
            fetched: of(&calls.counts.fetched),
            refused: of(&calls.counts.refused),
            longest_wait_ms: of(&calls.longest_wait_ms),
            skipped: of(&calls.counts.skipped),
            errors: of(&calls.counts.errors),
            first_error: calls.first_error(),
            p50_ms: quantile_ms(&latency, 0.5),
            p99_ms: quantile_ms(&latency, 0.99),
        }
    }
}

impl ReaderFigures {
    pub(super) fn of(outcomes: &[Outcome]) -> Self {
        let mut entries = Outcome::default();
        outcomes.iter().for_each(|outcome| entries.add(outcome));
        let mut reasons = outcomes.iter().filter_map(|outcome| outcome.closed.clone());
        let first_reason = reasons.next();
        let closed = reasons.count() as u64 + u64::from(first_reason.is_some());
        Self { readers: outcomes.len() as u64, entries, closed, first_reason }
    }
}

/// In milliseconds; undefined if nothing was measured, so that no bound on it is met.
fn quantile(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    if histogram.is_empty() { f64::NAN } else { quantile_ms(histogram, quantile) }
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Report {
    /// Writes the report as JSON, and the plots beside it.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_report(path, self, plots_of(self))
    }

    pub(super) fn print(&self) {
        let figures = &self.figures;
        let (quiet, storm) = (&figures.quiet, &figures.storm);
        println!(
            "freshness: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; p99 {:.1} ms without the first {} s",
            storm.freshness_p50_ms,
            storm.freshness_p99_ms,
            storm.freshness_max_ms,
            figures.freshness_later_p99_ms,
            super::FIRST.as_secs()
        );
        let known = |figure: Option<f64>| {
            figure.map_or_else(|| "unknown".to_owned(), |figure| format!("{figure:.1}"))
        };
        println!(
            "deliveries: {} ({:.0} a second, {:.1} entries a frame, {:.0} MiB); server {} CPU s, at most {} MiB; \
             generator {:.1} CPU s, other processes {} CPU s, stolen by the host {} s; all delivered {} s after the storm",
            figures.deliveries,
            figures.deliveries_per_second,
            figures.entries_per_frame,
            figures.mib_delivered,
            known(figures.server_cpu_seconds),
            known(figures.server_rss_max_mib),
            figures.generator_cpu_seconds,
            known(figures.other_cpu_seconds),
            known(figures.stolen_cpu_seconds),
            figures.drained_after_s.map_or_else(|| "not even 60".to_owned(), |after| format!("{after:.1}"))
        );
        for (name, phase) in [("quiet", quiet), ("storm", storm)] {
            println!(
                "bystanders, {name}: ack p50 {:.2} ms, p99 {:.2} ms; delivery p50 {:.2} ms, p99 {:.2} ms",
                phase.ack_p50_ms, phase.ack_p99_ms, phase.delivery_p50_ms, phase.delivery_p99_ms
            );
        }
        print_sends("sends", &figures.sends);
        println!("sends: ack p50 {:.1} ms, p99 {:.1} ms", storm.send_ack_p50_ms, storm.send_ack_p99_ms);
        print_sends("bystanders' sends", &figures.bystander_sends);
        print_calls("joins", &figures.joins);
        print_calls("fetches", &figures.fetches);
        let levels = &figures.levels;
        println!(
            "level: highest {:?}; above normal after {} s; normal {} s after the storm {}",
            levels.highest,
            known(levels.hot_after_s),
            known(levels.normal_after_s),
            levels.failure.as_deref().unwrap_or_default()
        );
        print_readers("readers", &figures.readers);
        print_readers("bystanders' readers", &figures.bystanders);
        let stored = &figures.stored;
        println!(
            "history: {} entries, {} messages of {} acked, {} missing, {} holes",
            stored.entries, stored.messages, stored.acked, stored.acked_missing, stored.holes
        );
        self.bounds.iter().for_each(|bound| println!("{}", bound.line()));
    }
}

fn print_sends(name: &str, sends: &Sends) {
    println!(
        "{name}: {} sent ({:.1} ms late at p99), {} acked, {} refused for now, {} unanswered, {} errors, {} connections ended {}",
        sends.sent,
        sends.late_p99_ms,
        sends.acked,
        sends.refused,
        sends.unanswered,
        sends.errors,
        sends.closed,
        sends.first_error.as_deref().unwrap_or_default()
    );
}

fn print_calls(name: &str, calls: &CallFigures) {
    println!(
        "{name}: {} joined, {} left, {} read, {} refused for now (wait at most {} ms), {} skipped, {} errors {}; p50 {:.1} ms, \
         p99 {:.1} ms",
        calls.joined,
        calls.left,
        calls.fetched,
        calls.refused,
        calls.longest_wait_ms,
        calls.skipped,
        calls.errors,
        calls.first_error.as_deref().unwrap_or_default(),
        calls.p50_ms,
        calls.p99_ms
    );
}

fn print_readers(name: &str, figures: &ReaderFigures) {
    let entries = &figures.entries;
    println!(
        "{name}: {} received {} entries; {} lost in {} unannounced gaps, {} duplicated, {} reordered; {} announced gaps left out \
         {} entries; {} connections ended before {} entries {}",
        figures.readers,
        entries.delivered,
        entries.lost,
        entries.unannounced_gaps,
        entries.duplicated,
        entries.reordered,
        entries.announced_gaps,
        entries.left_out,
        figures.closed,
        entries.cut_off,
        figures.first_reason.as_deref().unwrap_or_default()
    );
}

/// The plots of a run.
fn plots_of(report: &Report) -> String {
    let seconds = &report.seconds;
    let line = |name: &str, of: fn(&Second) -> Option<f64>| Line {
        name: name.to_owned(),
        points: seconds.iter().filter_map(|second| Some((second.at, of(second)?))).collect(),
    };
    let quiet = &report.figures.quiet;
    let panels = [
        Panel {
            title: "freshness of the channel".to_owned(),
            unit: "ms",
            lines: vec![
                line("p50", |second| second.freshness_p50_ms),
                line("p99", |second| second.freshness_p99_ms),
            ],
            marks: Vec::new(),
        },
        Panel {
            title: "bystanders, p99".to_owned(),
            unit: "ms",
            lines: vec![
                line("ack", |second| second.bystander_ack_p99_ms),
                line("delivery", |second| second.bystander_delivery_p99_ms),
            ],
            marks: vec![
                ("quiet ack".to_owned(), quiet.ack_p99_ms),
                ("quiet delivery".to_owned(), quiet.delivery_p99_ms),
            ],
        },
        Panel {
            title: "deliveries a second".to_owned(),
            unit: "1/s",
            lines: vec![line("deliveries", |second| Some(second.deliveries_per_second))],
            marks: Vec::new(),
        },
        Panel {
            title: "joins and leaves a second".to_owned(),
            unit: "1/s",
            lines: vec![
                line("let in or out", |second| rate(second, second.joined + second.left)),
                line("refused", |second| rate(second, second.calls_refused)),
                line("skipped", |second| rate(second, second.calls_skipped)),
            ],
            marks: Vec::new(),
        },
    ];
    let mut from = seconds.first().map_or(0.0, |second| second.at);
    let mut bands = Vec::new();
    for same in seconds.chunk_by(|one, next| one.level == next.level) {
        let (level, to) = (same[0].level, same[same.len() - 1].at);
        bands.push(Band { tint: tint(level), from, to });
        from = to;
    }
    let above = Levels::ALL.into_iter().filter(|level| *level > Level::Normal);
    let legend = above.map(|level| (format!("{level:?}").to_lowercase(), tint(level))).collect();
    let drawing = Drawing { bar: "storm", bar_ends: report.storm_seconds, bands, legend };
    drawing.plot(&report.command, &panels)
}

const fn tint(level: Level) -> &'static str {
    match level {
        Level::Normal => "#ffffff",
        Level::Warm => "#fef3c7",
        Level::Hot => "#fed7aa",
        Level::Blazing => "#fecaca",
    }
}

/// A count as a rate.
fn rate(second: &Second, count: u64) -> Option<f64> {
    Some(figure(count) / second.length)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Figures of a run that meets all bounds.
    pub(in crate::hot) fn figures() -> Figures {
        let phase =
            Phase { freshness_p99_ms: 900.0, ack_p99_ms: 2.0, delivery_p99_ms: 2.0, ..Phase::default() };
        Figures {
            quiet: phase.clone(),
            storm: phase,
            freshness_later_p99_ms: 900.0,
            deliveries_per_cpu_second: Some(1_200_000.0),
            levels: LevelFigures {
                highest: Level::Blazing,
                hot_after_s: Some(1.0),
                normal_after_s: Some(120.0),
                failure: None,
            },
            ..Figures::default()
        }
    }

    #[test]
    fn readers_are_summed() {
        let closed = Some("reset".to_owned());
        let one = Outcome { delivered: 4, lost: 1, closed, ..Outcome::default() };
        let two = Outcome { delivered: 5, announced_gaps: 1, ..Outcome::default() };
        let sum = ReaderFigures::of(&[two, one.clone(), one]);
        assert_eq!((sum.readers, sum.entries.delivered, sum.entries.lost, sum.closed), (3, 13, 2, 2));
        assert_eq!(sum.first_reason.as_deref(), Some("reset"));
    }
}
