//! The home's protocol where messages and details change.

use std::time::Duration;

use madang_ids::Seq;
use madang_proto::{Content, Role};

use super::invariants::check_at_rest;
use super::stage::{Stage, delete, detail, edit, react, restrict, role, send};
use super::transcripts::{ANNA, BERT, CARL, script, text};
use super::world::{Fate, Kind};
use crate::home::{DetailChange, RestrictionKind, Ticket};
use crate::log::ChannelState;

/// A group of three in which Bert has said something at place 5.
pub(super) fn stage() -> Stage {
    let mut stage = Stage::group(2, 10, &[ANNA, BERT, CARL]);
    stage.ask(0, send(None, BERT, 1, "tea"));
    stage.run();
    stage.lines.clear();
    stage
}

pub(super) fn message(stage: &Stage) -> &madang_proto::Message {
    stage.world.row(Seq::new(5)).entry.content.message().expect("a message")
}

#[test]
fn an_edit_changes_the_row_and_has_an_entry() {
    let mut stage = stage();
    stage.ask(0, edit(BERT, 5, "coffee", Some(1)));
    stage.run();
    stage.expect(
        "
        0 find rows 5
        0 ok
        0 change 5, append 6 (5 edited)
        0 appended
        0 answers 3: changed 5 to 2 at 6
        0 fans out 6 (5 edited)
        ",
    );
    assert_eq!((message(&stage).body.text.as_str(), message(&stage).version), ("coffee", 2));
    let again = stage.ask(0, edit(BERT, 5, "coffee", Some(1)));
    let later = stage.ask(0, edit(BERT, 5, "water", Some(1)));
    let anyway = stage.ask(0, edit(BERT, 5, "milk", None));
    stage.run();
    let texts = [again, later, anyway].map(|ticket| text(&stage, ticket));
    assert_eq!(texts, ["changed 5 to 2 at 6", "conflict", "changed 5 to 3 at 7"]);
    check_at_rest(&stage);
}

#[test]
fn a_retry_appends_the_entry_of_an_edit_that_was_half_done() {
    for fate in [Fate::UnknownLost, Fate::Unavailable] {
        let mut stage = stage();
        script(&mut stage, Kind::Append, fate);
        let first = stage.ask(0, edit(BERT, 5, "coffee", None));
        stage.run();
        let second = stage.ask(1, edit(BERT, 5, "coffee", None));
        stage.run();
        let told = stage.world.rows.iter().filter(|row| matches!(row.entry.content, Content::Edited(_)));
        assert_eq!((told.count(), message(&stage).version), (1, 2), "{}", text(&stage, first));
        assert_eq!(text(&stage, second), "changed 5 to 2 at 6");
        check_at_rest(&stage);
    }
}

#[test]
fn a_row_that_another_home_changed_is_read_again() {
    let mut stage = stage();
    let slow = stage.ask(0, edit(BERT, 5, "coffee", None));
    stage.steps(0, 2);
    stage.ask(1, react(ANNA, 5, "+1", true));
    while stage.step(1) {}
    stage.run();
    assert_eq!(text(&stage, slow), "changed 5 to 3 at 7");
    assert_eq!((message(&stage).body.text.as_str(), message(&stage).reactions.len()), ("coffee", 1));
    check_at_rest(&stage);
}

#[test]
fn only_its_sender_edits_and_admins_delete() {
    let mut stage = stage();
    let refused = [
        stage.ask(0, edit(ANNA, 5, "coffee", None)),
        stage.ask(0, delete(CARL, 5)),
        stage.ask(0, edit(BERT, 3, "coffee", None)),
        stage.ask(0, edit(9, 5, "coffee", None)),
    ];
    let deleted = stage.ask(0, delete(ANNA, 5));
    stage.run();
    assert_eq!(
        refused.map(|ticket| text(&stage, ticket)),
        ["forbidden", "forbidden", "not_found", "not_found"]
    );
    let tickets = [
        stage.ask(0, delete(BERT, 5)),
        stage.ask(0, edit(BERT, 5, "coffee", None)),
        stage.ask(0, react(ANNA, 5, "+1", true)),
    ];
    stage.run();
    assert_eq!(text(&stage, deleted), "changed 5 to 2 at 6");
    let texts = tickets.map(|ticket| text(&stage, ticket));
    assert_eq!(texts, ["changed 5 to 2 at 6", "forbidden", "forbidden"]);
    assert_eq!(message(&stage).body.text, "");
    // A retry of the first send has its ack all the same.
    let again = stage.ask(0, send(None, BERT, 1, "tea"));
    stage.run();
    assert_eq!(text(&stage, again), "sent 5 before");
    check_at_rest(&stage);
}

