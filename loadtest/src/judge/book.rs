//! What one channel's log must hold: what was said, what was acked, and what the first device saw at each place.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use hdrhistogram::Histogram;
use madang_ids::{ChannelId, ClientMsgId};

use super::faults::{Fault, FaultKind, Faults};
use super::frame::{RawEntry, RawMessage};
use super::record::{Arrival, Record};

/// Keys of messages carry run, day and line, so that a delivery finds its line without a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Drawn per run: the same corpus may be played twice into one server.
    pub(crate) run: u64,
}

impl Keys {
    /// The key of a line.
    pub(crate) const fn key(self, book: u32, line: u32) -> ClientMsgId {
        ClientMsgId::from_uuid(((self.run as u128) << 64) | ((book as u128) << 32) | line as u128)
    }

    /// Which line of `book` a key is of.
    #[expect(clippy::cast_possible_truncation, reason = "the halves of the key are taken apart")]
    pub(crate) const fn line(self, book: u32, key: u128) -> Option<usize> {
        let is_ours = (key >> 64) as u64 == self.run && (key >> 32) as u32 == book;
        if is_ours { Some(key as u32 as usize) } else { None }
    }
}

/// One channel.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) channel: ChannelId,
    pub(crate) index: u32,
    pub(crate) keys: Keys,
    /// The head when the channel was made: what lies up to it came before the devices were there.
    pub(crate) base: u64,
    pub(crate) lines: Vec<LineState>,
    rows: Vec<Option<Row>>,
    pub(crate) deliveries: Deliveries,
    /// Microseconds from the first try to the ack, and to each live delivery.
    pub(crate) to_ack: Histogram<u64>,
    pub(crate) to_deliver: Histogram<u64>,
}

/// What was said, and what became of it.
#[derive(Debug, Default)]
pub(crate) struct LineState {
    pub(crate) text: String,
    /// Who says it, by the nick's number.
    pub(crate) nick: u32,
    /// When it was first written to a socket, in microseconds of the run; 0 before.
    pub(crate) sent_us: u64,
    pub(crate) acked: Option<Acked>,
    pub(crate) is_refused: bool,
}

/// What an ack said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) seq: u64,
    pub(crate) message_id: u64,
}

/// What stood at a place when it was first delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    message_id: u64,
    key: u128,
    text_hash: u64,
}

/// First deliveries of messages to devices of members.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deliveries {
    pub(crate) live: u64,
    pub(crate) after_resume: u64,
}

/// To whom, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Microseconds of the run.
    pub(crate) now_us: u64,
    /// What the server's clock was at the `welcome` of this connection: an entry of that time or later did not need
    /// the resume to come.
    pub(crate) welcome_at_ms: u64,
}

impl Book {
    /// A channel in which nothing was said yet.
    pub(crate) fn new(
        channel: ChannelId,
        index: u32,
        keys: Keys,
        base: u64,
        lines: Vec<LineState>,
    ) -> anyhow::Result<Self> {
        let rows = Vec::with_capacity(lines.len());
        let (to_ack, to_deliver) = (latencies()?, latencies()?);
        let deliveries = Deliveries::default();
        Ok(Self { channel, index, keys, base, lines, rows, deliveries, to_ack, to_deliver })
    }

    /// An entry came to a device. Returns whether it was a message's first coming.
    pub(crate) fn deliver(
        &mut self,
        entry: &RawEntry<'_>,
        record: &mut Record,
        moment: Moment,
        blame: &impl Fn() -> String,
        faults: &Faults,
    ) {
        let arrival = record.receive(entry.seq, self.base);
        let note = |kind, what: String| {
            faults.note(kind, Fault { device: Some(blame()), ..self.fault(entry.seq, what) });
        };
        match arrival {
            Arrival::Twice => note(FaultKind::Duplicated, "came a second time".to_owned()),
            Arrival::Again => {}
            Arrival::First { is_late, skipped } => {
                if is_late {
                    note(FaultKind::Reordered, "came after a later entry".to_owned());
                }
                if skipped > 0 && !is_late {
                    let what = format!("had not come when seq {} came ({skipped} in all)", entry.seq);
                    let fault = self.fault(entry.seq - skipped, what);
                    faults.note(FaultKind::Hole, Fault { device: Some(blame()), ..fault });
                }
                self.count(entry, moment);
            }
        }
        if let Some((kind, what)) = self.check_content(entry) {
            faults.note(kind, Fault { device: Some(blame()), ..self.fault(entry.seq, what) });
        }
    }

