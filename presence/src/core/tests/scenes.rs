//! Transcripts: what happens, and who is notified of it.

use std::time::Duration;

use madang_ids::{Millis, NodeEpoch};
use madang_store::PresenceRow;

use super::harness::{Harness, NODE, key, up, user};
use crate::api::{Departure, NodeRun};
use crate::core::{View, Wanted};

const NOBODY: [&str; 0] = [];

#[test]
fn a_user_who_comes_online_gets_the_states_of_others_and_is_announced() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    assert_eq!(harness.told(), ["1/1 hears all"]);
    harness.up(2, 2);
    assert_eq!(harness.told(), ["2/2 hears 1 online, all", "1 hears 2 online"]);
    harness.up(2, 3);
    assert_eq!(harness.told(), ["2/3 hears 1 online, all"]);
    harness.up(9, 4);
    assert_eq!(harness.told(), ["9/4 hears all"]);
}

#[test]
fn a_user_is_away_when_idle_on_every_connection() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.up(2, 2);
    harness.up(2, 3);
    harness.pass(1);
    harness.told();
    harness.idle(2, 2, true);
    assert_eq!(harness.told(), NOBODY);
    harness.idle(2, 3, true);
    assert_eq!(harness.told(), ["1 hears 2 away"]);
    harness.pass(1);
    harness.idle(2, 2, false);
    assert_eq!(harness.told(), ["1 hears 2 online"]);
}

#[test]
fn changes_of_one_user_are_paced_except_going_offline() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.up(2, 2);
    harness.told();
    for is_idle in [true, false, true, false, true] {
        harness.idle(2, 2, is_idle);
    }
    assert_eq!(harness.told(), NOBODY);
    harness.pass(1);
    assert_eq!(harness.told(), ["1 hears 2 away"]);
    harness.down(2, 2, Departure::Revoked);
    assert_eq!(harness.told(), ["1 hears 2 offline"]);
}

#[test]
fn a_gap_shorter_than_the_grace_period_is_not_visible() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.up(2, 2);
    harness.told();
    harness.down(2, 2, Departure::Seen);
    harness.pass(9);
    harness.up(2, 3);
    harness.pass(40);
    assert_eq!(harness.told(), ["2/3 hears 1 online, all"]);
    harness.down(2, 3, Departure::Seen);
    harness.pass(9);
    assert_eq!(harness.told(), NOBODY);
    harness.pass(1);
    assert_eq!(harness.told(), ["1 hears 2 offline"]);
    assert_eq!(harness.core.users(), 1);
}

#[test]
fn the_kind_of_departure_sets_the_grace_period() {
    for (how, seconds) in [(Departure::Final, 0), (Departure::Revoked, 0), (Departure::Drained, 30)] {
        let mut harness = Harness::settled();
        harness.up(1, 1);
        harness.up(2, 2);
        harness.told();
        harness.down(2, 2, how);
        if seconds > 0 {
            harness.pass(seconds - 1);
            assert_eq!(harness.told(), NOBODY, "{how:?}");
            harness.pass(1);
        }
        assert_eq!(harness.told(), ["1 hears 2 offline"], "{how:?}");
    }
}

#[test]
fn logging_out_does_not_wait_for_a_broken_connection_of_the_device() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.up(2, 2);
    harness.core.handle_up(NODE, up(2, 2, 3), harness.now);
    harness.told();
    harness.down(2, 2, Departure::Seen);
    harness.down(2, 3, Departure::Revoked);
    assert_eq!(harness.told(), ["1 hears 2 offline"]);
}

#[test]
fn a_connection_that_replaces_a_broken_one_inherits_its_idleness() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.up(2, 2);
    harness.idle(2, 2, true);
    harness.pass(1);
    harness.told();
    harness.down(2, 2, Departure::Seen);
    harness.pass(3);
    harness.up(2, 3);
    harness.idle(2, 3, true);
    harness.pass(20);
    assert_eq!(harness.told(), ["2/3 hears 1 online, all"], "nobody flickers if the client says so again");
    harness.down(2, 3, Departure::Seen);
    harness.pass(3);
    harness.up(2, 4);
    harness.pass(1);
    assert_eq!(harness.told(), ["2/4 hears 1 online, all"]);
    harness.pass(2);
    assert_eq!(harness.told(), ["1 hears 2 online"], "one that says nothing is not idle");
}