#[test]
fn what_stands_behind_an_archive_in_the_queue_is_refused_and_retries_keep_their_ack() {
    let mut stage = stage();
    let state = |state| detail(ANNA, DetailChange::State(state));
    let tickets = [
        stage.ask(0, detail(BERT, DetailChange::State(ChannelState::Archived))),
        stage.ask(0, send(None, BERT, 7, "before")),
        stage.ask(0, state(ChannelState::Archived)),
        stage.ask(0, send(None, BERT, 8, "behind")),
        stage.ask(0, edit(BERT, 5, "behind", None)),
        stage.ask(0, send(None, BERT, 1, "tea")),
        stage.ask(0, detail(ANNA, DetailChange::Topic("Green".to_owned()))),
    ];
    stage.run();
    let texts = tickets.map(|ticket| text(&stage, ticket));
    let expected = ["forbidden", "sent 6", "noted 7", "forbidden", "forbidden", "sent 5 before", "forbidden"];
    assert_eq!(texts, expected);
    let reaction = stage.ask(1, react(ANNA, 5, "+1", true));
    stage.run();
    assert_eq!(text(&stage, reaction), "forbidden");
    let tickets = [
        stage.ask(1, state(ChannelState::Archived)),
        stage.ask(1, state(ChannelState::Active)),
        stage.ask(1, send(None, BERT, 9, "again")),
        stage.ask(1, state(ChannelState::Deleted)),
        stage.ask(1, state(ChannelState::Deleted)),
        stage.ask(1, state(ChannelState::Active)),
        stage.ask(1, send(None, BERT, 10, "behind")),
        stage.ask(1, delete(BERT, 5)),
    ];
    stage.run();
    let texts = tickets.map(|ticket| text(&stage, ticket));
    let expected =
        ["noted 7", "noted 8", "sent 9", "noted 10", "noted 10", "not_found", "not_found", "not_found"];
    assert_eq!(texts, expected);
    check_at_rest(&stage);
}

#[test]
fn details_change_once_and_by_admins() {
    let mut stage = stage();
    let name = || DetailChange::Name("Tea".to_owned());
    let refused = stage.ask(0, detail(BERT, name()));
    let done = stage.ask(0, detail(ANNA, name()));
    let pinned = stage.ask(0, detail(ANNA, DetailChange::Pin(Seq::new(5))));
    stage.run();
    let twice = stage.ask(0, detail(ANNA, name()));
    stage.run();
    let texts = [refused, done, pinned, twice].map(|ticket| text(&stage, ticket));
    assert_eq!(texts, ["forbidden", "noted 6", "noted 7", "noted 7"]);
    assert_eq!((stage.world.details.name.as_deref(), stage.world.details.pins.len()), (Some("Tea"), 1));
    stage.ask(1, delete(BERT, 5));
    stage.run();
    assert_eq!(stage.world.details.pins, [], "a deleted message is not pinned");
    // The other home has an older head, and sees the details when it appends.
    let again = stage.ask(0, detail(ANNA, DetailChange::Name("Coffee".to_owned())));
    stage.run();
    assert_eq!((text(&stage, again), stage.world.details.pins.len()), ("noted 9".into(), 0));
}

#[test]
fn slow_mode_lets_a_member_speak_once() {
    let mut stage = stage();
    stage.ask(0, detail(ANNA, DetailChange::SlowMode(10)));
    stage.run();
    let first = stage.ask(0, send(None, CARL, 1, "one"));
    let copy = stage.ask(0, send(None, CARL, 1, "one"));
    let second = stage.ask(0, send(None, CARL, 2, "two"));
    let second_copy = stage.ask(0, send(None, CARL, 2, "two"));
    let owner = [stage.ask(0, send(None, ANNA, 1, "one")), stage.ask(0, send(None, ANNA, 2, "two"))];
    stage.run();
    let third = stage.ask(0, send(None, CARL, 3, "three"));
    stage.run();
    let texts = [first, second, owner[0], owner[1], third].map(|ticket| text(&stage, ticket));
    assert_eq!(texts, ["sent 7", "limited", "sent 8", "sent 9", "limited"]);
    assert_eq!([copy, second_copy].map(|ticket| text(&stage, ticket)), ["sent 7 before", "limited"]);
    // A home that begins anew reads it from the last rows.
    let elsewhere = stage.ask(1, send(None, CARL, 4, "four"));
    stage.run();
    assert_eq!(text(&stage, elsewhere), "limited");
    stage.now = stage.now.plus(Duration::from_millis(10_100));
    let later = stage.ask(0, send(None, CARL, 2, "two"));
    stage.run();
    assert_eq!(text(&stage, later), "sent 10");
}

