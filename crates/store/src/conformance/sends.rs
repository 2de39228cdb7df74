//! Sends older than the window: recorded with an append, found by their keys, forgotten after a time.

use std::sync::Arc;

use super::Subject;
use super::build::*;
use super::logs::appended;
use crate::Store;
use crate::log::{Append, AppendOutcome, BodyHash, Head, Row, RowKey, SendRecord};

/// The record of a message.
pub(super) fn record_of(row: &Row) -> Option<SendRecord> {
    let message = row.entry.content.message()?;
    Some(SendRecord { key: row.key?, seq: row.entry.seq, message_id: message.message_id, at: row.entry.at })
}

/// Appends a message for each key, then records them with one more append, and again with one that has no effect.
pub(super) async fn record_sends(
    store: &Arc<dyn Store>,
    head: Head,
    keys: &[RowKey],
) -> (Head, Vec<SendRecord>) {
    let said = Append { looks_up_keys: false, ..look_up(head, keys) };
    let records: Vec<SendRecord> = said.rows.iter().filter_map(record_of).collect();
    let head = appended(store, said).await;
    let append =
        || Append { records: records.clone(), ..say(log(1), head, key(user(9), 1_000 + head.seq.get())) };
    let after = appended(store, append()).await;
    // A store that looks every key up finds the message instead of the head.
    let again = store.append(append()).await.unwrap();
    assert!(matches!(again, AppendOutcome::Moved | AppendOutcome::SentBefore(_)), "{again:?}");
    (after, records)
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
    let (head, known) = record_sends(&store, Head::default(), &[key(user(1), 1), key(user(2), 4)]).await;
    let other_body = RowKey { body_hash: BodyHash([99; 16]), ..known[1].key };
    let (fresh, foreign) = (key(user(1), 50), key(user(2), 1));
    // The answer is correct even if the head has moved.
    for expected in [head, Head::default()] {
        let outcome = store.append(look_up(expected, &[fresh, known[0].key, foreign, other_body])).await;
        assert_eq!(outcome, Ok(AppendOutcome::SentBefore(known.clone())));
        assert_eq!(store.tail(log(1), 9).await.unwrap().head, head);
    }
    let unrecorded = say(log(1), head, key(user(3), 7));
    let recorded_with_it = record_of(&unrecorded.rows[0]).unwrap();
    let head = appended(&store, unrecorded).await;
    let append = Append { records: vec![recorded_with_it], ..look_up(head, &[recorded_with_it.key]) };
    assert_eq!(store.append(append).await, Ok(AppendOutcome::SentBefore(vec![recorded_with_it])));
    appended(&store, look_up(head, &[fresh, foreign])).await;
    appended(&store, Append { log: log(2), ..look_up(Head::default(), &[known[0].key]) }).await;
}

pub(super) async fn sends_are_found_by_their_key(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let keys = [key(user(1), 1), key(user(1), 2), key(user(2), 3)];
    let (_, records) = record_sends(&store, Head::default(), &keys).await;
    let id = |number| key(user(1), number).client_msg_id;
    let asked = [(user(2), id(3)), (user(1), id(1)), (user(2), id(1)), (user(1), id(9)), (user(1), id(2))];
    let found = store.find_sends(channel(1), &asked).await.unwrap();
    assert_eq!(found, [Some(records[2]), Some(records[0]), None, None, Some(records[1])]);
    assert_eq!(store.find_sends(channel(2), &asked[..1]).await.unwrap(), [None]);
}