    /// A message was acked.
    pub(crate) fn ack(&mut self, line: usize, acked: Acked, now_us: u64, faults: &Faults) {
        let Some(state) = self.lines.get_mut(line) else { return };
        let before = state.acked.replace(acked);
        let waited_us = now_us.saturating_sub(state.sent_us);
        self.to_ack.saturating_record(waited_us);
        if before.is_some_and(|before| before != acked) {
            let what = format!("line {line} was acked with two places");
            faults.note(FaultKind::Conflict, self.fault(acked.seq, what));
        }
    }

    /// The last place that anybody knows of.
    pub(crate) fn head(&self) -> u64 {
        let acked = self.lines.iter().filter_map(|line| Some(line.acked?.seq)).max().unwrap_or_default();
        acked.max(self.rows.len() as u64)
    }

    /// A fault of this channel.
    pub(crate) fn fault(&self, seq: u64, what: String) -> Fault {
        Fault { channel: Some(self.channel), seq: (seq > 0).then_some(seq), device: None, what }
    }

    /// Whether the words at a place are those that were said, and the same for every device.
    fn check_content(&mut self, entry: &RawEntry<'_>) -> Option<(FaultKind, String)> {
        let message = entry.message?;
        let row = Row { message_id: message.message_id, key: message.key, text_hash: hash(message.text) };
        let index = usize::try_from(entry.seq).ok()?.checked_sub(1)?;
        if self.rows.len() <= index {
            self.rows.resize(index + 1, None);
        }
        match self.rows[index] {
            Some(seen) if seen == row => None,
            // The same words may be escaped otherwise; only other words are a conflict.
            Some(seen) if (seen.key, seen.message_id) == (row.key, row.message_id) => {
                self.check_words(message)
            }
            Some(_) => Some((FaultKind::Conflict, "another device got another message here".to_owned())),
            None => {
                self.rows[index] = Some(row);
                self.check_words(message)
            }
        }
    }

    fn check_words(&self, message: RawMessage<'_>) -> Option<(FaultKind, String)> {
        let Some(line) = self.keys.line(self.index, message.key).and_then(|line| self.lines.get(line)) else {
            return Some((FaultKind::Conflict, "a message that nobody said".to_owned()));
        };
        let text: String = serde_json::from_str(message.text).unwrap_or_default();
        (text != line.text).then(|| (FaultKind::Conflict, "other words than were said".to_owned()))
    }

    fn count(&mut self, entry: &RawEntry<'_>, moment: Moment) {
        let Some(message) = entry.message else { return };
        if entry.at_ms < moment.welcome_at_ms {
            self.deliveries.after_resume += 1;
            return;
        }
        self.deliveries.live += 1;
        let line = self.keys.line(self.index, message.key).and_then(|line| self.lines.get(line));
        if let Some(line) = line.filter(|line| line.sent_us > 0) {
            self.to_deliver.saturating_record(moment.now_us.saturating_sub(line.sent_us));
        }
    }
}

/// Microseconds up to an hour, to two digits: a percentile to a hundredth costs 30 KiB.
pub(crate) fn latencies() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 3_600_000_000, 2)?)
}

fn hash(text: &str) -> u64 {
    static STATE: OnceLock<RandomState> = OnceLock::new();
    STATE.get_or_init(RandomState::new).hash_one(text)
}
