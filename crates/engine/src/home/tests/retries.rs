//! Retry keys behind the window of rows that a home has in memory.

use super::invariants::check_at_rest;
use super::stage::{Stage, seats, send};
use super::transcripts::{ANNA, BERT, CARL, text};
use crate::home::WINDOW_ROWS;

#[test]
fn a_key_is_found_behind_the_window_and_by_the_next_home() {
    let mut stage = Stage::group(2, 10, &[ANNA]);
    let first = stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.run();
    for key in 2..=300 {
        stage.ask(0, send(None, ANNA, key, "more"));
        stage.run();
    }
    assert!(stage.world.rows.len() > WINDOW_ROWS + 40);
    stage.lines.clear();
    stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.ask(1, send(None, ANNA, 1, "hello"));
    stage.ask(1, send(None, ANNA, 1, "bye"));
    stage.run();
    stage.expect(
        "
        0 append 303 (hello) if unsent
        1 load
        0 1 sent before
        0 answers 302: sent 3 before
        0 redrives 3
        1 head 302, 1 seats taken, 0 half-way
        1 redrives 47–302
        1 record 128, append 303 (hello) if unsent
        1 1 sent before
        1 answers 303: sent 3 before
        1 redrives 3
        1 answers 304: conflict
        ",
    );
    assert_eq!(text(&stage, first), "sent 3");
}

/// New messages, one at a time, with keys of their own.
fn speak(stage: &mut Stage, home: usize, sender: u64, count: u64) {
    for _ in 0..count {
        let key = 1_000 + stage.asked.len() as u64;
        stage.ask(home, send(None, sender, key, "more"));
        while stage.step(home) {}
    }
}

#[test]
fn what_was_sent_before_holds_nothing_else_up() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    stage.ask(0, send(None, ANNA, 1, "one"));
    speak(&mut stage, 0, BERT, 300);
    stage.lines.clear();
    let tickets = [(1, "one"), (2, "two"), (1, "other"), (3, "three"), (2, "two")]
        .map(|(key, words)| stage.ask(0, send(Some(7), ANNA, key, words)));
    stage.run();
    let answers = tickets.map(|ticket| text(&stage, ticket));
    assert_eq!(answers, ["sent 4 before", "sent 305", "conflict", "sent 306", "sent 305 before"]);
    let appends = stage.lines.iter().filter(|line| line.contains("append")).count();
    assert_eq!(appends, 3, "with the append and its outcome that put the retries aside");
}

#[test]
fn a_key_that_was_unsent_at_a_head_that_moved_is_looked_up_again() {
    let mut stage = Stage::group(2, 10, &[ANNA, BERT]);
    speak(&mut stage, 0, BERT, 300);
    let late = stage.ask(0, send(None, ANNA, 1, "hello"));
    // The look-up is done, and the append is not.
    stage.steps(0, 2);
    stage.ask(1, send(None, ANNA, 1, "hello"));
    speak(&mut stage, 1, BERT, 300);
    stage.run();
    assert_eq!(text(&stage, late), "sent 304 before");
    check_at_rest(&stage);
}

#[test]
fn a_retry_of_a_user_who_has_left_is_acknowledged() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    stage.ask(0, send(None, BERT, 1, "hello"));
    stage.ask(0, seats(ANNA, &[], &[BERT]));
    speak(&mut stage, 0, ANNA, 300);
    stage.lines.clear();
    let tickets = [(BERT, 1, "hello"), (BERT, 2, "late"), (CARL, 1, "hello"), (ANNA, 3, "still here")]
        .map(|(sender, key, words)| stage.ask(0, send(None, sender, key, words)));
    stage.run();
    let answers = tickets.map(|ticket| text(&stage, ticket));
    assert_eq!(answers, ["sent 4 before", "forbidden", "not_found", "sent 306"]);
    assert!(stage.lines.contains(&"0 find 3 sends".to_owned()), "{:?}", stage.lines);
}

#[test]
fn records_are_written_for_half_a_window_at_once() {
    let mut stage = Stage::group(1, 10, &[ANNA]);
    for key in 1..=600 {
        stage.ask(0, send(None, ANNA, key, "more"));
        stage.run();
    }
    let records = stage.lines.iter().filter(|line| line.contains("record")).count();
    assert!((3..=4).contains(&records), "{records} groups of records for 346 rows");
}
