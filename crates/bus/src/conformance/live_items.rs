//! Envelopes for rows that are appended while a user is attached.

use std::sync::Arc;

use madang_ids::{Position, UserId};

use super::Subject;
use super::device::{Device, Envelopes, assert_same, places};
use super::workload::{Workload, own_log, user};
use crate::bus::{Delivery, Envelope, Recipient};

/// The delivery in an envelope. The cases of this file lose nothing and publish nothing.
fn delivery(envelope: Envelope) -> Delivery {
    match envelope {
        Envelope::Delivery(delivery) => delivery,
        Envelope::Open(_) => panic!("nobody subscribed"),
        Envelope::Lost(_) => panic!("nothing was lost"),
        Envelope::Event(..) | Envelope::Profile(..) => panic!("nothing was published"),
    }
}

fn recipient(delivery: &Delivery, user_id: UserId) -> Option<Recipient> {
    delivery.recipients.iter().find(|recipient| recipient.user_id == user_id).copied()
}

pub(super) async fn there_is_one_stream_of_envelopes(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    assert!(opened.bus.take_envelopes().is_some());
    assert!(opened.bus.take_envelopes().is_none());
    opened.close().await;
}

pub(super) async fn places_follow_each_other(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.change(1, &[1, 2], &[]).await;
    workload.change(2, &[2], &[]).await;
    let mut envelopes = Envelopes::of(&opened);
    let end = opened.inbox.end(user(2)).await.unwrap();
    opened.bus.attach(user(2)).await.unwrap();
    let before = workload.expected_of(2).len();
    for count in 1..=4 {
        workload.say(1, 1, count).await;
        workload.say(2, 2, 1).await;
        workload.note(1).await;
        workload.note(2).await;
    }
    let expected = workload.expected_of(2)[before..].to_vec();
    let (mut last, mut got): (Option<Position>, Vec<_>) = (None, Vec::new());
    while got.len() < expected.len() {
        let delivery = delivery(envelopes.next().await);
        assert!(
            !delivery.recipients.is_empty() && !delivery.rows.is_empty(),
            "{delivery:?} has no recipient or no row"
        );
        assert_eq!(delivery.recipients.len(), 1, "only one user is attached");
        let Some(Recipient { place, sees_all, .. }) = recipient(&delivery, user(2)) else {
            panic!("{delivery:?} is for somebody else")
        };
        // Rows from before the attachment may still arrive.
        if place.last <= end.position {
            continue;
        }
        assert!(sees_all, "the user may see all rows");
        assert!(place.previous < place.first && place.first <= place.last, "{place:?}");
        match last {
            Some(last) => assert_eq!(place.previous, last, "no place is missing in between"),
            None => {
                assert!(place.previous <= end.position, "a place is missing between the end and {place:?}")
            }
        }
        last = Some(place.last);
        got.extend(places(&delivery));
    }
    assert_eq!(got, expected);
    assert!(envelopes.try_next().is_none(), "no envelope arrives twice");
    opened.close().await;
}

pub(super) async fn a_live_device_gets_every_row_once(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.change(1, &[1, 2], &[]).await;
    workload.change(2, &[1, 2], &[]).await;
    let mut envelopes = Envelopes::of(&opened);
    let mut device = Device::connect_at_end(&opened, 2).await;
    let before = workload.expected_of(2).len();
    for count in 1..=20 {
        workload.say(1 + count % 2, 1, 1 + count as usize % 3).await;
    }
    let expected = workload.expected_of(2)[before..].to_vec();
    envelopes.deliver_to(&mut device, &expected).await;
    assert_eq!(device.got, expected);
    opened.close().await;
}

