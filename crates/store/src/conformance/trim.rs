//! What upkeep removes of users' data.

use std::sync::Arc;

use madang_ids::{LogId, Position, Seq, UserId};
use madang_proto::ChannelSettings;
use madang_proto::rest::Restriction;

use super::build::*;
use super::channels::membership;
use super::seats::member;
use super::{OrderedSubject, Subject};
use crate::channels::{Member, Membership, SeatChange};
use crate::log::Marker;
use crate::log::{AppendOutcome, Head};
use crate::trim::{TrimStep, Trimmed};
use crate::{Spans, Store, Upkeep};

/// Trims all users in small steps. Returns the numbers of removed rows and channels.
async fn trim_all(store: &(impl Upkeep + ?Sized), own_rows: u64, left_channels: usize) -> (u64, u64) {
    let mut sum = (0, 0);
    let mut step = TrimStep { after: None, users: 2, own_rows, left_channels, forgets: 4 };
    for _ in 0..1_000 {
        let Trimmed { own_rows, left_channels, after, more } = store.trim(step).await.unwrap();
        assert!(own_rows + left_channels <= step.forgets as u64, "a step removes at most its limit");
        sum = (sum.0 + own_rows, sum.1 + left_channels);
        if !more {
            return sum;
        }
        step.after = after;
    }
    panic!("not finished after a thousand steps");
}

async fn fill(store: &(impl Store + ?Sized), log: LogId, rows: u64) -> Head {
    let append = say_many(log, Head::default(), user(99), 1, rows);
    let head = append.head();
    assert_eq!(store.append(append).await.unwrap(), AppendOutcome::Appended);
    head
}

pub(super) async fn own_logs_keep_their_last_rows(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    fill(&*store, log(1), 30).await;
    let head = fill(&*store, own_log(1), 30).await;
    fill(&*store, own_log(2), 10).await;
    fill(&*store, own_log(3), 11).await;
    assert_eq!(trim_all(&*store, 10, 0).await, (21, 0));
    assert_eq!(trim_all(&*store, 10, 0).await, (0, 0));
    let all = seq(1)..=seq(99);
    let rows = async |log| seqs(&store.rows(log, all.clone(), usize::MAX).await.unwrap());
    assert_eq!(rows(own_log(1)).await, (21..=30).collect::<Vec<_>>());
    assert_eq!(rows(own_log(2)).await, (1..=10).collect::<Vec<_>>());
    assert_eq!(rows(own_log(3)).await, (2..=11).collect::<Vec<_>>());
    assert_eq!(rows(log(1)).await, (1..=30).collect::<Vec<_>>());
    assert_eq!(store.heads(&[own_log(1)]).await.unwrap(), [head]);
    assert_eq!(seqs(&store.tail(own_log(1), 12).await.unwrap().rows), (21..=30).collect::<Vec<_>>());
    assert_eq!(store.rows_at(own_log(1), &[seq(20), seq(21)], usize::MAX).await.unwrap().len(), 2);
    assert_eq!(store.seq_at(own_log(1), at(0)).await, Ok(seq(21)));
    assert_eq!(store.seq_at(own_log(1), at(245)).await, Ok(seq(25)));
    let more = say_many(own_log(1), head, user(99), 31, 2);
    assert_eq!(store.append(more).await.unwrap(), AppendOutcome::Appended);
    assert_eq!(rows(own_log(1)).await, (21..=32).collect::<Vec<_>>());
    drop(store);
    let store = subject.open().await;
    assert_eq!(trim_all(&*store, 10, 0).await, (2, 0));
}

/// Writes the state of a user who is in a channel or has left it.
async fn put(store: &(impl Store + ?Sized), id: u64, spans: &Spans, change: impl Fn(Member) -> Member) {
    let member = change(Member { pending: None, ..member(1, spans.clone()) });
    let seats = store.seats(channel(id)).await.unwrap();
    let count = u32::from(spans.is_open());
    let in_inbox = !(10..20).contains(&id);
    let has_accepted = member.has_accepted;
    let membership = Membership { in_inbox, has_accepted, ..membership(1, id, spans) };
    let change = SeatChange { channel: channel(id), if_rev: seats.rev, count, members: vec![member] };
    store.change_seats(change, &[membership]).await.unwrap();
    // Appends a row in between, so that the channels are left at different positions.
    let head = store.heads(&[own_log(1)]).await.unwrap()[0];
    store.append(say_many(own_log(1), head, user(99), head.seq.get() + 1, 1)).await.unwrap();
}

