//! Several concurrent writers of one log, and unknown outcomes.

use std::sync::Arc;

use madang_ids::Seq;
use tokio::task::JoinSet;

use super::build::*;
use super::{Subject, done};
use crate::Store;
use crate::error::StoreError;
use crate::log::{Append, AppendOutcome, Head, Row, RowKey, SendRecord};

pub(super) async fn one_head_has_one_winner(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut head = Head::default();
    for round in 0..10 {
        let mut writers = JoinSet::new();
        for writer in 1..=8 {
            let store = Arc::clone(&store);
            let append = say_many(log(1), head, user(writer), round * 10, 1 + writer % 3);
            writers.spawn(async move {
                match done(|| store.append(append.clone())).await {
                    // An attempt whose outcome was unknown had won.
                    AppendOutcome::SentBefore(_) => (append.head(), AppendOutcome::Appended),
                    outcome => (append.head(), outcome),
                }
            });
        }
        let outcomes = writers.join_all().await;
        let winners: Vec<Head> = outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == AppendOutcome::Appended)
            .map(|(head, _)| *head)
            .collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        head = winners[0];
        let lost = |outcome: &AppendOutcome| *outcome == AppendOutcome::Moved;
        assert_eq!(outcomes.iter().filter(|(_, outcome)| lost(outcome)).count(), 7, "{outcomes:?}");
        assert_eq!(store.tail(log(1), 1).await.unwrap().head, head);
    }
}

/// Appends a message as a home does: after an uncertain outcome it reads the log before anything else.
async fn send(store: &Arc<dyn Store>, key: RowKey) -> Seq {
    for _ in 0..10_000 {
        let tail = done(|| store.tail(log(1), 256)).await;
        if let Some(row) = tail.rows.iter().find(|row| row.key == Some(key)) {
            return row.entry.seq;
        }
        let append = say(log(1), tail.head, key);
        let seq = append.head().seq;
        match store.append(append).await {
            Ok(AppendOutcome::Appended) => return seq,
            Ok(_) | Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => {}
            Err(error @ StoreError::Corrupt(_)) => panic!("{error}"),
        }
    }
    panic!("ten thousand attempts failed");
}

pub(super) async fn many_writers_leave_one_dense_log(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut writers = JoinSet::new();
    for writer in 1..=6 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut acked = Vec::new();
            for number in 1..=15 {
                let key = key(user(writer), number);
                acked.push((key, send(&store, key).await));
            }
            acked
        });
    }
    let acked: Vec<(RowKey, Seq)> = writers.join_all().await.into_iter().flatten().collect();
    let tail = done(|| store.tail(log(1), 256)).await;
    assert_eq!(seqs(&tail.rows), (1..=90).collect::<Vec<_>>());
    assert_eq!(tail.head, Head::after(&tail.rows[89]));
    assert!(tail.rows.iter().zip(1..).all(|(row, place)| row.ordinal == ordinal(place)));
    for (key, seq) in acked {
        let row = &tail.rows[seq.get() as usize - 1];
        assert_eq!(row.key, Some(key), "at {seq}");
    }
}

/// An append of unknown outcome may take effect until another append of the log has succeeded, and never afterwards.
pub(super) async fn an_append_prevents_those_of_unknown_outcome_before_it(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let (mut prevented, mut missing, mut head) = (Vec::new(), Vec::new(), Head::default());
    for number in 1..=150 {
        let key = key(user(1), number);
        let outcome = store.append(say(log(1), head, key)).await;
        let tail = done(|| store.tail(log(1), 256)).await;
        let is_shown = |key: &RowKey| tail.rows.iter().any(|row| row.key.as_ref() == Some(key));
        match outcome {
            Ok(AppendOutcome::Appended) => {
                assert!(is_shown(&key), "{number} was acked");
                missing.retain(|key| !is_shown(key));
                prevented.append(&mut missing);
            }
            Ok(_) | Err(StoreError::Unavailable(_)) => assert!(!is_shown(&key), "{number} was refused"),
            Err(_) => {}
        }
        if !is_shown(&key) {
            missing.push(key);
        }
        head = tail.head;
    }
    let rows = done(|| store.rows(log(1), seq(1)..=seq(999), usize::MAX)).await;
    assert_eq!(seqs(&rows), (1..=rows.len() as u64).collect::<Vec<_>>());
    let is_there = |key: &RowKey| rows.iter().any(|row| row.key.as_ref() == Some(key));
    assert!(!prevented.iter().any(is_there), "an append took effect after a later one");
}

