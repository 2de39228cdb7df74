//! Transcripts: what happens, and who is notified of it.

use std::time::Duration;

use madang_ids::{Epoch, Millis};
use madang_store::PresenceRow;

use super::yard::{NODE, Yard, key, up, user};
use crate::api::{Departure, NodeRun};
use crate::core::{View, Wanted};

const NOBODY: [&str; 0] = [];

#[test]
fn a_user_who_comes_online_gets_the_states_of_others_and_is_announced() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    assert_eq!(yard.told(), ["1/1 hears all"]);
    yard.up(2, 2);
    assert_eq!(yard.told(), ["2/2 hears 1 online, all", "1 hears 2 online"]);
    yard.up(2, 3);
    assert_eq!(yard.told(), ["2/3 hears 1 online, all"]);
    yard.up(9, 4);
    assert_eq!(yard.told(), ["9/4 hears all"]);
}

#[test]
fn a_user_is_away_when_idle_on_every_connection() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.up(2, 2);
    yard.up(2, 3);
    yard.pass(1);
    yard.told();
    yard.idle(2, 2, true);
    assert_eq!(yard.told(), NOBODY);
    yard.idle(2, 3, true);
    assert_eq!(yard.told(), ["1 hears 2 away"]);
    yard.pass(1);
    yard.idle(2, 2, false);
    assert_eq!(yard.told(), ["1 hears 2 online"]);
}

#[test]
fn changes_of_one_user_are_paced_except_going_offline() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.up(2, 2);
    yard.told();
    for is_idle in [true, false, true, false, true] {
        yard.idle(2, 2, is_idle);
    }
    assert_eq!(yard.told(), NOBODY);
    yard.pass(1);
    assert_eq!(yard.told(), ["1 hears 2 away"]);
    yard.down(2, 2, Departure::Revoked);
    assert_eq!(yard.told(), ["1 hears 2 offline"]);
}

#[test]
fn a_gap_shorter_than_the_grace_period_is_not_visible() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.up(2, 2);
    yard.told();
    yard.down(2, 2, Departure::Seen);
    yard.pass(9);
    yard.up(2, 3);
    yard.pass(40);
    assert_eq!(yard.told(), ["2/3 hears 1 online, all"]);
    yard.down(2, 3, Departure::Seen);
    yard.pass(9);
    assert_eq!(yard.told(), NOBODY);
    yard.pass(1);
    assert_eq!(yard.told(), ["1 hears 2 offline"]);
    assert_eq!(yard.core.users(), 1);
}

#[test]
fn the_kind_of_departure_sets_the_grace_period() {
    for (how, seconds) in [(Departure::Final, 0), (Departure::Revoked, 0), (Departure::Drained, 30)] {
        let mut yard = Yard::settled();
        yard.up(1, 1);
        yard.up(2, 2);
        yard.told();
        yard.down(2, 2, how);
        if seconds > 0 {
            yard.pass(seconds - 1);
            assert_eq!(yard.told(), NOBODY, "{how:?}");
            yard.pass(1);
        }
        assert_eq!(yard.told(), ["1 hears 2 offline"], "{how:?}");
    }
}

#[test]
fn logging_out_does_not_wait_for_a_broken_connection_of_the_device() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.up(2, 2);
    yard.core.handle_up(NODE, up(2, 2, 3), yard.now);
    yard.told();
    yard.down(2, 2, Departure::Seen);
    yard.down(2, 3, Departure::Revoked);
    assert_eq!(yard.told(), ["1 hears 2 offline"]);
}

#[test]
fn a_connection_that_replaces_a_broken_one_inherits_its_idleness() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.up(2, 2);
    yard.idle(2, 2, true);
    yard.pass(1);
    yard.told();
    yard.down(2, 2, Departure::Seen);
    yard.pass(3);
    yard.up(2, 3);
    yard.idle(2, 3, true);
    yard.pass(20);
    assert_eq!(yard.told(), ["2/3 hears 1 online, all"], "nobody flickers if the client says so again");
    yard.down(2, 3, Departure::Seen);
    yard.pass(3);
    yard.up(2, 4);
    yard.pass(1);
    assert_eq!(yard.told(), ["2/4 hears 1 online, all"]);
    yard.pass(2);
    assert_eq!(yard.told(), ["1 hears 2 online"], "one that says nothing is not idle");
}

