//! Which cursors are accepted.

use std::sync::Arc;

use madang_ids::{Cursor, Epoch, Position};
use madang_proto::SnapshotReason;

use super::Subject;
use super::device::{Device, Envelopes, assert_same, read_all};
use super::workload::{Workload, user};
use crate::inbox::{Inbox, InboxRead};

async fn verdict(inbox: &Arc<dyn Inbox>, id: u64, cursor: Cursor) -> Option<SnapshotReason> {
    match inbox.read(user(id), cursor, 10).await.unwrap() {
        InboxRead::Page(_) => None,
        InboxRead::SnapshotRequired(reason) => Some(reason),
        InboxRead::Unavailable => panic!("the inbox does not answer"),
    }
}

fn behind(cursor: Cursor, count: u64) -> Cursor {
    Cursor { position: Position::new(cursor.position.get() + count), ..cursor }
}

pub(super) async fn a_foreign_cursor_is_refused(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.note(1).await;
    let end = opened.inbox.end(user(1)).await.unwrap();
    for position in [Position::ZERO, end.position] {
        let cursor = Cursor { epoch: Epoch::from_raw(end.epoch.raw() ^ 1), position };
        let reason = subject.reason_of_another_epoch();
        assert_eq!(verdict(&opened.inbox, 1, cursor).await, Some(reason));
    }
    assert_eq!(verdict(&opened.inbox, 1, end).await, None);
    opened.close().await;
}

pub(super) async fn a_cursor_beyond_the_store_is_refused(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.change(1, &[1], &[]).await;
    let end = opened.inbox.end(user(1)).await.unwrap();
    for count in [1, 1_000, u64::MAX / 4] {
        let reason = verdict(&opened.inbox, 1, behind(end, count)).await;
        assert_eq!(reason, Some(SnapshotReason::BeyondStore), "{count} beyond");
    }
    workload.say(1, 1, 3).await;
    let end = opened.inbox.end(user(1)).await.unwrap();
    assert_eq!(verdict(&opened.inbox, 1, end).await, None);
    opened.close().await;
}

pub(super) async fn a_cursor_too_far_behind_is_refused(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.change(1, &[1, 2], &[]).await;
    let start = opened.inbox.end(user(1)).await.unwrap();
    let start_of_other = opened.inbox.end(user(2)).await.unwrap();
    let (before, max) = (workload.expected_of(1).len(), subject.rows_behind_max() as usize);
    let mut left = max;
    while left > 0 {
        let count = left.min(subject.rows_an_append());
        workload.say(1, 2, count).await;
        left -= count;
    }
    let (got, _) = read_all(&opened.inbox, 1, start, 1_000).await;
    assert_same(&got, &workload.expected_of(1)[before..]);
    assert_eq!(got.len(), max);
    workload.note(1).await;
    assert_eq!(verdict(&opened.inbox, 1, start).await, Some(SnapshotReason::TooFarBehind));
    assert_eq!(verdict(&opened.inbox, 2, start_of_other).await, None, "others are not that far behind");
    opened.close().await;
}

pub(super) async fn a_restart_keeps_cursors(subject: Arc<dyn Subject>) {
    let mut opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    let mut cursors = vec![(opened.inbox.end(user(1)).await.unwrap(), 0)];
    workload.change(1, &[1], &[]).await;
    for round in 0..3 {
        workload.say(1, 1, 2).await;
        let (got, all) = read_all(&opened.inbox, 1, cursors[0].0, 1).await;
        assert_same(&got, &workload.expected_of(1));
        cursors.extend(all);
        cursors.push((opened.inbox.end(user(1)).await.unwrap(), workload.expected_of(1).len()));
        let epoch = cursors[cursors.len() - 1].0.epoch;
        (opened, workload) = workload.restart(opened, &subject).await;
        if round == 1 {
            workload.note(1).await;
        }
        let is_new = opened.inbox.end(user(1)).await.unwrap().epoch != epoch;
        assert_eq!(is_new, subject.has_epoch_of_start());
        for (cursor, count) in &cursors {
            let (rest, _) = read_all(&opened.inbox, 1, *cursor, 3).await;
            assert_same(&rest, &workload.expected_of(1)[*count..]);
        }
    }
    opened.close().await;
}

pub(super) async fn a_cursor_beyond_its_start_is_refused(subject: Arc<dyn Subject>) {
    if !subject.has_epoch_of_start() {
        return;
    }
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.note(1).await;
    let end = opened.inbox.end(user(1)).await.unwrap();
    // As after a restored backup: a cursor of the first start that is beyond everything the store knows of that start.
    let (opened, mut workload) = workload.restart(opened, &subject).await;
    for _ in 0..5 {
        workload.note(1).await;
    }
    assert_eq!(verdict(&opened.inbox, 1, end).await, None);
    for count in [1, 3, 5] {
        let reason = verdict(&opened.inbox, 1, behind(end, count)).await;
        assert_eq!(reason, Some(SnapshotReason::BeyondStore), "{count} beyond its start");
    }
    opened.close().await;
}

pub(super) async fn a_device_continues_after_a_verdict(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.change(1, &[1, 2], &[]).await;
    let end = opened.inbox.end(user(2)).await.unwrap();
    let mut envelopes = Envelopes::of(&opened);
    let mut device = Device::connect(&opened, 2, behind(end, 1_000)).await;
    device.catch_up().await;
    assert_eq!(device.got, [], "earlier rows are in the snapshot");
    let before = workload.expected_of(2).len();
    workload.say(1, 1, 2).await;
    workload.note(2).await;
    envelopes.deliver_to(&mut device, &workload.expected_of(2)[before..]).await;
    opened.close().await;
}
