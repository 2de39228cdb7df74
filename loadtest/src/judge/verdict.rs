//! The end of a channel: the acks, the history and what each device received must agree.

use std::collections::HashMap;

use madang_proto::{Content, Entry, Message};

use super::absence::Absences;
use super::book::{Acked, Book};
use super::faults::{Fault, FaultKind, Faults};
use super::record::Record;
use super::state::{Reacted, State};

/// The content of a channel according to history.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The last place.
    pub(crate) head: u64,
    /// The places of all entries, for finding those that a device lacks.
    entries: Vec<u64>,
    /// The places of the messages of this run.
    messages: Vec<u64>,
    /// Changed messages, by place.
    changed: HashMap<u64, Changed>,
}

#[derive(Debug, Clone, Copy)]
struct Changed {
    state: State,
    /// The place of the last entry that changed it.
    told_at: u64,
    /// The place of the last entry that changed its body. A device whose user was absent then has an older body, which
    /// later reactions leave unchanged.
    body_at: u64,
}

impl Book {
    /// Compares the sends and acks with history, which must be complete: from the first entry to the head.
    pub(crate) fn judge_history(&self, history: &[Entry], faults: &Faults) -> Verdict {
        self.judge_order(history, faults);
        let mut rows: HashMap<usize, (u64, &Message)> = HashMap::new();
        for (seq, message) in messages(history) {
            match self.keys.line(self.index, message.client_msg_id.value()) {
                Some(line) if line < self.lines.len() => {
                    if let Some((first, _)) = rows.insert(line, (seq, message)) {
                        faults.note(
                            FaultKind::Duplicated,
                            self.fault(seq, format!("the same key as at seq {first}")),
                        );
                    }
                }
                _ => faults
                    .note(FaultKind::Conflict, self.fault(seq, "a message that was never sent".to_owned())),
            }
        }
        for (line, state) in self.lines.iter().enumerate() {
            self.judge_line(line, state.acked, rows.get(&line).copied(), faults);
        }
        self.judge_unsaid(faults);
        self.judge_senders(faults);
        self.judge_change_entries(history, faults);
        let head = history.last().map_or(0, |entry| entry.seq.get());
        let entries = history.iter().map(|entry| entry.seq.get()).collect();
        let mut messages: Vec<u64> = rows.values().map(|(seq, _)| *seq).collect();
        messages.sort_unstable();
        let changed = self.judge_carried(history, &rows, faults);
        Verdict { head, entries, messages, changed }
    }

    /// Compares what one device received with history, except what its user's absences excuse. Returns the number of
    /// messages that it should have.
    pub(crate) fn judge_device(
        &self,
        verdict: &Verdict,
        record: &Record,
        device: &str,
        absences: Option<&Absences>,
        faults: &Faults,
    ) -> u64 {
        let owed_to = absences.map_or(u64::MAX, |absences| absences.owed_to(record.contiguous(self.base)));
        let excuses = |seq: u64| absences.is_some_and(|absences| absences.excuses(seq)) || seq > owed_to;
        let note = |kind, seq, what: String| {
            faults.note(kind, Fault { device: Some(device.to_owned()), ..self.fault(seq, what) });
        };
        for seq in record.missing(self.base, verdict.head).filter(|seq| !excuses(*seq)) {
            let what = match verdict.entries.binary_search(&seq) {
                Ok(_) => "is in history and never arrived",
                Err(_) => "never arrived, and is not in history",
            };
            note(FaultKind::Lost, seq, what.to_owned());
        }
        // An entry that was skipped on an open connection is a hole, even if it arrived later.
        let is_absent = |seq: u64| absences.is_some_and(|absences| absences.excuses(seq));
        for (from, to) in record.jumps() {
            if let Some(seq) = (*from..=*to).find(|seq| !is_absent(*seq)) {
                note(FaultKind::Hole, seq, format!("had not arrived when seq {} arrived", to + 1));
            }
        }
        let leaks = absences.map(|absences| absences.leaks(record.got(), record.arrivals()));
        for seq in leaks.into_iter().flatten() {
            note(FaultKind::Leaked, seq, "arrived although its user was not a member".to_owned());
        }
        let left_after = |seq: u64| absences.is_some_and(|absences| absences.follow(seq));
        for seq in record.withheld().filter(|seq| !left_after(*seq)) {
            note(FaultKind::Stale, seq, "arrived without its text for a member".to_owned());
        }
        self.judge_cache(verdict, record, excuses, note);
        verdict.messages.iter().filter(|seq| !excuses(**seq)).count() as u64
    }

