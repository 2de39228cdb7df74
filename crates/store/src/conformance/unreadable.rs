//! Rows that the store cannot read any more. Each affects only itself.

use std::sync::Arc;

use madang_ids::{LogId, Millis};
use madang_proto::{Body, Content, DeletionMark, Message, Unreadable};

use super::Subject;
use super::build::*;
use crate::Store;
use crate::log::{AppendOutcome, Head, Row, RowChange};

/// A log with three messages, of which the second cannot be read.
async fn spoiled(subject: &Arc<dyn Subject>, log: LogId) -> (Arc<dyn Store>, Head) {
    let store = subject.open().await;
    let append = say_many(log, Head::default(), user(1), 1, 3);
    let head = append.head();
    assert_eq!(store.append(append).await.unwrap(), AppendOutcome::Appended);
    drop(store);
    subject.spoil(log, seq(2)).await;
    (subject.open().await, head)
}

fn lost(rows: &[Row]) -> Vec<(u64, Option<Unreadable>)> {
    let lost = |row: &Row| match &row.entry.content {
        Content::Unreadable(unreadable) => Some(*unreadable),
        _ => None,
    };
    rows.iter().map(|row| (row.entry.seq.get(), lost(row))).collect()
}

pub(super) async fn a_row_that_cannot_be_read_keeps_its_place(subject: Arc<dyn Subject>) {
    for log in [log(1), own_log(1)] {
        let (store, head) = spoiled(&subject, log).await;
        let placeholder = Unreadable { sender_id: Some(user(1)), ordinal: Some(ordinal(2)), version: 1 };
        let all = [(1, None), (2, Some(placeholder)), (3, None)];
        let range = || seq(1)..=seq(3);
        assert_eq!(lost(&store.rows(log, range(), usize::MAX).await.unwrap()), all);
        assert_eq!(lost(&store.tail(log, 2).await.unwrap().rows), all[1..]);
        let mut back = store.rows_back(log, range(), usize::MAX).await.unwrap();
        back.reverse();
        assert_eq!(lost(&back), all);
        let lists = store.rows_of(&[(log, range())], usize::MAX).await.unwrap();
        assert_eq!(lost(&lists[0]), all);
        let single: Vec<Row> =
            store.rows_at(log, &[seq(2), seq(3)], usize::MAX).await.unwrap().into_iter().flatten().collect();
        assert_eq!(lost(&single), all[1..]);
        assert_eq!(single[0].key, Some(key(user(1), 2)), "a retry is found");
        assert_eq!(store.seq_at(log, at(20)).await, Ok(seq(2)));
        assert_eq!(store.heads(&[log]).await.unwrap(), [head]);
        let more = say_many(log, head, user(1), 4, 1);
        assert_eq!(store.append(more).await.unwrap(), AppendOutcome::Appended);
    }
}

pub(super) async fn a_message_that_cannot_be_read_can_be_deleted(subject: Arc<dyn Subject>) {
    let (store, head) = spoiled(&subject, log(1)).await;
    let row = store.rows_at(log(1), &[seq(2)], usize::MAX).await.unwrap().remove(0).unwrap();
    let message = row.lost_message().unwrap();
    assert_eq!((message.ordinal, message.sender_id, message.version), (ordinal(2), user(1), 1));
    let deleted = Some(DeletionMark { at: Millis::new(99), by: user(1) });
    let message = Message { body: Body::default(), deleted, version: 2, ..message };
    let content = Content::Message(Box::new(message));
    let change = RowChange { target: seq(2), if_version: 1, content };
    let mut append = append(log(1), head, vec![notice(head, Content::Created { by: user(1) })]);
    append.changes.push(change);
    assert_eq!(store.append(append).await.unwrap(), AppendOutcome::Appended);
    let rows = store.rows(log(1), seq(1)..=seq(9), usize::MAX).await.unwrap();
    assert!(lost(&rows).iter().all(|(_, lost)| lost.is_none()));
    assert!(rows[1].entry.content.message().is_some_and(|message| message.deleted.is_some()));
}
