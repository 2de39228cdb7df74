//! Members who joined by themselves, members who were added, and invitations that are still valid.

use madang_proto::{ErrorCode, Role};

use super::invariants::check_at_rest;
use super::stage::{Stage, role, seats, send, user};
use crate::home::{Command, JoinRequest, Reply, SeatRequest, Ticket};

const ANNA: u64 = 1;
const BERT: u64 = 2;
const CARL: u64 = 3;
const DORA: u64 = 4;

fn accept(who: u64, invited_by: Option<u64>) -> Command {
    let joins = vec![JoinRequest::of(user(who), Role::Member)];
    let invited_by = invited_by.map(user);
    Command::Seats(SeatRequest { joins, invited_by, ..SeatRequest::by(user(who)) })
}

fn code(stage: &Stage, ticket: Ticket) -> Option<ErrorCode> {
    match stage.answer(ticket) {
        Some(Reply::Refused(error)) => Some(error.code),
        _ => None,
    }
}

fn has_accepted(stage: &Stage, who: u64) -> bool {
    stage.world.members[&user(who)].has_accepted
}

#[test]
fn an_invitation_is_valid_while_its_inviter_may_add() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    let uninvited = stage.ask(0, accept(CARL, None));
    let by_a_member = stage.ask(0, accept(CARL, Some(BERT)));
    let by_a_stranger = stage.ask(0, accept(CARL, Some(DORA)));
    stage.run();
    for ticket in [uninvited, by_a_member, by_a_stranger] {
        assert_eq!(code(&stage, ticket), Some(ErrorCode::NotFound));
    }
    stage.ask(0, role(ANNA, BERT, Role::Admin));
    let by_an_admin = stage.ask(0, accept(CARL, Some(BERT)));
    stage.run();
    assert_eq!(code(&stage, by_an_admin), None);
    assert!(has_accepted(&stage, CARL), "who accepts an invitation has accepted");
    stage.ask(0, role(ANNA, BERT, Role::Member));
    let too_late = stage.ask(0, accept(DORA, Some(BERT)));
    stage.run();
    assert_eq!(code(&stage, too_late), Some(ErrorCode::NotFound));
    check_at_rest(&stage);
}

#[test]
fn to_invite_one_needs_the_right_to_add() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    let invite = |by: u64| Command::Seats(SeatRequest { adds: true, ..SeatRequest::by(user(by)) });
    let asked = [ANNA, BERT, CARL].map(|by| stage.ask(0, invite(by)));
    stage.run();
    let codes = asked.map(|ticket| code(&stage, ticket));
    assert_eq!(codes, [None, Some(ErrorCode::Forbidden), Some(ErrorCode::NotFound)]);
    check_at_rest(&stage);
}

#[test]
fn somebody_who_was_added_accepts_by_the_first_message() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    stage.ask(0, seats(ANNA, &[CARL], &[]));
    stage.run();
    let accepted = [ANNA, BERT, CARL].map(|who| has_accepted(&stage, who));
    assert_eq!(accepted, [true, false, false], "the founder came by themselves");
    for number in 0..3 {
        stage.ask(0, send(None, CARL, number, "hi"));
        stage.ask(0, send(None, ANNA, 10 + number, "hi"));
        stage.run();
    }
    assert_eq!(stage.accepted, [CARL], "it is noted once");
    stage.ask(0, seats(CARL, &[], &[CARL]));
    stage.ask(0, seats(ANNA, &[CARL], &[]));
    stage.run();
    assert!(!has_accepted(&stage, CARL), "another stay is another matter");
    stage.ask(0, send(None, CARL, 20, "again"));
    stage.run();
    assert_eq!(stage.accepted, [CARL, CARL]);
    check_at_rest(&stage);
}
