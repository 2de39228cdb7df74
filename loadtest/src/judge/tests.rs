//! The judge receives streams with planted faults and must report each of them with channel and seq.

use madang_ids::{ChannelId, MessageId, Millis, Ordinal, Seq, UserId};
use madang_proto::{Body, Content, Entry, Message};

use super::book::{Acked, Book, Keys, LineState, Moment};
use super::faults::{Fault, FaultKind, Faults};
use super::frame::RawFrame;
use super::record::Record;

const CHANNEL: ChannelId = ChannelId::from_raw(42);
const KEYS: Keys = Keys { run: 9 };
/// The place of the first message: after `created`.
const FIRST: u64 = 2;

mod changes;

/// A channel with ten lines, all acked, and its history.
struct Stage {
    book: Book,
    record: Record,
    faults: Faults,
    history: Vec<Entry>,
}

impl Stage {
    fn new() -> Self {
        let line =
            |index: u64| LineState { text: format!("line {index}"), sent_us: 1, ..LineState::default() };
        let mut book = Book::new(CHANNEL, 3, KEYS, 1, (0..10).map(line).collect()).unwrap();
        let faults = Faults::default();
        let mut history = vec![Entry {
            seq: Seq::new(1),
            at: Millis::new(1),
            content: Content::Created { by: UserId::from_raw(1) },
        }];
        for line in 0..10 {
            let seq = FIRST + line;
            book.ack(line as usize, Acked { seq, message_id: 1_000 + seq }, 5, &faults);
            history.push(message(seq, line as u32));
        }
        let mut record = Record::default();
        record.connect();
        Self { book, record, faults, history }
    }

    fn deliver(&mut self, entries: &[Entry]) {
        let json =
            serde_json::json!({ "type": "entries", "channel_id": CHANNEL, "entries": entries }).to_string();
        let moment = Moment { now_us: 10, welcome_at_ms: 0 };
        for entry in &RawFrame::parse(&json).unwrap().entries {
            self.book.deliver(entry, &mut self.record, moment, &|| "ann#1".to_owned(), &self.faults);
        }
    }

    fn entry(&self, seq: u64) -> Entry {
        self.history[seq as usize - 1].clone()
    }

    /// Delivers everything from `from` to `to`, each entry in a frame of its own.
    fn deliver_all(&mut self, from: u64, to: u64) {
        for seq in from..=to {
            self.deliver(&[self.entry(seq)]);
        }
    }

    fn judged(self) -> Vec<(Option<u64>, Option<String>)> {
        let verdict = self.book.judge_history(&self.history, &self.faults);
        self.book.judge_device(&verdict, &self.record, "ann#1", None, &self.faults);
        let named = self.faults.named();
        assert!(named.iter().all(|fault| fault.channel == Some(CHANNEL)));
        named.into_iter().map(|Fault { seq, device, .. }| (seq, device)).collect()
    }

    fn counts(&self, kinds: [FaultKind; 4]) -> [u64; 4] {
        kinds.map(|kind| self.faults.count(kind))
    }
}

const KINDS: [FaultKind; 4] =
    [FaultKind::Duplicated, FaultKind::Reordered, FaultKind::Hole, FaultKind::Conflict];

fn message(seq: u64, line: u32) -> Entry {
    let (id, ordinal) = (MessageId::from_raw(1_000 + seq), Ordinal::new(seq - 1));
    let body = Body { text: format!("line {line}"), ..Body::default() };
    let message = Message::new(id, ordinal, UserId::from_raw(1), KEYS.key(3, line), body);
    Entry { seq: Seq::new(seq), at: Millis::new(seq), content: Content::Message(Box::new(message)) }
}

fn on_ann(seq: u64) -> (Option<u64>, Option<String>) {
    (Some(seq), Some("ann#1".to_owned()))
}

#[test]
fn a_correct_stream_has_no_faults() {
    let mut stage = Stage::new();
    stage.deliver_all(1, 11);
    assert_eq!((stage.book.deliveries.live, stage.book.to_deliver.len()), (10, 10));
    assert_eq!(stage.judged(), []);
}

#[test]
fn a_missing_entry_is_a_hole_and_lost() {
    let mut stage = Stage::new();
    stage.deliver_all(1, 4);
    stage.deliver_all(6, 11);
    assert_eq!(stage.counts(KINDS), [0, 0, 1, 0]);
    assert_eq!(stage.judged(), [on_ann(5), on_ann(5)], "the hole, and that it was never filled");
}

#[test]
fn a_missing_last_entry_is_lost() {
    let mut stage = Stage::new();
    stage.deliver_all(1, 10);
    assert_eq!(stage.judged(), [on_ann(11)]);
}

