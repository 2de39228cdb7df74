//! The figures of a run: printed, as JSON, and as plots.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::Overload;
use super::bounds::{LATENCY_FACTOR, LATENCY_FLOOR_MS};
use super::course::{Found, Step, Stored};
use super::recorder::{Phase, Second, Times};
use super::tally::{ByClass, Class, Counts};
use crate::bench::figures::{figure, quantile_ms};
use crate::instruments::bound::Bound;
use crate::instruments::plot::{Band, Drawing, Line, Panel};
use crate::instruments::report::write_report;

/// Seconds at the begin and at the end of the overload in which the memory is compared.
const FIRST: f64 = 5.0;
const LAST: f64 = 3.0;
/// Seconds of which a latency after the overload is measured: a single one has too few messages.
const WINDOW: usize = 5;
/// A class with fewer requests in a second may have none that would be refused.
const ENOUGH: u64 = 10;

/// Everything that is written.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) command: String,
    pub(super) conditions: Vec<String>,
    pub(super) holds: bool,
    pub(super) bounds: Vec<Bound>,
    pub(super) overload_seconds: f64,
    pub(super) figures: Figures,
    pub(super) seconds: Vec<Second>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Figures {
    pub(super) steps: Vec<Step>,
    /// Messages a second.
    pub(super) capacity: f64,
    /// Of what the overload was to offer, and of the capacity: messages.
    pub(super) offered_share: f64,
    pub(super) acked_share: f64,
    /// By class in the order of shedding, in the overload.
    pub(super) offered: ByClass,
    pub(super) shed: ByClass,
    pub(super) messages_shed_share: f64,
    /// No class has a smaller share of refusals than messages.
    pub(super) is_last: bool,
    pub(super) level_max: u64,
    pub(super) seconds_with_refusals: u64,
    pub(super) out_of_order: Vec<String>,
    pub(super) has_run: Option<bool>,
    /// Seconds in which the server did not say how it is.
    pub(super) silent_seconds: u64,
    pub(super) quiet: Latencies,
    pub(super) overload: Latencies,
    pub(super) recovery: Latencies,
    pub(super) messages: Counts,
    pub(super) recovered: Recovered,
    pub(super) rss_first_mib: Option<f64>,
    pub(super) rss_last_mib: Option<f64>,
    pub(super) rss_max_mib: Option<f64>,
    pub(super) generator_rss_max_mib: f64,
    /// In the overload.
    pub(super) server_cpu_seconds: Option<f64>,
    pub(super) generator_cpu_seconds: f64,
    /// Of all other processes: if they used much, the latencies are not those of the server alone.
    pub(super) other_cpu_seconds: Option<f64>,
    pub(super) stolen_cpu_seconds: Option<f64>,
    /// Answers in the whole run.
    pub(super) answers: Vec<Answers>,
    pub(super) stored: Stored,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Answers {
    pub(super) to: &'static str,
    pub(super) counts: Counts,
    pub(super) first_error: Option<String>,
}

/// Of a phase, in milliseconds; absent if nothing was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Latencies {
    pub(super) ack_p50_ms: Option<f64>,
    pub(super) ack_p99_ms: Option<f64>,
    pub(super) probe_ack_p50_ms: Option<f64>,
    pub(super) probe_ack_p99_ms: Option<f64>,
    pub(super) probe_delivery_p99_ms: Option<f64>,
    pub(super) refusal_p50_ms: Option<f64>,
    pub(super) refusal_p99_ms: Option<f64>,
}

/// Seconds from the end of the overload until something was as before; `None` if it never was.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Recovered {
    /// From then on nothing was shed.
    pub(super) level_s: Option<f64>,
    pub(super) ack_s: Option<f64>,
    pub(super) probe_ack_s: Option<f64>,
    pub(super) probe_delivery_s: Option<f64>,
}

impl Latencies {
    fn of(seconds: &[Second], phase: Phase) -> anyhow::Result<Self> {
        let mut times = Times::new()?;
        for second in seconds.iter().filter(|second| second.phase == phase) {
            times.add(&second.times)?;
        }
        let Times { ack, probe_ack, probe_delivery, refusal } = &times;
        Ok(Self {
            ack_p50_ms: quantile(ack, 0.5),
            ack_p99_ms: quantile(ack, 0.99),
            probe_ack_p50_ms: quantile(probe_ack, 0.5),
            probe_ack_p99_ms: quantile(probe_ack, 0.99),
            probe_delivery_p99_ms: quantile(probe_delivery, 0.99),
            refusal_p50_ms: quantile(refusal, 0.5),
            refusal_p99_ms: quantile(refusal, 0.99),
        })
    }
}

