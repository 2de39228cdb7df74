//! What the log of one channel must contain: what was said, what was acked, and what the first device received at each
//! place.

use hdrhistogram::Histogram;
use madang_ids::{ChannelId, ClientMsgId};

use super::fates::Fates;
use super::faults::{Fault, FaultKind, Faults};
use super::frame::{RawChange, RawEntry, RawMessage};
use super::record::{Arrival, Record};
use super::state::{Reacted, State, hash};

/// The keys of messages contain run, day and line, so that the line of a delivery is found without a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Random for each run: the same corpus may be replayed twice into one server.
    pub(crate) run: u64,
}

impl Keys {
    /// The key of a line.
    pub(crate) const fn key(self, book: u32, line: u32) -> ClientMsgId {
        ClientMsgId::from_uuid(((self.run as u128) << 64) | ((book as u128) << 32) | line as u128)
    }

    /// The line of `book` that a key belongs to.
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
    /// The head when the channel was set up. Earlier entries were appended before the devices connected.
    pub(crate) base: u64,
    pub(crate) lines: Vec<LineState>,
    rows: Vec<Option<Row>>,
    /// Changes of the messages.
    pub(crate) fates: Fates,
    /// Whether members come and go. Then skipped places are judged at the end, when memberships are known.
    pub(crate) is_moving: bool,
    /// Whether the channel is open: members may read everything, and history fills gaps.
    pub(crate) is_open: bool,
    /// The greatest place that any device or ack has mentioned.
    pub(crate) head: u64,
    /// Number of first arrivals of entries of any kind.
    pub(crate) arrivals: u64,
    pub(crate) deliveries: Deliveries,
    /// Microseconds from the first attempt to the ack, and to each live delivery.
    pub(crate) to_ack: Histogram<u64>,
    pub(crate) to_deliver: Histogram<u64>,
}

/// A line, and what happened to it.
#[derive(Debug, Default)]
pub(crate) struct LineState {
    pub(crate) text: String,
    /// The speaker, by index of the nick.
    pub(crate) nick: u32,
    /// When it was first written to a socket, in microseconds of the run; 0 means not yet.
    pub(crate) sent_us: u64,
    pub(crate) acked: Option<Acked>,
    pub(crate) is_refused: bool,
}

/// Content of an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) seq: u64,
    pub(crate) message_id: u64,
}

/// The entry at a place as it was first delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    message_id: u64,
    key: u128,
    text_hash: u64,
}

/// How an entry reached the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Live,
    History,
}

/// First deliveries of messages to devices of members.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deliveries {
    pub(crate) live: u64,
    pub(crate) after_resume: u64,
}

/// The device that receives an entry, and the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Time of receipt in microseconds of the run.
    pub(crate) now_us: u64,
    /// The server's clock at the `welcome` of this connection. An entry of that time or later was delivered live, not
    /// by the resume.
    pub(crate) welcome_at_ms: u64,
}

