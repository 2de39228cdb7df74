//! Open channels: they are found, change their owner, and are in no user's inbox.

use std::sync::Arc;

use madang_ids::{ChannelId, Position};
use madang_proto::{ChannelCard, ChannelKind, Role};

use super::build::*;
use super::channels::membership;
use super::{OrderedSubject, Subject};
use crate::channels::{Channel, Member, Membership, SeatChange, SeatOutcome};
use crate::log::{AppendOutcome, Head};
use crate::{Spans, Store};

/// Creates a channel with `members` members.
async fn make(store: &Arc<dyn Store>, kind: ChannelKind, id: u64, name: &str, topic: &str, members: u32) {
    let card = ChannelCard::new(channel(id), kind, Some(name.into()), None);
    let card = ChannelCard { topic: topic.into(), ..card };
    let row = Channel::new(card.clone(), user(1), at(id), 100_000);
    store.create_channel(&row).await.unwrap();
    assert_eq!(store.channel(channel(id)).await.unwrap().map(|found| found.card), Some(card));
    if members > 0 {
        let change = SeatChange { channel: channel(id), if_rev: 0, count: members, members: Vec::new() };
        assert!(matches!(store.change_seats(change, &[]).await, Ok(SeatOutcome::Changed(_))));
    }
}

async fn find(
    store: &Arc<dyn Store>,
    query: &str,
    after: Option<ChannelId>,
    limit: usize,
) -> Vec<(u64, u32)> {
    let found = store.find_open(query, after, limit, 1_000).await.unwrap();
    found.channels.into_iter().map(|found| (found.card.id.raw(), found.members)).collect()
}

pub(super) async fn open_channels_are_found_by_name_and_topic(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    make(&store, ChannelKind::Open, 3, "TEA of the world", "No coffee", 2).await;
    make(&store, ChannelKind::Open, 1, "Kaffee", "ÄPFEL und Tee", 4711).await;
    make(&store, ChannelKind::Group, 2, "Tea", "private", 5).await;
    make(&store, ChannelKind::Open, 4, "Tea without anybody", "", 0).await;
    assert_eq!(find(&store, "tea", None, 9).await, [(3, 2)], "no groups and no incomplete channels");
    assert_eq!(find(&store, "COFFEE", None, 9).await, [(3, 2)]);
    assert_eq!(find(&store, "äpfel", None, 9).await, [(1, 4711)]);
    assert_eq!(find(&store, "Äpfel", None, 9).await, [(1, 4711)], "composed or decomposed");
    assert_eq!(find(&store, "Ｔｅａ", None, 9).await, [(3, 2)], "of any width");
    assert_eq!(find(&store, "te\u{200d}a", None, 9).await, [(3, 2)], "invisible characters are ignored");
    assert_eq!(find(&store, "%", None, 9).await, []);
    assert_eq!(find(&store, "", None, 9).await, [(1, 4711), (3, 2)]);
}

pub(super) async fn open_channels_come_by_pages(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for id in 1..=9 {
        make(&store, ChannelKind::Open, id, if id % 2 == 0 { "tea" } else { "coffee" }, "", 1).await;
    }
    assert_eq!(find(&store, "tea", None, 3).await, [(2, 1), (4, 1), (6, 1)]);
    assert_eq!(find(&store, "tea", Some(channel(6)), 3).await, [(8, 1)]);
    assert_eq!(find(&store, "tea", Some(channel(8)), 3).await, []);
}

/// A search examines at most a given number of channels, and returns where it continues.
pub(super) async fn a_search_is_bounded_in_channels_looked_at(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for id in 1..=9 {
        make(&store, ChannelKind::Open, id, if id == 8 { "STRASSE" } else { "coffee" }, "", 1).await;
    }
    let (mut after, mut pages, mut found) = (None, 0, Vec::new());
    loop {
        let page = store.find_open("straße", after, 3, 4).await.unwrap();
        pages += 1;
        found.extend(page.channels.iter().map(|found| found.card.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((pages, &found[..]), (3, &[channel(8)][..]));
    let full = store.find_open("", None, 4, 4).await.unwrap();
    assert_eq!((full.channels.len(), full.next), (4, Some(channel(4))));
    assert_eq!(store.open_made(user(1), 5).await.unwrap(), 5);
    assert_eq!(store.open_made(user(1), 50).await.unwrap(), 9);
    assert_eq!(store.open_made(user(2), 50).await.unwrap(), 0);
}

pub(super) async fn channels_are_known_by_membership(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for id in [2, 5] {
        make(&store, ChannelKind::Group, id, "tea", "", 1).await;
        let mut spans = Spans::since(seq(1));
        if id == 5 {
            spans.close(seq(3));
        }
        store.put_memberships(&[membership(1, id, &spans)]).await.unwrap();
    }
    let asked: Vec<ChannelId> = (1..=6).rev().map(channel).collect();
    assert_eq!(store.channels_among(user(1), &asked).await.unwrap(), [channel(5), channel(2)]);
    assert_eq!(store.channels_among(user(2), &asked).await.unwrap(), []);
}

pub(super) async fn the_successor_is_an_admin_or_the_longest_member(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let member = |id: u64, role, joined, spans: &Spans| Member {
        user_id: user(id),
        role,
        joined_at: at(joined),
        spans: spans.clone(),
        has_accepted: true,
        muted: None,
        banned: None,
        pending: None,
    };
    let (here, mut left) = (Spans::since(seq(1)), Spans::since(seq(1)));
    left.close(seq(2));
    let mut members = vec![member(1, Role::Owner, 1, &here), member(2, Role::Admin, 1, &left)];
    let change = |members: &[Member], if_rev| SeatChange {
        channel: channel(1),
        if_rev,
        count: 0,
        members: members.to_vec(),
    };
    assert!(store.change_seats(change(&members, 0), &[]).await.is_ok());
    assert_eq!(store.successor(channel(1), user(1)).await, Ok(None));
    members = (3..=700).map(|id| member(id, Role::Member, 1_000 - id, &here)).collect();
    assert!(store.change_seats(change(&members, 1), &[]).await.is_ok());
    assert_eq!(store.successor(channel(1), user(1)).await, Ok(Some(user(700))));
    members = vec![member(4, Role::Admin, 5_000, &here), member(5, Role::Admin, 5_000, &here)];
    assert!(store.change_seats(change(&members, 2), &[]).await.is_ok());
    assert_eq!(store.successor(channel(1), user(1)).await, Ok(Some(user(4))));
}

pub(super) async fn a_scan_leaves_open_channels_out(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    let spans = Spans::since(seq(1));
    let open = Membership { in_inbox: false, ..membership(1, 1, &spans) };
    store.put_memberships(&[open.clone(), membership(1, 2, &spans)]).await.unwrap();
    assert_eq!(store.membership(user(1), channel(1)).await, Ok(Some(open)));
    for id in [1, 2] {
        let append = say_many(log(id), Head::default(), user(9), 1, 5);
        assert_eq!(store.append(append).await, Ok(AppendOutcome::Appended));
    }
    let scan =
        store.scan(user(1), Position::ZERO, 99, 6).await.unwrap().expect("five rows are no more than six");
    assert_eq!(scan.items.iter().map(|item| item.log).collect::<Vec<_>>(), [log(2)]);
    assert_eq!(scan.upto, Position::new(10));
}