fn quantile(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| quantile_ms(histogram, quantile))
}

impl Figures {
    pub(super) fn of(args: &Overload, found: &Found) -> anyhow::Result<Self> {
        let seconds = &found.seconds;
        let quiet = Latencies::of(seconds, Phase::Quiet)?;
        let overload = || seconds.iter().filter(|second| second.phase == Phase::Overload);
        let lasted = (found.ended - found.begun).as_secs_f64();
        let after = || seconds.iter().filter(|second| second.phase >= Phase::Overload);
        let sum = |of: fn(&Second) -> &ByClass| {
            overload().fold(ByClass::default(), |sum, second| {
                std::array::from_fn(|class| sum[class] + of(second)[class])
            })
        };
        let (offered, shed) = (sum(|second| &second.offered), sum(|second| &second.shed));
        let refused = |class: usize| figure(shed[class]) / figure(offered[class].max(1));
        let messages = Class::Messages as usize;
        let wanted = found.capacity * args.factor * lasted;
        let rss = |from: f64, to: f64| {
            let rss: Vec<f64> = overload()
                .filter(|second| second.at > from && second.at <= to)
                .filter_map(|second| second.server_rss_mib)
                .collect();
            (!rss.is_empty()).then(|| rss.iter().sum::<f64>() / figure(rss.len() as u64))
        };
        Ok(Self {
            steps: found.steps.clone(),
            capacity: found.capacity,
            offered_share: figure(found.overload.offered) / wanted,
            acked_share: figure(found.overload.done) / lasted / found.capacity,
            offered,
            shed,
            messages_shed_share: refused(messages),
            is_last: (0..messages)
                .all(|class| offered[class] < ENOUGH || refused(class) >= refused(messages)),
            level_max: seconds.iter().filter_map(|second| second.shed_level).max().unwrap_or_default(),
            seconds_with_refusals: after().filter(|second| second.shed.iter().any(|count| *count > 0)).count()
                as u64,
            out_of_order: after().filter_map(out_of_order).collect(),
            has_run: found.has_run,
            silent_seconds: seconds.iter().filter(|second| second.shed_level.is_none()).count() as u64,
            overload: Latencies::of(seconds, Phase::Overload)?,
            recovery: Latencies::of(seconds, Phase::Recovery)?,
            messages: found.overload,
            recovered: Recovered::of(found, &quiet)?,
            rss_first_mib: rss(0.0, FIRST + 0.5),
            rss_last_mib: rss(lasted - LAST, f64::INFINITY),
            rss_max_mib: after().filter_map(|second| second.server_rss_mib).reduce(f64::max),
            generator_rss_max_mib: seconds.iter().map(|second| second.generator_rss_mib).fold(0.0, f64::max),
            server_cpu_seconds: overload().map(|second| second.server_cpu_seconds).sum(),
            generator_cpu_seconds: overload().map(|second| second.generator_cpu_seconds).sum(),
            other_cpu_seconds: overload().map(|second| second.other_cpu_seconds).sum(),
            stolen_cpu_seconds: overload().map(|second| second.stolen_cpu_seconds).sum(),
            answers: found
                .answers
                .iter()
                .cloned()
                .map(|(to, counts, first_error)| Answers { to, counts, first_error })
                .collect(),
            stored: found.stored.clone(),
            quiet,
        })
    }
}

/// Processor seconds as a number of cores.
fn cores(cpu_seconds: Option<f64>, seconds: f64) -> String {
    cpu_seconds.map_or_else(|| "unknown".to_owned(), |cpu| format!("{:.2}", cpu / seconds))
}

/// What is wrong with the order of shedding in this second: a class was shed, and an earlier one with requests was not.
fn out_of_order(second: &Second) -> Option<String> {
    let last = second.shed.iter().rposition(|count| *count > 0)?;
    let spared = (0..last).find(|class| second.offered[*class] >= ENOUGH && second.shed[*class] == 0)?;
    Some(format!(
        "{:.0} s: {} of {} {}, none of {} {}",
        second.at,
        second.shed[last],
        second.offered[last],
        Class::ALL[last].name(),
        second.offered[spared],
        Class::ALL[spared].name()
    ))
}