#[test]
fn users_of_a_dead_node_are_offline_within_25_seconds() {
    let mut yard = Yard::settled();
    let other = NodeRun { worker: 2, epoch: Epoch::from_raw(1), set: 1 };
    yard.core.handle_set(other, View::whole().id(), &[], yard.now);
    yard.up(1, 1);
    yard.core.handle_up(other, up(2, 2, 1), yard.now);
    yard.core.handle_up(other, up(3, 3, 2), yard.now);
    yard.load();
    yard.told();
    // User 3 comes back on the other node.
    yard.pass(5);
    yard.up(3, 7);
    yard.told();
    yard.pass(19);
    assert_eq!(yard.told(), NOBODY);
    yard.pass(1);
    assert_eq!(yard.told(), ["1+3 hears 2 offline"]);
}

#[test]
fn a_node_that_missed_its_lease_sends_its_set_without_a_visible_change() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.up(2, 2);
    yard.up(3, 3);
    yard.told();
    yard.wait(20);
    // Reports under its old epoch are refused.
    yard.core.handle_renewal(NODE, yard.now);
    yard.up(3, 4);
    assert_eq!(yard.core.poll_stranger(), Some(NODE));
    assert_eq!(yard.core.poll_leases_missed(), 1);
    let again = NodeRun { set: 2, ..NODE };
    yard.core.handle_set(again, View::whole().id(), &[up(1, 1, 1), up(2, 2, 2)], yard.now);
    yard.load();
    assert_eq!(yard.told(), NOBODY);
    for _ in 0..10 {
        yard.core.handle_renewal(again, yard.now);
        yard.wait(1);
    }
    // The set did not name user 3.
    assert_eq!(yard.told(), ["1+2 hears 3 offline"]);
}

#[test]
fn a_process_that_starts_reports_nobody_as_offline() {
    let mut yard = Yard::starting();
    yard.watch(1, 2);
    yard.watch(1, 3);
    yard.up(1, 1);
    yard.up(2, 2);
    assert_eq!(yard.told(), ["2/2 hears 1 online", "1 hears 2 online"]);
    assert!(!yard.core.is_settled());
    yard.down(2, 2, Departure::Final);
    yard.pass(14);
    assert_eq!(yard.told(), NOBODY);
    yard.pass(1);
    assert_eq!(yard.told(), ["1 hears 2 offline", "1 hears all"]);
    assert!(yard.core.is_settled());
}

#[test]
fn invisible_users_are_offline_to_others_and_see_their_real_state() {
    let mut yard = Yard::settled();
    yard.set(2, true, "hidden");
    yard.up(1, 1);
    yard.up(2, 2);
    assert_eq!(yard.told(), ["1/1 hears all", "2/2 hears 2 online (hidden) invisible, 1 online, all"]);
    yard.set(2, false, "here");
    assert_eq!(yard.told(), ["2 hears 2 online (here)", "1 hears 2 online (here)"]);
    yard.set(2, true, "gone");
    assert_eq!(yard.told(), ["2 hears 2 online (gone) invisible", "1 hears 2 offline"]);
    yard.pass(5);
    yard.idle(2, 2, true);
    yard.up(3, 3);
    yard.down(2, 2, Departure::Revoked);
    assert_eq!(yard.told(), ["3/3 hears 1 online, all", "1+2 hears 3 online"]);
}

#[test]
fn nothing_is_sent_before_the_settings_are_known() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.told();
    yard.core.handle_up(NODE, up(2, 2, 2), yard.now);
    for wanted in yard.core.poll_wanted(9) {
        assert_eq!(wanted, Wanted { user: user(2), circle: true });
        yard.core.handle_not_loaded(wanted);
    }
    yard.pass(30);
    assert_eq!(yard.told(), NOBODY);
    assert_eq!(yard.core.states(None, &[user(2)]), [None]);
    yard.load();
    assert_eq!(yard.told(), ["2/2 hears 1 online, all", "1 hears 2 online"]);
}

#[test]
fn pairs_begin_and_end_while_both_users_are_online() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.up(4, 4);
    yard.told();
    // The user who hears of it first has the other one read again.
    yard.watch(1, 4);
    yard.core.handle_changed(user(4), true);
    yard.load();
    assert_eq!(yard.told(), ["4 hears 1 online", "1 hears 4 online"]);
    yard.core.handle_changed(user(1), true);
    yard.load();
    assert_eq!(yard.told(), NOBODY);
    yard.unwatch(1, 4);
    yard.core.handle_changed(user(1), true);
    yard.load();
    assert_eq!(yard.told(), ["4 hears 1 offline", "1 hears 4 offline"]);
    yard.idle(4, 4, true);
    yard.pass(9);
    assert_eq!(yard.told(), NOBODY);
}