pub(super) async fn repeated_fan_out_changes_nothing(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.change(1, &[1, 2], &[]).await;
    let start = opened.inbox.end(user(2)).await.unwrap();
    let mut envelopes = Envelopes::of(&opened);
    let mut device = Device::connect_at_end(&opened, 2).await;
    let before = workload.expected_of(2).len();
    for _ in 0..5 {
        workload.say(1, 1, 2).await;
        for (log, seq) in workload.expected_of(2) {
            opened.inbox.moved_again(log, seq..=seq).await.unwrap();
            // Like a home that was paused while another one appended and fanned out.
            let rows = opened.store.rows(log, seq..=seq, usize::MAX).await.unwrap();
            opened.inbox.moved(log, &rows.into()).await.unwrap();
        }
    }
    let expected = workload.expected_of(2)[before..].to_vec();
    envelopes.deliver_to(&mut device, &expected).await;
    assert_same(&super::device::read_all(&opened.inbox, 2, start, 3).await.0, &expected);
    opened.close().await;
}

pub(super) async fn only_attached_users_are_addressed(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.change(1, &[1, 2, 3], &[]).await;
    let mut envelopes = Envelopes::of(&opened);
    opened.bus.attach(user(1)).await.unwrap();
    opened.bus.attach(user(2)).await.unwrap();
    workload.say(1, 1, 1).await;
    assert_eq!(addressed(&mut envelopes, &workload, 1).await, [user(1), user(2)]);
    opened.bus.detach(user(2));
    workload.say(1, 1, 1).await;
    assert_eq!(addressed(&mut envelopes, &workload, 1).await, [user(1)]);
    opened.close().await;
}

pub(super) async fn every_connection_counts(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.change(1, &[1, 2], &[]).await;
    let mut envelopes = Envelopes::of(&opened);
    for id in [1, 2, 2, 2] {
        opened.bus.attach(user(id)).await.unwrap();
    }
    for expected in [true, true, false, false] {
        // Detaching more often than attaching has no effect.
        opened.bus.detach(user(2));
        workload.say(1, 1, 1).await;
        let addressed = addressed(&mut envelopes, &workload, 1).await;
        assert_eq!(addressed.contains(&user(2)), expected, "{addressed:?}");
    }
    opened.bus.attach(user(2)).await.unwrap();
    workload.say(1, 1, 1).await;
    assert!(addressed(&mut envelopes, &workload, 1).await.contains(&user(2)));
    opened.close().await;
}

/// The recipients of the last row of a witness, who stays attached.
async fn addressed(envelopes: &mut Envelopes, workload: &Workload, witness: u64) -> Vec<UserId> {
    let last = workload.expected_of(witness).last().copied().expect("the witness has a row");
    loop {
        let delivery = delivery(envelopes.next().await);
        if places(&delivery).contains(&last) {
            let mut users: Vec<UserId> = delivery.recipients.iter().map(|one| one.user_id).collect();
            users.sort_unstable();
            return users;
        }
    }
}

pub(super) async fn the_own_log_is_delivered(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    let mut envelopes = Envelopes::of(&opened);
    let mut device = Device::connect_at_end(&opened, 1).await;
    opened.bus.attach(user(2)).await.unwrap();
    for id in [1, 2, 2, 1, 1] {
        workload.note(id).await;
    }
    envelopes.deliver_to(&mut device, &workload.expected_of(1)).await;
    assert!(device.got.iter().all(|(log, _)| *log == own_log(1)) && device.got.len() == 3);
    opened.close().await;
}

pub(super) async fn rows_whose_fan_out_was_lost_arrive_with_the_next(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.change(1, &[1, 2], &[]).await;
    let mut envelopes = Envelopes::of(&opened);
    let mut device = Device::connect_at_end(&opened, 2).await;
    let before = workload.expected_of(2).len();
    for is_repeated in [false, true] {
        // A home dies between an append and its fan-out. The next one repeats the fan-out, or fans out later rows.
        workload.say_unheard(1, 1, 3).await;
        match workload.expected_of(2).last().copied() {
            Some((log, seq)) if is_repeated => opened.inbox.moved_again(log, seq..=seq).await.unwrap(),
            _ => workload.say(1, 1, 1).await,
        }
        envelopes.deliver_to(&mut device, &workload.expected_of(2)[before..]).await;
    }
    opened.close().await;
}
