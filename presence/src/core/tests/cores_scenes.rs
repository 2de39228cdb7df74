//! Transcripts of two cores, `a` and `b`, in one test. Users 1, 2 and 5 fall to `a`, users 3, 4 and 6 to `b`.

use std::collections::BTreeSet;
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::{Millis, NodeEpoch, UserId};

use super::harness::{NODE, key, told, up, user};
use crate::api::{Departure, NodeRun};
use crate::config::PresenceConfig;
use crate::core::{Core, Loaded, Message, ProcessRun, View};

const NOBODY: [&str; 0] = [];

struct Two {
    a: Core,
    b: Core,
    view: View,
    now: Now,
    pairs: BTreeSet<(UserId, UserId)>,
}

fn core(process: u16, epoch: u64, view: &View, now: Now) -> Core {
    let me = ProcessRun { process, epoch: NodeEpoch(epoch) };
    let mut core = Core::shard(PresenceConfig::default(), me, view.clone(), now);
    core.handle_set(NODE, view, &[], now);
    core
}

impl Two {
    /// Two settled cores. Each of 1, 2 and 5 watches 3.
    fn settled() -> Self {
        let now = Now { at: Millis::new(1_000_000), elapsed: Duration::from_secs(100) };
        let view = View::of(&[1, 2]);
        let (a, b) = (core(1, 1, &view, now), core(2, 1, &view, now));
        let pairs = [1, 2, 5].into_iter().flat_map(|id| [(user(id), user(3)), (user(3), user(id))]).collect();
        let mut two = Self { a, b, view, now, pairs };
        two.pass(16);
        two
    }

    fn watch(&mut self, one: u64, other: u64) {
        self.pairs.extend([(user(one), user(other)), (user(other), user(one))]);
    }

    fn core(&mut self, id: u64) -> &mut Core {
        if self.view.owns(1, user(id)) { &mut self.a } else { &mut self.b }
    }

    fn up(&mut self, id: u64) {
        let now = self.now;
        self.core(id).handle_up(NODE, up(id, id, id), now);
        self.load();
        self.exchange();
    }

    fn down(&mut self, id: u64) {
        let now = self.now;
        self.core(id).handle_down(NODE, key(id, id), Departure::Final, now);
        self.exchange();
    }

    fn load(&mut self) {
        for core in [&mut self.a, &mut self.b] {
            for wanted in core.poll_wanted(99) {
                let circle =
                    self.pairs.iter().filter(|(one, _)| *one == wanted.user).map(|(_, other)| *other);
                let circle = Some(circle.collect());
                let loaded = Loaded { user: wanted.user, row: Default::default(), rev: 1, circle };
                core.handle_loaded(loaded, self.now);
            }
        }
    }

    /// Delivers all messages at once. Returns them.
    fn exchange(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let next = self.a.poll_message(self.now).or_else(|| self.b.poll_message(self.now));
            let Some((to, message)) = next else { return all };
            all.push(message.clone());
            self.take(to, message);
        }
    }

    fn take(&mut self, to: u16, message: Message) {
        let core = match to {
            1 => &mut self.a,
            2 => &mut self.b,
            // A process that is not part of the scene.
            _ => return,
        };
        core.handle_message(message);
        self.load();
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now.elapsed += Duration::from_secs(1);
            self.now.at = self.now.at.plus(1_000);
            for core in [&mut self.a, &mut self.b] {
                core.handle_renewal(NODE, self.now);
                core.handle_time(self.now);
            }
            self.exchange();
        }
    }

    fn told(&mut self) -> Vec<String> {
        [told(&mut self.a), told(&mut self.b)].concat()
    }
}

#[test]
fn users_of_two_cores_see_each_other() {
    let mut two = Two::settled();
    two.up(1);
    assert_eq!(two.told(), ["1 hears all"], "the list is complete once the other core has answered");
    two.up(3);
    let told = two.told();
    assert!(
        told.contains(&"1 hears 3 online".to_owned()) && told.contains(&"3 hears 1 online".to_owned()),
        "{told:?}"
    );
    two.down(3);
    assert_eq!(two.told(), ["1 hears 3 offline"]);
}