#[test]
fn a_user_whose_read_overlaps_a_new_pair_is_read_again() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.told();
    yard.core.handle_up(NODE, up(4, 4, 4), yard.now);
    let early = yard.core.poll_wanted(9);
    yard.watch(1, 4);
    yard.core.handle_changed(user(1), true);
    yard.load();
    for wanted in early {
        let row = PresenceRow::default();
        let circle = Some(Vec::new());
        yard.core.handle_loaded(crate::core::Loaded { user: wanted.user, row, rev: 1, circle }, yard.now);
    }
    yard.load();
    let told = yard.told();
    assert!(told.contains(&"1 hears 4 online".to_owned()), "{told:?}");
    assert!(told.contains(&"4 hears 1 online".to_owned()), "{told:?}");
}

#[test]
fn an_outdated_read_ends_no_pair() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.up(2, 2);
    yard.told();
    // The two part while user 2 is read, and meet again before the read is answered.
    yard.core.handle_changed(user(2), true);
    let early = yard.core.poll_wanted(9);
    yard.core.handle_changed(user(2), true);
    for wanted in early {
        let (row, circle) = (PresenceRow::default(), Some(vec![user(3)]));
        yard.core.handle_loaded(crate::core::Loaded { user: wanted.user, row, rev: 1, circle }, yard.now);
    }
    yard.load();
    assert_eq!(yard.told(), NOBODY);
}

#[test]
fn a_full_set_makes_everything_be_read_again() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.up(4, 4);
    yard.told();
    // The report of the change is lost.
    yard.watch(1, 4);
    let again = NodeRun { set: 2, ..NODE };
    yard.core.handle_set(again, View::whole().id(), &[up(1, 1, 1), up(4, 4, 4)], yard.now);
    yard.load();
    assert_eq!(yard.told(), ["1 hears 4 online", "4 hears 1 online"]);
}

#[test]
fn a_connection_that_missed_a_frame_gets_everything_again() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.up(2, 2);
    yard.told();
    yard.core.handle_dropped(user(1), key(1, 1).1, yard.now);
    yard.pass(4);
    assert_eq!(yard.told(), NOBODY);
    yard.pass(1);
    assert_eq!(yard.told(), ["1/1 hears 2 online, anew, all"]);
    yard.pass(9);
    assert_eq!(yard.told(), NOBODY);
}

#[test]
fn long_lists_are_sent_in_several_frames() {
    let mut yard = Yard::settled();
    for other in 10..=760 {
        yard.watch(5, other);
        yard.up(other, other);
    }
    yard.told();
    yard.up(5, 5);
    let counts: Vec<usize> = yard.told().iter().map(|told| told.matches(" online").count()).collect();
    assert_eq!(counts, [500, 251, 1]);
}

#[test]
fn the_last_activity_is_kept_and_does_not_move_while_invisible() {
    let mut yard = Yard::settled();
    yard.up(1, 1);
    yard.up(2, 2);
    yard.pass(3);
    let active = yard.now.at;
    yard.idle(2, 2, true);
    yard.pass(5);
    let card = |yard: &Yard| yard.core.states(Some(user(1)), &[user(2)])[0].clone();
    assert_eq!(card(&yard).and_then(|card| card.last_active_at), Some(active));
    yard.down(2, 2, Departure::Final);
    assert_eq!(yard.core.poll_left(), [(user(2), active)]);
    yard.up(1, 3);
    let hidden = yard.now.at;
    yard.set(1, true, "");
    yard.pass(9);
    yard.down(1, 1, Departure::Final);
    yard.down(1, 3, Departure::Final);
    assert_eq!(yard.core.poll_left(), [(user(1), hidden)]);
    yard.core.handle_unwritten(vec![(user(1), hidden)]);
    yard.up(2, 5);
    yard.core.handle_end(yard.now);
    assert_eq!(yard.core.poll_left(), [(user(1), hidden), (user(2), yard.now.at)]);
    assert!(hidden > Millis::ZERO && yard.core.next_look() > Some(Duration::ZERO));
}
