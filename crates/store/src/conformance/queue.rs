//! The queue of alerts, in any store.

use std::sync::Arc;

use madang_engine::alerts::{CallEnd, Fold, Folded, Outstanding, Taking};
use madang_ids::{Cursor, Epoch, Position};

use super::QueueSubject;
use super::build::*;
use super::devices::device_id;
use crate::alerts::{AlertQueue, OutstandingChange};

pub(super) fn message(owner: u64, place: u64, value: u64, due: u64) -> Fold {
    let cursor = Cursor { epoch: Epoch::from_raw(0), position: Position::new(value) };
    let what = Folded::Message { seq: seq(value), at: cursor, due_at: at(due), expires_at: at(9_000) };
    Fold { user: user(owner), channel: channel(place), what }
}

fn places(records: &[Outstanding]) -> Vec<(u64, u64)> {
    records.iter().map(|record| (record.user.raw(), record.channel.raw())).collect()
}

async fn change(queue: &Arc<dyn AlertQueue>, before: &Outstanding, after: &Outstanding) -> bool {
    queue.change_outstanding(&OutstandingChange::between(before, after)).await.unwrap()
}

pub(super) async fn what_is_due_is_leased_to_one_worker(subject: Arc<dyn QueueSubject>) {
    let queue = subject.open().await;
    let folds = [message(1, 1, 5, 100), message(2, 1, 5, 50), message(1, 1, 6, 300), message(3, 1, 5, 200)];
    queue.fold_alerts(&folds).await.unwrap();
    assert_eq!(queue.take_due(at(49), at(500), 9).await, Ok(vec![]));
    let due = queue.take_due(at(150), at(500), 9).await.unwrap();
    assert_eq!(places(&due), [(2, 1), (1, 1)], "the longest due first");
    let messages: Vec<_> = due[1].fresh.as_ref().unwrap().messages().collect();
    assert_eq!(messages, [seq(5), seq(6)]);
    drop(queue);
    let queue = subject.open().await;
    assert_eq!(places(&queue.take_due(at(499), at(900), 1).await.unwrap()), [(3, 1)]);
    assert_eq!(places(&queue.take_due(at(499), at(900), 9).await.unwrap()), []);
    let again = queue.take_due(at(500), at(900), 9).await.unwrap();
    assert_eq!(again.len(), 2, "the worker has died");
}

pub(super) async fn an_event_ends_a_lease(subject: Arc<dyn QueueSubject>) {
    let queue = subject.open().await;
    queue.fold_alerts(&[message(1, 1, 5, 100)]).await.unwrap();
    let taken = queue.take_due(at(100), at(500), 9).await.unwrap();
    queue.fold_alerts(&[message(1, 1, 6, 300)]).await.unwrap();
    let again = queue.take_due(at(110), at(510), 9).await.unwrap();
    assert_eq!(again[0].fresh.as_ref().unwrap().range(), (seq(5), seq(6)));
    assert!(!change(&queue, &taken[0], &taken[0].without(Taking::Fresh)).await, "it has another message");
    assert!(change(&queue, &again[0], &again[0].without(Taking::Fresh)).await);
    // A message that comes right after the change of a worker, also one that has no lease, waits for the next one.
    queue.fold_alerts(&[message(1, 1, 7, 400)]).await.unwrap();
    assert_eq!(places(&queue.take_due(at(399), at(600), 9).await.unwrap()), []);
    let taken = queue.take_due(at(400), at(600), 9).await.unwrap();
    assert_eq!(taken[0].fresh.as_ref().unwrap().range(), (seq(7), seq(7)));
    let read = queue.outstanding(user(1), channel(1)).await.unwrap();
    assert!(
        change(&queue, &read, &read.begin(Taking::Fresh, &[device_id(7)], &[], (at(400), at(700)))).await
    );
    queue.fold_alerts(&[message(1, 1, 8, 450)]).await.unwrap();
    let begun = queue.outstanding(user(1), channel(1)).await.unwrap();
    assert!(change(&queue, &begun, &begun.finish(&[(device_id(7), CallEnd::Over)])).await);
    assert_eq!(places(&queue.take_due(at(450), at(900), 9).await.unwrap()), [(1, 1)]);
}