#[test]
fn a_hot_channel_slows_members_down_and_the_longer_interval_holds() {
    let mut stage = stage();
    let texts = |stage: &mut Stage, key| {
        let (carl, owner) =
            (stage.ask(0, send(None, CARL, key, "a")), stage.ask(0, send(None, ANNA, key, "b")));
        stage.run();
        [text(stage, carl), text(stage, owner)].map(|text| text.starts_with("sent"))
    };
    stage.drivers[0].home.slow_down(5);
    assert_eq!(texts(&mut stage, 1), [true, true]);
    assert_eq!(texts(&mut stage, 2), [false, true]);
    stage.now = stage.now.plus(Duration::from_millis(5_100));
    assert_eq!(texts(&mut stage, 3), [true, true]);
    stage.ask(0, detail(ANNA, DetailChange::SlowMode(10)));
    stage.run();
    stage.now = stage.now.plus(Duration::from_millis(5_100));
    assert_eq!(texts(&mut stage, 4), [false, true], "the channel's own interval is longer");
    stage.drivers[0].home.slow_down(0);
    stage.ask(0, detail(ANNA, DetailChange::SlowMode(0)));
    stage.run();
    assert_eq!(texts(&mut stage, 5), [true, true]);
}

#[test]
fn what_a_failed_look_for_old_sends_refuses_comes_again_in_order() {
    let mut stage = stage();
    stage.ask(0, detail(ANNA, DetailChange::SlowMode(10)));
    for key in 1..=300 {
        stage.ask(0, send(None, ANNA, key, "more"));
        stage.run();
    }
    script(&mut stage, Kind::FindSends, Fate::Unavailable);
    let said = |stage: &mut Stage, key| stage.ask(0, send(Some(7), CARL, key, "hello"));
    let both = [said(&mut stage, 1), said(&mut stage, 2)];
    stage.run();
    assert_eq!(both.map(|ticket| text(&stage, ticket)), ["unavailable", "unavailable"]);
    let second = said(&mut stage, 2);
    let first = said(&mut stage, 1);
    stage.run();
    assert_eq!([first, second].map(|ticket| text(&stage, ticket)), ["sent 307", "unavailable"]);
}

#[test]
fn a_detail_that_is_so_only_by_a_change_that_failed_fails_too() {
    let mut stage = stage();
    script(&mut stage, Kind::Append, Fate::Unavailable);
    let topic = || detail(ANNA, DetailChange::Topic("tea".to_owned()));
    let twice = [stage.ask(0, topic()), stage.ask(0, topic())];
    stage.run();
    assert_eq!(twice.map(|ticket| text(&stage, ticket)), ["unavailable", "unavailable"]);
    let twice = [stage.ask(0, topic()), stage.ask(0, topic())];
    stage.run();
    assert_eq!(twice.map(|ticket| text(&stage, ticket)), ["noted 6", "noted 6"]);
    let again = stage.ask(0, topic());
    stage.run();
    assert_eq!(text(&stage, again), "noted 6");
}

/// The refusal of the second command depends on the first one, which is not appended: so the refusal must be retryable.
#[test]
fn a_refusal_that_rests_on_a_change_that_failed_fails_too() {
    type Ask = fn(&mut Stage) -> [Ticket; 2];
    let pairs: [(&str, Ask); 4] = [
        ("forbidden", |stage| [stage.ask(0, delete(ANNA, 5)), stage.ask(0, edit(BERT, 5, "coffee", None))]),
        ("conflict", |stage| {
            [stage.ask(0, edit(BERT, 5, "tea!", Some(1))), stage.ask(0, edit(BERT, 5, "coffee", Some(1)))]
        }),
        ("forbidden", |stage| {
            let pin = DetailChange::Pin(madang_ids::Seq::new(5));
            [stage.ask(0, delete(ANNA, 5)), stage.ask(0, detail(ANNA, pin))]
        }),
        ("changed 5", |stage| {
            [stage.ask(0, edit(BERT, 5, "tea!", None)), stage.ask(0, edit(BERT, 5, "tea!", None))]
        }),
    ];
    for (refused, ask) in pairs {
        for fate in [Fate::Unavailable, Fate::UnknownLost] {
            let mut stage = stage();
            for _ in 0..if fate == Fate::Unavailable { 1 } else { 4 } {
                script(&mut stage, Kind::Change, fate);
            }
            let [first, second] = ask(&mut stage);
            stage.run();
            let texts = [first, second].map(|ticket| text(&stage, ticket));
            assert_eq!(texts, ["unavailable", "unavailable"], "{refused} after {fate:?}");
            let [first, second] = ask(&mut stage);
            stage.run();
            assert!(text(&stage, first).starts_with("changed 5"), "{}", text(&stage, first));
            assert!(text(&stage, second).starts_with(refused), "{} is not {refused}", text(&stage, second));
            check_at_rest(&stage);
        }
    }
}

