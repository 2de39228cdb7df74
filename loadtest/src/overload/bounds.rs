//! The bounds of a run, and whether they were met.

use super::report::Figures;
use super::tally::Class;
use crate::instruments::bound::Bound;

/// The generator must have offered this share of what it was to offer: otherwise the run says nothing.
const OFFERED: f64 = 0.8;
/// Acks in the overload as a share of the capacity.
const ACKED: f64 = 0.5;
/// The time of a refusal, at the 99th percentile.
const REFUSAL_P99_MS: f64 = 500.0;
/// The server's memory at the end of the overload, as a multiple of that in its first seconds, and what full queues may
/// take besides.
const RSS_FACTOR: f64 = 1.25;
const RSS_ALLOWANCE_MIB: f64 = 64.0;
/// Time from the end of the overload until nothing is shed, and until the latencies are those of the quiet phase.
const RECOVERY_S: f64 = 30.0;
/// Latencies after the overload as a multiple of those in the quiet phase. Below the floor they are noise.
pub(super) const LATENCY_FACTOR: f64 = 1.5;
pub(super) const LATENCY_FLOOR_MS: f64 = 10.0;

/// All bounds.
pub(super) fn judge(figures: &Figures) -> Vec<Bound> {
    let mut bounds = vec![
        Bound {
            what: "the server runs from begin to end".to_owned(),
            met: figures.has_run.map(|has_run| has_run && figures.silent_seconds == 0),
            figure: match figures.has_run {
                Some(true) => {
                    format!("the same processes; {} seconds without an answer", figures.silent_seconds)
                }
                Some(false) => "it has ended or was started again".to_owned(),
                None => "unknown".to_owned(),
            },
        },
        at_least("of the overload was offered", figures.offered_share, OFFERED),
    ];
    bounds.extend(shedding(figures));
    bounds.push(at_least("of the capacity is acked in the overload", figures.acked_share, ACKED));
    bounds.push(at_most_ms("refusals p99", figures.overload.refusal_p99_ms, REFUSAL_P99_MS));
    bounds.push(memory(figures));
    bounds.extend(recovery(figures));
    let stored = &figures.stored;
    let answers = figures.answers.iter().map(|answers| answers.counts);
    let (mut failed, mut unanswered, mut closed) = (0, 0, 0);
    for counts in answers {
        failed += counts.failed;
        unanswered += counts.unanswered;
        closed += counts.closed;
    }
    let none = [
        ("acked messages that history lacks", stored.missing),
        ("messages that are stored twice", stored.twice),
        ("messages that are stored before an earlier one of their sender", stored.reordered),
        ("holes in history", stored.holes),
        ("answers other than a result or a refusal with retry_after_ms", failed),
        ("messages without an answer", unanswered),
        ("connections that ended", closed),
    ];
    bounds.extend(none.into_iter().map(|(what, count)| Bound::none(what, count)));
    bounds
}

fn at_least(what: &str, share: f64, least: f64) -> Bound {
    Bound {
        what: format!("at least {:.0} % {what}", least * 100.0),
        met: Some(share >= least),
        figure: format!("{:.0} %", share * 100.0),
    }
}

fn at_most_ms(what: &str, ms: Option<f64>, most_ms: f64) -> Bound {
    Bound {
        what: format!("{what} at most {most_ms} ms"),
        met: ms.map(|ms| ms <= most_ms),
        figure: ms.map_or_else(|| "nothing was measured".to_owned(), |ms| format!("{ms:.1} ms")),
    }
}

fn shedding(figures: &Figures) -> [Bound; 3] {
    let shed: u64 = figures.shed.iter().sum();
    let shares: Vec<String> = Class::ALL
        .into_iter()
        .zip(figures.offered.iter().zip(&figures.shed))
        .filter(|(_, (offered, _))| **offered > 0)
        .map(|(class, (offered, shed))| format!("{} {shed} of {offered}", class.name()))
        .collect();
    [
        Bound {
            what: "the server sheds".to_owned(),
            met: Some(shed > 0),
            figure: format!("level at most {}; {}", figures.level_max, shares.join(", ")),
        },
        Bound {
            what: "in each second, a class is shed only if all earlier ones with requests are".to_owned(),
            met: Some(figures.out_of_order.is_empty()),
            figure: match figures.out_of_order.first() {
                None => format!("{} seconds with refusals", figures.seconds_with_refusals),
                Some(first) => {
                    format!("{} seconds are not in order; first {first}", figures.out_of_order.len())
                }
            },
        },
        Bound {
            what: "messages are shed last: no class has a smaller share of refusals".to_owned(),
            met: Some(figures.is_last),
            figure: format!("{:.1} % of messages", figures.messages_shed_share * 100.0),
        },
    ]
}

