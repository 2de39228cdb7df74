//! The home's protocol for changes of members.

use madang_proto::{Content, Role};

use super::invariants::check_at_rest;
use super::stage::{Stage, seats, send, user};
use super::transcripts::{ANNA, BERT, CARL, script, text};
use super::world::{Fate, Kind};
use crate::home::{Command, Effect, Found, Loaded, SeatRequest, Ticket};
use crate::log::{Row, Tail};

#[test]
fn thirty_joins_through_two_homes_fill_ten_seats() {
    for seed in 0..20 {
        let mut stage = Stage::empty(2, 10, seed);
        stage.create(&[ANNA]);
        stage.world.percent = if seed < 10 { 0 } else { 20 };
        let tickets: Vec<Ticket> =
            (2..=31).map(|id| stage.ask(id as usize % 2, seats(ANNA, &[id], &[]))).collect();
        stage.run();
        stage.world.percent = 0;
        stage.ask(0, seats(ANNA, &[], &[]));
        stage.ask(1, seats(ANNA, &[], &[]));
        stage.run();
        check_at_rest(&stage);
        let joined = stage.world.members.values().filter(|member| member.spans.is_open()).count();
        let is = |ticket: &&Ticket, what: &str| text(&stage, **ticket).starts_with(what);
        assert!(joined == 10 || seed >= 10, "{joined} members");
        assert!(joined <= 10 && tickets.iter().filter(|ticket| is(ticket, "seated")).count() <= 9);
        if seed < 10 {
            assert_eq!(tickets.iter().filter(|ticket| is(ticket, "full")).count(), 21);
        }
    }
}

/// The caller of a change that was half done repeats it, also through another home.
#[test]
fn a_leave_that_was_half_done_is_repeated() {
    for kind in [Kind::Append, Kind::Memberships, Kind::Settle] {
        let mut stage = Stage::group(2, 10, &[ANNA, BERT]);
        script(&mut stage, kind, Fate::Unavailable);
        let first = stage.ask(0, seats(BERT, &[], &[BERT]));
        stage.run();
        let again = stage.ask(1, seats(BERT, &[], &[BERT]));
        stage.run();
        let third = stage.ask(0, seats(BERT, &[], &[BERT]));
        stage.run();
        let texts = [first, again, third].map(|ticket| text(&stage, ticket));
        assert!(texts[1..].iter().all(|text| text.starts_with("seated")), "{kind:?}: {texts:?}");
        check_at_rest(&stage);
    }
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    let stranger = stage.ask(0, seats(CARL, &[], &[CARL]));
    stage.run();
    assert_eq!(text(&stage, stranger), "not_found");
}

#[test]
fn a_seat_that_was_given_back_elsewhere_is_seen() {
    let mut stage = Stage::group(2, 2, &[ANNA, BERT]);
    stage.ask(1, seats(BERT, &[], &[BERT]));
    while stage.step(1) {}
    let ticket = stage.ask(0, seats(ANNA, &[CARL], &[]));
    stage.run();
    assert_eq!(text(&stage, ticket), "seated [3]");
}

#[test]
fn a_member_who_joined_through_another_home_may_speak() {
    let mut stage = Stage::group(2, 10, &[ANNA]);
    let before = stage.ask(0, send(None, BERT, 1, "may I?"));
    stage.run();
    stage.ask(1, seats(ANNA, &[BERT], &[]));
    stage.run();
    let after = stage.ask(0, send(None, BERT, 1, "may I?"));
    stage.run();
    assert_eq!((text(&stage, before), text(&stage, after)), ("not_found".into(), "sent 4".into()));
}

#[test]
fn a_tail_that_is_older_than_the_seats_is_read_again() {
    let mut stage = Stage::group(2, 10, &[ANNA]);
    stage.ask(1, seats(ANNA, &[CARL], &[]));
    // The load has read the tail, and not yet the seats.
    stage.steps(1, 2);
    stage.ask(0, seats(ANNA, &[CARL], &[]));
    stage.ask(0, seats(ANNA, &[], &[CARL]));
    while stage.step(0) {}
    stage.lines.clear();
    stage.run();
    stage.expect(
        "
        1 head 2, 1 seats taken, 0 half-way
        1 redrives 1–2
        1 find 1 3
        1 ok
        1 load
        1 head 4, 1 seats taken, 0 half-way
        1 change seats to 2 if rev 3
        1 changed
        1 append 5 (3 joined)
        1 appended
        1 fans out 5 (3 joined)
        1 settle 3
        1 ok
        1 answers 2: seated [3]
        ",
    );
    check_at_rest(&stage);
}

