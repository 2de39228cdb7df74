//! Planted faults of changes of messages, and of the right to read them.

use madang_ids::{Millis, Seq, UserId};
use madang_proto::{Change, Content, DeletionMark, EditMark, Entry, Message, Reaction, ReactionsChange};

use super::{CHANNEL, Stage};
use crate::judge::absence::Absences;
use crate::judge::fates::{Step, edited};
use crate::judge::faults::FaultKind;
use crate::judge::frame::RawFrame;

/// The place of line 3.
const TARGET: u64 = 5;
const LINE: usize = 3;
const ANN: u64 = 1;
const BOB: u64 = 2;
/// The first place after the ten lines.
const NEXT: u64 = 12;

/// A seq and a device.
type Place = (Option<u64>, Option<String>);

const KINDS: [FaultKind; 5] = [
    FaultKind::Stale,
    FaultKind::EditLost,
    FaultKind::ReactionLost,
    FaultKind::Undeleted,
    FaultKind::Conflict,
];

impl Stage {
    /// All ten lines have arrived.
    fn after_all() -> Self {
        let mut stage = Self::new();
        stage.deliver_all(1, 11);
        stage
    }

    fn row(&mut self) -> &mut Message {
        let Content::Message(message) = &mut self.history[TARGET as usize - 1].content else {
            panic!("not a message")
        };
        message
    }

    /// The store makes a change and acks it: the row changes, an entry is appended, and all entries contain the row.
    fn change(&mut self, step: Step, user: u64) -> Entry {
        self.book.fates.ask(LINE, step, user);
        let (by, seq) = (UserId::from_raw(user), Seq::new(self.history.len() as u64 + 1));
        let row = self.row();
        row.version += 1;
        let version = row.version;
        match step {
            Step::Edit(number) => {
                row.body.text = edited("line 3", number);
                row.edited = Some(EditMark { at: Millis::new(1), version });
            }
            Step::Delete => {
                row.body.text.clear();
                row.reactions.clear();
                row.deleted = Some(DeletionMark { at: Millis::new(1), by });
            }
            Step::React { emoji, on } => {
                row.reactions.clear();
                if on {
                    let emoji = Step::emoji(emoji).to_owned();
                    row.reactions.push(Reaction { emoji, count: 1, users: vec![by] });
                }
            }
        }
        let (target, change) =
            (Seq::new(TARGET), Change { target: Seq::new(TARGET), version, by, message: None });
        let content = match step {
            Step::Edit(_) => Content::Edited(change),
            Step::Delete => Content::Deleted(change),
            Step::React { .. } => Content::Reactions(ReactionsChange { target, version, by, state: None }),
        };
        self.history.push(Entry { seq, at: Millis::new(seq.get()), content });
        self.carry();
        self.book.fates.ack(LINE, step, user, Some(seq.get()));
        self.entry(seq.get())
    }

    /// Puts the present row into every change in history.
    fn carry(&mut self) {
        let row = self.row().clone();
        for entry in &mut self.history {
            entry.content.carry(Some(&row));
        }
    }

    /// The counts of [`KINDS`], and the places of the faults.
    fn found(self) -> ([u64; 5], Vec<Place>) {
        let verdict = self.book.judge_history(&self.history, &self.faults);
        self.book.judge_device(&verdict, &self.record, "ann#1", None, &self.faults);
        let counts = KINDS.map(|kind| self.faults.count(kind));
        let named = self.faults.named();
        assert!(named.iter().all(|fault| fault.channel == Some(CHANNEL)));
        (counts, named.into_iter().map(|fault| (fault.seq, fault.device)).collect())
    }
}

const TEA: Step = Step::React { emoji: 0, on: true };
const NO_TEA: Step = Step::React { emoji: 0, on: false };

fn on_ann() -> Place {
    (Some(TARGET), Some("ann#1".to_owned()))
}

