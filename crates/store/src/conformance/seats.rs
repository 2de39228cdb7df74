//! Seats and members.

use std::sync::Arc;

use madang_proto::Role;
use madang_proto::rest::Restriction;
use tokio::task::JoinSet;

use super::build::*;
use super::channels::membership;
use super::{Subject, done};
use crate::channels::{Member, Pending, PendingChange, SeatChange, SeatOutcome, Seats};
use crate::{Spans, Store};

const CAPACITY: u32 = 10;

pub(super) fn member(id: u64, spans: Spans) -> Member {
    let place = spans.edge().unwrap_or_default();
    let pending = Some(Pending { by: user(9), place, change: PendingChange::Seat, is_recorded: false });
    Member {
        user_id: user(id),
        role: Role::Member,
        joined_at: at(id),
        spans,
        has_accepted: true,
        muted: None,
        banned: None,
        pending,
    }
}

fn change(if_rev: u64, count: u32, members: Vec<Member>) -> SeatChange {
    SeatChange { channel: channel(1), if_rev, count, members }
}

async fn put(store: &Arc<dyn Store>, members: Vec<Member>) {
    let seats = store.seats(channel(1)).await.unwrap();
    let outcome = store.change_seats(change(seats.rev, seats.count, members), &[]).await;
    assert_eq!(outcome, Ok(SeatOutcome::Changed(Seats { rev: seats.rev + 1, ..seats })));
}

/// Joins as a home does. Returns `false` if the channel is full.
async fn join(store: &Arc<dyn Store>, id: u64) -> bool {
    let joining = [user(id)];
    for _ in 0..10_000 {
        let seats = done(|| store.seats(channel(1))).await;
        let members = done(|| store.members_of(channel(1), &joining)).await;
        if members[0].as_ref().is_some_and(|member| member.spans.is_open()) {
            return true;
        }
        if seats.count == CAPACITY {
            return false;
        }
        let change = change(seats.rev, seats.count + 1, vec![member(id, Spans::since(seq(1)))]);
        if let Ok(SeatOutcome::Changed(_)) = store.change_seats(change, &[]).await {
            return true;
        }
    }
    panic!("ten thousand attempts failed");
}

pub(super) async fn thirty_joins_for_ten_seats_make_ten_members(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut joins = JoinSet::new();
    for id in 1..=30 {
        let store = Arc::clone(&store);
        joins.spawn(async move { join(&store, id).await });
    }
    let seated = joins.join_all().await.into_iter().filter(|seated| *seated).count();
    let seats = done(|| store.seats(channel(1))).await;
    let members = done(|| store.members(channel(1), None, 99)).await;
    assert_eq!((seated, seats.count, members.len()), (10, 10, 10));
}

pub(super) async fn seats_of_an_old_revision_are_refused(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    assert_eq!(store.seats(channel(1)).await, Ok(Seats::default()));
    let now = Seats { count: 1, rev: 1 };
    let one = || vec![member(1, Spans::since(seq(1)))];
    assert_eq!(store.change_seats(change(0, 1, one()), &[]).await, Ok(SeatOutcome::Changed(now)));
    for rev in [0, 2] {
        let two = vec![member(2, Spans::since(seq(2)))];
        assert_eq!(store.change_seats(change(rev, 2, two), &[]).await, Ok(SeatOutcome::Moved));
        assert_eq!(store.members_of(channel(1), &[user(2)]).await, Ok(vec![None]));
    }
    assert_eq!(store.seats(channel(1)).await, Ok(now));
}

pub(super) async fn memberships_come_with_their_seats(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let spans = Spans::since(seq(1));
    let membership_of = |id: u64| membership(id, 1, &spans);
    let now = Seats { count: 1, rev: 1 };
    for (rev, id, outcome) in [(0, 1, SeatOutcome::Changed(now)), (0, 2, SeatOutcome::Moved)] {
        let change = change(rev, 1, vec![member(id, spans.clone())]);
        assert_eq!(store.change_seats(change, &[membership_of(id)]).await, Ok(outcome));
    }
    assert_eq!(store.membership(user(1), channel(1)).await, Ok(Some(membership_of(1))));
    assert_eq!(store.membership(user(2), channel(1)).await, Ok(None));
    assert_eq!(store.members_of(channel(1), &[user(2)]).await, Ok(vec![None]));
}

