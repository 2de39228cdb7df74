//! Contacts, circles, presence settings.

use std::sync::Arc;

use madang_ids::UserId;
use madang_proto::{ChannelCard, ChannelKind, ContactState, Role};
use tokio::task::JoinSet;

use super::build::*;
use super::channels::{card, membership};
use super::{Subject, done};
use crate::channels::{Channel, Member, SeatChange, SeatOutcome};
use crate::contacts::{Contact, ContactLimits, ContactOutcome, PresenceChange, PresenceRow};
use crate::{Spans, Store};

const LIMITS: ContactLimits = ContactLimits { contacts: 10, requests: 4, asked: 8 };

async fn put(store: &Arc<dyn Store>, one: u64, other: u64) -> ContactOutcome {
    done(|| store.put_contact(user(one), user(other), at(one), LIMITS)).await.outcome
}

pub(super) async fn befriend(store: &Arc<dyn Store>, one: u64, other: u64) {
    put(store, one, other).await;
    put(store, other, one).await;
}

/// The state of the contact, as each of the two users sees it.
async fn states(store: &Arc<dyn Store>, one: u64, other: u64) -> [Option<ContactState>; 2] {
    let mut states = [None; 2];
    for (state, (of, who)) in states.iter_mut().zip([(one, other), (other, one)]) {
        *state = done(|| store.contact(user(of), user(who))).await.and_then(|contact| contact.state);
    }
    states
}

fn told(outcome: ContactOutcome) -> Contact {
    match outcome {
        ContactOutcome::Is(contact) => contact,
        refused => panic!("{refused:?}"),
    }
}

pub(super) async fn a_request_becomes_a_contact(subject: Arc<dyn Subject>) {
    use ContactState::{Asked, Mutual, Requested};
    let store = subject.open().await;
    assert_eq!(store.contact(user(1), user(2)).await, Ok(None));
    assert_eq!(store.remove_contact(user(1), user(2), at(1)).await, Ok(None));
    let asked = told(put(&store, 1, 2).await);
    let expected =
        Contact { other: user(2), state: Some(Requested), since: at(1), rev: 1, is_recorded: false };
    assert_eq!(asked, expected);
    assert_eq!(told(put(&store, 1, 2).await), expected);
    assert_eq!(states(&store, 1, 2).await, [Some(Requested), Some(Asked)]);
    let accepted = told(put(&store, 2, 1).await);
    assert_eq!((accepted.state, accepted.rev, accepted.since), (Some(Mutual), 2, at(2)));
    assert_eq!(told(put(&store, 1, 2).await).rev, 2);
    assert_eq!(states(&store, 1, 2).await, [Some(Mutual); 2]);
    drop(store);
    let store = subject.open().await;
    assert_eq!(states(&store, 1, 2).await, [Some(Mutual); 2]);
    let ended = store.remove_contact(user(1), user(2), at(9)).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.rev, ended.is_recorded), (None, 3, false));
    assert_eq!(store.remove_contact(user(2), user(1), at(9)).await.unwrap().map(|row| row.rev), Some(3));
    assert!(store.contacts(user(2), None, 9).await.unwrap().is_empty());
    assert_eq!(told(put(&store, 2, 1).await).rev, 4);
    assert_eq!(states(&store, 1, 2).await, [Some(Asked), Some(Requested)]);
}

pub(super) async fn two_users_who_ask_each_other_at_once_are_contacts(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut callers = JoinSet::new();
    for (one, other) in [(1, 2), (2, 1), (1, 2), (2, 1)] {
        let store = Arc::clone(&store);
        callers.spawn(async move { told(put(&store, one, other).await) });
    }
    for one in 10..30 {
        for (one, other) in [(one, one + 100), (one + 100, one)] {
            let store = Arc::clone(&store);
            callers.spawn(async move { told(put(&store, one, other).await) });
        }
    }
    callers.join_all().await;
    for (one, other) in [(1, 2)].into_iter().chain((10..30).map(|one| (one, one + 100))) {
        assert_eq!(states(&store, one, other).await, [Some(ContactState::Mutual); 2], "{one} and {other}");
    }
}

