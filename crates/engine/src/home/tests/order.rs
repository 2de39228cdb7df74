//! What one connection sent stays in order when some of it is refused.

use std::time::Duration;

use madang_ids::Seq;

use super::stage::{Stage, react, seats, send, user};
use super::transcripts::{ANNA, BERT, CARL, DORA, script, text};
use super::world::{Fate, Kind};
use crate::home::gate::SHUT;
use crate::home::{QUEUE_COMMANDS, QUEUE_WAIT, Ticket};

#[test]
fn what_comes_behind_a_failure_fails_too() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    script(&mut stage, Kind::Append, Fate::Unavailable);
    stage.ask(0, send(Some(7), ANNA, 1, "one"));
    // Anna's other connection tries the same, and sends more behind it.
    stage.ask(0, send(Some(8), ANNA, 1, "one"));
    stage.step(0);
    stage.ask(0, send(Some(8), ANNA, 2, "two"));
    stage.ask(0, send(Some(9), BERT, 3, "three"));
    stage.ask(0, send(Some(7), ANNA, 4, "four"));
    stage.run();
    let answers: Vec<String> = (2..=6).map(|ticket| text(&stage, Ticket(ticket))).collect();
    assert_eq!(answers, ["unavailable", "unavailable", "unavailable", "sent 4", "unavailable"]);
}

#[test]
fn what_was_sent_on_behind_a_refusal_waits_for_the_retry() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    script(&mut stage, Kind::Append, Fate::Unavailable);
    let say = |stage: &mut Stage, origin, key| {
        let sender = if origin == 9 { BERT } else { ANNA };
        let ticket = stage.ask(0, send(Some(origin), sender, key, "hello"));
        stage.run();
        text(stage, ticket)
    };
    assert_eq!(say(&mut stage, 7, 1), "unavailable");
    assert_eq!(say(&mut stage, 7, 2), "unavailable", "it would overtake the first");
    assert_eq!(say(&mut stage, 8, 3), "sent 4", "another connection");
    assert_eq!(say(&mut stage, 9, 4), "sent 5", "somebody else's");
    assert_eq!(say(&mut stage, 7, 1), "sent 6");
    assert_eq!(say(&mut stage, 7, 2), "sent 7");
    script(&mut stage, Kind::Append, Fate::Unavailable);
    assert_eq!(say(&mut stage, 7, 5), "unavailable");
    assert_eq!(say(&mut stage, 7, 6), "unavailable");
    // The client gives the fifth up.
    stage.now = stage.now.plus(SHUT);
    assert_eq!(say(&mut stage, 7, 6), "sent 8");
}

#[test]
fn a_connection_whose_message_found_no_room_waits_for_it() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    stage.ask(0, send(None, BERT, 0, "0"));
    stage.step(0);
    for key in 1..=QUEUE_COMMANDS as u64 {
        stage.ask(0, send(None, BERT, key, "more"));
    }
    let refused = stage.ask(0, send(Some(7), ANNA, 1, "one"));
    stage.steps(0, 2);
    let behind = stage.ask(0, send(Some(7), ANNA, 2, "two"));
    let again = stage.ask(0, send(Some(7), ANNA, 1, "one"));
    stage.run();
    assert_eq!([refused, behind].map(|ticket| text(&stage, ticket)), ["unavailable", "unavailable"]);
    assert!(text(&stage, again).starts_with("sent"), "there is room again");
}

#[test]
fn an_expired_send_is_refused_with_the_sends_behind_it() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    stage.ask(0, send(None, BERT, 0, "slowly appended"));
    stage.step(0);
    let late = stage.ask(0, send(Some(7), ANNA, 1, "one"));
    stage.now = stage.now.plus(QUEUE_WAIT);
    let behind = stage.ask(0, send(Some(7), ANNA, 2, "two"));
    let other = stage.ask(0, send(Some(9), BERT, 3, "three"));
    stage.now = stage.now.plus(Duration::from_millis(1));
    stage.run();
    let answers = [late, behind, other].map(|ticket| text(&stage, ticket));
    assert_eq!(answers, ["unavailable", "unavailable", "sent 5"]);
    let again = stage.ask(0, send(Some(7), ANNA, 1, "one"));
    stage.run();
    assert_eq!(text(&stage, again), "sent 6");
}

/// Its users repeated their commands on another node, and took some of them back there.
#[test]
fn a_home_that_was_paused_does_not_carry_out_what_was_taken_back() {
    let mut stage = Stage::group(2, 10, &[ANNA, BERT]);
    stage.ask(1, send(None, ANNA, 1, "one"));
    stage.run();
    // Dora joins, and Bert reacts. For the first home time stands still before it has done anything, or in the middle.
    for steps in 0..8 {
        let late = [stage.ask(0, seats(ANNA, &[DORA], &[])), stage.ask(0, react(BERT, 4, "+1", true))];
        stage.steps(0, steps);
        let begun = [seats(ANNA, &[DORA], &[]), react(BERT, 4, "+1", true)];
        let back = [seats(ANNA, &[], &[DORA]), react(BERT, 4, "+1", false)];
        for command in begun.into_iter().chain(back) {
            stage.ask(1, command);
            while stage.step(1) {}
            stage.now = stage.now.plus(Duration::from_secs(1));
            while stage.step(1) {}
        }
        stage.now = stage.now.plus(QUEUE_WAIT);
        stage.run();
        assert!(late.iter().all(|ticket| stage.answer(*ticket).is_some()));
        assert!(!stage.world.members[&user(DORA)].spans.is_open(), "after {steps} steps");
        assert!(stage.world.reactions_to(Seq::new(4)).is_empty(), "after {steps} steps");
    }
}

#[test]
fn a_message_waits_for_one_change_of_seats() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    stage.ask(0, seats(ANNA, &[CARL], &[]));
    stage.step(0);
    stage.ask(0, seats(ANNA, &[DORA], &[]));
    stage.ask(0, send(None, BERT, 1, "welcome"));
    stage.ask(0, seats(ANNA, &[], &[DORA]));
    stage.ask(0, send(None, DORA, 2, "behind moderation"));
    stage.run();
    let answers = (2..=6).map(|ticket| text(&stage, Ticket(ticket))).collect::<Vec<_>>();
    assert_eq!(answers, ["seated [3]", "seated [4]", "sent 5", "seated [4]", "forbidden"]);
}

#[test]
fn a_node_whose_number_is_not_leased_refuses_and_goes_on_when_it_is_leased_again() {
    let mut stage = Stage::group(1, 10, &[ANNA]);
    let say = |stage: &mut Stage, key| {
        let ticket = stage.ask(0, send(Some(7), ANNA, key, "hello"));
        stage.run();
        text(stage, ticket)
    };
    stage.drivers[0].ids.lease_until(Duration::ZERO);
    assert_eq!(say(&mut stage, 1), "unavailable");
    assert_eq!(say(&mut stage, 2), "unavailable", "it would overtake the first");
    stage.drivers[0].ids.lease_until(stage.now.elapsed + Duration::from_secs(15));
    assert_eq!((say(&mut stage, 1), say(&mut stage, 2)), ("sent 3".into(), "sent 4".into()));
}