impl Recovered {
    fn of(found: &Found, quiet: &Latencies) -> anyhow::Result<Self> {
        let seconds: Vec<&Second> =
            found.seconds.iter().filter(|second| second.phase == Phase::Recovery).collect();
        let after = |second: &Second| second.ended.saturating_duration_since(found.ended).as_secs_f64();
        let is_calm = |second: &&Second| second.shed_level == Some(0) && second.shed.iter().sum::<u64>() == 0;
        let last = seconds.iter().rposition(|second| !is_calm(second));
        let level_s = seconds.get(last.map_or(0, |last| last + 1)).map(|second| after(second));
        let again = |of: fn(&Times) -> &Histogram<u64>, quiet_ms: Option<f64>| {
            let most = (quiet_ms? * LATENCY_FACTOR).max(LATENCY_FLOOR_MS);
            seconds.windows(WINDOW).find_map(|window| {
                let mut sum = of(&window[0].times).clone();
                for second in &window[1..] {
                    sum.add(of(&second.times)).ok()?;
                }
                let begun = window[0].ended.checked_sub(Duration::from_secs_f64(window[0].length))?;
                let is_met = quantile(&sum, 0.99).is_some_and(|ms| ms <= most);
                is_met.then(|| begun.saturating_duration_since(found.ended).as_secs_f64())
            })
        };
        Ok(Self {
            level_s,
            ack_s: again(|times| &times.ack, quiet.ack_p99_ms),
            probe_ack_s: again(|times| &times.probe_ack, quiet.probe_ack_p99_ms),
            probe_delivery_s: again(|times| &times.probe_delivery, quiet.probe_delivery_p99_ms),
        })
    }
}

impl Report {
    /// Writes the report as JSON, and the plots beside it.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_report(path, self, self.plots())
    }

    pub(super) fn print(&self) {
        let figures = &self.figures;
        println!(
            "capacity: {:.0} messages a second; overload: {:.0} % of what was to be offered, {} acked, {} shed, {} not sent \
             because too many waited",
            figures.capacity,
            figures.offered_share * 100.0,
            figures.messages.done,
            figures.messages.shed,
            figures.messages.skipped
        );
        for (name, latencies) in
            [("quiet", &figures.quiet), ("overload", &figures.overload), ("recovery", &figures.recovery)]
        {
            println!(
                "{name}: ack p50 {}, p99 {}; quiet pair: ack p50 {}, p99 {}, delivery p99 {}; refusal p50 {}, p99 {} ms",
                ms(latencies.ack_p50_ms),
                ms(latencies.ack_p99_ms),
                ms(latencies.probe_ack_p50_ms),
                ms(latencies.probe_ack_p99_ms),
                ms(latencies.probe_delivery_p99_ms),
                ms(latencies.refusal_p50_ms),
                ms(latencies.refusal_p99_ms)
            );
        }
        println!(
            "in the overload: server {} cores, at most {} MiB; generator {} cores, at most {:.0} MiB; other processes {} cores, \
             stolen by the host {}",
            cores(figures.server_cpu_seconds, self.overload_seconds),
            figures.rss_max_mib.map_or_else(|| "unknown".to_owned(), |mib| format!("{mib:.0}")),
            cores(Some(figures.generator_cpu_seconds), self.overload_seconds),
            figures.generator_rss_max_mib,
            cores(figures.other_cpu_seconds, self.overload_seconds),
            cores(figures.stolen_cpu_seconds, self.overload_seconds)
        );
        for Answers { to, counts, first_error } in &figures.answers {
            println!(
                "{to}: {} offered, {} done, {} shed (wait at most {} ms), {} refused for another reason, {} failed, {} skipped, \
                 {} unanswered, {} connections ended {}",
                counts.offered,
                counts.done,
                counts.shed,
                counts.longest_wait_ms,
                counts.limited,
                counts.failed,
                counts.skipped,
                counts.unanswered,
                counts.closed,
                first_error.as_deref().unwrap_or_default()
            );
        }
        figures.out_of_order.iter().for_each(|second| println!("not in order at {second}"));
        let stored = &figures.stored;
        println!("history: {} messages of {} acked", stored.messages, stored.acked);
        self.bounds.iter().for_each(|bound| println!("{}", bound.line()));
    }

    fn plots(&self) -> String {
        let line = |name: &str, of: &dyn Fn(&Second) -> Option<f64>| Line {
            name: name.to_owned(),
            points: self.seconds.iter().filter_map(|second| Some((second.at, of(second)?))).collect(),
        };
        let panel =
            |title: &str, unit, lines| Panel { title: title.to_owned(), unit, lines, marks: Vec::new() };
        let shed = |class: Class| {
            line(class.name(), &move |second| Some(figure(second.shed[class as usize]) / second.length))
        };
        let mut acks = panel(
            "messages a second",
            "1/s",
            vec![
                line("offered", &|second| {
                    Some(figure(second.offered[Class::Messages as usize]) / second.length)
                }),
                line("acked", &|second| Some(figure(second.acked) / second.length)),
            ],
        );
        acks.marks.push(("capacity".to_owned(), self.figures.capacity));
        let latencies = vec![
            line("ack p99", &|second| second.ack_p99_ms),
            line("quiet pair's", &|second| second.probe_ack_p99_ms),
        ];
        let usage = vec![
            line("server", &|second| second.server_rss_mib),
            line("generator", &|second| Some(second.generator_rss_mib)),
        ];
        let cores = vec![
            line("server", &|second| Some(second.server_cpu_seconds? / second.length)),
            line("generator", &|second| Some(second.generator_cpu_seconds / second.length)),
        ];
        let (first, later) = (
            [Class::Presence, Class::Receipts, Class::History],
            [Class::Joins, Class::Connections, Class::Messages],
        );
        let panels = [
            acks,
            panel("latencies", "ms", latencies),
            panel("shed a second: first classes", "1/s", first.map(shed).into()),
            panel("shed a second: last classes", "1/s", later.map(shed).into()),
            panel("memory", "MiB", usage),
            panel("processor", "cores", cores),
        ];
        let (bands, legend) = self.bands();
        let drawing = Drawing { bar: "overload", bar_ends: self.overload_seconds, bands, legend };
        drawing.plot(&self.command, &panels)
    }

    /// The level of shedding, as a background.
    fn bands(&self) -> (Vec<Band>, Vec<(String, &'static str)>) {
        let tints = [("level 1-2", "#fef3c7"), ("level 3-5", "#fed7aa"), ("level 6-7", "#fecaca")];
        let tint = |level: Option<u64>| match level {
            None | Some(0) => "#ffffff",
            Some(1 | 2) => tints[0].1,
            Some(3..=5) => tints[1].1,
            Some(_) => tints[2].1,
        };
        let mut from = self.seconds.first().map_or(0.0, |second| second.at);
        let mut bands = Vec::new();
        for second in &self.seconds {
            bands.push(Band { tint: tint(second.shed_level), from, to: second.at });
            from = second.at;
        }
        (bands, tints.map(|(name, tint)| (name.to_owned(), tint)).into())
    }
}