#[test]
fn a_change_costs_one_message_for_each_interested_process() {
    let mut two = Two::settled();
    [1, 2, 5, 3].into_iter().for_each(|id| two.up(id));
    two.pass(2);
    two.told();
    let now = two.now;
    two.b.handle_idle(NODE, key(3, 3), true, now);
    let sent = two.exchange();
    assert!(
        matches!(&sent[..], [Message::Batch(batch), Message::Ack(_)] if batch.states.len() == 1),
        "{sent:?}"
    );
    assert_eq!(two.told(), ["1+2+5 hears 3 away"]);
    two.b.handle_idle(NODE, key(4, 4), true, now);
    assert_eq!(two.exchange(), [], "nobody here is interested in user 4");
}

#[test]
fn messages_that_are_taken_twice_change_nothing() {
    let mut two = Two::settled();
    two.up(1);
    two.up(3);
    two.pass(2);
    two.told();
    let now = two.now;
    two.b.handle_idle(NODE, key(3, 3), true, now);
    let early = two.exchange();
    two.pass(2);
    two.b.handle_idle(NODE, key(3, 3), false, two.now);
    two.exchange();
    assert_eq!(two.told(), ["1 hears 3 away", "1 hears 3 online"]);
    for message in early {
        let to = if matches!(message, Message::Batch(_)) { 1 } else { 2 };
        two.take(to, message);
    }
    two.exchange();
    assert_eq!(two.told(), NOBODY);
}

#[test]
fn interest_ends_with_the_last_watcher() {
    let mut two = Two::settled();
    two.up(1);
    two.up(2);
    let interested = |two: &Two| two.b.links[&1].all_interested().count();
    assert_eq!((two.a.foreign.len(), interested(&two)), (1, 1));
    two.down(1);
    assert_eq!((two.a.foreign.len(), interested(&two)), (1, 1));
    two.down(2);
    assert_eq!((two.a.foreign.len(), interested(&two)), (0, 0));
    two.up(3);
    assert!(two.exchange().is_empty());
}

#[test]
fn a_core_that_restarts_hears_all_interest_again_and_nobody_flickers() {
    let mut two = Two::settled();
    two.up(1);
    two.up(3);
    two.up(5);
    two.told();
    two.b = core(2, 2, &two.view, two.now);
    two.exchange();
    two.pass(14);
    assert_eq!(two.told(), NOBODY);
    two.b.handle_set(NodeRun { set: 2, ..NODE }, &two.view, &[up(3, 3, 3)], two.now);
    two.load();
    two.exchange();
    let told = two.told();
    assert!(told.iter().all(|told| !told.contains("offline")), "{told:?}");
    let now = two.now;
    two.b.handle_down(NodeRun { set: 2, ..NODE }, key(3, 3), Departure::Final, now);
    two.exchange();
    two.pass(2);
    assert!(two.told().contains(&"1+5 hears 3 offline".to_owned()));
}

#[test]
fn an_earlier_epoch_of_a_node_and_a_repeated_set_are_refused() {
    let mut two = Two::settled();
    let (view, now) = (two.view.clone(), two.now);
    let again = NodeRun { epoch: NodeEpoch(2), ..NODE };
    two.a.handle_set(again, &view, &[up(1, 1, 1)], now);
    two.a.handle_set(NodeRun { set: 9, ..NODE }, &view, &[up(2, 2, 2)], now);
    two.a.handle_up(NODE, up(2, 2, 2), now);
    two.a.handle_down(again, key(1, 1), Departure::Final, now);
    two.a.handle_set(again, &view, &[up(1, 1, 1)], now);
    assert_eq!((two.a.poll_refused(), two.a.poll_stranger()), (3, None));
    assert!(two.a.users.values().all(|user| !user.is_here()));
}