#[test]
fn users_of_a_dead_node_are_offline_within_25_seconds() {
    let mut harness = Harness::settled();
    let other = NodeRun { worker: 2, epoch: NodeEpoch(1), set: 1 };
    harness.core.handle_set(other, &View::whole(), &[], harness.now);
    harness.up(1, 1);
    harness.core.handle_up(other, up(2, 2, 1), harness.now);
    harness.core.handle_up(other, up(3, 3, 2), harness.now);
    harness.load();
    harness.told();
    // User 3 comes back on the other node.
    harness.pass(5);
    harness.up(3, 7);
    harness.told();
    harness.pass(19);
    assert_eq!(harness.told(), NOBODY);
    harness.pass(1);
    assert_eq!(harness.told(), ["1+3 hears 2 offline"]);
}

#[test]
fn a_node_that_missed_its_lease_sends_its_set_without_a_visible_change() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.up(2, 2);
    harness.up(3, 3);
    harness.told();
    harness.wait(20);
    // Reports under its old epoch are refused.
    harness.core.handle_renewal(NODE, harness.now);
    harness.up(3, 4);
    assert_eq!(harness.core.poll_stranger(), Some(NODE));
    assert_eq!(harness.core.poll_leases_missed(), 1);
    let again = NodeRun { set: 2, ..NODE };
    harness.core.handle_set(again, &View::whole(), &[up(1, 1, 1), up(2, 2, 2)], harness.now);
    harness.load();
    assert_eq!(harness.told(), NOBODY);
    for _ in 0..10 {
        harness.core.handle_renewal(again, harness.now);
        harness.wait(1);
    }
    // The set did not name user 3.
    assert_eq!(harness.told(), ["1+2 hears 3 offline"]);
}

#[test]
fn a_process_that_starts_reports_nobody_as_offline() {
    let mut harness = Harness::starting();
    harness.watch(1, 2);
    harness.watch(1, 3);
    harness.up(1, 1);
    harness.up(2, 2);
    assert_eq!(harness.told(), ["2/2 hears 1 online", "1 hears 2 online"]);
    assert!(!harness.core.is_settled());
    harness.down(2, 2, Departure::Final);
    harness.pass(14);
    assert_eq!(harness.told(), NOBODY);
    harness.pass(1);
    assert_eq!(harness.told(), ["1 hears 2 offline", "1 hears all"]);
    assert!(harness.core.is_settled());
}

#[test]
fn invisible_users_are_offline_to_others_and_see_their_real_state() {
    let mut harness = Harness::settled();
    harness.set(2, true, "hidden");
    harness.up(1, 1);
    harness.up(2, 2);
    assert_eq!(harness.told(), ["1/1 hears all", "2/2 hears 2 online (hidden) invisible, 1 online, all"]);
    harness.set(2, false, "here");
    assert_eq!(harness.told(), ["2 hears 2 online (here)", "1 hears 2 online (here)"]);
    harness.set(2, true, "gone");
    assert_eq!(harness.told(), ["2 hears 2 online (gone) invisible", "1 hears 2 offline"]);
    harness.pass(5);
    harness.idle(2, 2, true);
    harness.up(3, 3);
    harness.down(2, 2, Departure::Revoked);
    assert_eq!(harness.told(), ["3/3 hears 1 online, all", "1+2 hears 3 online"]);
}

#[test]
fn nothing_is_sent_before_the_settings_are_known() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.told();
    harness.core.handle_up(NODE, up(2, 2, 2), harness.now);
    for wanted in harness.core.poll_wanted(9) {
        assert_eq!(wanted, Wanted { user: user(2), circle: true });
        harness.core.handle_not_loaded(wanted);
    }
    harness.pass(30);
    assert_eq!(harness.told(), NOBODY);
    assert_eq!(harness.core.states(None, &[user(2)]), [None]);
    harness.load();
    assert_eq!(harness.told(), ["2/2 hears 1 online, all", "1 hears 2 online"]);
}

#[test]
fn pairs_begin_and_end_while_both_users_are_online() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.up(4, 4);
    harness.told();
    // The user who hears of it first has the other one read again.
    harness.watch(1, 4);
    harness.core.handle_changed(user(4), true);
    harness.load();
    assert_eq!(harness.told(), ["4 hears 1 online", "1 hears 4 online"]);
    harness.core.handle_changed(user(1), true);
    harness.load();
    assert_eq!(harness.told(), NOBODY);
    harness.unwatch(1, 4);
    harness.core.handle_changed(user(1), true);
    harness.load();
    assert_eq!(harness.told(), ["4 hears 1 offline", "1 hears 4 offline"]);
    harness.idle(4, 4, true);
    harness.pass(9);
    assert_eq!(harness.told(), NOBODY);
}

