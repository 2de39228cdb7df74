//! Reactions: their sets, the rows that follow the sets, and the entries that tell of the rows.

use std::time::Duration;

use super::changes::{message, stage};
use super::invariants::check_at_rest;
use super::stage::{react, send};
use super::transcripts::{ANNA, BERT, CARL, script, text};
use super::world::{Fate, Kind};

#[test]
fn reactions_within_a_second_are_one_entry() {
    let mut stage = stage();
    stage.ask(0, react(ANNA, 5, "+1", true));
    stage.run();
    stage.lines.clear();
    stage.ask(0, react(BERT, 5, "+1", true));
    stage.ask(0, react(CARL, 5, "tea", true));
    stage.ask(0, react(ANNA, 5, "+1", false));
    assert!(!stage.step(0), "the second is not over");
    let before = stage.now;
    stage.run();
    assert_eq!(stage.now.elapsed - before.elapsed, Duration::from_secs(1));
    stage.expect(
        "
        0 find rows 5
        0 ok
        0 react to 5
        0 ok
        0 change 5, append 7 (reactions to 5)
        0 appended
        0 answers 4: changed 5 to 3 at 7
        0 answers 5: changed 5 to 3 at 7
        0 answers 6: changed 5 to 3 at 7
        0 fans out 7 (reactions to 5)
        ",
    );
    let counts = message(&stage).reactions.iter().map(|one| (one.emoji.as_str(), one.count));
    assert_eq!(counts.collect::<Vec<_>>(), [("+1", 1), ("tea", 1)]);
    let again = stage.ask(0, react(BERT, 5, "+1", true));
    stage.run();
    assert_eq!(text(&stage, again), "changed 5 to 3 at 7");
    check_at_rest(&stage);
}

#[test]
fn the_next_reaction_appends_the_entry_of_one_whose_row_was_not_changed() {
    let mut stage = stage();
    script(&mut stage, Kind::Change, Fate::Unavailable);
    let first = stage.ask(0, react(ANNA, 5, "+1", true));
    stage.run();
    assert_eq!(text(&stage, first), "unavailable");
    let second = stage.ask(1, react(ANNA, 5, "+1", true));
    stage.run();
    assert_eq!(text(&stage, second), "changed 5 to 2 at 6");
    check_at_rest(&stage);
}

#[test]
fn the_next_reaction_appends_the_entry_of_one_whose_row_was_changed() {
    for fate in [Fate::UnknownLost, Fate::Unavailable] {
        let mut stage = stage();
        script(&mut stage, Kind::Append, fate);
        stage.ask(0, react(ANNA, 5, "+1", true));
        stage.run();
        let second = stage.ask(1, react(ANNA, 5, "+1", true));
        stage.run();
        assert_eq!(text(&stage, second), "changed 5 to 2 at 6");
        check_at_rest(&stage);
    }
}

#[test]
fn an_entry_about_reactions_that_another_home_was_faster_than_is_appended_behind_it() {
    let mut stage = stage();
    let slow = stage.ask(0, react(ANNA, 5, "+1", true));
    while !stage.lines.iter().any(|line| line.contains("0 change 5")) {
        stage.step(0);
    }
    // Between the change of the row and the append.
    stage.step(0);
    stage.ask(1, send(None, BERT, 7, "first"));
    while stage.step(1) {}
    stage.run();
    assert_eq!(text(&stage, slow), "changed 5 to 2 at 7");
    check_at_rest(&stage);
}

#[test]
fn a_message_that_another_home_has_appended_is_found() {
    let mut stage = stage();
    // Both homes know the log.
    stage.ask(0, send(None, BERT, 7, "one"));
    stage.run();
    stage.ask(1, send(None, BERT, 8, "two"));
    stage.run();
    let tickets = [stage.ask(0, react(ANNA, 7, "+1", true)), stage.ask(0, react(ANNA, 99, "+1", true))];
    stage.run();
    assert_eq!(tickets.map(|ticket| text(&stage, ticket)), ["changed 7 to 2 at 8", "not_found"]);
    check_at_rest(&stage);
}

#[test]
fn a_message_takes_twenty_different_reactions() {
    let mut stage = stage();
    let tickets: Vec<_> =
        (0..=20).map(|index| stage.ask(0, react(ANNA, 5, &format!("r{index:02}"), true))).collect();
    stage.run();
    assert_eq!(text(&stage, tickets[19]), "changed 5 to 2 at 6");
    assert_eq!(text(&stage, tickets[20]), "full");
    let known = stage.ask(0, react(BERT, 5, "r03", true));
    let new = stage.ask(0, react(BERT, 5, "r99", true));
    stage.run();
    assert_eq!((text(&stage, known), text(&stage, new)), ("changed 5 to 3 at 7".into(), "full".into()));
}