#[test]
fn a_user_stays_online_while_two_cores_have_different_views() {
    let mut two = Two::settled();
    two.watch(1, 4);
    two.up(1);
    two.up(4);
    two.pass(2);
    two.told();
    // Under this view user 1 falls to process 3. `b` learns of it first, while `a` still has user 1 and asks for user 4.
    let view = View::of(&[1, 2, 3]);
    two.b.handle_view(view.clone(), two.now);
    two.pass(3);
    assert_eq!(two.told(), NOBODY, "user 4 is still online");
    assert!(two.b.links[&1].all_interested().next().is_none());
    two.a.handle_view(view, two.now);
    two.exchange();
    assert_eq!(two.told(), NOBODY);
}

#[test]
fn a_user_who_has_moved_stays_online_until_the_nodes_know_the_view() {
    let mut two = Two::settled();
    two.up(1);
    two.up(3);
    two.told();
    // User 3 moves to `a`. The node learns of the view later than a lease, and until then sends its sets by the old view.
    let (old, view) = (two.view.clone(), View::of(&[1]));
    two.a.handle_view(view.clone(), two.now);
    let mut run = NODE;
    for _ in 0..20 {
        run.set += 1;
        two.a.handle_set(run, &old, &[up(1, 1, 1)], two.now);
        two.load();
        two.pass(1);
    }
    run.set += 1;
    two.a.handle_set(run, &view, &[up(1, 1, 1), up(3, 3, 3)], two.now);
    two.load();
    assert_eq!(two.told(), ["1/1 hears 3 online, anew, all", "3/3 hears 1 online"]);
}

#[test]
fn a_user_is_not_offline_while_a_node_reports_them_to_another_core() {
    let mut two = Two::settled();
    two.watch(1, 2);
    two.up(1);
    two.up(2);
    two.told();
    // Another node already knows a view under which user 1 falls to process 3, and reports a connection of user 1 there.
    let (other, view) = (NodeRun { worker: 2, ..NODE }, View::of(&[1, 2, 3]));
    two.a.handle_set(other, &view, &[], two.now);
    two.down(1);
    assert_eq!(two.told(), NOBODY, "user 1 has a connection of the other node");
    two.a.handle_view(view, two.now);
    two.pass(16);
    assert_eq!(two.told(), NOBODY);
}

#[test]
fn a_connection_that_was_elsewhere_gets_everything_anew() {
    let mut two = Two::settled();
    two.up(1);
    two.up(3);
    two.told();
    // The node knows a view without `b` for a moment, of which `b` never hears. Meanwhile `a` may send notices to user 3.
    let mut run = NODE;
    for view in [View::of(&[1]), two.view.clone()] {
        run.set += 1;
        let set: &[_] = if view == two.view { &[up(3, 3, 3)] } else { &[] };
        two.b.handle_set(run, &view, set, two.now);
        two.load();
    }
    two.told();
    for _ in 0..15 {
        two.b.handle_renewal(run, two.now);
        two.pass(1);
    }
    assert_eq!(two.told(), ["3/3 hears 1 online, anew, all"]);
}

#[test]
fn a_list_is_not_complete_while_a_watched_user_may_be_moving_here() {
    let mut two = Two::settled();
    two.watch(1, 4);
    two.up(4);
    two.told();
    let view = View::of(&[1]);
    two.a.handle_view(view.clone(), two.now);
    two.up(1);
    assert_eq!(two.told(), NOBODY, "the node has not sent user 4 to `a` yet");
    let run = NodeRun { set: 2, ..NODE };
    two.a.handle_set(run, &view, &[up(1, 1, 1), up(4, 4, 4)], two.now);
    two.load();
    assert!(two.told().contains(&"1 hears 4 online".to_owned()));
    for _ in 0..15 {
        two.a.handle_renewal(run, two.now);
        two.pass(1);
    }
    assert!(two.told().contains(&"1 hears all".to_owned()));
}

#[test]
fn a_doubt_is_not_lost_when_the_other_core_restarts() {
    let mut two = Two::settled();
    two.watch(2, 4);
    [1, 2, 4].into_iter().for_each(|id| two.up(id));
    // `b` restarts and reads the rows of user 4 before 1 and 4 meet. `a` still sends to the earlier life of `b`.
    two.b = core(2, 2, &two.view, two.now);
    two.b.handle_set(NodeRun { set: 2, ..NODE }, &two.view, &[up(4, 4, 4)], two.now);
    two.load();
    two.watch(1, 4);
    two.a.handle_changed(user(1), true);
    two.load();
    two.told();
    two.exchange();
    assert!(two.told().contains(&"1 hears 4 online".to_owned()));
}