/// Messages may be large, so not all messages of a batch are read at once: the other commands are the next batch, in order.
#[test]
fn commands_whose_messages_have_no_room_are_the_next_batch() {
    let mut stage = stage();
    for key in 2..=5 {
        stage.ask(0, send(None, BERT, key, "more"));
    }
    stage.run();
    stage.world.find_rows = 2;
    let edits = [5, 7, 6, 9, 8].map(|target| stage.ask(0, edit(BERT, target, "less", None)));
    let deletes = [6, 5].map(|target| stage.ask(0, delete(ANNA, target)));
    let missing = stage.ask(0, edit(BERT, 999, "less", None));
    stage.run();
    let texts = edits.map(|ticket| text(&stage, ticket));
    let expected = ["5 to 2 at 10", "7 to 2 at 11", "6 to 2 at 12", "9 to 2 at 13", "8 to 2 at 14"];
    assert_eq!(texts, expected.map(|text| format!("changed {text}")));
    assert_eq!(deletes.map(|ticket| text(&stage, ticket)), ["changed 6 to 3 at 15", "changed 5 to 3 at 16"]);
    assert_eq!(text(&stage, missing), "not_found");
    let reactions = [7, 8, 9].map(|target| stage.ask(0, react(ANNA, target, "+1", true)));
    stage.run();
    assert!(
        reactions.iter().all(|ticket| text(&stage, *ticket).starts_with("changed")),
        "reactions wait as well"
    );
    check_at_rest(&stage);
}

#[test]
fn a_banned_member_leaves_and_cannot_come_back() {
    let mut stage = stage();
    let ban = stage.ask(0, restrict(ANNA, BERT, RestrictionKind::Ban, true));
    let twice = stage.ask(0, restrict(ANNA, BERT, RestrictionKind::Ban, true));
    let stranger = stage.ask(0, restrict(ANNA, 9, RestrictionKind::Ban, true));
    let says = stage.ask(0, send(None, BERT, 2, "but"));
    let joins = stage.ask(0, super::stage::seats(ANNA, &[BERT], &[]));
    let joins_too = stage.ask(0, super::stage::seats(ANNA, &[9], &[]));
    stage.run();
    let texts = [ban, twice, stranger, says, joins, joins_too].map(|ticket| text(&stage, ticket));
    assert_eq!(texts, ["seated [2]", "seated []", "seated [9]", "forbidden", "forbidden", "forbidden"]);
    assert_eq!(stage.world.seats.count, 2);
    stage.ask(1, restrict(ANNA, BERT, RestrictionKind::Ban, false));
    let joins = stage.ask(1, super::stage::seats(ANNA, &[BERT], &[]));
    stage.run();
    assert_eq!(text(&stage, joins), "seated [2]");
    check_at_rest(&stage);
}

#[test]
fn a_ban_that_was_half_done_is_finished_by_the_next_load() {
    for kind in [Kind::Append, Kind::Settle, Kind::Memberships] {
        let mut stage = stage();
        script(&mut stage, kind, Fate::Unavailable);
        stage.ask(0, restrict(ANNA, BERT, RestrictionKind::Ban, true));
        stage.run();
        stage.crash(0, false);
        stage.ask(0, send(None, ANNA, 1, "gone"));
        stage.run();
        let bans = stage.world.rows.iter().filter(|row| matches!(row.entry.content, Content::Banned { .. }));
        assert_eq!(bans.count(), 1, "{kind:?}");
        check_at_rest(&stage);
    }
}

