//! Channels, memberships, markers and overviews.

use std::collections::BTreeSet;
use std::sync::Arc;

use madang_ids::ChannelId;
use madang_proto::{ChannelCard, ChannelKind, Content, Role};
use tokio::task::JoinSet;

use super::build::*;
use super::logs::appended;
use super::{Subject, done};
use crate::channels::{Channel, Membership, Overview, OverviewOrder};
use crate::log::Marker;
use crate::log::{Append, AppendOutcome, ChannelState, Details, Head};
use crate::{Spans, Store};

pub(super) fn card(id: u64) -> ChannelCard {
    ChannelCard::new(channel(id), ChannelKind::Group, Some(format!("channel {id}")), None)
}

pub(super) fn membership(user_id: u64, channel_id: u64, spans: &Spans) -> Membership {
    let (user_id, channel_id) = (user(user_id), channel(channel_id));
    let version = spans.edge().unwrap_or_default();
    Membership {
        user_id,
        channel_id,
        role: Role::Member,
        spans: spans.clone(),
        version,
        in_inbox: true,
        has_accepted: true,
    }
}

pub(super) fn plain(id: u64) -> Channel {
    Channel::new(card(id), user(1), at(id), 500)
}

pub(super) async fn a_channel_stays_as_it_was_made(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let pair = ChannelCard::new(channel(2), ChannelKind::Direct, None, Some([user(8), user(3)]));
    let direct = Channel::new(pair, user(8), at(7), 2);
    let group = plain(1);
    store.create_channel(&direct).await.unwrap();
    store.create_channel(&group).await.unwrap();
    store.create_channel(&Channel { capacity: 9, created_by: user(2), ..plain(1) }).await.unwrap();
    assert_eq!(store.channel(channel(1)).await.unwrap(), Some(group));
    assert_eq!(store.channel(channel(2)).await.unwrap(), Some(direct));
    assert_eq!(store.channel(channel(3)).await.unwrap(), None);
}

pub(super) async fn a_pair_has_one_channel(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    assert_eq!(done(|| store.direct(user(1), user(2))).await, None);
    let mut callers = JoinSet::new();
    for candidate in 1..=12 {
        let store = Arc::clone(&store);
        let (one, other) = if candidate % 2 == 0 { (user(1), user(2)) } else { (user(2), user(1)) };
        callers.spawn(async move { done(|| store.claim_direct(one, other, channel(candidate))).await });
    }
    let claimed: BTreeSet<ChannelId> = callers.join_all().await.into_iter().collect();
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    assert_eq!(done(|| store.direct(user(2), user(1))).await, claimed.first().copied());
    assert_eq!(done(|| store.claim_direct(user(1), user(3), channel(99))).await, channel(99));
}

pub(super) async fn memberships_come_back_as_they_were_written(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut spans = Spans::since(seq(3));
    let first = membership(1, 1, &spans);
    store
        .put_memberships(&[first.clone(), membership(1, 2, &spans), membership(2, 1, &spans)])
        .await
        .unwrap();
    assert_eq!(store.membership(user(1), channel(1)).await.unwrap(), Some(first));
    spans.close(seq(7));
    let ended = Membership { role: Role::Admin, ..membership(1, 1, &spans) };
    store.put_memberships(std::slice::from_ref(&ended)).await.unwrap();
    assert_eq!(store.membership(user(1), channel(1)).await.unwrap(), Some(ended));
    assert_eq!(store.membership(user(3), channel(1)).await.unwrap(), None);
}

pub(super) async fn a_late_writer_leaves_a_later_membership(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut spans = Spans::since(seq(3));
    let joined = membership(1, 1, &spans);
    let made_owner = Membership { role: Role::Owner, version: seq(5), ..joined.clone() };
    spans.close(seq(9));
    let left_as_planned = membership(1, 1, &spans);
    spans.extend_until(seq(11));
    let left_later = membership(1, 1, &spans);
    spans.open(seq(20));
    let states = [joined, made_owner, left_as_planned, left_later, membership(1, 1, &spans)];
    for (index, now) in states.iter().enumerate() {
        store.put_memberships(std::slice::from_ref(now)).await.unwrap();
        for late in &states[..=index] {
            store.put_memberships(std::slice::from_ref(late)).await.unwrap();
            assert_eq!(store.membership(user(1), channel(1)).await, Ok(Some(now.clone())), "after {late:?}");
        }
    }
    assert_eq!(store.advance_marker(user(1), channel(1), marker(4)).await, Ok(()));
    store.put_memberships(&states).await.unwrap();
    assert_eq!(store.membership(user(1), channel(1)).await, Ok(states.last().cloned()));
}

async fn marker_of(store: &Arc<dyn Store>, id: u64) -> Option<Marker> {
    store.overview_of(user(id), channel(1)).await.unwrap().map(|overview| overview.marker)
}

