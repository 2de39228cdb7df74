//! Searches across the logs of a user: messages that the user sent, and messages that mention the user.

use std::sync::Arc;

use madang_proto::Content;

use super::Subject;
use super::build::*;
use super::channels::{membership, plain};
use super::logs::{appended, appended_knowing, delete, edit};
use crate::Spans;
use crate::log::Deleted;
use crate::log::Head;

pub(super) async fn messages_of_one_sender_are_found(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut head = appended(
        &store,
        append(log(1), Head::default(), vec![notice(Head::default(), Content::Created { by: user(1) })]),
    )
    .await;
    for number in 1..=9 {
        let sender = user(1 + number % 3);
        head = appended(&store, say(log(1), head, key(sender, number))).await;
    }
    let found = async |sender, first, last, bytes| {
        let sent = store.rows_by(channel(1), user(sender), seq(first)..=seq(last), bytes).await.unwrap();
        (seqs(&sent.rows), sent.upto.get())
    };
    assert_eq!(found(2, 1, 10, usize::MAX).await, (vec![2, 5, 8], 10));
    assert_eq!(found(2, 3, 7, usize::MAX).await, (vec![5], 7));
    // A store looks at rows of others behind the last one before it knows that no other fits.
    let (rows, upto) = found(2, 1, 10, 1).await;
    assert!(rows == [2] && (2..5).contains(&upto), "at least one row: {rows:?} up to {upto}");
    let (rows, upto) = found(2, 8, 10, 1).await;
    assert!(rows == [8] && (8..=10).contains(&upto), "{rows:?} up to {upto}");
    assert_eq!(found(9, 1, 10, 1).await, (vec![], 10));
}

pub(super) async fn mentions_of_a_user_are_listed_latest_first(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut heads = [Head::default(); 3];
    // Two channels whose messages alternate in time, and one in which other users are mentioned.
    for number in 1..=6 {
        let place = 1 + number % 2;
        let earlier = Head { at: at(number * 10), ..heads[place as usize] };
        let mut row = message(earlier, key(user(1), number), "hi");
        let Content::Message(said) = &mut row.entry.content else { return };
        let whom = if number == 3 { 9 } else { 2 };
        (said.body.mentions, said.body.mentions_everyone) = (vec![user(whom)], number == 4);
        let append = append(log(place), heads[place as usize], vec![row]);
        heads[place as usize] = appended(&store, append).await;
    }
    let found = async |before, limit| {
        let found = store.mentions_of(user(2), before, limit).await.unwrap();
        assert!(found.iter().all(|mention| mention.sender == user(1)));
        found.iter().map(|mention| mention.place).collect::<Vec<_>>()
    };
    let all: Vec<_> = [(70, 1, 3), (60, 2, 3), (50, 1, 2), (30, 1, 1), (20, 2, 1)]
        .map(|(time, place, value)| (at(time), channel(place), seq(value)))
        .into();
    assert_eq!(found(None, 99).await, all);
    let (mut pages, mut before) = (Vec::new(), None);
    for _ in 0..6 {
        let page = found(before, 1).await;
        before = page.last().copied();
        pages.extend(page);
    }
    assert_eq!(pages, all);
    // A deleted message mentions nobody.
    let deleted = Deleted { target: seq(2), mentioned: vec![Some(user(2))] };
    appended_knowing(&store, delete(heads[1], 2, 1), &[deleted]).await;
    assert_eq!(found(Some(all[1]), 99).await, all[3..]);
    assert_eq!(store.mentions_of(user(1), None, 9).await, Ok(vec![]));
}

pub(super) async fn an_overview_says_when_the_last_message_was_sent(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.create_channel(&plain(1)).await.unwrap();
    store.put_memberships(&[membership(2, 1, &Spans::since(seq(1)))]).await.unwrap();
    let last = async || store.overview_of(user(2), channel(1)).await.unwrap().unwrap().last_message_at;
    let created = notice(Head::default(), Content::Created { by: user(2) });
    let head = appended(&store, append(log(1), Head::default(), vec![created])).await;
    assert_eq!(last().await, None);
    let said = message(head, key(user(2), 1), "hi");
    let sent_at = said.entry.at;
    let renamed = notice(Head::after(&said), Content::Renamed { name: "Tea".into(), by: user(2) });
    let head = appended(&store, append(log(1), head, vec![said, renamed])).await;
    assert_eq!(last().await, Some(sent_at));
    appended(&store, edit(head, 2, 1, "edited")).await;
    assert_eq!(last().await, Some(sent_at), "an entry that is not a message does not change it");
}