pub(super) async fn an_empty_record_is_not_due(subject: Arc<dyn QueueSubject>) {
    let queue = subject.open().await;
    queue.fold_alerts(&[message(1, 1, 5, 100), message(1, 2, 5, 100)]).await.unwrap();
    let taken = queue.take_due(at(100), at(500), 9).await.unwrap();
    let first = taken.iter().find(|record| record.channel == channel(1)).unwrap();
    assert!(change(&queue, first, &first.without(Taking::Fresh)).await);
    drop(queue);
    let queue = subject.open().await;
    assert_eq!(places(&queue.take_due(at(9_000), at(9_500), 9).await.unwrap()), [(1, 2)]);
    let begun = taken[1].clone();
    assert!(queue.outstanding(user(1), channel(1)).await.unwrap().is_empty());
    // A record with calls under way is due when their worker must be dead, and not before.
    let record = queue.outstanding(user(1), channel(2)).await.unwrap();
    assert_eq!(record, begun);
    let calling = record.begin(Taking::Fresh, &[device_id(7)], &[], (at(9_000), at(9_600)));
    assert!(change(&queue, &record, &calling).await);
    assert_eq!(places(&queue.take_due(at(9_599), at(9_800), 9).await.unwrap()), []);
    assert_eq!(queue.take_due(at(9_600), at(9_800), 9).await.unwrap(), [calling]);
}

pub(super) async fn a_record_is_changed_only_as_it_was_read(subject: Arc<dyn QueueSubject>) {
    let queue = subject.open().await;
    queue.fold_alerts(&[message(1, 1, 5, 100)]).await.unwrap();
    let read = queue.outstanding(user(1), channel(1)).await.unwrap();
    let begun = read.begin(Taking::Fresh, &[device_id(7)], &[], (at(100), at(160)));
    queue.fold_alerts(&[message(1, 1, 6, 300)]).await.unwrap();
    assert!(!change(&queue, &read, &begun).await, "a message has come in between");
    let read = queue.outstanding(user(1), channel(1)).await.unwrap();
    let begun = read.begin(Taking::Fresh, &[device_id(7)], &[], (at(100), at(160)));
    assert!(change(&queue, &read, &begun).await);
    assert!(!change(&queue, &read, &begun).await, "another worker has begun");
    // What comes in while calls are under way is no obstacle to their end.
    queue.fold_alerts(&[message(1, 1, 7, 400)]).await.unwrap();
    let ended = begun.finish(&[(device_id(7), CallEnd::Shown { until: at(5_000) })]);
    assert!(change(&queue, &begun, &ended).await);
    let now = queue.outstanding(user(1), channel(1)).await.unwrap();
    assert_eq!(now.fresh.as_ref().unwrap().range(), (seq(7), seq(7)));
    assert_eq!(now.held, ended.held);
    // What a device shows and the user has read elsewhere is found without its channel.
    assert_eq!(queue.shown_and_read(user(1), 9).await, Ok(vec![]));
    let read = Fold { user: user(1), channel: channel(1), what: Folded::Read { seq: seq(6), at: at(450) } };
    queue.fold_alerts(&[read]).await.unwrap();
    let shown = queue.shown_and_read(user(1), 9).await.unwrap();
    assert_eq!(shown.iter().map(|(channel, it)| (channel.raw(), it.last)).collect::<Vec<_>>(), [(1, seq(6))]);
    let now = queue.outstanding(user(1), channel(1)).await.unwrap();
    let withdrawn = now.without(Taking::Fresh).withdrawn(&now.held.shown, &[device_id(7)], at(9));
    assert!(change(&queue, &now, &withdrawn).await);
    assert!(queue.outstanding(user(1), channel(1)).await.unwrap().is_empty());
}