    /// A device whose user never was a member must not receive anything.
    pub(crate) fn judge_stranger(&self, record: &Record, device: &str, faults: &Faults) {
        for seq in record.got().iter() {
            let what = "arrived although its user never was a member".to_owned();
            faults
                .note(FaultKind::Leaked, Fault { device: Some(device.to_owned()), ..self.fault(seq, what) });
        }
    }

    /// Messages on the device must equal those of the store, if the device must have their last change.
    fn judge_cache(
        &self,
        verdict: &Verdict,
        record: &Record,
        excuses: impl Fn(u64) -> bool,
        note: impl Fn(FaultKind, u64, String),
    ) {
        for (target, changed) in &verdict.changed {
            let has_all = !excuses(changed.told_at) && !excuses(changed.body_at);
            let is_owed = *target > self.base && record.got().contains(*target) && has_all;
            let kept = record.changed(*target);
            if is_owed && kept != Some(changed.state) {
                let (kept, stored) = (kept.map_or(1, |kept| kept.version), changed.state.version);
                let what = if kept == stored {
                    format!("differs from the store at version {stored}")
                } else {
                    format!("has version {kept}, the store has {stored}")
                };
                note(FaultKind::Stale, *target, what);
            }
        }
        let unknown = record.all_changed().filter(|(target, _)| !verdict.changed.contains_key(target));
        for (target, kept) in unknown.filter(|(target, _)| verdict.entries.binary_search(target).is_ok()) {
            let what = format!("has version {}, the store has 1", kept.version);
            note(FaultKind::Stale, target, what);
        }
    }

    /// Each acked change that needed an entry must have one.
    fn judge_change_entries(&self, history: &[Entry], faults: &Faults) {
        let targets: HashMap<u64, u64> = history
            .iter()
            .filter_map(|entry| Some((entry.seq.get(), entry.content.change()?.target.get())))
            .collect();
        for (line, seq) in self.fates.entries() {
            let target = self.lines.get(line).and_then(|line| Some(line.acked?.seq));
            if target.is_some() && targets.get(&seq).copied() != target {
                let what =
                    format!("a change of line {line} was acked with this seq, but history has none here");
                faults.note(FaultKind::Lost, self.fault(seq, what));
            }
        }
    }

    /// Changes must contain the message as it is now. Returns all changed messages.
    fn judge_carried(
        &self,
        history: &[Entry],
        rows: &HashMap<usize, (u64, &Message)>,
        faults: &Faults,
    ) -> HashMap<u64, Changed> {
        let mut changed: HashMap<u64, Changed> = rows
            .values()
            .filter(|(_, message)| message.version > 1)
            .map(|(seq, message)| (*seq, Changed { state: State::of(message), told_at: *seq, body_at: *seq }))
            .collect();
        for entry in history {
            let Some(change) = entry.content.change() else { continue };
            let target = change.target.get();
            let Some(row) = changed.get_mut(&target) else {
                let what =
                    format!("has version 1, but seq {} is a change to version {}", entry.seq, change.version);
                faults.note(FaultKind::Stale, self.fault(target, what));
                continue;
            };
            row.told_at = entry.seq.get();
            if !matches!(entry.content, Content::Reactions(_)) {
                row.body_at = row.told_at;
            }
            let is_right = match &entry.content {
                Content::Reactions(told) => told.state.as_deref().map(Reacted::of) == row.state.reacted(),
                content => content.carried().map(State::of) == Some(row.state),
            };
            if !is_right {
                let what = format!("history has another copy of it at seq {}", entry.seq);
                let kind = if row.state.is_deleted { FaultKind::Undeleted } else { FaultKind::Stale };
                faults.note(kind, self.fault(target, what));
            }
        }
        changed
    }

