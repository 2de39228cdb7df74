//! The end of a channel: what was acked, what history holds, and what came to each device must be one and the same.

use std::collections::HashMap;

use madang_proto::{Entry, Message};

use super::book::{Acked, Book};
use super::faults::{Fault, FaultKind, Faults};
use super::record::Record;

/// History's word on a channel.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The last place.
    pub(crate) head: u64,
    /// Messages of this run in it.
    pub(crate) messages: u64,
    /// Which places hold messages, for what a device misses.
    entries: Vec<u64>,
}

impl Book {
    /// Compares what was said and acked with history, which must be whole: from the first entry to the head.
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
                _ => {
                    faults.note(FaultKind::Conflict, self.fault(seq, "a message that nobody said".to_owned()))
                }
            }
        }
        for (line, state) in self.lines.iter().enumerate() {
            self.judge_line(line, state.acked, rows.get(&line).copied(), faults);
        }
        self.judge_unsaid(faults);
        self.judge_senders(faults);
        let head = history.last().map_or(0, |entry| entry.seq.get());
        let entries = history.iter().map(|entry| entry.seq.get()).collect();
        Verdict { head, messages: rows.len() as u64, entries }
    }

    /// Compares what came to one device with history.
    pub(crate) fn judge_device(&self, verdict: &Verdict, record: &Record, device: &str, faults: &Faults) {
        for seq in record.missing(self.base, verdict.head) {
            let what = match verdict.entries.binary_search(&seq) {
                Ok(_) => "is in history and never came",
                Err(_) => "never came, nor is it in history",
            };
            let fault = Fault { device: Some(device.to_owned()), ..self.fault(seq, what.to_owned()) };
            faults.note(FaultKind::Lost, fault);
        }
    }

    /// Places are dense, and ids rise with them.
    fn judge_order(&self, history: &[Entry], faults: &Faults) {
        let first = history.first().map_or(1, |entry| entry.seq.get());
        if first > self.base + 1 {
            faults.note(FaultKind::Hole, self.fault(first, "history begins here".to_owned()));
        }
        for pair in history.windows(2) {
            let (one, two) = (pair[0].seq.get(), pair[1].seq.get());
            if two <= one {
                faults.note(
                    FaultKind::Reordered,
                    self.fault(two, format!("stands behind seq {one} in history")),
                );
            }
            for place in one + 1..two {
                faults.note(FaultKind::Hole, self.fault(place, "history has no row for it".to_owned()));
            }
        }
        let rows: Vec<(u64, &Message)> = messages(history).collect();
        for pair in rows.windows(2).filter(|pair| pair[1].1.message_id <= pair[0].1.message_id) {
            let what = format!("its message_id is not above that of seq {}", pair[0].0);
            faults.note(FaultKind::Reordered, self.fault(pair[1].0, what));
        }
    }

    fn judge_line(&self, line: usize, acked: Option<Acked>, row: Option<(u64, &Message)>, faults: &Faults) {
        let state = &self.lines[line];
        match (acked, row) {
            (Some(acked), None) => {
                faults.note(
                    FaultKind::Lost,
                    self.fault(acked.seq, format!("line {line} was acked, history lacks it")),
                );
            }
            (Some(acked), Some((seq, message)))
                if acked != (Acked { seq, message_id: message.message_id.raw() }) =>
            {
                let what = format!("line {line} was acked with seq {}, history has it here", acked.seq);
                faults.note(FaultKind::Conflict, self.fault(seq, what));
            }
            // Lines that were never tried are told once, below.
            (None, row) if !state.is_refused && state.sent_us > 0 => {
                let seq = row.map_or(0, |(seq, _)| seq);
                faults.note(FaultKind::Lost, self.fault(seq, format!("line {line} was never acked")));
            }
            _ => {}
        }
        if let Some((seq, message)) = row.filter(|(_, message)| message.body.text != state.text) {
            let what = format!("message {} has other words than were said", message.message_id);
            faults.note(FaultKind::Conflict, self.fault(seq, what));
        }
    }

    /// The day was given up: nothing is lost, but nothing is proved either.
    fn judge_unsaid(&self, faults: &Faults) {
        let unsaid = self.lines.iter().filter(|state| state.sent_us == 0).count();
        if unsaid > 0 {
            let what = format!("{unsaid} lines were never said: the server took no more in time");
            faults.note(FaultKind::Lost, self.fault(0, what));
        }
    }

    /// One nick's lines go over one connection, so they stand in the order in which they were said.
    fn judge_senders(&self, faults: &Faults) {
        let mut last: HashMap<u32, u64> = HashMap::new();
        for state in &self.lines {
            let Some(acked) = state.acked else { continue };
            let before = last.insert(state.nick, acked.seq).unwrap_or_default();
            if acked.seq < before {
                let what = format!("was said after seq {before} by the same device");
                faults.note(FaultKind::Reordered, self.fault(acked.seq, what));
            }
        }
    }
}

fn messages(history: &[Entry]) -> impl Iterator<Item = (u64, &Message)> {
    history.iter().filter_map(|entry| Some((entry.seq.get(), entry.content.message()?)))
}