#[test]
fn roles_are_given_by_the_owner() {
    let mut stage = stage();
    let by_member = stage.ask(0, role(BERT, CARL, Role::Admin));
    let admin = stage.ask(0, role(ANNA, BERT, Role::Admin));
    stage.run();
    let by_admin = stage.ask(0, role(BERT, CARL, Role::Admin));
    let ban_owner = stage.ask(0, restrict(BERT, ANNA, RestrictionKind::Ban, true));
    let mute = stage.ask(0, restrict(BERT, CARL, RestrictionKind::Mute, true));
    let says = stage.ask(0, send(None, CARL, 1, "but"));
    let owner = stage.ask(0, role(ANNA, BERT, Role::Owner));
    stage.run();
    let texts = [by_member, admin, by_admin, ban_owner, mute, says, owner].map(|ticket| text(&stage, ticket));
    assert_eq!(
        texts,
        ["forbidden", "seated [2]", "forbidden", "forbidden", "seated [3]", "forbidden", "seated [1 2]"]
    );
    let roles: Vec<Role> = stage.world.members.values().map(|member| member.role).collect();
    assert_eq!(roles, [Role::Admin, Role::Owner, Role::Member]);
    check_at_rest(&stage);
}

#[test]
fn a_deletion_that_was_half_done_unpins_in_the_end() {
    let mut stage = stage();
    stage.ask(0, detail(ANNA, DetailChange::Pin(Seq::new(5))));
    stage.run();
    script(&mut stage, Kind::Append, Fate::Unavailable);
    let first = stage.ask(0, delete(BERT, 5));
    stage.run();
    let second = stage.ask(1, delete(BERT, 5));
    stage.run();
    assert_eq!([first, second].map(|ticket| text(&stage, ticket)), ["unavailable", "changed 5 to 2 at 7"]);
    assert_eq!(stage.world.details.pins, [], "a deleted message is not pinned");
    let third = stage.ask(0, delete(BERT, 5));
    stage.run();
    assert_eq!(text(&stage, third), "changed 5 to 2 at 7");
    check_at_rest(&stage);
}

#[test]
fn no_owner_is_muted() {
    let mut stage = stage();
    stage.ask(0, restrict(ANNA, BERT, RestrictionKind::Mute, true));
    stage.ask(0, role(ANNA, BERT, Role::Owner));
    let says = stage.ask(0, send(None, BERT, 2, "thanks"));
    stage.run();
    assert_eq!(text(&stage, says), "sent 9");
    check_at_rest(&stage);
    // The same holds for the first user in an empty open channel.
    let mut stage = Stage::open(1, 10, 1);
    stage.ask(0, super::stage::seats(BERT, &[BERT], &[]));
    stage.ask(0, restrict(ANNA, BERT, RestrictionKind::Mute, true));
    for (user, joins, leaves) in
        [(BERT, vec![], vec![BERT]), (ANNA, vec![], vec![ANNA]), (BERT, vec![BERT], vec![])]
    {
        stage.ask(0, super::stage::seats(user, &joins, &leaves));
        stage.run();
    }
    let says = stage.ask(0, send(None, BERT, 2, "alone"));
    stage.run();
    assert_eq!(text(&stage, says), "sent 8");
    check_at_rest(&stage);
}

#[test]
fn a_channel_may_be_handed_over_twice() {
    let mut stage = stage();
    stage.ask(0, role(ANNA, BERT, Role::Owner));
    stage.run();
    let again = stage.ask(1, role(ANNA, BERT, Role::Owner));
    let other = stage.ask(1, role(ANNA, CARL, Role::Owner));
    stage.run();
    assert_eq!([again, other].map(|ticket| text(&stage, ticket)), ["seated []", "forbidden"]);
    check_at_rest(&stage);
}

#[test]
fn a_home_that_appended_nothing_since_sees_what_another_allowed() {
    let mut stage = stage();
    stage.ask(0, restrict(ANNA, BERT, RestrictionKind::Mute, true));
    stage.run();
    // The other home learns of the mute, and of the roles.
    stage.ask(1, send(None, CARL, 1, "one"));
    let muted = [stage.ask(1, send(None, BERT, 2, "two")), stage.ask(1, delete(CARL, 5))];
    stage.run();
    stage.ask(0, restrict(ANNA, BERT, RestrictionKind::Mute, false));
    stage.ask(0, role(ANNA, CARL, Role::Admin));
    stage.run();
    let free = [stage.ask(1, send(None, BERT, 2, "two")), stage.ask(1, delete(CARL, 5))];
    stage.run();
    assert_eq!(muted.map(|ticket| text(&stage, ticket)), ["forbidden", "forbidden"]);
    assert!(text(&stage, free[0]).starts_with("sent"), "{}", text(&stage, free[0]));
    assert!(text(&stage, free[1]).starts_with("changed"), "{}", text(&stage, free[1]));
    check_at_rest(&stage);
}