/// A pair and the lists of both users are written one after another. A call that is repeated until it succeeds leaves
/// them equal.
pub(super) async fn the_lists_of_both_say_what_the_pair_says(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut callers = JoinSet::new();
    for (one, other) in [(1, 2), (2, 1), (1, 3), (3, 1), (4, 1), (1, 5)] {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            put(&store, one, other).await;
            if other == 5 {
                done(|| store.remove_contact(user(1), user(5), at(9))).await;
            }
        });
    }
    callers.join_all().await;
    for (one, other) in [(1, 2), (1, 3), (1, 4), (1, 5)] {
        let pair = states(&store, one, other).await;
        for (state, (of, who)) in pair.into_iter().zip([(one, other), (other, one)]) {
            let list = done(|| store.contacts(user(of), None, 99)).await;
            let listed = list.iter().find(|contact| contact.other == user(who));
            assert_eq!(listed.and_then(|contact| contact.state), state, "{who} in the list of {of}");
        }
    }
}

pub(super) async fn a_change_is_settled_unless_there_was_a_later_one(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    put(&store, 1, 2).await;
    put(&store, 2, 1).await;
    assert_eq!(store.settle_contact(user(1), user(2), 1).await, Ok(false));
    assert!(!told(put(&store, 1, 2).await).is_recorded);
    assert_eq!(store.settle_contact(user(2), user(1), 2).await, Ok(true));
    assert!(told(put(&store, 1, 2).await).is_recorded);
    let ended = store.remove_contact(user(1), user(2), at(3)).await.unwrap().unwrap();
    assert!(!ended.is_recorded);
    assert_eq!(store.settle_contact(user(1), user(2), ended.rev).await, Ok(true));
    assert_eq!(store.settle_contact(user(1), user(2), 2).await, Ok(false));
    assert!(store.contact(user(2), user(1)).await.unwrap().unwrap().is_recorded);
}

pub(super) async fn contacts_come_by_pages(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for other in [5, 3, 9, 7] {
        put(&store, other, 1).await;
    }
    store.remove_contact(user(1), user(7), at(1)).await.unwrap();
    let ids = |page: Vec<Contact>| page.iter().map(|contact| contact.other.raw()).collect::<Vec<_>>();
    assert_eq!(ids(store.contacts(user(1), None, 2).await.unwrap()), [3, 5]);
    assert_eq!(ids(store.contacts(user(1), Some(user(5)), 9).await.unwrap()), [9]);
    assert_eq!(ids(store.contacts(user(3), None, 9).await.unwrap()), [1]);
}

pub(super) async fn contacts_have_limits(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut callers = JoinSet::new();
    for other in 2..=30 {
        let store = Arc::clone(&store);
        callers.spawn(async move { put(&store, 1, other).await });
    }
    let outcomes = callers.join_all().await;
    let refused = |outcome: &&ContactOutcome| **outcome == ContactOutcome::TooManyRequests;
    assert_eq!(outcomes.iter().filter(refused).count(), 29 - LIMITS.requests as usize);
    // Requests of others do not count towards the user's own limits. They have a limit of their own, at which a new
    // request evicts the oldest.
    for other in 101..=100 + u64::from(LIMITS.asked) {
        assert!(matches!(put(&store, other, 1).await, ContactOutcome::Is(_)));
    }
    let put_one = store.put_contact(user(200), user(1), at(200), LIMITS).await.unwrap();
    let displaced = put_one.displaced.map(|contact| (contact.other, contact.state, contact.is_recorded));
    assert_eq!(displaced, Some((user(101), None, false)));
    assert_eq!(store.contact(user(101), user(1)).await.unwrap().and_then(|contact| contact.state), None);
    let is_asked = |contact: &&Contact| contact.state == Some(ContactState::Asked);
    let contacts = store.contacts(user(1), None, 500).await.unwrap();
    assert_eq!(contacts.iter().filter(is_asked).count(), LIMITS.asked as usize);
    // A repeated request evicts none.
    let again = store.put_contact(user(200), user(1), at(201), LIMITS).await.unwrap();
    assert_eq!(again.displaced, None);
    // An accepted request counts as a contact, and the limit of contacts holds.
    let mut accepted = LIMITS.requests;
    for other in 102..=100 + u64::from(LIMITS.asked) {
        let expected = accepted < LIMITS.contacts;
        let outcome = put(&store, 1, other).await;
        assert_eq!(matches!(outcome, ContactOutcome::Is(_)), expected, "{other}: {outcome:?}");
        accepted += u32::from(expected);
    }
    assert_eq!(accepted, LIMITS.contacts);
    assert_eq!(put(&store, 1, 200).await, ContactOutcome::Full);
    done(|| store.remove_contact(user(1), user(102), at(1))).await;
    assert!(matches!(put(&store, 1, 200).await, ContactOutcome::Is(_)));
}

