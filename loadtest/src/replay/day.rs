//! One day: its devices connect, its lines are sent in order, and its devices leave when all of them have everything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use madang_proto::{Body, Send};
use tokio::time::{Instant, sleep, sleep_until};

use super::device::{Device, LineRef};
use super::moves::Comings;
use super::plan;
use super::world::{World, lock};
use crate::args::Speed;

/// Most entries of a day that a device may lack before the next line is sent. A device that lacks more than 10,000
/// entries of all its days must take a snapshot, which is a fault here; most users of the corpus speak on at most twenty
/// days.
const LAG: u64 = 250;
/// Lines between two checks of the devices.
const LOOK_EVERY: u32 = 16;

/// Plays a day whose devices have been requested already.
pub(crate) async fn play(world: Arc<World>, day: u32) {
    // Each device must have been connected once: with churn, all are hardly ever connected at the same time. A device
    // that cannot connect is judged by what it does not receive.
    let connected = join_all(world.devices_of(day).map(|device| device.is_connected()));
    let _ = world.uptime.within(world.args.patience(), connected).await;
    if say_lines(&world, day).await {
        wait_for_the_rest(&world, day).await;
    }
    for device in world.devices_of(day) {
        device.release();
    }
}

/// Sends the lines. Returns `false` if the server stopped accepting them.
async fn say_lines(world: &World, day: u32) -> bool {
    let plan = world.day(day);
    let mut comings = Comings::new(world, day).filter(|_| world.args.is_moving());
    let start = Instant::now();
    for ((nick, after), line) in plan.schedule.iter().zip(0..) {
        if let Speed::Times(times) = world.args.speed {
            sleep_until(start + after.div_f64(times)).await;
        }
        if line % LOOK_EVERY == 0 {
            wait_for_readers(world, day).await;
        }
        if let Some(comings) = &mut comings {
            comings.before(line as usize, *nick).await;
        }
        let permit = world.uptime.within(world.args.patience(), plan.window.acquire());
        let Some(Ok(permit)) = permit.await else {
            return false;
        };
        permit.forget();
        let send = message(world, day, line);
        world.devices[nick.get()][0].say(send, LineRef { day, line });
    }
    if let Some(comings) = &mut comings {
        comings.end().await;
    }
    let all = plan.window.acquire_many(world.args.window);
    world.uptime.within(world.args.patience(), all).await.is_some()
}

/// Waits until no device lacks more than [`LAG`] entries. A device that never catches up is judged at the end.
async fn wait_for_readers(world: &World, day: u32) {
    let patience = world.patience_ends();
    while lag(world, day) > LAG && world.uptime.now() < patience {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Number of entries that the slowest device lacks. Devices in open channels skip entries that they cannot take.
fn lag(world: &World, day: u32) -> u64 {
    let (head, is_open) = {
        let book = lock(&world.day(day).book);
        (book.head, book.is_open)
    };
    let behind = |device: &Arc<Device>| {
        let memory = lock(&device.memory);
        let record = memory.records.get(&day).filter(|record| !record.is_away());
        record.map_or(0, |record| head.saturating_sub(record.got().top()))
    };
    if is_open { 0 } else { world.devices_of(day).map(behind).max().unwrap_or(0) }
}

fn message(world: &World, day: u32, line: u32) -> Send {
    let book = lock(&world.day(day).book);
    let text = book.lines[line as usize].text.clone();
    Send {
        channel_id: book.channel,
        client_msg_id: world.keys.key(day, line),
        body: Body { text, ..Body::default() },
    }
}

/// Waits until all changes are answered and every device has every entry, or nothing more arrives.
async fn wait_for_the_rest(world: &World, day: u32) {
    let (mut last, mut since) = ((0, 0), world.uptime.now());
    // A step may still wait for its time.
    let patience = world.args.patience() + plan::WAIT;
    loop {
        let plan = world.day(day);
        let changing = plan.changing.load(Ordering::SeqCst);
        let arrivals = lock(&plan.book).arrivals;
        if (changing, arrivals) != last {
            (last, since) = ((changing, arrivals), world.uptime.now());
        }
        if changing == 0 && is_complete(world, day) || world.uptime.now() > since + patience {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Whether every device has everything that is known to exist.
fn is_complete(world: &World, day: u32) -> bool {
    world.devices_of(day).all(|device| {
        let memory = lock(&device.memory);
        let book = lock(&world.day(day).book);
        memory.records.get(&day).is_some_and(|record| book.is_complete(record))
    })
}