fn marker(place: u64) -> Marker {
    Marker { seq: seq(place), ordinal: ordinal(place / 2) }
}

pub(super) async fn a_marker_goes_forward_only(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.create_channel(&plain(1)).await.unwrap();
    store.put_memberships(&[membership(1, 1, &Spans::since(seq(1)))]).await.unwrap();
    assert_eq!(marker_of(&store, 1).await, Some(Marker::default()));
    for (place, stands) in [(4, 4), (4, 4), (2, 4), (9, 9)] {
        assert_eq!(store.advance_marker(user(1), channel(1), marker(place)).await, Ok(()));
        assert_eq!(marker_of(&store, 1).await, Some(marker(stands)));
    }
}

pub(super) async fn a_marker_may_come_before_the_membership(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.create_channel(&plain(1)).await.unwrap();
    assert_eq!(store.advance_marker(user(1), channel(1), marker(4)).await, Ok(()));
    assert_eq!(store.membership(user(1), channel(1)).await, Ok(None));
    assert_eq!(store.overview_of(user(1), channel(1)).await, Ok(None));
    assert!(store.overview(user(1), OverviewOrder::Id(None), 9).await.unwrap().is_empty());
    store.put_memberships(&[membership(1, 1, &Spans::since(seq(1)))]).await.unwrap();
    assert_eq!(marker_of(&store, 1).await, Some(marker(4)));
    assert_eq!(store.advance_marker(user(1), channel(1), marker(4)).await, Ok(()));
}

/// A user with 23 channels. Some share the time of their head, and some have no rows.
async fn busy_user(store: &Arc<dyn Store>) {
    let spans = Spans::since(seq(1));
    for id in 1..=23 {
        store.create_channel(&plain(id)).await.unwrap();
        store.put_memberships(&[membership(1, id, &spans), membership(2, id + 100, &spans)]).await.unwrap();
        if id % 4 != 0 {
            let append = say_many(log(id), Head::default(), user(9), 1, id % 3 + 1);
            assert_eq!(store.append(append).await, Ok(AppendOutcome::Appended));
        }
    }
}