#[test]
fn a_user_whose_read_overlaps_a_new_pair_is_read_again() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.told();
    harness.core.handle_up(NODE, up(4, 4, 4), harness.now);
    let early = harness.core.poll_wanted(9);
    harness.watch(1, 4);
    harness.core.handle_changed(user(1), true);
    harness.load();
    for wanted in early {
        let row = PresenceRow::default();
        let circle = Some(Vec::new());
        harness
            .core
            .handle_loaded(crate::core::Loaded { user: wanted.user, row, rev: 1, circle }, harness.now);
    }
    harness.load();
    let told = harness.told();
    assert!(told.contains(&"1 hears 4 online".to_owned()), "{told:?}");
    assert!(told.contains(&"4 hears 1 online".to_owned()), "{told:?}");
}

#[test]
fn an_outdated_read_ends_no_pair() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.up(2, 2);
    harness.told();
    // The two part while user 2 is read, and meet again before the read is answered.
    harness.core.handle_changed(user(2), true);
    let early = harness.core.poll_wanted(9);
    harness.core.handle_changed(user(2), true);
    for wanted in early {
        let (row, circle) = (PresenceRow::default(), Some(vec![user(3)]));
        harness
            .core
            .handle_loaded(crate::core::Loaded { user: wanted.user, row, rev: 1, circle }, harness.now);
    }
    harness.load();
    assert_eq!(harness.told(), NOBODY);
}

#[test]
fn a_full_set_makes_everything_be_read_again() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.up(4, 4);
    harness.told();
    // The report of the change is lost.
    harness.watch(1, 4);
    let again = NodeRun { set: 2, ..NODE };
    harness.core.handle_set(again, &View::whole(), &[up(1, 1, 1), up(4, 4, 4)], harness.now);
    harness.load();
    assert_eq!(harness.told(), ["1 hears 4 online", "4 hears 1 online"]);
}

#[test]
fn a_connection_that_missed_a_frame_gets_everything_again() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.up(2, 2);
    harness.told();
    harness.core.handle_dropped(user(1), key(1, 1).1, harness.now);
    harness.pass(4);
    assert_eq!(harness.told(), NOBODY);
    harness.pass(1);
    assert_eq!(harness.told(), ["1/1 hears 2 online, anew, all"]);
    harness.pass(9);
    assert_eq!(harness.told(), NOBODY);
}

#[test]
fn long_lists_are_sent_in_several_frames() {
    let mut harness = Harness::settled();
    for other in 10..=760 {
        harness.watch(5, other);
        harness.up(other, other);
    }
    harness.told();
    harness.up(5, 5);
    let counts: Vec<usize> = harness.told().iter().map(|told| told.matches(" online").count()).collect();
    assert_eq!(counts, [500, 251, 1]);
}

#[test]
fn the_last_activity_is_kept_and_does_not_move_while_invisible() {
    let mut harness = Harness::settled();
    harness.up(1, 1);
    harness.up(2, 2);
    harness.pass(3);
    let active = harness.now.at;
    harness.idle(2, 2, true);
    harness.pass(5);
    let card = |harness: &Harness| harness.core.states(Some(user(1)), &[user(2)])[0].clone();
    assert_eq!(card(&harness).and_then(|card| card.last_active_at), Some(active));
    harness.down(2, 2, Departure::Final);
    assert_eq!(harness.core.poll_left(), [(user(2), active)]);
    harness.up(1, 3);
    let hidden = harness.now.at;
    harness.set(1, true, "");
    harness.pass(9);
    harness.down(1, 1, Departure::Final);
    harness.down(1, 3, Departure::Final);
    assert_eq!(harness.core.poll_left(), [(user(1), hidden)]);
    harness.core.handle_unwritten(vec![(user(1), hidden)]);
    harness.up(2, 5);
    harness.core.handle_end(harness.now);
    assert_eq!(harness.core.poll_left(), [(user(1), hidden), (user(2), harness.now.at)]);
    assert!(hidden > Millis::ZERO && harness.core.next_look() > Some(Duration::ZERO));
}
