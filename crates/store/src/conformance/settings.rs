//! Users' settings of channels, hidden messages, erasures.

use std::sync::Arc;

use madang_ids::{ChannelId, Millis, Ordinal, Seq};
use madang_proto::{AlertLevel, Body, ChannelSettings, Content, DeletionMark};

use super::Subject;
use super::build::*;
use super::channels::{membership, plain};
use crate::Spans;
use crate::erasure::Erasure;
use crate::log::{Head, RowChange};

pub(super) async fn channel_settings_compare_the_revision(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.create_channel(&plain(1)).await.unwrap();
    store.put_memberships(&[membership(1, 1, &Spans::since(seq(1)))]).await.unwrap();
    let stored = async || {
        let overview = store.overview_of(user(1), channel(1)).await.unwrap().unwrap();
        assert_eq!(store.channel_settings(user(1), channel(1)).await, Ok(overview.settings));
        overview.settings
    };
    assert_eq!(stored().await, ChannelSettings::default());
    let first = ChannelSettings { rev: 1, favourite: true, ..ChannelSettings::default() };
    let second = ChannelSettings {
        rev: 2,
        favourite: false,
        marked_unread: true,
        muted_until: Some(Millis::new(9_007_199_254_740_991)),
        hidden_ordinal: Some(Ordinal::new(7)),
        alerts: Some(AlertLevel::Mentions),
    };
    assert_eq!(store.put_channel_settings(user(1), channel(1), &second).await, Ok(false));
    assert_eq!(store.put_channel_settings(user(1), channel(1), &first).await, Ok(true));
    assert_eq!(stored().await, first);
    assert_eq!(store.put_channel_settings(user(1), channel(1), &first).await, Ok(false));
    assert_eq!(store.put_channel_settings(user(1), channel(1), &second).await, Ok(true));
    assert_eq!(stored().await, second);
    assert_eq!(store.channel_settings(user(2), channel(1)).await, Ok(ChannelSettings::default()));
    assert_eq!(store.channel_settings(user(1), channel(2)).await, Ok(ChannelSettings::default()));
}

pub(super) async fn a_message_is_hidden_from_one_user(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let hide = async |id, place, value| store.hide_message(user(id), channel(place), seq(value), 3).await;
    let found = async |id, ranges: &[(u64, u64, u64)]| {
        let ranges: Vec<_> =
            ranges.iter().map(|&(place, first, last)| (channel(place), seq(first)..=seq(last))).collect();
        let mut found = store.hidden_messages(user(id), &ranges).await.unwrap();
        found.sort_unstable();
        found
    };
    for (place, value) in [(1, 4), (1, 9), (1, 9), (2, 4), (1, 6)] {
        assert_eq!(hide(1, place, value).await, Ok(true));
    }
    assert_eq!(hide(1, 1, 7).await, Ok(false), "three other messages are hidden");
    assert_eq!(hide(1, 1, 9).await, Ok(true), "it was hidden before");
    assert_eq!(hide(2, 1, 5).await, Ok(true));
    let places = |list: &[(u64, u64)]| -> Vec<(ChannelId, Seq)> {
        list.iter().map(|&(place, value)| (channel(place), seq(value))).collect()
    };
    assert_eq!(found(1, &[(1, 4, 6), (2, 1, 3)]).await, places(&[(1, 4), (1, 6)]));
    assert_eq!(found(1, &[(1, 9, 20), (2, 4, 4)]).await, places(&[(1, 9), (2, 4)]));
    assert_eq!(found(2, &[(1, 1, 20)]).await, places(&[(1, 5)]));
    assert_eq!(found(3, &[(1, 1, 20)]).await, []);
}

pub(super) async fn an_erasure_stays_until_it_ends(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let erasure = |place, upto| Erasure { channel_id: channel(place), at: at(5), upto: seq(upto) };
    for (place, upto) in [(2, 0), (1, 0), (2, 7), (2, 3)] {
        store.put_erasure(erasure(place, upto)).await.unwrap();
    }
    drop(store);
    let store = subject.open().await;
    assert_eq!(store.erasures(9).await, Ok(vec![erasure(1, 0), erasure(2, 7)]));
    assert_eq!(store.erasures(1).await, Ok(vec![erasure(1, 0)]));
    store.end_erasure(channel(1)).await.unwrap();
    assert_eq!(store.erasures(9).await, Ok(vec![erasure(2, 7)]));
}

pub(super) async fn rows_are_replaced_by_version(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.append(say_many(log(1), Head::default(), user(1), 1, 2)).await.unwrap();
    let rows = store.rows(log(1), seq(1)..=seq(2), usize::MAX).await.unwrap();
    let erased = |index: usize, if_version| {
        let mut message = rows[index].entry.content.message().unwrap().clone();
        message.body = Body::default();
        message.deleted = Some(DeletionMark { at: at(9), by: user(1) });
        message.version = if_version + 1;
        RowChange { target: seq(index as u64 + 1), if_version, content: Content::Message(Box::new(message)) }
    };
    store.replace_rows(channel(1), &[erased(0, 1), erased(1, 5)]).await.unwrap();
    let rows = store.rows(log(1), seq(1)..=seq(2), usize::MAX).await.unwrap();
    let texts: Vec<_> =
        rows.iter().map(|row| row.entry.content.message().unwrap().body.text.as_str()).collect();
    assert_eq!(texts, ["", "line 2"]);
    assert_eq!(store.heads(&[log(1)]).await.unwrap()[0].seq, seq(2));
}
