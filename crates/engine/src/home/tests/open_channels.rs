//! Users who join and leave an open channel: many in one step.

use madang_proto::Role;

use super::invariants::check_at_rest;
use super::stage::{Stage, seats, send, user};
use super::transcripts::{ANNA, BERT, CARL, script, text};
use super::world::{Fate, Kind};
use crate::home::Ticket;

fn comes(stage: &mut Stage, home: usize, id: u64) -> Ticket {
    stage.ask(home, seats(id, &[id], &[]))
}

fn goes(stage: &mut Stage, home: usize, id: u64) -> Ticket {
    stage.ask(home, seats(id, &[], &[id]))
}

fn members(stage: &Stage) -> Vec<u64> {
    let open = stage.world.members.values().filter(|member| member.spans.is_open());
    open.map(|member| member.user_id.raw()).collect()
}

#[test]
fn users_who_join_and_leave_at_once_share_one_step() {
    let mut stage = Stage::open(1, 3, 1);
    comes(&mut stage, 0, BERT);
    stage.run();
    stage.lines.clear();
    // Behind a load they wait together: one goes, so of two who come one finds a seat.
    stage.crash(0, false);
    comes(&mut stage, 0, CARL);
    goes(&mut stage, 0, BERT);
    comes(&mut stage, 0, 4);
    comes(&mut stage, 0, 5);
    stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.run();
    stage.expect(
        "
        0 crashes
        0 load
        0 head 3, 2 seats taken, 0 half-way
        0 redrives 1–3
        0 change seats to 3 if rev 2
        0 changed
        0 answers 6: full
        0 append 4–6 (3 joined, 2 left, 4 joined)
        0 appended
        0 fans out 4–6 (3 joined, 2 left, 4 joined)
        0 settle 3 2 4
        0 ok
        0 answers 3: seated [3]
        0 answers 4: seated [2]
        0 answers 5: seated [4]
        0 find 1
        0 ok
        0 append 7 (hello)
        0 appended
        0 answers 7: sent 7
        0 fans out 7 (hello)
        ",
    );
    check_at_rest(&stage);
}

#[test]
fn thirty_concurrent_joins_fill_ten_seats() {
    for seed in 0..40 {
        let mut stage = Stage::open(2, 10, seed);
        stage.world.percent = if seed < 20 { 0 } else { 20 };
        let tickets: Vec<Ticket> = (2..=31).map(|id| comes(&mut stage, id as usize % 2, id)).collect();
        stage.run();
        stage.world.percent = 0;
        stage.ask(0, seats(ANNA, &[], &[]));
        stage.ask(1, seats(ANNA, &[], &[]));
        stage.run();
        check_at_rest(&stage);
        let count =
            |what: &str| tickets.iter().filter(|ticket| text(&stage, **ticket).starts_with(what)).count();
        assert!(members(&stage).len() <= 10 && count("seated") <= 9);
        if seed < 20 {
            assert_eq!((members(&stage).len(), count("seated"), count("full")), (10, 9, 21));
        }
    }
}

#[test]
fn a_refusal_waits_for_the_change_that_it_rests_on() {
    let mut stage = Stage::open(1, 2, 1);
    // Both are judged together, the second one as if the first had the last seat.
    script(&mut stage, Kind::ChangeSeats, Fate::Unavailable);
    let first = comes(&mut stage, 0, BERT);
    let second = comes(&mut stage, 0, CARL);
    stage.run();
    assert_eq!((text(&stage, first), text(&stage, second)), ("unavailable".into(), "unavailable".into()));
    let again = comes(&mut stage, 0, CARL);
    stage.run();
    assert_eq!((text(&stage, again), members(&stage)), ("seated [3]".into(), vec![1, 3]));
}

fn everybody_comes(stage: &mut Stage) {
    for id in 2..=300 {
        comes(stage, 0, id);
    }
}

#[test]
fn after_a_crash_of_a_step_of_many_every_member_gets_an_entry() {
    for (steps, is_done) in (1..=9).flat_map(|steps| [(steps, false), (steps, true)]) {
        let mut stage = Stage::open(1, 500, 1);
        everybody_comes(&mut stage);
        stage.steps(0, steps);
        stage.crash(0, is_done);
        everybody_comes(&mut stage);
        stage.run();
        check_at_rest(&stage);
        assert_eq!((stage.world.seats.count, stage.world.rows.len()), (300, 301));
    }
}

#[test]
fn nobody_is_added_and_strangers_do_not_speak() {
    let mut stage = Stage::open(1, 10, 1);
    let added = stage.ask(0, seats(ANNA, &[BERT], &[]));
    let speaks = stage.ask(0, send(None, BERT, 1, "hello"));
    let goes = goes(&mut stage, 0, BERT);
    stage.run();
    for ticket in [added, speaks, goes] {
        assert_eq!(text(&stage, ticket), "forbidden");
    }
    let mut group = Stage::group(1, 10, &[ANNA]);
    let joins = comes(&mut group, 0, BERT);
    group.run();
    assert_eq!(text(&group, joins), "not_found");
}

#[test]
fn the_first_user_in_an_empty_open_channel_owns_it() {
    let mut stage = Stage::open(1, 10, 1);
    goes(&mut stage, 0, ANNA);
    stage.run();
    comes(&mut stage, 0, BERT);
    comes(&mut stage, 0, CARL);
    stage.run();
    let role = |id| stage.world.members[&user(id)].role;
    assert_eq!((role(BERT), role(CARL)), (Role::Owner, Role::Member));
    check_at_rest(&stage);
}