#[test]
fn a_doubt_is_not_lost_when_the_view_changes_and_changes_back() {
    let mut two = Two::settled();
    two.watch(2, 4);
    [1, 2, 4].into_iter().for_each(|id| two.up(id));
    two.watch(1, 4);
    two.a.handle_changed(user(1), true);
    two.load();
    // The message with the doubt is lost.
    while two.a.poll_message(two.now).is_some() {}
    let view = two.view.clone();
    [View::of(&[1, 2, 7]), view].into_iter().for_each(|view| two.a.handle_view(view, two.now));
    two.told();
    two.pass(3);
    assert!(two.told().contains(&"1 hears 4 online".to_owned()));
}

#[test]
fn a_pair_that_ends_and_begins_again_is_not_lost_between_two_cores() {
    let mut two = Two::settled();
    two.watch(1, 4);
    two.up(1);
    two.up(4);
    // The end is read for user 4, the new begin for user 1, before the cores have exchanged anything.
    let before = std::mem::take(&mut two.pairs);
    two.b.handle_changed(user(4), true);
    two.load();
    two.pairs = before;
    two.a.handle_changed(user(1), true);
    two.load();
    two.told();
    two.exchange();
    let told = two.told();
    let last = told.iter().rfind(|told| told.starts_with("1 "));
    assert_eq!(last.map(String::as_str), Some("1 hears 4 online"), "{told:?}");
}

#[test]
fn a_list_is_not_complete_while_the_state_of_a_foreign_user_is_of_another_view() {
    let mut two = Two::settled();
    two.pairs.clear();
    two.watch(1, 4);
    two.watch(2, 4);
    // Under the first view user 1 is at process 3, so what `b` states of user 4 does not name user 1.
    let (first, second) = (View::of(&[1, 2, 3]), two.view.clone());
    for (set, view) in [(2, first), (3, second)] {
        let run = NodeRun { set, ..NODE };
        two.a.handle_view(view.clone(), two.now);
        two.a.handle_set(run, &view, &[up(2, 2, 2), up(1, 1, 1)][..set as usize - 1], two.now);
        if set == 2 {
            two.b.handle_view(view.clone(), two.now);
            two.b.handle_set(run, &view, &[up(4, 4, 4)], two.now);
        }
        two.load();
        two.exchange();
    }
    two.told();
    for _ in 0..15 {
        two.now.elapsed += Duration::from_secs(1);
        two.a.handle_renewal(NodeRun { set: 3, ..NODE }, two.now);
        two.a.handle_time(two.now);
    }
    let told = two.told();
    assert!(told.iter().all(|told| !told.starts_with('1') || !told.ends_with("all")), "{told:?}");
}

#[test]
fn rows_are_read_again_when_a_set_of_an_earlier_life_has_hidden_that_a_user_was_away() {
    let mut two = Two::settled();
    [1, 3].into_iter().for_each(|id| two.up(id));
    two.told();
    // `b` and the node restart. A set of the node's earlier life arrives first, so `b` believes that user 3 is there.
    two.b = core(2, 2, &two.view, two.now);
    let now = two.now;
    two.b.handle_set(NodeRun { set: 9, ..NODE }, &two.view, &[up(3, 3, 3)], now);
    two.load();
    // Users 3 and 6 meet, which nobody reports for user 3, who is not connected. Then user 3 connects by another node.
    two.watch(3, 6);
    let (other, again) = (NodeRun { worker: 2, ..NODE }, NodeRun { epoch: NodeEpoch(2), ..NODE });
    two.b.handle_set(other, &two.view, &[], now);
    two.b.handle_up(other, up(3, 4, 33), now);
    two.load();
    two.b.handle_set(again, &two.view, &[], now);
    two.load();
    assert!(two.b.users[&user(3)].circle.contains(&user(6)));
}
