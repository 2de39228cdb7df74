//! The queue of alerts in a store with a commit order, and how rows get into it.

use std::sync::Arc;

use madang_engine::alerts::{CallEnd, Fold, Folded, Outstanding, Taking};
use madang_engine::seats::{Member, SeatChange};
use madang_ids::{Cursor, Epoch, Ordinal, Position};
use madang_proto::{Content, Role};

use super::build::*;
use super::channels::plain;
use super::devices::{device, device_id};
use super::push::subscription;
use super::{OrderedStore, OrderedSubject};
use crate::Spans;
use crate::alerts::{AlertEvent, OutstandingChange};
use crate::log::{AppendOutcome, Head};

fn message(owner: u64, place: u64, value: u64, due: u64) -> Fold {
    let cursor = Cursor { epoch: Epoch::from_raw(0), position: Position::new(value) };
    let what = Folded::Message { seq: seq(value), at: cursor, due_at: at(due), expires_at: at(9_000) };
    Fold { user: user(owner), channel: channel(place), what }
}

fn places(records: &[Outstanding]) -> Vec<(u64, u64)> {
    records.iter().map(|record| (record.user.raw(), record.channel.raw())).collect()
}

async fn change(store: &Arc<dyn OrderedStore>, before: &Outstanding, after: &Outstanding) -> bool {
    store.change_outstanding(&OutstandingChange::between(before, after)).await.unwrap()
}

pub(super) async fn what_is_due_is_leased_to_one_worker(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    let folds = [message(1, 1, 5, 100), message(2, 1, 5, 50), message(1, 1, 6, 300), message(3, 1, 5, 200)];
    store.fold_alerts(&folds).await.unwrap();
    assert_eq!(store.take_due(at(49), at(500), 9).await, Ok(vec![]));
    let due = store.take_due(at(150), at(500), 9).await.unwrap();
    assert_eq!(places(&due), [(2, 1), (1, 1)], "the longest due first");
    let messages: Vec<_> = due[1].fresh.as_ref().unwrap().messages().collect();
    assert_eq!(messages, [seq(5), seq(6)]);
    drop(store);
    let store = subject.open().await;
    assert_eq!(places(&store.take_due(at(499), at(900), 1).await.unwrap()), [(3, 1)]);
    assert_eq!(places(&store.take_due(at(499), at(900), 9).await.unwrap()), []);
    let again = store.take_due(at(500), at(900), 9).await.unwrap();
    assert_eq!(again.len(), 2, "the worker has died");
}

pub(super) async fn a_record_is_changed_only_as_it_was_read(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    store.fold_alerts(&[message(1, 1, 5, 100)]).await.unwrap();
    let read = store.outstanding(user(1), channel(1)).await.unwrap();
    let begun = read.begin(Taking::Fresh, &[device_id(7)], &[], (at(100), at(160)));
    store.fold_alerts(&[message(1, 1, 6, 300)]).await.unwrap();
    assert!(!change(&store, &read, &begun).await, "a message has come in between");
    let read = store.outstanding(user(1), channel(1)).await.unwrap();
    let begun = read.begin(Taking::Fresh, &[device_id(7)], &[], (at(100), at(160)));
    assert!(change(&store, &read, &begun).await);
    assert!(!change(&store, &read, &begun).await, "another worker has begun");
    // What comes in while calls are under way is no obstacle to their end.
    store.fold_alerts(&[message(1, 1, 7, 400)]).await.unwrap();
    let ended = begun.finish(&[(device_id(7), CallEnd::Shown { until: at(5_000) })]);
    assert!(change(&store, &begun, &ended).await);
    let now = store.outstanding(user(1), channel(1)).await.unwrap();
    assert_eq!(now.fresh.as_ref().unwrap().range(), (seq(7), seq(7)));
    assert_eq!(now.held, ended.held);
    // What a device shows and the user has read elsewhere is found without its channel.
    assert_eq!(store.shown_and_read(user(1), 9).await, Ok(vec![]));
    let read = Fold { user: user(1), channel: channel(1), what: Folded::Read { seq: seq(6), at: at(450) } };
    store.fold_alerts(&[read]).await.unwrap();
    let shown = store.shown_and_read(user(1), 9).await.unwrap();
    assert_eq!(shown.iter().map(|(channel, it)| (channel.raw(), it.last)).collect::<Vec<_>>(), [(1, seq(6))]);
    let now = store.outstanding(user(1), channel(1)).await.unwrap();
    let withdrawn = now.without(Taking::Fresh).withdrawn(&now.held.shown, &[device_id(7)], at(9));
    assert!(change(&store, &now, &withdrawn).await);
    assert!(store.outstanding(user(1), channel(1)).await.unwrap().is_empty());
}

