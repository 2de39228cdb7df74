//! The bounds of a run, and whether they were met.

use super::report::Figures;
use crate::instruments::bound::Bound;

/// The age of a message at its readers, at the 99th percentile.
const FRESHNESS_P99_MS: f64 = 1_000.0;
/// How many times as long as in the quiet phase the bystanders may wait, at the 99th percentile.
const BYSTANDERS_RATIO: f64 = 1.5;
/// Bystanders who wait less are not compared: on an idle machine a fraction of a millisecond is noise.
const BYSTANDERS_FLOOR_MS: f64 = 5.0;
/// Time from the begin of the storm until its level is above normal.
const HOT_WITHIN_S: f64 = 2.0;
/// Time from the end of the storm until its level is normal.
const NORMAL_WITHIN_S: f64 = 180.0;
const DELIVERIES_PER_CPU_SECOND: f64 = 1_000_000.0;

/// All bounds. `levels`: whether the level must rise and fall.
pub(super) fn judge(figures: &Figures, levels: bool) -> Vec<Bound> {
    let mut bounds = vec![freshness(figures)];
    let (quiet, storm) = (&figures.quiet, &figures.storm);
    bounds.push(bystanders("delivery", quiet.delivery_p99_ms, storm.delivery_p99_ms));
    bounds.push(bystanders("ack", quiet.ack_p99_ms, storm.ack_p99_ms));
    bounds.push(within(
        "level above normal",
        "the storm begins",
        HOT_WITHIN_S,
        figures.levels.hot_after_s,
        levels,
    ));
    let normal = figures.levels.normal_after_s;
    bounds.push(within("level normal again", "the storm ends", NORMAL_WITHIN_S, normal, levels));
    bounds.push(cost(figures.deliveries_per_cpu_second));
    bounds.extend(faults(figures));
    bounds
}

fn freshness(figures: &Figures) -> Bound {
    let p99 = figures.storm.freshness_p99_ms;
    Bound {
        what: format!("freshness p99 at most {FRESHNESS_P99_MS} ms"),
        met: Some(p99 <= FRESHNESS_P99_MS),
        figure: format!(
            "{p99:.1} ms; {:.1} ms without the first {} s",
            figures.freshness_later_p99_ms,
            super::FIRST.as_secs()
        ),
    }
}

fn bystanders(what: &str, quiet_ms: f64, storm_ms: f64) -> Bound {
    let ratio = storm_ms / quiet_ms;
    Bound {
        what: format!(
            "bystanders' {what} p99 at most {BYSTANDERS_RATIO} times that of the quiet phase, or below \
             {BYSTANDERS_FLOOR_MS} ms in both"
        ),
        met: Some(
            ratio <= BYSTANDERS_RATIO || (quiet_ms < BYSTANDERS_FLOOR_MS && storm_ms < BYSTANDERS_FLOOR_MS),
        ),
        figure: format!("{storm_ms:.2} ms, quiet {quiet_ms:.2} ms, ratio {ratio:.2}"),
    }
}

fn within(what: &str, from: &str, most_s: f64, after_s: Option<f64>, is_demanded: bool) -> Bound {
    Bound {
        what: format!("{what} within {most_s} s after {from}"),
        met: is_demanded.then(|| after_s.is_some_and(|after_s| after_s <= most_s)),
        figure: after_s.map_or_else(|| "never".to_owned(), |after_s| format!("{after_s:.1} s")),
    }
}

fn cost(per_cpu_second: Option<f64>) -> Bound {
    Bound {
        what: format!("at least {DELIVERIES_PER_CPU_SECOND} deliveries per CPU second of the server"),
        met: per_cpu_second.map(|count| count >= DELIVERIES_PER_CPU_SECOND),
        figure: per_cpu_second.map_or_else(|| "unknown".to_owned(), |count| format!("{count:.0}")),
    }
}

