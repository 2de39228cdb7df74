//! What a run found, as JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::judge::faults::Fault;

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) users: u64,
    pub(crate) devices: u64,
    /// Lines that were written to a socket at least once.
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    /// Sends beyond the first of a line.
    pub(crate) retried: u64,
    /// Lines whose retry was answered with what an earlier try had appended: by the server's own clock, the entry is
    /// older than the connection on which that retry was sent.
    pub(crate) acked_by_retry: u64,
    /// Messages in history times devices of members.
    pub(crate) deliveries_expected: u64,
    /// First deliveries of messages that were appended, by the server's clock, after the `welcome` of the connection
    /// on which they came.
    pub(crate) deliveries_live: u64,
    /// First deliveries of the others: they came by resuming.
    pub(crate) deliveries_after_resume: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) holes: u64,
    pub(crate) conflicts: u64,
    /// Messages on a device that differ from the store at the end.
    pub(crate) stale: u64,
    pub(crate) edit_lost: u64,
    pub(crate) reaction_lost: u64,
    /// Deleted messages that are still there, or whose text is.
    pub(crate) undeleted: u64,
    /// Entries that came to who was no member.
    pub(crate) leaked: u64,
    pub(crate) changes: Changes,
    pub(crate) kills: u64,
    /// Kills at which a send was written to a socket and not answered.
    pub(crate) kills_with_appends_in_flight: u64,
    /// Connections of devices that had been connected before.
    pub(crate) resumes: u64,
    pub(crate) resyncs: u64,
    /// Verdicts `snapshot_required` to a device that had a cursor.
    pub(crate) snapshots: u64,
    pub(crate) latency_ms: Latencies,
    pub(crate) conditions: Conditions,
    /// A hundred faults.
    pub(crate) broken: Vec<Fault>,
}

/// What happened besides the lines. All that is answered.
#[derive(Debug, Serialize)]
pub(crate) struct Changes {
    pub(crate) edits: u64,
    pub(crate) deletes: u64,
    /// Taken back ones among them.
    pub(crate) reactions: u64,
    /// Tries of these beyond the first.
    pub(crate) retried: u64,
    pub(crate) joins: u64,
    pub(crate) leaves: u64,
    pub(crate) bans: u64,
    /// How often a device was told that entries of an open channel are left out.
    pub(crate) gaps: u64,
}

/// From the first try of a line.
#[derive(Debug, Serialize)]
pub(crate) struct Latencies {
    pub(crate) send_to_ack: Latency,
    /// Live deliveries only.
    pub(crate) send_to_deliver: Latency,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// From a histogram of microseconds.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a run are far below 2^52")]
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |micros: u64| micros as f64 / 1_000.0;
        Self {
            p50: ms(histogram.value_at_quantile(0.5)),
            p99: ms(histogram.value_at_quantile(0.99)),
            max: ms(histogram.max()),
        }
    }
}

/// Under what the figures were taken.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    pub(crate) command: Vec<String>,
    pub(crate) version: &'static str,
    pub(crate) days: u64,
    pub(crate) lines: u64,
    pub(crate) setup_s: f64,
    /// Of the replay, without set-up and without the last check.
    pub(crate) duration_s: f64,
    pub(crate) check_s: f64,
    /// What a server that was started here found in its environment.
    pub(crate) server_environment: Vec<String>,
    /// Of the server that was started here.
    pub(crate) server_rss_kib: Option<ServerRss>,
    /// Why connections ended and sends were put off, and how often. Not faults: kills and churn make many.
    pub(crate) trouble: BTreeMap<String, u64>,
}

/// Resident memory of the server, in KiB.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct ServerRss {
    /// When a quarter of the lines was acked.
    pub(crate) quarter: u64,
    /// When the last line was acked and delivered.
    pub(crate) end: u64,
    pub(crate) peak: u64,
}

impl Report {
    /// Whether every guarantee held.
    pub(crate) const fn holds(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.holes + self.conflicts + self.snapshots == 0
            && self.stale + self.edit_lost + self.reaction_lost + self.undeleted + self.leaked == 0
            && self.broken.is_empty()
    }

    /// The figures that matter most, for a person.
    pub(crate) fn summary(&self) -> String {
        let verdict = if self.holds() { "every guarantee held" } else { "A GUARANTEE BROKE" };
        let mut text = format!(
            "{verdict}: {} of {} lines acked ({} retries, {} answered with the original), {} deliveries live and {} after \
             a resume of {} expected; {} edits, {} deletions, {} reactions, {} joins, {} leaves, {} bans, {} gaps; lost {}, \
             duplicated {}, reordered {}, holes {}, conflicts {}, snapshots {}, stale {}, edits lost {}, reactions lost {}, \
             undeleted {}, leaked {}; {} kills, {} with appends in flight",
            self.acked,
            self.sent,
            self.retried,
            self.acked_by_retry,
            self.deliveries_live,
            self.deliveries_after_resume,
            self.deliveries_expected,
            self.changes.edits,
            self.changes.deletes,
            self.changes.reactions,
            self.changes.joins,
            self.changes.leaves,
            self.changes.bans,
            self.changes.gaps,
            self.lost,
            self.duplicated,
            self.reordered,
            self.holes,
            self.conflicts,
            self.snapshots,
            self.stale,
            self.edit_lost,
            self.reaction_lost,
            self.undeleted,
            self.leaked,
            self.kills,
            self.kills_with_appends_in_flight,
        );
        for fault in self.broken.iter().take(10) {
            let channel = fault.channel.map_or_else(|| "-".to_owned(), |channel| channel.to_string());
            let seq = fault.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
            let device = fault.device.as_deref().unwrap_or("the log");
            text.push_str(&format!("\n  channel {channel} seq {seq} ({device}): {}", fault.what));
        }
        text
    }
}