impl Book {
    /// A channel without messages.
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
        Ok(Self {
            channel,
            index,
            keys,
            base,
            lines,
            rows,
            fates: Fates::default(),
            is_moving: false,
            is_open: false,
            head: base,
            arrivals: 0,
            deliveries,
            to_ack,
            to_deliver,
        })
    }

    /// Records an entry that a device received live.
    pub(crate) fn deliver(
        &mut self,
        entry: &RawEntry<'_>,
        record: &mut Record,
        moment: Moment,
        blame: &impl Fn() -> String,
        faults: &Faults,
    ) {
        self.know(entry.seq);
        let arrival = record.receive(entry.seq, self.base);
        let note = |kind, what: String| {
            faults.note(kind, Fault { device: Some(blame()), ..self.fault(entry.seq, what) });
        };
        match arrival {
            Arrival::Twice => note(FaultKind::Duplicated, "arrived a second time".to_owned()),
            Arrival::Again => {}
            Arrival::First { is_late, skipped } => {
                if is_late {
                    note(FaultKind::Reordered, "arrived after a later entry".to_owned());
                }
                if skipped > 0 && !is_late && self.is_moving {
                    record.note_jump(entry.seq, skipped);
                } else if skipped > 0 && !is_late {
                    let what = format!("had not arrived when seq {} arrived ({skipped} in all)", entry.seq);
                    let fault = self.fault(entry.seq - skipped, what);
                    faults.note(FaultKind::Hole, Fault { device: Some(blame()), ..fault });
                }
                self.count(entry, moment);
            }
        }
        self.apply(entry, record, Source::Live, blame, faults);
    }

    /// Records an entry that a device read from history to fill a gap. It may be older than entries that were received
    /// live.
    pub(crate) fn fill(
        &mut self,
        entry: &RawEntry<'_>,
        record: &mut Record,
        moment: Moment,
        blame: &impl Fn() -> String,
        faults: &Faults,
    ) {
        self.know(entry.seq);
        if record.fill(entry.seq) {
            self.count(entry, Moment { welcome_at_ms: u64::MAX, ..moment });
        }
        self.apply(entry, record, Source::History, blame, faults);
    }

    /// Records that a place is known to exist.
    pub(crate) fn know(&mut self, seq: u64) {
        self.head = self.head.max(seq);
    }

    /// Whether a device has everything that it needs, as far as is known.
    pub(crate) fn is_complete(&self, record: &Record) -> bool {
        match self.is_moving {
            true => {
                record.is_away() || record.got().top() >= self.head && record.gap_after(self.base).is_none()
            }
            false => record.contiguous(self.base) >= self.head,
        }
    }

    /// Records an ack.
    pub(crate) fn ack(&mut self, line: usize, acked: Acked, now_us: u64, faults: &Faults) {
        let Some(state) = self.lines.get_mut(line) else { return };
        let before = state.acked.replace(acked);
        self.head = self.head.max(acked.seq);
        let waited_us = now_us.saturating_sub(state.sent_us);
        self.to_ack.saturating_record(waited_us);
        if before.is_some_and(|before| before != acked) {
            let what = format!("line {line} was acked with two positions");
            faults.note(FaultKind::Conflict, self.fault(acked.seq, what));
        }
    }

    /// A fault in this channel.
    pub(crate) fn fault(&self, seq: u64, what: String) -> Fault {
        Fault { channel: Some(self.channel), seq: (seq > 0).then_some(seq), device: None, what }
    }

    /// Applies an entry to the cache of the device.
    fn apply(
        &mut self,
        entry: &RawEntry<'_>,
        record: &mut Record,
        source: Source,
        blame: &impl Fn() -> String,
        faults: &Faults,
    ) {
        let broken = match (entry.message, &entry.change) {
            (Some(message), _) => self.check_message(entry.seq, message, record, source),
            (None, Some(change)) => self.check_change(change, record, source),
            (None, None) => return,
        };
        let awaited = entry.message.and_then(|_| record.take_awaited(entry.seq));
        let broken = broken.or_else(|| self.check_reactions(entry.seq, awaited?, record));
        // A page of history may contain the deletion before frames arrive that the server had enqueued earlier.
        let is_deletion = |change: &&RawChange<'_>| change.is_deletion && source == Source::Live;
        if let Some(change) = entry.change.as_ref().filter(is_deletion) {
            record.delete(change.target);
        }
        if let Some((kind, what)) = broken {
            let seq = entry.change.as_ref().map_or(entry.seq, |change| change.target);
            faults.note(kind, Fault { device: Some(blame()), ..self.fault(seq, what) });
        }
    }

    /// Whether the text at a place is the text that was sent, and the same for every device.
    fn check_message(
        &mut self,
        seq: u64,
        message: RawMessage<'_>,
        record: &mut Record,
        source: Source,
    ) -> Option<(FaultKind, String)> {
        let row = Row { message_id: message.message_id, key: message.key, text_hash: hash(message.text) };
        let index = usize::try_from(seq).ok()?.checked_sub(1)?;
        if self.rows.len() <= index {
            self.rows.resize(index + 1, None);
        }
        match self.rows[index] {
            Some(seen) if seen == row && message.version == 1 && record.changed(seq).is_none() => None,
            // The same text may be escaped differently, or may have been edited.
            Some(seen) if (seen.key, seen.message_id) == (row.key, row.message_id) => {
                self.check_words(seq, message, record, source)
            }
            Some(_) => Some((FaultKind::Conflict, "another device received another message here".to_owned())),
            None => {
                // Only texts of the first version are compared with each other.
                let text_hash = if message.version == 1 { row.text_hash } else { 0 };
                self.rows[index] = Some(Row { text_hash, ..row });
                self.check_words(seq, message, record, source)
            }
        }
    }

    /// Whether a change contains the message as it is now.
    fn check_change(
        &self,
        change: &RawChange<'_>,
        record: &mut Record,
        source: Source,
    ) -> Option<(FaultKind, String)> {
        let carried = change.message.map(|message| message.version);
        let carried = carried.or_else(|| Some(change.reacted?.version))?;
        if carried < change.version {
            let version = change.version;
            let what = format!("a change to version {version} carries version {carried}");
            return Some((FaultKind::Stale, what));
        }
        if let Some(raw) = change.reacted {
            return match Reacted::of_raw(raw) {
                Some(reacted) => self.check_reactions(change.target, reacted, record),
                None => Some((FaultKind::Conflict, "unreadable reactions".to_owned())),
            };
        }
        let message = change.message?;
        let index = usize::try_from(change.target).ok()?.checked_sub(1)?;
        match self.rows.get(index).copied().flatten() {
            Some(seen) if (seen.key, seen.message_id) != (message.key, message.message_id) => Some((
                FaultKind::Conflict,
                "a change contains another message than the one at this place".to_owned(),
            )),
            _ => self.check_words(change.target, message, record, source),
        }
    }

    /// Applies a change of reactions on a device that has the message.
    fn check_reactions(
        &self,
        target: u64,
        reacted: Reacted,
        record: &mut Record,
    ) -> Option<(FaultKind, String)> {
        if !record.got().contains(target) {
            record.await_message(target, reacted);
            return None;
        }
        let index = usize::try_from(target).ok()?.checked_sub(1)?;
        let row = self.rows.get(index).copied().flatten()?;
        match self.keys.line(self.index, row.key).and_then(|number| self.lines.get(number)) {
            Some(line) => {
                record.react(target, &line.text, reacted);
                None
            }
            None => Some((FaultKind::Conflict, "reactions to a message that was never sent".to_owned())),
        }
    }

    fn check_words(
        &self,
        target: u64,
        message: RawMessage<'_>,
        record: &mut Record,
        source: Source,
    ) -> Option<(FaultKind, String)> {
        let number = self.keys.line(self.index, message.key);
        let Some((number, line)) = number.and_then(|number| Some((number, self.lines.get(number)?))) else {
            return Some((FaultKind::Conflict, "a message that was never sent".to_owned()));
        };
        let text: String = serde_json::from_str(message.text).unwrap_or_default();
        if text.is_empty() && !message.is_deleted {
            // An empty text is never sent: the text was withheld because it was edited after the user left. Whether the
            // user left is judged at the end.
            record.withhold(target);
            return None;
        }
        // After the deletion no live frame may contain the text. A page of history may have been read before the
        // deletion.
        let was_deleted = source == Source::Live && record.is_deleted(target);
        if !text.is_empty() && (message.is_deleted || was_deleted) {
            return Some((FaultKind::Undeleted, "the text of a deleted message was delivered".to_owned()));
        }
        let is_right = match message.version {
            1 => text == line.text,
            _ => self.fates.allows(number, &line.text, &text, message.is_deleted),
        };
        if !is_right {
            return Some((FaultKind::Conflict, "not the text that was sent".to_owned()));
        }
        if message.version > 1 {
            let Some(state) = State::of_raw(message) else {
                return Some((FaultKind::Conflict, "an unreadable message".to_owned()));
            };
            record.keep(target, state);
        }
        None
    }

    fn count(&mut self, entry: &RawEntry<'_>, moment: Moment) {
        self.arrivals += 1;
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

/// Microseconds up to one hour with two significant digits: percentiles are accurate to 1 %, in 30 KiB.
pub(crate) fn latencies() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 3_600_000_000, 2)?)
}