pub(super) async fn a_block_keeps_people_apart(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    befriend(&store, 1, 2).await;
    assert_eq!(store.circle(user(1), 100, 9).await, Ok(vec![user(2)]));
    assert_eq!(store.acquainted(user(2), &[user(3), user(1)]).await, Ok(vec![user(1)]));
    store.block(user(2), user(1), at(1)).await.unwrap();
    for (one, other) in [(1, 2), (2, 1)] {
        assert_eq!(put(&store, one, other).await, ContactOutcome::Blocked);
        assert_eq!(store.circle(user(one), 100, 9).await, Ok(Vec::new()));
        assert_eq!(store.acquainted(user(one), &[user(other)]).await, Ok(Vec::new()));
    }
}

/// A channel with `members`, of whom those in `gone` have left.
async fn found(store: &Arc<dyn Store>, id: u64, kind: ChannelKind, members: &[u64], gone: &[u64]) {
    let card = ChannelCard { kind, ..card(id) };
    let row = Channel::new(card, user(1), at(1), 500);
    store.create_channel(&row).await.unwrap();
    let spans = |id: &u64| {
        let mut spans = Spans::since(seq(1));
        if gone.contains(id) {
            spans.close(seq(2));
        }
        spans
    };
    let member = |id: &u64| Member {
        user_id: user(*id),
        role: Role::Member,
        joined_at: at(1),
        spans: spans(id),
        has_accepted: true,
        muted: None,
        banned: None,
        pending: None,
    };
    let all: Vec<u64> = members.iter().chain(gone).copied().collect();
    let count = members.len() as u32;
    let rows = all.iter().map(member).collect();
    let change = SeatChange { channel: channel(id), if_rev: 0, count, members: rows };
    assert!(matches!(store.change_seats(change, &[]).await, Ok(SeatOutcome::Changed(_))));
    let rows: Vec<_> = all.iter().map(|user| membership(*user, id, &spans(user))).collect();
    store.put_memberships(&rows).await.unwrap();
}

pub(super) async fn a_circle_is_contacts_and_small_groups(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    befriend(&store, 1, 2).await;
    put(&store, 1, 3).await;
    put(&store, 4, 1).await;
    found(&store, 1, ChannelKind::Group, &[1, 2, 5, 6], &[7]).await;
    found(&store, 2, ChannelKind::Group, &[1, 8, 9, 10, 11], &[]).await;
    found(&store, 3, ChannelKind::Direct, &[1, 12], &[]).await;
    found(&store, 4, ChannelKind::Group, &[13], &[1]).await;
    let sorted = |mut users: Vec<UserId>| {
        users.sort_unstable();
        users.iter().map(|user| user.raw()).collect::<Vec<_>>()
    };
    let circle = store.circle(user(1), 4, 9).await.unwrap();
    assert_eq!(circle.first(), Some(&user(2)));
    assert_eq!(sorted(circle), [2, 5, 6]);
    assert_eq!(sorted(store.circle(user(1), 5, 99).await.unwrap()), [2, 5, 6, 8, 9, 10, 11]);
    assert_eq!(store.circle(user(1), 5, 2).await.unwrap().len(), 2);
    let others: Vec<UserId> = (2..=14).map(user).collect();
    let known = store.acquainted(user(1), &others).await.unwrap();
    assert_eq!(sorted(known), [2, 5, 6, 8, 9, 10, 11]);
}

pub(super) async fn presence_settings_are_kept(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let hide = PresenceChange { invisible: Some(true), status: None };
    let speak = PresenceChange { invisible: None, status: Some(Some("at lunch".into())) };
    store.change_presence(user(1), &hide).await.unwrap();
    store.change_presence(user(1), &speak).await.unwrap();
    store.set_last_active(&[(user(1), at(20)), (user(2), at(5))]).await.unwrap();
    store.set_last_active(&[(user(1), at(10))]).await.unwrap();
    drop(store);
    let store = subject.open().await;
    let ada = PresenceRow { invisible: true, status: Some("at lunch".into()), last_active_at: Some(at(20)) };
    let bob = PresenceRow { last_active_at: Some(at(5)), ..PresenceRow::default() };
    let rows = store.presence(&[user(2), user(3), user(1)]).await;
    assert_eq!(rows, Ok(vec![bob, PresenceRow::default(), ada.clone()]));
    let quiet = PresenceChange { invisible: Some(false), status: Some(None) };
    store.change_presence(user(1), &quiet).await.unwrap();
    let expected = PresenceRow { last_active_at: ada.last_active_at, ..PresenceRow::default() };
    assert_eq!(store.presence(&[user(1)]).await, Ok(vec![expected]));
}