async fn stage(store: &Arc<dyn OrderedStore>) {
    store.create_channel(&plain(1)).await.unwrap();
    let member = |id, from| Member {
        user_id: user(id),
        role: Role::Member,
        joined_at: at(1),
        spans: Spans::since(seq(from)),
        has_accepted: true,
        muted: None,
        banned: None,
        pending: None,
    };
    let members = vec![member(1, 1), member(2, 2), member(3, 1)];
    let change = SeatChange { channel: channel(1), if_rev: 0, count: 3, members };
    store.change_seats(change, &[]).await.unwrap();
    for id in [1, 2] {
        store.put_device(&device(id, id), 9, 0).await.unwrap();
    }
}

async fn said(store: &Arc<dyn OrderedStore>, head: Head, count: u64) -> Head {
    let append = say_many(log(1), head, user(3), head.seq.get() + 1, count);
    let after = append.head();
    assert_eq!(store.append(append).await, Ok(AppendOutcome::Appended));
    after
}

pub(super) async fn rows_wait_until_alerts_are_made_of_them(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    stage(&store).await;
    store.begin_alerts();
    let head = said(&store, Head::default(), 1).await;
    assert_eq!(store.unmade(None, 9).await, Ok(vec![]), "nobody has a subscription");
    for id in [1, 2] {
        store.put_subscription(&subscription(id, id, &id.to_string(), 5)).await.unwrap();
    }
    let head = said(&store, head, 2).await;
    store.alerts_waiting().await;
    let unmade = store.unmade(None, 9).await.unwrap();
    let [unmade] = &unmade[..] else { panic!("{unmade:?}") };
    let message = |value| {
        let (seq, position) = (seq(value), Position::new(value));
        AlertEvent::Message { seq, position, at: at(10 * value), sender: user(3) }
    };
    assert_eq!((unmade.log, unmade.upto), (log(1), seq(3)));
    assert_eq!(unmade.events, [message(2), message(3)]);
    let spans: Vec<_> = unmade.users.iter().map(|(user, spans)| (user.raw(), spans.clone())).collect();
    assert_eq!(
        spans,
        [(1, Spans::since(seq(1))), (2, Spans::since(seq(2)))],
        "only users with a subscription"
    );
    // More rows are appended before the alerts are made.
    let head = said(&store, head, 1).await;
    store.make(log(1), seq(3), vec![self::message(1, 1, 2, 50), self::message(1, 1, 3, 50)]).await.unwrap();
    drop(store);
    let store = subject.open().await;
    let unmade = store.unmade(None, 9).await.unwrap();
    assert_eq!(unmade[0].events, [message(4)]);
    let record = store.outstanding(user(1), channel(1)).await.unwrap();
    assert_eq!(record.fresh.unwrap().range(), (seq(2), seq(3)));
    store.make(log(1), head.seq, vec![]).await.unwrap();
    assert_eq!(store.unmade(None, 9).await, Ok(vec![]));
}

pub(super) async fn own_logs_say_what_was_mentioned_and_read(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    stage(&store).await;
    store.begin_alerts();
    store.put_subscription(&subscription(1, 1, "1", 5)).await.unwrap();
    let mut head = Head::default();
    let contents = [
        Content::DeviceRevoked { device_id: device_id(9) },
        Content::Mentioned { channel_id: channel(8), seq: seq(40), by: user(2), is_reply: false },
        Content::Read { channel_id: channel(1), seq: seq(3), ordinal: Ordinal::new(3), left: None },
    ];
    for content in contents {
        let row = notice(head, content);
        let append = append(own_log(1), head, vec![row]);
        head = append.head();
        assert_eq!(store.append(append).await, Ok(AppendOutcome::Appended));
    }
    let unmade = store.unmade(None, 9).await.unwrap();
    let mentioned =
        AlertEvent::Mentioned { channel: channel(8), seq: seq(40), position: Position::new(2), at: at(20) };
    assert_eq!(
        unmade[0].events,
        [mentioned, AlertEvent::Read { channel: channel(1), seq: seq(3), at: at(30) }]
    );
    assert_eq!(unmade[0].users.iter().map(|(user, _)| user.raw()).collect::<Vec<_>>(), [1]);
}
