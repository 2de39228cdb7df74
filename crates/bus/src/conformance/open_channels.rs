//! Open channels: their rows are delivered to nodes with subscribers, and are in no user's inbox.

use std::sync::Arc;

use madang_ids::{ChannelId, Seq};

use super::Subject;
use super::device::{Envelopes, assert_same, read_all};
use super::workload::{Place, Workload, log, own_log, user};
use crate::bus::Envelope;

const OPEN: u64 = 1;
const OTHER: u64 = 2;

fn channel(id: u64) -> ChannelId {
    ChannelId::from_raw(id)
}

/// The rows of open channels in the envelopes, up to one place.
async fn open_rows(envelopes: &mut Envelopes, upto: Place) -> Vec<Place> {
    let mut got = Vec::new();
    while !got.contains(&upto) {
        match envelopes.next().await {
            Envelope::Open(rows) => {
                got.extend(rows.rows.iter().map(|row| (log(rows.channel.raw()), row.entry.seq)));
            }
            Envelope::Delivery(delivery) => {
                assert_ne!(delivery.log, log(OPEN), "an open channel is addressed to no user");
            }
            Envelope::Lost(_) => panic!("nothing was lost"),
            Envelope::Event(..) | Envelope::Profile(..) => panic!("nothing was published"),
        }
    }
    got
}

fn places(id: u64, seqs: impl IntoIterator<Item = u64>) -> Vec<Place> {
    seqs.into_iter().map(|seq| (log(id), Seq::new(seq))).collect()
}

pub(super) async fn subscribers_get_every_row_in_order(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.make_open(OPEN).await;
    workload.change(OPEN, &[1, 2, 3], &[]).await;
    let mut envelopes = Envelopes::of(&opened);
    opened.bus.attach(user(2)).await.unwrap();
    opened.bus.subscribe(channel(OPEN)).await.unwrap();
    for count in 1..=4 {
        workload.say(OPEN, 1, count).await;
        workload.note(2).await;
    }
    workload.change(OPEN, &[4], &[3]).await;
    let mut got = open_rows(&mut envelopes, (log(OPEN), Seq::new(15))).await;
    // Rows from before the subscription may still arrive.
    got.retain(|(_, seq)| seq.get() > 3);
    assert_eq!(got, places(OPEN, 4..=15));
    opened.close().await;
}

pub(super) async fn every_subscription_counts(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    for id in [OPEN, OTHER] {
        workload.make_open(id).await;
        workload.change(id, &[1], &[]).await;
    }
    let mut envelopes = Envelopes::of(&opened);
    for id in [OTHER, OPEN, OPEN] {
        opened.bus.subscribe(channel(id)).await.unwrap();
    }
    for (said, is_subscribed) in [true, true, false, false, true].into_iter().enumerate() {
        match said {
            0 => {}
            4 => opened.bus.subscribe(channel(OPEN)).await.unwrap(),
            // Ending more subscriptions than there are has no effect.
            _ => opened.bus.unsubscribe(channel(OPEN)),
        }
        workload.say(OPEN, 1, 1).await;
        workload.say(OTHER, 1, 1).await;
        let last = Seq::new(said as u64 + 2);
        let got = open_rows(&mut envelopes, (log(OTHER), last)).await;
        assert_eq!(got.contains(&(log(OPEN), last)), is_subscribed, "{got:?}");
    }
    opened.close().await;
}

pub(super) async fn an_open_channel_is_in_nobodys_inbox(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    let start = opened.inbox.end(user(2)).await.unwrap();
    workload.make_open(OPEN).await;
    workload.change(OPEN, &[1, 2], &[]).await;
    workload.change(OTHER, &[1, 2], &[]).await;
    workload.say(OPEN, 1, 3).await;
    workload.say(OTHER, 1, 3).await;
    let mut expected = places(OTHER, 1..=5);
    // The user's own log records the join.
    expected.extend([1, 2].map(|seq| (own_log(2), Seq::new(seq))));
    assert_same(&read_all(&opened.inbox, 2, start, 3).await.0, &expected);
    opened.close().await;
}

pub(super) async fn history_after_subscribing_and_live_rows_have_no_gap(subject: Arc<dyn Subject>) {
    const ROUNDS: u64 = 60;
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.make_open(OPEN).await;
    workload.change(OPEN, &[1], &[]).await;
    let mut envelopes = Envelopes::of(&opened);
    let mut writing = tokio::task::JoinSet::new();
    writing.spawn(async move {
        for round in 0..ROUNDS {
            workload.say(OPEN, 1, 1 + round as usize % 3).await;
        }
        workload
    });
    // The subscription begins somewhere between the rows.
    for _ in 0..ROUNDS {
        tokio::task::yield_now().await;
    }
    opened.bus.subscribe(channel(OPEN)).await.unwrap();
    let head = opened.store.heads(&[log(OPEN)]).await.unwrap()[0].seq;
    let mut workload = writing.join_next().await.expect("a writer").unwrap();
    workload.say(OPEN, 1, 1).await;
    let last = opened.store.heads(&[log(OPEN)]).await.unwrap()[0].seq;
    let mut got = open_rows(&mut envelopes, (log(OPEN), last)).await;
    got.retain(|(_, seq)| *seq > head);
    assert_eq!(got, places(OPEN, head.get() + 1..=last.get()));
    opened.close().await;
}
