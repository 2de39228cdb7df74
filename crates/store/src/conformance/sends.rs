//! Sends older than the window: recorded with an append, found by their keys, forgotten after a time.

use std::sync::Arc;

use super::Subject;
use super::build::*;
use super::logs::appended;
use crate::Store;
use crate::log::{Append, AppendOutcome, BodyHash, Head, RowKey, SendRecord};

pub(super) fn record(sender: u64, number: u64) -> SendRecord {
    let (seq, message_id) = (seq(number), madang_ids::MessageId::from_raw(number + 500));
    SendRecord { key: key(user(sender), number), seq, message_id, at: at(number * 100) }
}

/// Records sends with one append, and again with one that has no effect.
pub(super) async fn record_sends(store: &Arc<dyn Store>, head: Head, records: &[SendRecord]) -> Head {
    let append = || Append { records: records.to_vec(), ..say(log(1), head, key(user(9), head.seq.get())) };
    let after = appended(store, append()).await;
    assert_eq!(store.append(append()).await, Ok(AppendOutcome::Moved));
    after
}

/// An append of one message for each key, which looks the keys up.
fn look_up(expected: Head, keys: &[RowKey]) -> Append {
    let rows = keys.iter().scan(expected, |head, key| {
        let row = message(*head, *key, "hello");
        *head = Head::after(&row);
        Some(row)
    });
    Append { looks_up_keys: true, ..append(log(1), expected, rows.collect()) }
}

pub(super) async fn an_append_whose_key_is_recorded_does_nothing(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let known = [record(1, 1), record(2, 4)];
    let head = record_sends(&store, Head::default(), &known).await;
    let other_body = RowKey { body_hash: BodyHash([99; 16]), ..known[1].key };
    let (fresh, foreign) = (key(user(1), 50), key(user(2), 1));
    // The answer is correct even if the head has moved.
    for expected in [head, Head::default()] {
        let outcome = store.append(look_up(expected, &[fresh, known[0].key, foreign, other_body])).await;
        assert_eq!(outcome, Ok(AppendOutcome::SentBefore(known.to_vec())));
        assert_eq!(store.tail(log(1), 9).await.unwrap().head, head);
    }
    let recorded_with_it = record(3, 7);
    let append = Append { records: vec![recorded_with_it], ..look_up(head, &[recorded_with_it.key]) };
    assert_eq!(store.append(append).await, Ok(AppendOutcome::SentBefore(vec![recorded_with_it])));
    appended(&store, look_up(head, &[fresh, foreign])).await;
    appended(&store, Append { log: log(2), ..look_up(Head::default(), &[known[0].key]) }).await;
}

pub(super) async fn sends_are_found_by_their_key(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let records = [record(1, 1), record(1, 2), record(2, 3)];
    record_sends(&store, Head::default(), &records).await;
    let id = |number| key(user(1), number).client_msg_id;
    let asked = [(user(2), id(3)), (user(1), id(1)), (user(2), id(1)), (user(1), id(9)), (user(1), id(2))];
    let found = store.find_sends(channel(1), &asked).await.unwrap();
    assert_eq!(found, [Some(records[2]), Some(records[0]), None, None, Some(records[1])]);
    assert_eq!(store.find_sends(channel(2), &asked[..1]).await.unwrap(), [None]);
}