/// Things that must not happen at all.
fn faults(figures: &Figures) -> Vec<Bound> {
    let (readers, bystanders, stored) =
        (&figures.readers.entries, &figures.bystanders.entries, &figures.stored);
    let sends = figures.sends.errors + figures.bystander_sends.errors;
    let closed = figures.sends.closed + figures.bystander_sends.closed;
    let unanswered = figures.sends.unanswered + figures.bystander_sends.unanswered;
    let calls = figures.joins.errors + figures.fetches.errors;
    let none = [
        ("lost entries of the channel", readers.lost),
        ("duplicated entries of the channel", readers.duplicated),
        ("reordered entries of the channel", readers.reordered),
        ("unannounced gaps", readers.unannounced_gaps),
        ("lost messages of bystanders", bystanders.lost),
        ("duplicated or reordered messages of bystanders", bystanders.duplicated + bystanders.reordered),
        ("acked messages that history lacks", stored.acked_missing),
        ("holes in history", stored.holes),
        ("connections of readers that ended", figures.readers.closed + figures.bystanders.closed),
        ("connections of senders that ended", closed),
        ("sends without an answer", unanswered),
        ("sends with an unexpected answer", sends),
        ("calls with an unexpected answer", calls),
    ];
    none.into_iter().map(|(what, count)| Bound::none(what, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::report::tests::figures;
    use crate::instruments::bound::all_met;

    fn missed(figures: &Figures, levels: bool) -> Vec<String> {
        let bounds = judge(figures, levels).into_iter();
        bounds.filter(|bound| bound.met == Some(false)).map(|bound| bound.line()).collect()
    }

    #[test]
    fn a_good_run_meets_all_bounds() {
        assert_eq!(missed(&figures(), true), Vec::<String>::new());
        assert!(all_met(&judge(&figures(), true)));
    }

    #[test]
    fn a_late_run_misses_its_bound() {
        let mut figures = figures();
        figures.storm.freshness_p99_ms = 1_000.5;
        let missed = missed(&figures, true);
        assert_eq!(missed.len(), 1);
        assert!(missed[0].contains("freshness") && missed[0].contains("MISSED"), "{missed:?}");
    }

    #[test]
    fn noise_below_the_floor_does_not_decide() {
        assert_eq!(bystanders("ack", 0.5, 4.9).met, Some(true));
        assert_eq!(bystanders("ack", 0.5, 5.1).met, Some(false));
        assert_eq!(bystanders("ack", 10.0, 14.0).met, Some(true));
        assert_eq!(bystanders("ack", 10.0, 16.0).met, Some(false));
        // Without a message there is no latency.
        assert_eq!(bystanders("ack", 0.0, f64::NAN).met, Some(false));
    }

    #[test]
    fn levels_are_demanded_unless_the_run_says_otherwise() {
        let mut figures = figures();
        (figures.levels.hot_after_s, figures.levels.normal_after_s) = (None, Some(181.0));
        assert_eq!(missed(&figures, true).len(), 2);
        assert_eq!(missed(&figures, false).len(), 0);
    }

    #[test]
    fn every_fault_misses_a_bound() {
        let faults: [fn(&mut Figures); 5] = [
            |figures| figures.readers.entries.lost = 1,
            |figures| figures.readers.entries.duplicated = 1,
            |figures| figures.bystanders.entries.reordered = 1,
            |figures| figures.stored.acked_missing = 1,
            |figures| figures.sends.unanswered = 1,
        ];
        for fault in faults {
            let mut figures = figures();
            fault(&mut figures);
            assert_eq!(missed(&figures, true).len(), 1);
        }
    }

    #[test]
    fn an_unknown_cost_is_not_judged() {
        let mut figures = figures();
        figures.deliveries_per_cpu_second = None;
        assert_eq!(missed(&figures, true).len(), 0);
        figures.deliveries_per_cpu_second = Some(999_999.0);
        assert_eq!(missed(&figures, true).len(), 1);
    }
}