#[test]
fn a_crash_between_seats_and_log_is_finished_by_the_next_home() {
    let mut stage = Stage::group(1, 10, &[ANNA]);
    stage.ask(0, seats(ANNA, &[BERT, CARL], &[]));
    stage.steps(0, 4);
    stage.crash(0, false);
    stage.lines.clear();
    stage.ask(0, send(None, BERT, 1, "hello"));
    stage.run();
    stage.expect(
        "
        0 load
        0 head 2, 3 seats taken, 2 half-way
        0 redrives 1–2
        0 append 3–4 (2 joined, 3 joined)
        0 appended
        0 fans out 3–4 (2 joined, 3 joined)
        0 settle 2 3
        0 ok
        0 append 5 (hello)
        0 appended
        0 answers 3: sent 5
        0 fans out 5 (hello)
        ",
    );
    check_at_rest(&stage);
}

#[test]
fn a_crash_between_log_and_settling_is_finished_by_the_next_home() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    stage.ask(0, seats(ANNA, &[], &[BERT]));
    stage.steps(0, 5);
    stage.crash(0, false);
    stage.lines.clear();
    stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.run();
    stage.expect(
        "
        0 load
        0 head 4, 1 seats taken, 1 half-way
        0 redrives 1–4
        0 settle 2
        0 ok
        0 append 5 (hello)
        0 appended
        0 answers 3: sent 5
        0 fans out 5 (hello)
        ",
    );
    check_at_rest(&stage);
}

#[test]
fn a_leave_whose_outcome_was_unknown_is_answered_as_done() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    script(&mut stage, Kind::ChangeSeats, Fate::UnknownDone);
    let ticket = stage.ask(0, seats(BERT, &[], &[BERT]));
    stage.run();
    assert_eq!(text(&stage, ticket), "seated [2]");
    check_at_rest(&stage);
}

#[test]
fn a_join_that_failed_half_way_takes_one_seat() {
    let mut stage = Stage::group(1, 3, &[ANNA]);
    script(&mut stage, Kind::Append, Fate::Unavailable);
    let first = stage.ask(0, seats(ANNA, &[BERT], &[]));
    stage.run();
    let again = stage.ask(0, seats(ANNA, &[BERT], &[]));
    let other = stage.ask(0, seats(ANNA, &[CARL], &[]));
    stage.run();
    let answers = [first, again, other].map(|ticket| text(&stage, ticket));
    assert_eq!(answers, ["unavailable", "seated []", "seated [3]"]);
    check_at_rest(&stage);
}

#[test]
fn the_entries_of_many_members_take_several_appends() {
    let everybody: Vec<u64> = (1..=500).collect();
    let leaves: Vec<u64> = (2..=500).collect();
    for steps in 1..=10 {
        let mut stage = Stage::group(1, 500, &everybody);
        assert_eq!(text(&stage, Ticket(1)).split(' ').count(), 501);
        assert_eq!(stage.world.rows.len(), 501);
        check_at_rest(&stage);
        stage.ask(0, seats(ANNA, &[], &leaves));
        stage.steps(0, steps);
        stage.crash(0, false);
        stage.ask(0, seats(ANNA, &[BERT], &[]));
        stage.run();
        assert_eq!(stage.world.seats.count, if steps < 2 { 500 } else { 2 }, "a crash after {steps} steps");
        let told = stage.world.rows.len() - 501;
        assert_eq!(told, if steps < 2 { 0 } else { 500 }, "a crash after {steps} steps");
        check_at_rest(&stage);
    }
}

#[test]
fn after_a_crash_every_part_of_a_change_gets_its_entry() {
    for (steps, is_done) in (1..=7).flat_map(|steps| [(steps, false), (steps, true)]) {
        let mut stage = Stage::group(1, 10, &[ANNA, BERT, CARL]);
        let promote = Some(user(BERT));
        let (by, leaves) = (user(ANNA), vec![user(ANNA)]);
        let request = SeatRequest { leaves, promote, ..SeatRequest::by(by) };
        stage.ask(0, Command::Seats(request));
        stage.steps(0, steps);
        stage.crash(0, is_done);
        stage.ask(0, send(None, CARL, 1, "hello"));
        // Only the role gives the new owner this right.
        let last = stage.ask(0, seats(BERT, &[], &[CARL]));
        stage.run();
        check_at_rest(&stage);
        let changes: Vec<Content> =
            stage.world.rows[4..].iter().map(|row| row.entry.content.clone()).collect();
        if stage.world.members[&user(ANNA)].spans.is_open() {
            assert!(steps < 3 && matches!(changes[..], [Content::Message(_)]), "{changes:?}");
            continue;
        }
        let expected = "left 1 by 1, owner 2 by 1, hello, left 3 by 2";
        let told: Vec<String> = changes.iter().map(say).collect();
        assert_eq!(told.join(", "), expected, "a crash after {steps} steps");
        assert_eq!(text(&stage, last), "seated [3]");
    }
}