pub(super) async fn rows_of_one_append_appear_together(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut tasks = JoinSet::new();
    let writing = Arc::clone(&store);
    tasks.spawn(async move {
        let mut head = Head::default();
        for round in 0..40 {
            let append = say_many(log(1), head, user(1), round * 10, 7);
            head = append.head();
            let outcome = done(|| writing.append(append.clone())).await;
            assert!(matches!(outcome, AppendOutcome::Appended | AppendOutcome::SentBefore(_)), "{outcome:?}");
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..2 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut last = 0;
            while last < 40 * 7 {
                let tail = done(|| store.tail(log(1), 10)).await;
                assert!(tail.head.seq.get() >= last && tail.head.seq.get().is_multiple_of(7));
                assert_eq!(tail.rows.last().map(Head::after).unwrap_or_default(), tail.head);
                last = tail.head.seq.get();
                let rows = done(|| store.rows(log(1), seq(1)..=seq(999), usize::MAX)).await;
                assert!(rows.len().is_multiple_of(7) && rows.len() as u64 >= last);
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() {
            tasks.abort_all();
            panic!("a reader or the writer failed");
        }
    }
}

/// Like [`send`], with a window of four rows: the append itself looks up keys of older rows.
async fn send_with_small_window(store: &Arc<dyn Store>, key: RowKey) -> Seq {
    for _ in 0..10_000 {
        let tail = done(|| store.tail(log(1), 4)).await;
        if let Some(row) = tail.rows.iter().find(|row| row.key == Some(key)) {
            return row.entry.seq;
        }
        let records = tail.rows.iter().filter_map(record_of).collect();
        let append = Append { records, looks_up_keys: true, ..say(log(1), tail.head, key) };
        let seq = append.head().seq;
        match store.append(append).await {
            Ok(AppendOutcome::Appended) => return seq,
            Ok(AppendOutcome::SentBefore(sent)) => return sent[0].seq,
            Ok(_) | Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => {}
            Err(error @ StoreError::Corrupt(_)) => panic!("{error}"),
        }
    }
    panic!("ten thousand attempts failed");
}

fn record_of(row: &Row) -> Option<SendRecord> {
    let (key, message) = (row.key?, row.entry.content.message()?);
    Some(SendRecord { key, seq: row.entry.seq, message_id: message.message_id, at: row.entry.at })
}

pub(super) async fn a_key_has_one_row_beyond_every_window(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut writers = JoinSet::new();
    // Each message has two writers, which may run concurrently.
    for writer in 0..4 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut acked = Vec::new();
            for number in 1..=15 {
                let key = key(user(writer % 2 + 1), number);
                acked.push((key, send_with_small_window(&store, key).await));
            }
            acked
        });
    }
    let acked: Vec<(RowKey, Seq)> = writers.join_all().await.into_iter().flatten().collect();
    let rows = done(|| store.rows(log(1), seq(1)..=seq(999), usize::MAX)).await;
    assert_eq!(seqs(&rows), (1..=30).collect::<Vec<_>>());
    for (key, seq) in acked {
        assert_eq!(rows[seq.get() as usize - 1].key, Some(key), "at {seq}");
        assert_eq!(send_with_small_window(&store, key).await, seq);
    }
}