async fn pages(
    store: &Arc<dyn Store>,
    limit: usize,
    order: impl Fn(Option<&Overview>) -> OverviewOrder,
) -> Vec<Overview> {
    let mut all: Vec<Overview> = Vec::new();
    for _ in 0..30 {
        let page = store.overview(user(1), order(all.last()), limit).await.unwrap();
        assert!(page.len() <= limit);
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    all
}

pub(super) async fn overviews_by_id_are_complete(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    busy_user(&store).await;
    for limit in [1, 5, 23, 100] {
        let all =
            pages(&store, limit, |last| OverviewOrder::Id(last.map(|overview| overview.channel.card.id)))
                .await;
        let ids: Vec<u64> = all.iter().map(|overview| overview.channel.card.id.raw()).collect();
        assert_eq!(ids, (1..=23).collect::<Vec<_>>());
    }
    let one = store.overview_of(user(1), channel(2)).await.unwrap().unwrap();
    assert_eq!((one.channel.card, one.head.seq, one.membership.user_id), (card(2), seq(3), user(1)));
}

pub(super) async fn overviews_by_activity_are_complete(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    busy_user(&store).await;
    let key = |overview: &Overview| (overview.head.at, overview.channel.card.id);
    for limit in [1, 5, 23, 100] {
        let all = pages(&store, limit, |last| OverviewOrder::Activity(last.map(key))).await;
        assert_eq!(all.len(), 23);
        assert!(all.is_sorted_by(|one, next| key(one) > key(next)), "pages of {limit}");
    }
}

pub(super) async fn channels_that_were_left_are_left_out(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    busy_user(&store).await;
    let mut spans = Spans::since(seq(1));
    spans.close(seq(2));
    store.put_memberships(&[membership(1, 5, &spans)]).await.unwrap();
    for order in [OverviewOrder::Id(None), OverviewOrder::Activity(None)] {
        let all = store.overview(user(1), order, 99).await.unwrap();
        assert_eq!(all.len(), 22);
        assert!(all.iter().all(|overview| overview.channel.card.id != channel(5)));
    }
    let users = [user(2), user(1), user(9)];
    assert_eq!(store.channel_counts(&users, 99).await, Ok(vec![23, 22, 0]));
    assert_eq!(store.channel_counts(&users, 20).await, Ok(vec![20, 20, 0]), "counted up to the limit");
    let left = store.overview_of(user(1), channel(5)).await.unwrap();
    assert_eq!(left.map(|overview| overview.membership.spans), Some(spans.clone()));
    // Channels that were left have a list of their own, which contains no open or deleted channels.
    let open = ChannelCard::new(channel(40), ChannelKind::Open, Some("Yard".into()), None);
    store.create_channel(&Channel::new(open, user(1), at(1), 9)).await.unwrap();
    let gone = Details { state: ChannelState::Deleted, ..plain(41).details() };
    store.create_channel(&plain(41)).await.unwrap();
    let mut last = say(log(41), Head::default(), key(user(2), 1));
    last.details = Some(gone);
    store.append(last).await.unwrap();
    let ended = [membership(1, 7, &spans), membership(1, 40, &spans), membership(1, 41, &spans)];
    store.put_memberships(&ended).await.unwrap();
    let left = async |after: u64, limit| {
        let after = (after > 0).then(|| channel(after));
        let all = store.overview(user(1), OverviewOrder::Left(after), limit).await.unwrap();
        all.iter().map(|overview| overview.channel.card.id.raw()).collect::<Vec<_>>()
    };
    assert_eq!((left(0, 99).await, left(0, 1).await, left(5, 9).await), (vec![5, 7], vec![5], vec![7]));
    let all = store.memberships(user(1), Some(channel(22)), 9).await.unwrap();
    let all: Vec<_> = all.iter().map(|one| (one.channel_id.raw(), one.spans.is_open())).collect();
    assert_eq!(all, [(23, true), (40, false), (41, false)]);
    assert_eq!(store.memberships(user(1), None, 2).await.unwrap().len(), 2);
}

pub(super) async fn details_change_with_an_append(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.create_channel(&plain(1)).await.unwrap();
    store.put_memberships(&[membership(1, 1, &Spans::since(seq(1)))]).await.unwrap();
    let details = Details {
        name: Some("Tea".to_owned()),
        topic: "green".to_owned(),
        avatar: "https://chat.example/tea.png".to_owned(),
        state: ChannelState::Archived,
        slow_mode_seconds: 30,
        pins: vec![seq(4), seq(2)],
    };
    let first = say(log(1), Head::default(), key(user(1), 1));
    let head = first.head();
    let append = Append { details: Some(details.clone()), ..first };
    assert_eq!(store.append(append.clone()).await, Ok(AppendOutcome::Appended));
    let other = say(log(1), Head::default(), key(user(1), 9));
    let other = Append { details: Some(Details::default()), ..other };
    assert_eq!(store.append(other).await, Ok(AppendOutcome::Moved));
    assert_eq!(store.append(say(log(1), head, key(user(1), 2))).await, Ok(AppendOutcome::Appended));
    let channel_row = store.channel(channel(1)).await.unwrap().unwrap();
    assert_eq!(channel_row.details(), details);
    let overview = store.overview_of(user(1), channel(1)).await.unwrap().unwrap();
    assert_eq!(overview.channel, channel_row);
    store.create_channel(&plain(1)).await.unwrap();
    assert_eq!(store.channel(channel(1)).await, Ok(Some(channel_row)), "made again");
}

pub(super) async fn mentions_count_from_the_marker_on(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.create_channel(&plain(1)).await.unwrap();
    let spans = Spans::since(seq(1));
    store.put_memberships(&[membership(1, 1, &spans), membership(2, 1, &spans)]).await.unwrap();
    let mut head = Head::default();
    for (number, mentions, everyone) in
        [(1, vec![user(1)], false), (2, vec![], true), (3, vec![user(2), user(1)], true)]
    {
        let mut row = message(head, key(user(9), number), "hi");
        let Content::Message(said) = &mut row.entry.content else { return };
        (said.body.mentions, said.body.mentions_everyone) = (mentions, everyone);
        head = appended(&store, append(log(1), head, vec![row])).await;
    }
    let count = async |id| store.overview_of(user(id), channel(1)).await.unwrap().unwrap().mentions;
    assert_eq!((count(1).await, count(2).await), (3, 2));
    for (place, left) in [(1, 2), (2, 1), (3, 0)] {
        store.advance_marker(user(1), channel(1), marker(place)).await.unwrap();
        assert_eq!(count(1).await, left);
    }
    let markers = store.markers(channel(1), &[user(1), user(2)]).await.unwrap();
    assert_eq!(markers, [marker(3), Marker::default()]);
    // A user who has left is not notified of mentions after the stay.
    let mut spans = spans;
    spans.close(seq(2));
    store.put_memberships(&[Membership { version: seq(2), ..membership(2, 1, &spans) }]).await.unwrap();
    assert_eq!(count(2).await, 1);
    for _ in 0..5 {
        let append = say_many(log(1), head, user(9), head.seq.get() + 10, 250);
        let mut rows = append.rows.to_vec();
        for row in &mut rows {
            let Content::Message(said) = &mut row.entry.content else { return };
            said.body.mentions = vec![user(1)];
        }
        head = appended(&store, Append { rows: rows.into(), ..append }).await;
    }
    assert_eq!(count(1).await, crate::channels::MENTIONS_COUNTED, "more are not counted");
}