#[test]
fn an_entry_that_arrived_twice_is_duplicated() {
    let mut stage = Stage::new();
    stage.deliver_all(1, 7);
    stage.deliver_all(7, 7);
    stage.deliver_all(8, 11);
    assert_eq!(stage.counts(KINDS), [1, 0, 0, 0]);
    assert_eq!(stage.judged(), [on_ann(7)]);
}

#[test]
fn an_entry_that_arrived_again_after_its_cursor_is_duplicated() {
    let mut stage = Stage::new();
    stage.deliver_all(1, 7);
    stage.record.cover();
    stage.record.connect();
    stage.deliver_all(7, 11);
    assert_eq!(stage.judged(), [on_ann(7)]);
}

#[test]
fn an_entry_that_arrived_again_without_a_cursor_is_no_fault() {
    let mut stage = Stage::new();
    stage.deliver_all(1, 7);
    stage.record.connect();
    stage.deliver_all(3, 11);
    assert_eq!(stage.judged(), []);
}

#[test]
fn two_swapped_entries_are_a_hole_and_out_of_order() {
    let mut stage = Stage::new();
    stage.deliver_all(1, 4);
    stage.deliver(&[stage.entry(6), stage.entry(5)]);
    stage.deliver_all(7, 11);
    assert_eq!(stage.counts(KINDS), [0, 1, 1, 0]);
    assert_eq!(stage.judged(), [on_ann(5), on_ann(5)]);
}

#[test]
fn an_acked_message_that_history_lacks_is_lost() {
    let mut stage = Stage::new();
    stage.deliver_all(1, 11);
    stage.history.remove(6);
    assert_eq!(stage.judged(), [(Some(7), None), (Some(7), None)], "a hole, and the line that was acked");
}

#[test]
fn an_acked_last_message_that_history_lacks_is_lost() {
    let mut stage = Stage::new();
    stage.deliver_all(1, 10);
    stage.history.pop();
    assert_eq!(stage.judged(), [(Some(11), None)]);
}

#[test]
fn one_key_in_two_rows_is_duplicated() {
    let mut stage = Stage::new();
    stage.history.push(message(12, 9));
    stage.deliver_all(1, 12);
    let named = stage.judged();
    assert_eq!(named.first(), Some(&(Some(12), None)));
}

#[test]
fn another_text_is_a_conflict_on_the_device_and_in_history() {
    let mut stage = Stage::new();
    let mut strange = stage.entry(5);
    let Content::Message(message) = &mut strange.content else { panic!("not a message") };
    message.body.text = "something else".to_owned();
    stage.deliver_all(1, 4);
    stage.deliver(std::slice::from_ref(&strange));
    stage.deliver_all(6, 11);
    assert_eq!(stage.counts(KINDS), [0, 0, 0, 1]);
    stage.history[4] = strange;
    assert_eq!(stage.judged(), [on_ann(5), (Some(5), None)]);
}

#[test]
fn another_message_at_the_same_place_is_a_conflict() {
    let mut stage = Stage::new();
    stage.deliver_all(1, 11);
    let mut other = Record::default();
    std::mem::swap(&mut stage.record, &mut other);
    stage.record.connect();
    stage.deliver_all(1, 4);
    stage.deliver(&[message(5, 7)]);
    assert_eq!(stage.counts(KINDS), [0, 0, 0, 1]);
}

#[test]
fn a_line_that_was_never_acked_is_lost() {
    let mut stage = Stage::new();
    stage.deliver_all(1, 11);
    stage.book.lines[4].acked = None;
    assert_eq!(stage.judged(), [(Some(6), None)]);
}

#[test]
fn swapped_lines_of_one_sender_are_reported() {
    let mut stage = Stage::new();
    // All devices agree on this log. Only the sender knows that the order was different.
    let ack = |line: usize, seq: u64| (line, Some(Acked { seq, message_id: 1_000 + seq }));
    for (line, acked) in [ack(3, FIRST + 4), ack(4, FIRST + 3)] {
        stage.book.lines[line].acked = acked;
        let seq = acked.unwrap().seq;
        stage.history[seq as usize - 1] = message(seq, line as u32);
    }
    stage.deliver_all(1, 11);
    let (faults, reordered) = (&stage.faults, FaultKind::Reordered);
    stage.book.judge_history(&stage.history, faults);
    assert_eq!(faults.count(reordered), 1, "{:?}", faults.named());
    assert_eq!(faults.named().len(), 1);
    assert_eq!(faults.named()[0].seq, Some(FIRST + 3));
}

#[test]
fn times_that_fall_in_history_are_reported() {
    let mut stage = Stage::new();
    stage.history[4].at = Millis::new(1);
    stage.deliver_all(1, 11);
    let (faults, reordered) = (&stage.faults, FaultKind::Reordered);
    stage.book.judge_history(&stage.history, faults);
    assert_eq!(faults.count(reordered), 1);
    assert_eq!(faults.named()[0].seq, Some(5));
}