    /// Places must be dense, ids must rise with them, and times must not fall.
    fn judge_order(&self, history: &[Entry], faults: &Faults) {
        let first = history.first().map_or(1, |entry| entry.seq.get());
        if first > self.base + 1 {
            faults.note(FaultKind::Hole, self.fault(first, "history starts here".to_owned()));
        }
        for pair in history.windows(2) {
            let (one, two) = (pair[0].seq.get(), pair[1].seq.get());
            if two <= one {
                faults.note(FaultKind::Reordered, self.fault(two, format!("follows seq {one} in history")));
            }
            if pair[1].at < pair[0].at {
                let what = format!("its time is before the time of seq {one}");
                faults.note(FaultKind::Reordered, self.fault(two, what));
            }
            for place in one + 1..two {
                faults.note(FaultKind::Hole, self.fault(place, "history has no row for it".to_owned()));
            }
        }
        let rows: Vec<(u64, &Message)> = messages(history).collect();
        for pair in rows.windows(2).filter(|pair| pair[1].1.message_id <= pair[0].1.message_id) {
            let what = format!("its message_id is not greater than that of seq {}", pair[0].0);
            faults.note(FaultKind::Reordered, self.fault(pair[1].0, what));
        }
    }

    fn judge_line(&self, line: usize, acked: Option<Acked>, row: Option<(u64, &Message)>, faults: &Faults) {
        let state = &self.lines[line];
        match (acked, row) {
            (Some(acked), None) => {
                faults.note(
                    FaultKind::Lost,
                    self.fault(acked.seq, format!("line {line} was acked, but history lacks it")),
                );
            }
            (Some(acked), Some((seq, message)))
                if acked != (Acked { seq, message_id: message.message_id.raw() }) =>
            {
                let what = format!("line {line} was acked with seq {}, but history has it here", acked.seq);
                faults.note(FaultKind::Conflict, self.fault(seq, what));
            }
            // Lines that were never sent are reported once, below.
            (None, row) if !state.is_refused && state.sent_us > 0 => {
                let seq = row.map_or(0, |(seq, _)| seq);
                faults.note(FaultKind::Lost, self.fault(seq, format!("line {line} was never acked")));
            }
            _ => {}
        }
        if let Some((seq, message)) = row {
            for (kind, what) in self.fates.judge(line, &state.text, message) {
                faults.note(kind, self.fault(seq, what));
            }
        }
    }

    /// A day that was given up loses nothing, but proves nothing either.
    fn judge_unsaid(&self, faults: &Faults) {
        let unsaid = self.lines.iter().filter(|state| state.sent_us == 0).count();
        if unsaid > 0 {
            let what = format!("{unsaid} lines were never sent: the server did not accept them in time");
            faults.note(FaultKind::Lost, self.fault(0, what));
        }
    }

    /// The lines of one nick go over one connection, so their order in the log must be the order in which they were
    /// sent.
    fn judge_senders(&self, faults: &Faults) {
        let mut last: HashMap<u32, u64> = HashMap::new();
        for state in &self.lines {
            let Some(acked) = state.acked else { continue };
            let before = last.insert(state.nick, acked.seq).unwrap_or_default();
            if acked.seq < before {
                let what = format!("was sent after seq {before} by the same device");
                faults.note(FaultKind::Reordered, self.fault(acked.seq, what));
            }
        }
    }
}

fn messages(history: &[Entry]) -> impl Iterator<Item = (u64, &Message)> {
    history.iter().filter_map(|entry| Some((entry.seq.get(), entry.content.message()?)))
}
