//! Devices connect, disconnect and fall behind while rows are appended: live items and pages together contain every row
//! once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use madang_ids::Cursor;
use tokio::task::JoinSet;

use super::device::{Device, Envelopes, assert_same};
use super::workload::{Place, Workload, user};
use super::{Opened, Subject};

const CHANNELS: u64 = 4;
/// Users who stay members of all channels. Each has a device that connects and disconnects.
const WATCHERS: u64 = 5;
const ROUNDS: u64 = 150;
/// More than the writers append while every device has a turn.
const ENVELOPES_PER_TURN: usize = 6;

/// A small generator of numbers (xorshift; Marsaglia 2003).
struct Dice(u64);

impl Dice {
    const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

pub(super) async fn devices_that_connect_during_appends_miss_nothing(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    race(&opened, false).await;
    opened.close().await;
}

pub(super) async fn slow_devices_miss_nothing(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    race(&opened, true).await;
    opened.close().await;
}

async fn race(opened: &Opened, is_slow: bool) {
    let mut workload = Workload::new(opened);
    let watchers: Vec<u64> = (1..=WATCHERS).collect();
    let mut starts = Vec::new();
    for &id in &watchers {
        starts.push(opened.inbox.end(user(id)).await.unwrap());
    }
    for channel in 1..=CHANNELS {
        workload.change(channel, &watchers, &[]).await;
    }
    let mut envelopes = Envelopes::of(opened);
    let turns = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for channel in 1..=CHANNELS {
        writers.spawn(write(workload.split(channel), channel, Arc::clone(&turns)));
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut people: Vec<Person> =
        watchers.iter().zip(starts).map(|(&id, start)| Person::new(id, start)).collect();
    while !writers.is_empty() {
        for _ in 0..ENVELOPES_PER_TURN {
            let Some(envelope) = envelopes.try_next() else { break };
            let devices = people.iter_mut().filter_map(|person| person.device.as_mut());
            devices.for_each(|device| device.handle(&envelope));
        }
        for person in &mut people {
            turns.fetch_add(1, Ordering::SeqCst);
            person.live(opened, &mut dice, is_slow).await;
        }
        tokio::task::yield_now().await;
        if let Some(written) = writers.try_join_next() {
            workload.join_up(written.expect("the writer ended well"));
        }
    }
    let mut devices = Vec::new();
    for person in people {
        let expected = workload.expected_of(person.id).len() - person.got.len();
        let (got, mut device) = person.settle(opened).await;
        device.has_room = true;
        devices.push((device, expected, got));
    }
    let (mut ready, kept): (Vec<_>, Vec<_>) =
        devices.into_iter().map(|(device, expected, got)| ((device, expected), got)).unzip();
    envelopes.deliver(&mut ready).await;
    for (((device, _), mut got), id) in ready.into_iter().zip(kept).zip(watchers) {
        got.extend(device.got);
        assert_same(&got, &workload.expected_of(id));
    }
}

/// Sends messages in a channel that another user joins and leaves meanwhile, one round for every few turns of the
/// devices. So both continue until the end, and rows are appended while a device reads.
async fn write(mut workload: Workload, channel: u64, turns: Arc<AtomicU64>) -> Workload {
    let commuter = 100 + channel;
    for round in 0..ROUNDS {
        while turns.load(Ordering::SeqCst) < round * 2 * WATCHERS + channel {
            tokio::task::yield_now().await;
        }
        workload.say(channel, 1, 1 + (round + channel) as usize % 3).await;
        match round % 10 {
            3 => workload.change(channel, &[commuter], &[]).await,
            7 => workload.change(channel, &[], &[commuter]).await,
            _ => {}
        }
    }
    workload
}

/// A user whose device connects and disconnects.
struct Person {
    id: u64,
    cursor: Cursor,
    device: Option<Device>,
    got: Vec<Place>,
}

impl Person {
    const fn new(id: u64, cursor: Cursor) -> Self {
        Self { id, cursor, device: None, got: Vec::new() }
    }

    async fn live(&mut self, opened: &Opened, dice: &mut Dice, is_slow: bool) {
        let Some(device) = &mut self.device else {
            if dice.below(3) == 0 {
                self.device = Some(Device::connect(opened, self.id, self.cursor).await);
            }
            return;
        };
        device.has_room = !is_slow || dice.below(2) == 0;
        // Some pages are the last ones, and end while rows are appended.
        device.page_rows = 10 + dice.below(60) as usize;
        match dice.below(20) {
            0 => {
                self.cursor = device.disconnect();
                self.got.append(&mut device.got);
                self.device = None;
            }
            1..=12 if device.is_reading() => device.read_page().await,
            _ => {}
        }
    }

    /// A device that stays connected, and the rows that the earlier ones received.
    async fn settle(self, opened: &Opened) -> (Vec<Place>, Device) {
        let device = match self.device {
            Some(device) => device,
            None => Device::connect(opened, self.id, self.cursor).await,
        };
        (self.got, device)
    }
}