#[test]
fn correct_changes_are_no_fault() {
    let mut stage = Stage::after_all();
    for (step, user) in [
        (Step::Edit(1), ANN),
        (TEA, BOB),
        (NO_TEA, BOB),
        (Step::Edit(2), ANN),
        (TEA, BOB),
        (Step::Delete, ANN),
    ] {
        let entry = stage.change(step, user);
        stage.deliver(&[entry]);
    }
    assert_eq!(stage.found(), ([0; 5], vec![]));
}

#[test]
fn a_late_device_gets_the_present_state_which_is_no_fault() {
    let mut stage = Stage::new();
    for (step, user) in [(Step::Edit(1), ANN), (TEA, BOB)] {
        stage.change(step, user);
    }
    stage.deliver_all(1, 13);
    assert_eq!(stage.found(), ([0; 5], vec![]));
}

#[test]
fn a_change_that_was_not_delivered_leaves_the_device_stale() {
    let mut stage = Stage::after_all();
    stage.change(Step::Edit(1), ANN);
    let (counts, named) = stage.found();
    assert_eq!(counts, [1, 0, 0, 0, 0]);
    assert!(
        named.contains(&on_ann()) && named.contains(&(Some(NEXT), Some("ann#1".to_owned()))),
        "{named:?}"
    );
}

#[test]
fn a_change_with_an_older_version_is_stale_at_once_and_at_the_end() {
    let mut stage = Stage::after_all();
    let mut entry = stage.change(Step::Edit(1), ANN);
    let old = stage.history[TARGET as usize - 1].clone();
    let Content::Message(mut old) = old.content else { panic!("not a message") };
    (old.version, old.body.text, old.edited) = (1, "line 3".to_owned(), None);
    entry.content.carry(Some(&old));
    stage.deliver(&[entry]);
    assert_eq!(stage.found(), ([2, 0, 0, 0, 0], vec![on_ann(), on_ann()]));
}

/// A device must not apply reactions that belong to a version of the text that it does not have.
#[test]
fn a_missing_edit_is_found_after_later_reactions() {
    let mut stage = Stage::after_all();
    stage.change(Step::Edit(1), ANN);
    stage.change(TEA, BOB);
    let reactions = stage.entry(NEXT + 1);
    stage.deliver(&[reactions]);
    assert!(stage.found().1.contains(&on_ann()));
}

/// A page that was read earlier may arrive after them.
#[test]
fn reactions_that_arrived_before_an_older_copy_are_applied_to_it() {
    let mut stage = Stage::new();
    stage.deliver_all(1, TARGET - 1);
    let old = stage.entry(TARGET);
    stage.deliver_all(TARGET + 1, 11);
    let reactions = stage.change(TEA, BOB);
    stage.deliver(&[reactions]);
    stage.deliver(&[old]);
    assert_eq!(stage.found().0, [0; 5]);
}

#[test]
fn reactions_in_history_that_differ_from_the_message_are_stale() {
    let mut stage = Stage::after_all();
    let entry = stage.change(TEA, BOB);
    stage.deliver(&[entry]);
    let last = stage.history.last_mut().unwrap();
    let Content::Reactions(ReactionsChange { state: Some(state), .. }) = &mut last.content else {
        panic!("no reactions")
    };
    state.body_version = 2;
    assert_eq!(stage.found(), ([1, 0, 0, 0, 0], vec![(Some(TARGET), None)]));
}

#[test]
fn another_content_under_the_same_version_is_stale() {
    let mut stage = Stage::after_all();
    let mut entry = stage.change(TEA, BOB);
    let Content::Reactions(ReactionsChange { state: Some(state), .. }) = &mut entry.content else {
        panic!("no reactions")
    };
    state.reactions.clear();
    stage.deliver(&[entry]);
    assert_eq!(stage.found(), ([1, 0, 0, 0, 0], vec![on_ann()]));
}