fn left() -> Spans {
    let mut spans = Spans::since(seq(1));
    spans.close(seq(5));
    spans
}

pub(super) async fn channels_left_long_ago_are_forgotten(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    let here = Spans::since(seq(1));
    // Channel 2 is left last, 10 and 11 are open channels, 6 and 7 must stay.
    for id in [10, 3, 1, 4, 11, 2] {
        put(&*store, id, &here, |member| member).await;
    }
    for id in [3, 10, 1, 4, 11, 2] {
        put(&*store, id, &left(), |member| member).await;
    }
    put(&*store, 5, &here, |member| member).await;
    put(&*store, 6, &left(), |member| Member { banned: Some(Restriction { until: None }), ..member }).await;
    let pending = super::seats::member(1, left()).pending;
    put(&*store, 7, &left(), |member| Member { pending, ..member }).await;
    for id in [3, 2] {
        store
            .advance_marker(user(1), channel(id), Marker { seq: seq(4), ordinal: ordinal(4) })
            .await
            .unwrap();
        let settings = ChannelSettings { rev: 1, favourite: true, ..ChannelSettings::default() };
        store.put_channel_settings(user(1), channel(id), &settings).await.unwrap();
        store.hide_message(user(1), channel(id), seq(2), 10).await.unwrap();
    }
    assert_eq!(trim_all(&*store, 1_000, 6).await, (0, 0));
    assert_eq!(trim_all(&*store, 1_000, 3).await, (0, 3), "10, 11 and then 3");
    assert_eq!(known(&*store).await, [1, 2, 4, 5, 6, 7]);
    assert_eq!(trim_all(&*store, 1_000, 1).await, (0, 2), "1 and 4");
    assert_eq!(known(&*store).await, [2, 5, 6, 7]);
    for id in [3, 10] {
        assert_eq!(store.members_of(channel(id), &[user(1)]).await.unwrap(), [None]);
        assert_eq!(store.membership(user(1), channel(id)).await.unwrap(), None);
    }
    let of = async |id| {
        let marker = store.markers(channel(id), &[user(1)]).await.unwrap()[0].seq.get();
        let rev = store.channel_settings(user(1), channel(id)).await.unwrap().rev;
        let hidden = store.hidden_messages(user(1), &[(channel(id), seq(1)..=seq(9))]).await.unwrap();
        (marker, rev, hidden.len())
    };
    assert_eq!((of(3).await, of(2).await), ((0, 0, 0), (4, 1, 1)));
    // A new stay begins without the old data.
    put(&*store, 3, &Spans::since(seq(9)), |member| member).await;
    assert_eq!(known(&*store).await, [2, 3, 5, 6, 7]);
}

pub(super) async fn groups_that_were_not_accepted_are_forgotten_first(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    let unaware = |member| Member { has_accepted: false, ..member };
    for id in 1..=6 {
        put(&*store, id, &Spans::since(seq(1)), unaware).await;
    }
    for id in [1, 3] {
        store.accept_stay(user(1), channel(id)).await.unwrap();
    }
    // The writer may not know about the acceptance, and may write the same state again.
    for id in 1..=6 {
        put(&*store, id, &left(), unaware).await;
        put(&*store, id, &left(), unaware).await;
    }
    assert_eq!(trim_all(&*store, 1_000, 3).await, (0, 3));
    assert_eq!(known(&*store).await, [1, 3, 6]);
    assert_eq!(trim_all(&*store, 1_000, 1).await, (0, 2));
    assert_eq!(known(&*store).await, [3]);
    put(&*store, 3, &Spans::since(seq(9)), unaware).await;
    let again = store.membership(user(1), channel(3)).await.unwrap().unwrap();
    assert!(!again.has_accepted, "a new stay must be accepted again");
}

async fn known(store: &(impl Store + ?Sized)) -> Vec<u64> {
    let asked: Vec<_> = (1..20).map(channel).collect();
    let known = store.channels_among(user(1), &asked).await.unwrap();
    known.iter().map(|channel| channel.raw()).collect()
}

