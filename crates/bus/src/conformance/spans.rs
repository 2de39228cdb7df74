//! Members who join and leave while rows are appended.

use std::sync::Arc;
use std::time::Duration;

use madang_ids::{Cursor, Seq};
use tokio::task::JoinSet;

use super::device::{Device, Envelopes, assert_same, read_all};
use super::workload::{Workload, log, user};
use super::{Opened, Subject};

/// Longer than any inbox needs for the rows of the case. An inbox that buffers fewer rows makes the writer wait.
const STALL: Duration = Duration::from_secs(2);

/// A channel with its first member, a device of a user who is not a member yet, and the first cursor of that user.
async fn begin(opened: &Opened) -> (Workload, Device, Cursor) {
    let mut workload = Workload::new(opened);
    workload.change(1, &[1], &[]).await;
    workload.say(1, 1, 3).await;
    let start = opened.inbox.end(user(2)).await.unwrap();
    let device = Device::connect_at_end(opened, 2).await;
    (workload, device, start)
}

/// The user receives what the log says, live and by pages, and of this channel these places.
async fn expect(opened: &Opened, workload: &Workload, device: &mut Device, start: Cursor, places: &[u64]) {
    let mut envelopes = Envelopes::of(opened);
    let expected = workload.expected_of(2);
    envelopes.deliver_to(device, &expected).await;
    let (by_pages, _) = read_all(&opened.inbox, 2, start, 2).await;
    assert_same(&by_pages, &expected);
    let in_channel = device.got.iter().filter(|(one, _)| *one == log(1)).map(|(_, seq)| *seq);
    assert_eq!(in_channel.collect::<Vec<Seq>>(), places.iter().copied().map(Seq::new).collect::<Vec<_>>());
}

pub(super) async fn a_joining_user_sees_entries_from_the_join_on(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let (mut workload, mut device, start) = begin(&opened).await;
    workload.change(1, &[3, 2], &[]).await;
    workload.say(1, 2, 2).await;
    expect(&opened, &workload, &mut device, start, &[5, 6, 7, 8]).await;
    opened.close().await;
}

pub(super) async fn a_leaving_user_sees_the_departure_and_nothing_after(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    leave(&opened).await;
    opened.close().await;
}

/// Like the case above, but with more connected users than members.
pub(super) async fn connected_strangers_change_nothing(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    for id in 50..80 {
        opened.bus.attach(user(id)).await.unwrap();
    }
    leave(&opened).await;
    opened.close().await;
}

async fn leave(opened: &Opened) {
    let (mut workload, mut device, start) = begin(opened).await;
    workload.change(1, &[2, 3, 4], &[]).await;
    workload.say(1, 2, 1).await;
    // All in one append: the leaving user sees the entries up to the own departure.
    workload.change(1, &[5], &[3, 2, 4]).await;
    workload.say(1, 1, 3).await;
    workload.note(2).await;
    expect(opened, &workload, &mut device, start, &[5, 6, 7, 8, 9, 10, 11]).await;
}

pub(super) async fn a_returning_member_does_not_see_entries_of_the_absence(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let (mut workload, mut device, start) = begin(&opened).await;
    workload.change(1, &[2], &[]).await;
    workload.change(1, &[], &[2]).await;
    workload.say(1, 1, 2).await;
    workload.change(1, &[2], &[]).await;
    workload.say(1, 1, 1).await;
    workload.change(1, &[], &[2]).await;
    workload.say(1, 1, 1).await;
    workload.note(2).await;
    expect(&opened, &workload, &mut device, start, &[5, 6, 9, 10, 11]).await;
    opened.close().await;
}

pub(super) async fn a_member_who_returns_while_nothing_is_read_is_served(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.note(2).await;
    let before = workload.expected_of(2).len();
    let mut device = Device::connect_at_end(&opened, 2).await;
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        for _ in 0..1_200 {
            workload.note(2).await;
        }
        workload.change(1, &[1, 2], &[]).await;
        workload.say(1, 1, 1).await;
        workload.change(1, &[], &[2]).await;
        workload.say(1, 1, 1).await;
        workload.change(1, &[2], &[]).await;
        workload.say(1, 1, 1).await;
        workload
    });
    // An inbox that follows the log is far behind by now, or the writer waits for it.
    let written = tokio::time::timeout(STALL, writer.join_next()).await;
    let mut envelopes = Envelopes::of(&opened);
    let workload = match written {
        Ok(ended) => ended,
        Err(_) => loop {
            tokio::select! {
                envelope = envelopes.next() => device.handle(&envelope),
                ended = writer.join_next() => break ended,
            }
        },
    };
    let mut workload = workload.expect("there is a writer").expect("the writer ended well");
    envelopes.deliver_to(&mut device, &workload.expected_of(2)[before..]).await;
    // The rows so far may have been read in pages. These are live.
    workload.say(1, 1, 2).await;
    assert!(!device.is_reading());
    device.handle(&envelopes.next().await);
    assert_same(&device.got, &workload.expected_of(2)[before..]);
    opened.close().await;
}

pub(super) async fn members_that_cannot_be_read_are_no_loss(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let mut workload = Workload::new(&opened);
    workload.change(1, &[1, 2], &[]).await;
    workload.change(2, &[1, 2], &[]).await;
    // After a restart no members are in memory.
    let (opened, mut workload) = workload.restart(opened, &subject).await;
    let mut device = Device::connect_at_end(&opened, 2).await;
    let before = workload.expected_of(2).len();
    if subject.break_members(true) {
        workload.say(1, 1, 2).await;
        let mut envelopes = Envelopes::of(&opened);
        device.handle(&envelopes.next().await);
        assert!(device.is_reading(), "the device learns that it misses something");
        // More rows of this channel, and of another one, before a device has read anything.
        workload.say(1, 1, 3).await;
        workload.say(2, 1, 1).await;
        subject.break_members(false);
        workload.say(1, 1, 1).await;
        workload.say(2, 1, 1).await;
        envelopes.deliver_to(&mut device, &workload.expected_of(2)[before..]).await;
    }
    opened.close().await;
}