#[test]
fn a_missing_edit_is_lost_only_if_it_was_acked() {
    let mut stage = Stage::after_all();
    for number in [1, 2] {
        let entry = stage.change(Step::Edit(number), ANN);
        stage.deliver(&[entry]);
    }
    stage.book.fates.ask(LINE, Step::Edit(3), ANN);
    stage.row().body.text = edited("line 3", 1);
    stage.carry();
    let (counts, named) = stage.found();
    assert_eq!(counts, [1, 1, 0, 0, 0], "the device has the acked edit, and the store has not");
    assert!(named.contains(&(Some(TARGET), None)), "{named:?}");

    let mut stage = Stage::after_all();
    let entry = stage.change(Step::Edit(1), ANN);
    stage.deliver(&[entry]);
    stage.book.fates.ask(LINE, Step::Edit(2), ANN);
    assert_eq!(stage.found().0, [0; 5]);
}

#[test]
fn a_reaction_that_was_lost_or_stayed_is_reported() {
    let mut stage = Stage::after_all();
    let entry = stage.change(TEA, BOB);
    stage.row().reactions.clear();
    stage.carry();
    let delivered = stage.entry(entry.seq.get());
    stage.deliver(&[delivered]);
    assert_eq!(stage.found(), ([0, 0, 1, 0, 0], vec![(Some(TARGET), None)]));

    let mut stage = Stage::after_all();
    let entry = stage.change(TEA, BOB);
    stage.deliver(&[entry]);
    stage.book.fates.ask(LINE, NO_TEA, BOB);
    stage.book.fates.ack(LINE, NO_TEA, BOB, None);
    assert_eq!(stage.found(), ([0, 0, 1, 0, 0], vec![(Some(TARGET), None)]));
}

#[test]
fn a_reaction_with_an_unknown_outcome_may_exist_but_one_never_requested_may_not() {
    for reacts in [false, true] {
        let mut stage = Stage::after_all();
        let entry = if reacts { stage.change(TEA, BOB) } else { stage.change(Step::Edit(1), ANN) };
        stage.deliver(&[entry]);
        stage.book.fates.ask(LINE, if reacts { NO_TEA } else { TEA }, BOB);
        assert_eq!(stage.found().0, [0; 5]);
    }
    let mut stage = Stage::after_all();
    let entry = stage.change(TEA, BOB);
    stage.deliver(&[entry]);
    stage.row().reactions[0].users.push(UserId::from_raw(9));
    stage.carry();
    assert_eq!(stage.found().0, [1, 0, 0, 0, 1]);
}

#[test]
fn deleted_text_that_is_delivered_later_is_reported() {
    let mut stage = Stage::after_all();
    let edit = stage.change(Step::Edit(1), ANN);
    let deleted = stage.change(Step::Delete, ANN);
    stage.deliver(&[stage.entry(edit.seq.get()), deleted]);
    stage.record.connect();
    let again = [edit];
    stage.deliver(&again);
    assert_eq!(stage.faults.count(FaultKind::Undeleted), 1);
    assert!(stage.found().1.contains(&on_ann()));
}

/// A page of the inbox has an end, and its rows are read a moment later. A row may be deleted by then, by an entry
/// after that end.
#[test]
fn text_that_arrives_before_its_deletion_is_no_fault() {
    let mut stage = Stage::after_all();
    let edit = stage.change(Step::Edit(1), ANN);
    let deleted = stage.change(Step::Delete, ANN);
    let as_it_is_now = stage.entry(deleted.content.change().unwrap().target.get());
    assert!(as_it_is_now.content.message().unwrap().deleted.is_some());
    stage.record.connect();
    stage.deliver(&[as_it_is_now, edit, deleted]);
    assert_eq!(stage.faults.count(FaultKind::Undeleted), 0);
}