pub(super) async fn members_come_by_pages(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut gone = Spans::since(seq(1));
    gone.close(seq(3));
    let all: Vec<Member> = (1..=11)
        .map(|id| member(id, if id % 3 == 0 { gone.clone() } else { Spans::since(seq(id)) }))
        .collect();
    put(&store, all.clone()).await;
    let (mut now, mut ever) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let after = |page: &[Member]| page.last().map(|member: &Member| member.user_id);
        now.extend(store.members(channel(1), after(&now), 3).await.unwrap());
        ever.extend(store.members_ever(channel(1), after(&ever), 3).await.unwrap());
    }
    assert_eq!(ever, all);
    assert_eq!(now, all.iter().filter(|member| member.spans.is_open()).cloned().collect::<Vec<_>>());
    let asked = store.members_of(channel(1), &[user(7), user(50), user(3)]).await.unwrap();
    assert_eq!(asked, [Some(all[6].clone()), None, Some(all[2].clone())]);
    assert!(store.members(channel(2), None, 9).await.unwrap().is_empty());
}

pub(super) async fn members_are_pending_until_settled(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    put(&store, (1..=3).map(|id| member(id, Spans::since(seq(1)))).collect()).await;
    assert_eq!(store.seating(channel(1), &[]).await.unwrap().pending.len(), 3);
    let told_later = |id| Member { spans: Spans::since(seq(5)), ..member(id, Spans::since(seq(1))) };
    let settled = [told_later(1), told_later(3)];
    for _ in 0..2 {
        store.settle_members(channel(1), &settled).await.unwrap();
        let pending = store.seating(channel(1), &[]).await.unwrap().pending;
        assert_eq!(pending, [member(2, Spans::since(seq(1)))]);
        let found = store.members_of(channel(1), &[user(1)]).await.unwrap();
        assert_eq!(found, [Some(Member { pending: None, ..settled[0].clone() })]);
    }
}

pub(super) async fn an_overtaken_settlement_does_nothing(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut spans = Spans::since(seq(1));
    let joined = member(1, spans.clone());
    spans.close(seq(4));
    let left = member(1, spans.clone());
    spans.open(seq(9));
    let again = member(1, spans);
    let role = Some(Pending { by: user(2), place: seq(12), change: PendingChange::Role, is_recorded: false });
    let made_owner = Member { role: Role::Owner, pending: role, ..again.clone() };
    let none = Member { pending: None, ..again.clone() };
    for (now, overtaken) in
        [(&left, &joined), (&made_owner, &again), (&made_owner, &none), (&again, &joined), (&again, &left)]
    {
        put(&store, vec![now.clone()]).await;
        store.settle_members(channel(1), std::slice::from_ref(overtaken)).await.unwrap();
        assert_eq!(store.members_of(channel(1), &[user(1)]).await, Ok(vec![Some(now.clone())]));
    }
    store.settle_members(channel(1), std::slice::from_ref(&again)).await.unwrap();
    assert!(store.seating(channel(1), &[]).await.unwrap().pending.is_empty());
}

pub(super) async fn restrictions_come_back_as_they_were_written(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let for_ever = Some(Restriction { until: None });
    let a_while = Some(Restriction { until: Some(at(77)) });
    let muted = Member { muted: a_while, ..member(1, Spans::since(seq(1))) };
    let banned = Member { banned: for_ever, ..member(2, Spans::default()) };
    let both = Member { muted: for_ever, banned: a_while, ..member(3, Spans::since(seq(1))) };
    put(&store, vec![muted.clone(), banned.clone(), both.clone()]).await;
    let found = store.members_of(channel(1), &[user(1), user(2), user(3)]).await.unwrap();
    assert_eq!(found, [Some(muted), Some(banned.clone()), Some(both.clone())]);
    assert_eq!(store.banned(channel(1), None, 1).await, Ok(vec![banned.clone()]));
    assert_eq!(store.banned(channel(1), Some(user(2)), 9).await, Ok(vec![both.clone()]));
    let lifted = Member { banned: None, ..both };
    put(&store, vec![lifted]).await;
    assert_eq!(store.banned(channel(1), None, 9).await, Ok(vec![banned]));
    assert_eq!(store.banned(channel(2), None, 9).await, Ok(Vec::new()));
}