fn memory(figures: &Figures) -> Bound {
    let rss = figures.rss_first_mib.zip(figures.rss_last_mib);
    Bound {
        what: format!(
            "memory at the end of the overload at most {RSS_FACTOR} times that of its first 5 s, and {RSS_ALLOWANCE_MIB} MiB"
        ),
        met: rss.map(|(first, last)| last <= first * RSS_FACTOR + RSS_ALLOWANCE_MIB),
        figure: rss.map_or_else(
            || "unknown".to_owned(),
            |(first, last)| format!("{last:.0} MiB, at first {first:.0} MiB, ratio {:.2}", last / first),
        ),
    }
}

fn recovery(figures: &Figures) -> [Bound; 4] {
    let within = |what: &str, after_s: Option<f64>| Bound {
        what: format!("{what} within {RECOVERY_S} s after the overload"),
        met: Some(after_s.is_some_and(|after_s| after_s <= RECOVERY_S)),
        figure: after_s.map_or_else(|| "never".to_owned(), |after_s| format!("{after_s:.1} s")),
    };
    let latency = |what: &str, after_s: Option<f64>, quiet_ms: Option<f64>| {
        let bound = within(
            &format!(
                "{what} p99 at most {LATENCY_FACTOR} times that of the quiet phase, or {LATENCY_FLOOR_MS} ms,"
            ),
            after_s,
        );
        let quiet = quiet_ms.map_or_else(|| "unknown".to_owned(), |ms| format!("{ms:.1} ms"));
        Bound { figure: format!("{}; quiet {quiet}", bound.figure), ..bound }
    };
    let (after, quiet) = (&figures.recovered, &figures.quiet);
    [
        within("nothing is shed", after.level_s),
        latency("ack", after.ack_s, quiet.ack_p99_ms),
        latency("quiet pair's ack", after.probe_ack_s, quiet.probe_ack_p99_ms),
        latency("quiet pair's delivery", after.probe_delivery_s, quiet.probe_delivery_p99_ms),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overload::report::tests::figures;

    type Fault = fn(&mut Figures);

    fn missed(change: impl FnOnce(&mut Figures)) -> Vec<String> {
        let mut figures = figures();
        change(&mut figures);
        let bounds = judge(&figures).into_iter();
        bounds.filter(|bound| bound.met == Some(false)).map(|bound| bound.line()).collect()
    }

    #[test]
    fn a_good_run_meets_all_bounds() {
        assert_eq!(missed(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn every_fault_misses_one_bound() {
        let faults: [(Fault, &str); 12] = [
            (|figures| figures.has_run = Some(false), "the server runs"),
            (|figures| figures.silent_seconds = 1, "the server runs"),
            (|figures| figures.offered_share = 0.7, "was offered"),
            (|figures| figures.out_of_order = vec!["3 s".to_owned()], "in each second"),
            (|figures| figures.is_last = false, "last"),
            (|figures| figures.acked_share = 0.4, "is acked"),
            (|figures| figures.overload.refusal_p99_ms = Some(501.0), "refusals"),
            (|figures| figures.rss_last_mib = Some(190.0), "memory"),
            (|figures| figures.recovered.level_s = Some(31.0), "nothing is shed"),
            (|figures| figures.recovered.ack_s = None, "ack p99"),
            (|figures| figures.stored.missing = 1, "history lacks"),
            (|figures| figures.answers[0].counts.failed = 1, "answers other"),
        ];
        for (fault, name) in faults {
            let missed = missed(fault);
            assert_eq!(missed.len(), 1, "{name}: {missed:?}");
            assert!(missed[0].contains(name), "{name}: {missed:?}");
        }
    }

    #[test]
    fn memory_of_an_unknown_server_is_not_judged() {
        assert_eq!(missed(|figures| figures.rss_last_mib = None).len(), 0);
    }
}
