//! Results of a run, as JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::fleet::Role;
use crate::judge::faults::Fault;

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) users: u64,
    pub(crate) devices: u64,
    /// Lines that were written to a socket at least once.
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    /// Attempts after the first one of each line.
    pub(crate) retried: u64,
    /// Lines whose retry was answered with what an earlier attempt had appended: by the server's clock, the entry is
    /// older than the connection on which the retry was sent.
    pub(crate) acked_by_retry: u64,
    /// Messages in history, multiplied by the devices of members.
    pub(crate) deliveries_expected: u64,
    /// First deliveries of messages that were appended, by the server's clock, after the `welcome` of the connection on
    /// which they arrived.
    pub(crate) deliveries_live: u64,
    /// First deliveries of the other messages: they arrived by resuming.
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
    /// Deleted messages that still exist, or whose text does.
    pub(crate) undeleted: u64,
    /// Entries that were delivered to users who were not members.
    pub(crate) leaked: u64,
    pub(crate) changes: Changes,
    pub(crate) kills: u64,
    /// Kills while a send was written to a socket and not answered.
    pub(crate) kills_with_appends_in_flight: u64,
    /// Kills of members of a fleet, by role.
    pub(crate) kills_by_role: BTreeMap<Role, Kills>,
    /// Connections of devices that had been connected before.
    pub(crate) resumes: u64,
    pub(crate) resyncs: u64,
    /// Number of `snapshot_required` answers to devices with a cursor, where nothing justified one.
    pub(crate) snapshots: u64,
    /// Number of justified ones, by reason. The devices read what they missed from history.
    pub(crate) snapshots_taken: BTreeMap<String, u64>,
    pub(crate) latency_ms: Latencies,
    pub(crate) conditions: Conditions,
    /// At most a hundred faults.
    pub(crate) broken: Vec<Fault>,
}

/// Kills of one role.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Kills {
    pub(crate) kills: u64,
    /// Kills while a send was written to a socket and not answered.
    pub(crate) with_appends_in_flight: u64,
    /// Longest time from a kill until the member was back.
    pub(crate) longest_restart_s: f64,
}

/// What happened besides the lines. Only answered changes count.
#[derive(Debug, Serialize)]
pub(crate) struct Changes {
    pub(crate) edits: u64,
    pub(crate) deletes: u64,
    /// Includes reactions that were removed.
    pub(crate) reactions: u64,
    /// Attempts after the first one of each change.
    pub(crate) retried: u64,
    pub(crate) joins: u64,
    pub(crate) leaves: u64,
    pub(crate) bans: u64,
    /// Number of reports of a gap in an open channel.
    pub(crate) gaps: u64,
}

/// Measured from the first attempt of a line.
#[derive(Debug, Serialize)]
pub(crate) struct Latencies {
    pub(crate) send_to_ack: Latency,
    /// Only live deliveries.
    pub(crate) send_to_deliver: Latency,
}

/// In milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// The quantiles of a histogram of microseconds.
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

/// Conditions under which the figures were taken.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    pub(crate) command: Vec<String>,
    pub(crate) version: &'static str,
    pub(crate) days: u64,
    pub(crate) lines: u64,
    pub(crate) setup_s: f64,
    /// Seconds of the replay, without set-up and final check.
    pub(crate) duration_s: f64,
    pub(crate) check_s: f64,
    /// Environment of a server that this tool started.
    pub(crate) server_environment: Vec<String>,
    /// Memory of a server that this tool started.
    pub(crate) server_rss_kib: Option<ServerRss>,
    /// Why connections ended and sends were delayed, and how often. These are not faults: kills and churn cause many.
    pub(crate) trouble: BTreeMap<String, u64>,
}

/// Resident memory of the server in KiB.
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

    /// The most important figures, for people.
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
        for (role, kills) in &self.kills_by_role {
            let Kills { kills, with_appends_in_flight, longest_restart_s } = kills;
            text.push_str(&format!(
                "\n  {role:?}: {kills} kills, {with_appends_in_flight} with appends in flight, back within \
                 {longest_restart_s:.1} s"
            ));
        }
        for (reason, count) in &self.snapshots_taken {
            text.push_str(&format!("\n  {count} snapshots taken: {reason}"));
        }
        for fault in self.broken.iter().take(10) {
            let channel = fault.channel.map_or_else(|| "-".to_owned(), |channel| channel.to_string());
            let seq = fault.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
            let device = fault.device.as_deref().unwrap_or("the log");
            text.push_str(&format!("\n  channel {channel} seq {seq} ({device}): {}", fault.what));
        }
        text
    }
}