#[test]
fn a_deletion_that_the_store_lost_is_reported() {
    let mut stage = Stage::after_all();
    let entry = stage.change(Step::Delete, ANN);
    stage.deliver(&[entry]);
    stage.row().body.text = "line 3".to_owned();
    let (counts, named) = stage.found();
    assert_eq!(counts[3], 2, "its row has the text, unlike the entry");
    assert!(named.contains(&(Some(TARGET), None)));

    let mut stage = Stage::after_all();
    stage.book.fates.ask(LINE, Step::Delete, ANN);
    stage.book.fates.ack(LINE, Step::Delete, ANN, None);
    assert_eq!(stage.found(), ([0, 0, 0, 1, 0], vec![(Some(TARGET), None)]));
}

#[test]
fn an_acked_change_without_its_entry_is_lost() {
    let mut stage = Stage::after_all();
    stage.book.fates.ask(LINE, TEA, BOB);
    stage.book.fates.ack(LINE, TEA, BOB, Some(NEXT));
    let verdict = stage.book.judge_history(&stage.history, &stage.faults);
    assert_eq!(stage.faults.count(FaultKind::Lost), 1);
    assert_eq!(stage.book.judge_device(&verdict, &stage.record, "ann#1", None, &stage.faults), 10);
}

#[test]
fn a_gap_is_a_fault_only_if_history_does_not_fill_it() {
    for filled_to in [8, 7] {
        let mut stage = Stage::new();
        stage.record.subscribe(1);
        stage.deliver_all(2, 4);
        stage.record.leave_gap(8);
        stage.deliver_all(9, 11);
        let rows: Vec<Entry> = (5..=filled_to).map(|seq| stage.entry(seq)).collect();
        let page = serde_json::json!({ "type": "history", "id": "h", "entries": rows }).to_string();
        let moment = crate::judge::book::Moment { now_us: 10, welcome_at_ms: 0 };
        for entry in &RawFrame::parse(&page).unwrap().entries {
            stage.book.fill(entry, &mut stage.record, moment, &|| "ann#1".to_owned(), &stage.faults);
        }
        let missing: Vec<u64> = (filled_to + 1..=8).collect();
        let named: Vec<u64> = stage.judged().into_iter().filter_map(|(seq, _)| seq).collect();
        assert_eq!(named, missing);
    }
}

#[test]
fn entries_after_a_ban_are_leaked_and_entries_after_the_return_are_not() {
    let bob = UserId::from_raw(BOB);
    let by = UserId::from_raw(ANN);
    for leak in [false, true] {
        let mut stage = Stage::new();
        (stage.book.is_moving, stage.book.is_open) = (true, true);
        stage.history[4].content = Content::Banned { user_id: bob, by, until: None };
        stage.history[8].content = Content::Joined { user_id: bob, by: bob };
        stage.book.lines[3].is_refused = true;
        stage.book.lines[7].is_refused = true;
        (stage.book.lines[3].acked, stage.book.lines[7].acked) = (None, None);
        stage.deliver_all(1, 4);
        stage.record.set_away(true);
        stage.deliver_all(5, if leak { 6 } else { 5 });
        stage.record.set_away(false);
        stage.record.subscribe(1);
        stage.deliver_all(if leak { 7 } else { 6 }, 11);
        let absences = Absences::of(BOB, &stage.history, 1, false, true);
        let verdict = stage.book.judge_history(&stage.history, &stage.faults);
        stage.book.judge_device(&verdict, &stage.record, "bob#1", Some(&absences), &stage.faults);
        let named: Vec<Option<u64>> = stage.faults.named().into_iter().map(|fault| fault.seq).collect();
        assert_eq!(named, if leak { vec![Some(6)] } else { vec![] });
        assert_eq!(stage.faults.count(FaultKind::Leaked), u64::from(leak));
    }
}

#[test]
fn skipped_places_that_no_absence_excuses_are_a_hole() {
    let mut stage = Stage::new();
    stage.book.is_moving = true;
    stage.deliver_all(1, 4);
    stage.deliver_all(7, 11);
    assert_eq!(stage.faults.total(), 0, "reported at the end only");
    let (_, named) = stage.found();
    assert_eq!(named.iter().filter_map(|(seq, _)| *seq).collect::<Vec<_>>(), [5, 5, 6]);
}