pub(super) async fn data_of_a_deleted_user_is_removed_in_steps(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let head = fill(&*store, own_log(1), 12).await;
    fill(&*store, own_log(2), 12).await;
    put(&*store, 3, &Spans::since(seq(1)), |member| member).await;
    put(&*store, 3, &left(), |member| member).await;
    let head = store.heads(&[own_log(1)]).await.unwrap().first().copied().unwrap_or(head);
    store.claim_direct(user(2), user(1), channel(50)).await.unwrap();
    for (one, other) in [(1, 2), (1, 5), (1, 6), (5, 1), (2, 9)] {
        store.block(user(one), user(other), at(1)).await.unwrap();
    }
    for id in [1, 2] {
        let settings = ChannelSettings { rev: 1, ..ChannelSettings::default() };
        store.put_channel_settings(user(id), channel(50), &settings).await.unwrap();
        store.hide_message(user(id), channel(50), seq(2), 10).await.unwrap();
    }
    let mut steps = Vec::new();
    loop {
        let gone = store.forget_user(user(1), 4).await.unwrap();
        steps.push(gone);
        if gone < 4 {
            break;
        }
        assert!(steps.len() < 20, "{steps:?}");
    }
    // 13 rows of the own log, a channel, settings, a hidden message, two blocks.
    assert_eq!(steps.iter().sum::<usize>(), 18, "{steps:?}");
    assert_eq!(store.forget_user(user(1), 4).await, Ok(0));
    assert_eq!(store.forget_user(user(77), 4).await, Ok(0), "a user without data");
    let rows = async |id| store.rows(own_log(id), seq(1)..=seq(99), usize::MAX).await.unwrap().len();
    assert_eq!((rows(1).await, rows(2).await), (1, 12));
    assert_eq!(store.heads(&[own_log(1)]).await.unwrap(), [head]);
    assert_eq!(store.blocks(user(1), None, 9).await, Ok(vec![user(2)]), "the direct channel stays closed");
    assert_eq!(store.blocks(user(5), None, 9).await, Ok(vec![user(1)]));
    let of = async |id| {
        let hidden = store.hidden_messages(user(id), &[(channel(50), seq(1)..=seq(9))]).await.unwrap();
        (store.channel_settings(user(id), channel(50)).await.unwrap().rev, hidden.len())
    };
    assert_eq!((of(1).await, of(2).await), ((0, 0), (1, 1)));
    assert_eq!(store.membership(user(1), channel(3)).await, Ok(None));
}

pub(super) async fn a_scan_from_before_what_was_trimmed_gives_up(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    fill(&*store, own_log(1), 30).await;
    fill(&*store, own_log(2), 30).await;
    let scan =
        async |user: UserId, after: u64| store.scan(user, Position::new(after), 100, 1_000).await.unwrap();
    assert!(scan(user(1), 5).await.is_some());
    assert_eq!(trim_all(&*store, 10, 0).await, (40, 0));
    for after in [0, 5, 19, 20] {
        assert_eq!(scan(user(1), after).await, None, "after {after}");
    }
    for after in [21, 25, 29, 30, 60] {
        let rows: Vec<(Seq, Seq)> =
            scan(user(1), after).await.unwrap().items.iter().map(|item| (item.from, item.to)).collect();
        let expected: Vec<(Seq, Seq)> = (after < 30).then(|| (seq(after + 1), seq(30))).into_iter().collect();
        assert_eq!(rows, expected, "after {after}");
    }
}

pub(super) async fn a_scan_from_before_a_forgotten_stay_ended_gives_up(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    // Channel 10 is an open one, which is in no inbox.
    for id in [3, 4, 10] {
        put(&*store, id, &Spans::since(seq(1)), |member| member).await;
    }
    put(&*store, 10, &left(), |member| member).await;
    put(&*store, 3, &left(), |member| member).await;
    // The row that records the departure is appended after the change of the seats.
    fill(&*store, log(3), 5).await;
    let told = store.position();
    let scan = async |who: u64, after: Position| store.scan(user(who), after, 100, 1_000).await.unwrap();
    let before = Position::new(told.get() - 1);
    assert!(scan(1, before).await.is_some());
    assert_eq!(trim_all(&*store, 1_000, 1).await, (0, 1), "10");
    assert!(scan(1, before).await.is_some(), "an open channel is in no inbox");
    assert_eq!(trim_all(&*store, 1_000, 0).await, (0, 1), "3");
    for after in [Position::ZERO, before] {
        assert_eq!(scan(1, after).await, None, "after {after:?}");
        assert!(scan(2, after).await.is_some(), "another user lacks nothing");
    }
    assert!(scan(1, told).await.is_some());
    put(&*store, 4, &left(), |member| member).await;
    fill(&*store, log(4), 5).await;
    assert!(scan(1, told).await.is_some());
    let latest = store.position();
    assert_eq!(trim_all(&*store, 1_000, 0).await, (0, 1), "4");
    assert_eq!(scan(1, told).await, None);
    assert!(scan(1, latest).await.is_some());
}
