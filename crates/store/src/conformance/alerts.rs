//! The queue of alerts in a store with a commit order, and how rows get into it.

use std::sync::Arc;

use async_trait::async_trait;
use madang_engine::seats::{Member, SeatChange};
use madang_ids::{Ordinal, Position};
use madang_proto::{Content, Role};

use super::build::*;
use super::channels::plain;
use super::devices::{device, device_id};
use super::push::subscription;
use super::{OrderedStore, OrderedSubject, QueueSubject, queue};
use crate::Spans;
use crate::alerts::{AlertEvent, AlertQueue};
use crate::log::{AppendOutcome, Head};

struct OfStore(Arc<dyn OrderedSubject>);

#[async_trait]
impl QueueSubject for OfStore {
    async fn open(&self) -> Arc<dyn AlertQueue> {
        self.0.open().await
    }
}

macro_rules! of_every_queue {
    ($($name:ident)*) => {
        $(
            pub(super) async fn $name(subject: Arc<dyn OrderedSubject>) {
                queue::$name(Arc::new(OfStore(subject))).await;
            }
        )*
    };
}

of_every_queue! {
    what_is_due_is_leased_to_one_worker
    an_event_ends_a_lease
    an_empty_record_is_not_due
    a_record_is_changed_only_as_it_was_read
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
    store.make(log(1), seq(3), vec![queue::message(1, 1, 2, 50), queue::message(1, 1, 3, 50)]).await.unwrap();
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
