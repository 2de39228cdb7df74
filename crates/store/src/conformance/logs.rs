//! A log with a single writer.

use std::sync::Arc;

use madang_ids::{LogId, Seq};
use madang_proto::{Change, Content, DeletionMark};

use super::Subject;
use super::build::*;
use super::channels::{membership, plain};
use super::sends::record_sends;
use crate::channels::{Channel, Membership};
use crate::log::{
    Append, AppendOutcome, Consequences, Deleted, Head, Marker, ReactionChange, Row, RowChange,
};
use crate::{Spans, Store};

/// Appends, and applies the consequences, as a home does.
pub(super) async fn appended(store: &Arc<dyn Store>, append: Append) -> Head {
    appended_knowing(store, append, &[]).await
}

/// Like [`appended`]; `deleted` describes the messages that the append deletes.
pub(super) async fn appended_knowing(store: &Arc<dyn Store>, append: Append, deleted: &[Deleted]) -> Head {
    let (head, log) = (append.head(), append.log);
    let consequences = Consequences::of(&append.rows).knowing(deleted);
    assert_eq!(store.append(append).await, Ok(AppendOutcome::Appended));
    if let LogId::Channel(channel) = log {
        store.apply_consequences(channel, &consequences).await.unwrap();
        // A home that starts on the log repeats it.
        store.apply_consequences(channel, &consequences).await.unwrap();
    }
    head
}

pub(super) async fn an_empty_log_has_no_rows(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let tail = store.tail(log(1), 10).await.unwrap();
    assert_eq!((tail.head, tail.rows.len()), (Head::default(), 0));
    assert!(store.rows(log(1), seq(1)..=seq(9), 1_000).await.unwrap().is_empty());
    assert!(store.rows_back(log(1), seq(1)..=seq(9), 1_000).await.unwrap().is_empty());
    assert_eq!(store.seq_at(log(1), at(5)).await.unwrap(), seq(1));
}

pub(super) async fn rows_come_back_as_they_were_written(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let first = say_many(log(1), Head::default(), user(1), 1, 3);
    let head = appended(&store, first.clone()).await;
    let created = notice(head, Content::Created { by: user(9) });
    let odd = message(Head::after(&created), key(user(2), 4), "a \u{0} \"quote\" \\ \u{1F600} \u{e9}\n");
    let second = append(log(1), head, vec![created, odd]);
    let head = appended(&store, second.clone()).await;
    assert_eq!(head.ordinal, ordinal(4));
    let all = [&first.rows[..], &second.rows[..]].concat();
    assert_same(&store.rows(log(1), seq(1)..=seq(5), usize::MAX).await.unwrap(), &all);
    let tail = store.tail(log(1), 2).await.unwrap();
    assert_eq!(tail.head, head);
    let keys: Vec<Row> = all.iter().cloned().map(Row::without_body).collect();
    assert_same(&tail.rows, &keys[3..]);
    assert_same(&store.tail(log(1), 100).await.unwrap().rows, &keys);
    let mut back = store.rows_back(log(1), seq(1)..=seq(5), usize::MAX).await.unwrap();
    back.reverse();
    assert_same(&back, &all);
}

pub(super) async fn an_append_compares_the_whole_head(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let head = appended(&store, say(log(1), Head::default(), key(user(1), 1))).await;
    let others = [
        Head::default(),
        Head { seq: seq(2), ..head },
        Head { ordinal: ordinal(0), ..head },
        Head { at: at(9), ..head },
    ];
    for expected in others {
        let outcome = store.append(say(log(1), expected, key(user(1), 2))).await.unwrap();
        assert_eq!(outcome, AppendOutcome::Moved, "expected {expected:?}");
        assert_eq!(store.tail(log(1), 9).await.unwrap().rows.len(), 1);
    }
    appended(&store, say(log(1), head, key(user(1), 2))).await;
    let ahead = Head { seq: seq(3), ordinal: ordinal(3), at: at(30) };
    let outcome = store.append(say(log(2), ahead, key(user(1), 1))).await.unwrap();
    assert_eq!(outcome, AppendOutcome::Moved);
}

pub(super) async fn a_writer_that_paused_is_refused(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let seen = appended(&store, say(log(1), Head::default(), key(user(1), 1))).await;
    let paused = say_many(log(1), seen, user(1), 10, 3);
    let mut head = seen;
    for number in 2..7 {
        head = appended(&store, say(log(1), head, key(user(2), number))).await;
    }
    assert_eq!(store.append(paused).await, Ok(AppendOutcome::Moved));
    let rows = store.rows(log(1), seq(1)..=seq(99), usize::MAX).await.unwrap();
    assert_eq!(seqs(&rows), [1, 2, 3, 4, 5, 6]);
    assert!(rows[1..].iter().all(|row| row.key.is_some_and(|key| key.sender == user(2))));
}