fn ms(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use super::*;

    /// Figures of a run that meets all bounds.
    pub(in crate::overload) fn figures() -> Figures {
        let s = Some(12.0);
        Figures {
            capacity: 1_000.0,
            offered_share: 1.0,
            acked_share: 0.9,
            shed: [900, 900, 0, 800, 100, 50, 10],
            is_last: true,
            has_run: Some(true),
            overload: Latencies { refusal_p99_ms: Some(20.0), ..Latencies::default() },
            recovered: Recovered { level_s: s, ack_s: s, probe_ack_s: s, probe_delivery_s: s },
            rss_first_mib: Some(100.0),
            rss_last_mib: Some(110.0),
            answers: vec![Answers::default()],
            ..Figures::default()
        }
    }

    fn second(offered: ByClass, shed: ByClass) -> Second {
        Second {
            phase: Phase::Overload,
            at: 3.0,
            length: 1.0,
            shed_level: Some(1),
            offered,
            shed,
            acked: 0,
            refused: 0,
            skipped: 0,
            ack_p50_ms: None,
            ack_p99_ms: None,
            probe_ack_p99_ms: None,
            probe_delivery_p99_ms: None,
            server_cpu_seconds: None,
            server_rss_mib: None,
            generator_cpu_seconds: 0.0,
            generator_rss_mib: 0.0,
            other_cpu_seconds: None,
            stolen_cpu_seconds: None,
            ended: Instant::now(),
            times: Times::new().unwrap(),
        }
    }

    #[test]
    fn a_class_is_shed_only_after_the_earlier_ones() {
        let wrong = |offered, shed| out_of_order(&second(offered, shed));
        assert_eq!(wrong([50; 7], [0; 7]), None);
        assert_eq!(wrong([50; 7], [50, 50, 50, 4, 0, 0, 0]), None);
        assert_eq!(
            wrong([50; 7], [50, 50, 50, 0, 0, 0, 4]).as_deref(),
            Some("3 s: 4 of 50 messages, none of 50 history")
        );
        // A class without requests, or with few of them, has no refusals.
        assert_eq!(wrong([50, 9, 0, 50, 50, 50, 50], [50, 0, 0, 4, 0, 0, 0]), None);
    }
}