#[test]
fn a_user_who_became_the_owner_meanwhile_does_not_leave_the_group_without_one() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT, CARL]);
    let promote = Some(user(BERT));
    let (by, leaves) = (user(ANNA), vec![user(ANNA)]);
    let request = SeatRequest { leaves, promote, ..SeatRequest::by(by) };
    stage.ask(0, Command::Seats(request));
    // The user was a member when the request came.
    let second = stage.ask(0, seats(BERT, &[], &[BERT]));
    stage.run();
    assert_eq!(text(&stage, second), "unavailable");
    assert_eq!(stage.world.members[&user(BERT)].role, Role::Owner);
    assert!(stage.world.members[&user(BERT)].spans.is_open());
    // The last one may leave without a successor.
    stage.ask(0, seats(BERT, &[], &[CARL]));
    let last = stage.ask(0, seats(BERT, &[], &[BERT]));
    stage.run();
    assert_eq!((text(&stage, last).as_str(), stage.world.seats.count), ("seated [2]", 0));
    check_at_rest(&stage);
}

fn say(content: &Content) -> String {
    match content {
        Content::Message(message) => message.body.text.clone(),
        Content::Left { user_id, by } => format!("left {user_id} by {by}"),
        Content::RoleChanged { user_id, by, .. } => format!("owner {user_id} by {by}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn more_users_than_the_cache_holds_do_not_stop_it() {
    let half: Vec<u64> = (1..=700).collect();
    let mut stage = Stage::group(1, 5_000, &half);
    let (joins, leaves): (Vec<u64>, Vec<u64>) = ((701..=1_400).collect(), (2..=700).collect());
    stage.ask(0, seats(ANNA, &joins, &leaves));
    stage.run();
    assert_eq!(stage.world.seats.count, 701);
    check_at_rest(&stage);
}

/// Carl's own partitions are unavailable. The channel appends the entry of his join and goes on; neither further rows nor another
/// home append it again; once his partitions are available, he is settled.
#[test]
fn a_member_whose_partitions_are_gone_holds_nobody_up() {
    let mut stage = Stage::group(2, 10, &[ANNA, BERT]);
    stage.world.gone.insert(user(CARL));
    let join = stage.ask(0, seats(ANNA, &[CARL], &[]));
    stage.steps(0, 12);
    assert_eq!(text(&stage, join), "seated [3]");
    for number in 1..=300 {
        let ticket = stage.ask(0, send(None, BERT, number, "hello"));
        stage.steps(0, 4);
        assert_eq!(text(&stage, ticket), format!("sent {}", number + 4));
    }
    // Nothing of the join is left in the window of the next home.
    stage.crash(0, true);
    for home in [0, 1] {
        let ticket = stage.ask(home, send(None, CARL, 1_000 + home as u64, "I am here"));
        stage.steps(home, 12);
        assert!(text(&stage, ticket).starts_with("sent"), "{}", text(&stage, ticket));
    }
    let joined =
        |row: &Row| matches!(row.entry.content, Content::Joined { user_id, .. } if user_id == user(CARL));
    assert_eq!(stage.world.rows.iter().filter(|row| joined(row)).count(), 1);
    assert!(stage.world.members[&user(CARL)].pending.is_some());
    stage.world.gone.clear();
    stage.run();
    check_at_rest(&stage);
}

#[test]
fn a_command_that_comes_during_a_load_is_not_refused_by_what_the_load_found() {
    let mut stage = Stage::group(1, 10, &[ANNA]);
    stage.crash(0, false);
    stage.ask(0, send(None, BERT, 1, "may I?"));
    stage.steps(0, 1);
    let now = stage.now;
    let driver = &mut stage.drivers[0];
    // Bert joins by another node, and writes again before the outcome of the load is here.
    driver.home.handle_command(Ticket(900), send(None, BERT, 2, "may I now?"), now);
    let tail = Tail { head: stage.world.head, rows: Vec::new() };
    let found = Found { members: vec![(user(BERT), None)], between: None };
    let loaded = Loaded { tail, found, ..Loaded::default() };
    driver.home.handle_loaded(Ok(loaded), now);
    let mut effects = std::iter::from_fn(|| driver.home.poll(now, &driver.ids));
    assert!(effects.any(|effect| matches!(effect, Effect::Find(_))), "the step looks Bert up");
}