pub(super) async fn a_log_goes_on_beyond_every_bucket(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let (mut head, mut number) = (Head::default(), 1);
    // No append ends at 4,096, where a bucket of a cluster ends.
    for _ in 0..40 {
        head = appended(&store, say_many(log(1), head, user(1), number, 250)).await;
        number += 250;
    }
    assert_eq!(head.seq, seq(10_000));
    let all = async |first: u64, last: u64| {
        let rows = store.rows(log(1), seq(first)..=seq(last), usize::MAX).await.unwrap();
        let mut back = store.rows_back(log(1), seq(first)..=seq(last), usize::MAX).await.unwrap();
        back.reverse();
        assert_eq!(seqs(&rows), seqs(&back), "{first} to {last}");
        seqs(&rows)
    };
    for (first, last) in [(4_090, 4_100), (1, 300), (8_190, 8_194), (9_990, 20_000)] {
        assert_eq!(all(first, last).await, (first..=last.min(10_000)).collect::<Vec<_>>());
    }
    let tail = store.tail(log(1), 256).await.unwrap();
    assert_eq!((tail.head, seqs(&tail.rows)), (head, (9_745..=10_000).collect()));
    assert_eq!(store.heads(&[log(1)]).await, Ok(vec![head]));
    let single = store.rows_at(log(1), &[seq(4_096), seq(4_097), seq(10_001)], usize::MAX).await.unwrap();
    assert_eq!(single.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
    for place in [1, 4_096, 4_097, 9_999] {
        assert_eq!(store.seq_at(log(1), at(place * 10)).await, Ok(seq(place)));
    }
    let stale = say(log(1), Head { seq: seq(9_999), ..head }, key(user(1), 20_000));
    assert_eq!(store.append(stale).await, Ok(AppendOutcome::Moved));
}

pub(super) fn edit(head: Head, target: u64, if_version: u32, text: &str) -> Append {
    let mut row = message(Head { seq: seq(target - 1), ..Head::default() }, key(user(1), target), text);
    let Content::Message(message) = &mut row.entry.content else { return say(log(1), head, key(user(1), 0)) };
    message.version = if_version + 1;
    let change = RowChange { target: seq(target), if_version, content: row.entry.content };
    let edited = Change { target: seq(target), version: if_version + 1, by: user(1), message: None };
    let mut append = append(log(1), head, vec![notice(head, Content::Edited(edited))]);
    append.changes.push(change);
    append
}

fn text_of(row: &crate::Row) -> (&str, u32) {
    row.entry.content.message().map_or(("", 0), |message| (&message.body.text, message.version))
}

pub(super) async fn changes_compare_the_version(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let head = appended(&store, say_many(log(1), Head::default(), user(1), 1, 3)).await;
    let head = appended(&store, edit(head, 2, 1, "second")).await;
    let stale = store.append(edit(head, 2, 1, "lost")).await.unwrap();
    assert_eq!(stale, AppendOutcome::Stale);
    let ahead = store.append(edit(head, 2, 7, "lost")).await.unwrap();
    assert_eq!(ahead, AppendOutcome::Stale);
    let nowhere = store.append(edit(head, 99, 1, "lost")).await.unwrap();
    assert_eq!(nowhere, AppendOutcome::Stale);
    assert_eq!(store.tail(log(1), 1).await.unwrap().head, head);
    appended(&store, edit(head, 2, 2, "third")).await;
    let rows = store.rows(log(1), seq(1)..=seq(9), usize::MAX).await.unwrap();
    assert_eq!(seqs(&rows), [1, 2, 3, 4, 5]);
    assert_eq!([text_of(&rows[0]), text_of(&rows[1])], [("line 1", 1), ("third", 3)]);
}

pub(super) async fn a_change_is_kept_without_its_message(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let head = appended(&store, say(log(1), Head::default(), key(user(1), 1))).await;
    let mut append = edit(head, 1, 1, "second");
    let mut rows = append.rows.to_vec();
    rows[0].entry.content.carry(append.changes[0].content.message());
    append.rows = rows.into();
    appended(&store, append).await;
    let rows = store.rows_at(log(1), &[seq(2), seq(9), seq(1)], usize::MAX).await.unwrap();
    assert_eq!(rows.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    let change = rows[0].as_ref().and_then(|row| row.entry.content.change()).unwrap();
    assert!(change.target == seq(1) && change.version == 2);
    assert!(rows[0].as_ref().is_some_and(|row| !row.entry.content.is_carrying()));
    assert_eq!(rows[2].as_ref().map(text_of), Some(("second", 2)));
}

pub(super) async fn single_rows_are_read_up_to_a_bound(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    appended(&store, say_many(log(1), Head::default(), user(1), 1, 9)).await;
    let asked: Vec<Seq> = [7, 99, 3, 1, 9].map(seq).to_vec();
    let all = store.rows_at(log(1), &asked, usize::MAX).await.unwrap();
    let places = |rows: &[Option<Row>]| -> Vec<u64> {
        rows.iter().map(|row| row.as_ref().map_or(0, |row| row.entry.seq.get())).collect()
    };
    assert_eq!(places(&all), [7, 0, 3, 1, 9]);
    for max_bytes in [0, 1, 300, 700, 100_000] {
        let some = store.rows_at(log(1), &asked, max_bytes).await.unwrap();
        assert!(!some.is_empty(), "{max_bytes} bytes");
        assert_eq!(places(&some), places(&all)[..some.len()], "{max_bytes} bytes");
    }
    assert_eq!(
        store.rows_at(log(1), &asked, 1).await.unwrap().len(),
        2,
        "one row, and the place without a row"
    );
}

pub(super) async fn reactions_are_a_set(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let change = |id, emoji: &str, on| {
        let at_us = if on { 1 } else { 2 };
        ReactionChange { user_id: user(id), emoji: emoji.to_owned(), on, at_us }
    };
    let changes =
        [change(3, "tea", true), change(1, "tea", true), change(2, "tea", true), change(1, "+1", true)];
    for _ in 0..2 {
        let all = store.react(channel(1), seq(4), &changes, 2).await.unwrap();
        let told: Vec<_> = all.iter().map(|one| (one.emoji.as_str(), one.count, &one.users[..])).collect();
        assert_eq!(told, [("+1", 1, &[user(1)][..]), ("tea", 3, &[user(1), user(2)])]);
    }
    let back = [change(1, "+1", false), change(2, "tea", false), change(9, "tea", false)];
    let all = store.react(channel(1), seq(4), &back, 2).await.unwrap();
    assert_eq!(all.iter().map(|one| (one.emoji.as_str(), one.count)).collect::<Vec<_>>(), [("tea", 2)]);
    let reactors = async |after| store.reactors(channel(1), seq(4), "tea", after, 1).await.unwrap();
    assert_eq!((reactors(None).await, reactors(Some(user(1))).await), (vec![user(1)], vec![user(3)]));
    assert_eq!(store.react(channel(1), seq(5), &[], 2).await.unwrap(), []);
    store.react(channel(1), seq(7), &[change(3, "+1", true), change(5, "+1", true)], 2).await.unwrap();
    let mut own = Vec::new();
    let mut after = None;
    for _ in 0..5 {
        let page = store.reactions_by(channel(1), user(3), after, 1).await.unwrap();
        own.extend(page.found);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(own, [(seq(4), "tea".to_owned()), (seq(7), "+1".to_owned())]);
    assert_eq!(store.reactions_by(channel(1), user(3), None, 9).await.unwrap().found, own);
    assert_eq!(
        store.reactions_by(channel(2), user(3), None, 9).await,
        Ok(crate::log::OwnReactions::default())
    );
    assert_eq!(store.reactors(channel(2), seq(4), "tea", None, 9).await.unwrap(), []);
}

pub(super) async fn mentions_and_reactions_end_with_their_message(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.create_channel(&plain(1)).await.unwrap();
    store.put_memberships(&[membership(2, 1, &Spans::since(seq(1)))]).await.unwrap();
    let mut head = Head::default();
    for number in 1..=2 {
        let mut row = message(head, key(user(1), number), "hi");
        let Content::Message(said) = &mut row.entry.content else { return };
        (said.body.mentions, said.body.mentions_everyone) = (vec![user(2)], true);
        head = appended(&store, append(log(1), head, vec![row])).await;
        let change = ReactionChange { user_id: user(3), emoji: "tea".to_owned(), on: true, at_us: 1 };
        store.react(channel(1), seq(number), &[change], 9).await.unwrap();
    }
    let left = async || {
        let reactions = [1, 2].map(|place| store.reactors(channel(1), seq(place), "tea", None, 9));
        let [one, two] = reactions;
        let mentions = store.overview_of(user(2), channel(1)).await.unwrap().unwrap().mentions;
        (one.await.unwrap().len(), two.await.unwrap().len(), mentions)
    };
    head = appended(&store, edit(head, 1, 1, "edited")).await;
    assert_eq!(left().await, (1, 1, 2));
    let deleted = Deleted { target: seq(1), mentioned: vec![Some(user(2)), None] };
    appended_knowing(&store, delete(head, 1, 2), &[deleted]).await;
    assert_eq!(left().await, (0, 1, 1));
}

/// An append that deletes a message.
pub(super) fn delete(head: Head, target: u64, if_version: u32) -> Append {
    let mut delete = edit(head, target, if_version, "");
    let Content::Message(message) = &mut delete.changes[0].content else { return delete };
    message.deleted = Some(DeletionMark { at: at(50), by: user(1) });
    let change = Change { target: seq(target), version: if_version + 1, by: user(1), message: None };
    delete.rows = vec![notice(head, Content::Deleted(change))].into();
    delete
}

pub(super) async fn a_change_keeps_the_first_hash(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let head = appended(&store, say(log(1), Head::default(), key(user(1), 1))).await;
    appended(&store, edit(head, 1, 1, "other")).await;
    let rows = store.rows(log(1), seq(1)..=seq(1), usize::MAX).await.unwrap();
    assert_eq!(rows[0].key, Some(key(user(1), 1)));
    assert_eq!((rows[0].ordinal, rows[0].entry.at), (ordinal(1), at(10)));
}

pub(super) async fn reads_end_after_their_bytes(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let (mut head, text) = (Head::default(), "\u{20ac}".repeat(100_000));
    for number in 1..=4 {
        head = appended(&store, append(log(1), head, vec![message(head, key(user(1), number), &text)])).await;
    }
    for (max_bytes, most) in [(0, 1), (1, 1), (350_000, 2), (650_000, 3), (usize::MAX, 4)] {
        let rows = store.rows(log(1), seq(1)..=seq(4), max_bytes).await.unwrap();
        assert!((1..=most).contains(&rows.len()), "{} rows for {max_bytes} bytes", rows.len());
        assert_eq!(seqs(&rows), (1..=rows.len() as u64).collect::<Vec<_>>());
        assert_eq!(text_of(&rows[0]).0, text);
        let back = store.rows_back(log(1), seq(1)..=seq(4), max_bytes).await.unwrap();
        assert!((1..=most).contains(&back.len()), "{} rows back for {max_bytes} bytes", back.len());
        assert_eq!(seqs(&back), (1..=4).rev().take(back.len()).collect::<Vec<_>>());
    }
    assert_eq!(store.rows(log(1), seq(1)..=seq(4), usize::MAX).await.unwrap().len(), 4);
    assert_eq!(store.tail(log(1), 3).await.unwrap().rows.len(), 3);
}

pub(super) async fn reads_keep_to_their_range(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    appended(&store, say_many(log(1), Head::default(), user(1), 1, 20)).await;
    let ranges = [(1, 20), (3, 3), (5, 9), (19, u64::MAX), (0, 2), (21, 30), (9, 5)];
    for (from, to) in ranges {
        let expected: Vec<u64> = (1..=20).filter(|place| (from..=to).contains(place)).collect();
        let rows = store.rows(log(1), seq(from)..=seq(to), usize::MAX).await.unwrap();
        assert_eq!(seqs(&rows), expected);
        let back = store.rows_back(log(1), seq(from)..=seq(to), usize::MAX).await.unwrap();
        assert_eq!(seqs(&back), expected.into_iter().rev().collect::<Vec<_>>());
    }
}

pub(super) async fn ranges_of_several_logs_are_read_at_once(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for number in 1..=3 {
        appended(&store, say_many(log(number), Head::default(), user(1), number * 100, 20)).await;
    }
    let ranges = [
        (log(2), seq(5)..=seq(9)),
        (log(1), seq(1)..=seq(1)),
        (log(2), seq(12)..=seq(20)),
        (log(3), seq(2)..=seq(4)),
    ];
    let whole = store.rows_of(&ranges, usize::MAX).await.unwrap();
    let places: Vec<Vec<u64>> = whole.iter().map(|rows| seqs(rows)).collect();
    assert_eq!(places, [vec![5, 6, 7, 8, 9], vec![1], (12..=20).collect(), vec![2, 3, 4]]);
    // For any limit in bytes the result is a prefix of the whole, with at least one row, and no list follows an
    // incomplete one.
    for max_bytes in (0..6_000).step_by(150) {
        let lists = store.rows_of(&ranges, max_bytes).await.unwrap();
        assert!(lists.first().is_some_and(|rows| !rows.is_empty()), "nothing for {max_bytes} bytes");
        for (index, (rows, all)) in lists.iter().zip(&places).enumerate() {
            assert_eq!(seqs(rows), all[..rows.len()]);
            assert!(rows.len() == all.len() || index + 1 == lists.len(), "a gap for {max_bytes} bytes");
        }
    }
}

pub(super) async fn a_time_finds_its_row(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut head = Head::default();
    for first in [1, 4, 7] {
        // The rows of one append have the same time.
        let mut batch = say_many(log(1), head, user(1), first, 3).rows.to_vec();
        batch.iter_mut().for_each(|row| row.entry.at = head.at.plus(10));
        head = appended(&store, append(log(1), head, batch)).await;
    }
    for (time, expected) in
        [(0, 1), (10, 1), (11, 4), (20, 4), (21, 7), (30, 7), (31, 10), (u64::MAX / 4, 10)]
    {
        assert_eq!(store.seq_at(log(1), at(time)).await.unwrap(), seq(expected), "at {time}");
    }
}

pub(super) async fn heads_come_in_the_order_asked(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let one = appended(&store, say_many(log(1), Head::default(), user(1), 1, 1)).await;
    let two = appended(&store, say_many(log(2), Head::default(), user(1), 1, 2)).await;
    let heads = store.heads(&[log(2), log(3), log(1), log(2)]).await.unwrap();
    assert_eq!(heads, [two, Head::default(), one, two]);
    assert!(store.heads(&[]).await.unwrap().is_empty());
}

pub(super) async fn logs_of_channels_and_users_are_apart(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let head = appended(&store, say_many(log(5), Head::default(), user(5), 1, 3)).await;
    let read = notice(Head::default(), Content::Blocked { user_id: user(9) });
    let own = appended(&store, append(own_log(5), Head::default(), vec![read])).await;
    assert_eq!(store.heads(&[LogId::User(user(5)), log(5)]).await.unwrap(), [own, head]);
    let rows = store.rows(own_log(5), seq(1)..=seq(9), usize::MAX).await.unwrap();
    assert!(matches!(rows[..], [crate::Row { key: None, .. }]));
}

pub(super) async fn consequences_move_the_markers_of_senders(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let card = super::channels::card(1);
    let one = Channel::new(card, user(1), at(1), 9);
    store.create_channel(&one).await.unwrap();
    let memberships: Vec<Membership> =
        (1..=3).map(|id| super::channels::membership(id, 1, &Spans::since(seq(1)))).collect();
    store.put_memberships(&memberships).await.unwrap();
    let head = appended(&store, say_many(log(1), Head::default(), user(1), 1, 3)).await;
    let mut rows = say_many(log(1), head, user(2), 4, 1).rows.to_vec();
    rows.extend(say_many(log(1), Head::after(&rows[0]), user(1), 5, 1).rows.to_vec());
    let left = Content::Left { user_id: user(3), by: user(3) };
    rows.push(notice(Head::after(&rows[1]), left));
    appended(&store, append(log(1), head, rows)).await;
    // A home that was paused repeats old consequences.
    let old = say_many(log(1), Head::default(), user(1), 1, 3);
    store.apply_consequences(channel(1), &Consequences::of(&old.rows)).await.unwrap();
    for (id, marked) in [(1, 5), (2, 4), (3, 0)] {
        let marker = store.overview_of(user(id), channel(1)).await.unwrap().map(|overview| overview.marker);
        assert_eq!(marker, Some(Marker { seq: seq(marked), ordinal: ordinal(marked) }), "user {id}");
    }
}

pub(super) async fn acked_data_survives_reopening(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let (mut head, mut rows) = (Head::default(), Vec::new());
    for number in 1..=20 {
        let batch = say_many(log(1), head, user(1), number * 10, 3);
        rows.extend(batch.rows.to_vec());
        head = appended(&store, batch).await;
    }
    let head = appended(&store, edit(head, 2, 1, "changed")).await;
    let (head, records) = record_sends(&store, head, &[key(user(1), 1)]).await;
    drop(store);
    let store = subject.open().await;
    let tail = store.tail(log(1), 100).await.unwrap();
    assert_eq!((tail.head, tail.rows.len()), (head, 63));
    assert_eq!(text_of(&tail.rows[1]), ("", 2), "a tail contains no text");
    let all = store.rows(log(1), seq(1)..=seq(99), usize::MAX).await.unwrap();
    assert_eq!(text_of(&all[1]), ("changed", 2));
    assert_same(&all[2..60], &rows[2..]);
    let keys = [(user(1), key(user(1), 1).client_msg_id)];
    assert_eq!(store.find_sends(channel(1), &keys).await.unwrap(), [Some(records[0])]);
    appended(&store, say(log(1), head, key(user(1), 999))).await;
}
