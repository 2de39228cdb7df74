//! A device of a user: what it must send, what it received, and the task that keeps its socket open.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use madang_client::{Backoff, ClientError, Outbox, SocketOptions, Tokens};
use madang_ids::{DeviceId, SealedCursor, UserId};
use madang_proto::rest::{Login, SignedIn};
use madang_proto::{CloseReason, ErrorCode, Send};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::changes::Changes;
use super::live::{End, Live};
use super::world::{World, lock};
use crate::judge::record::Record;

/// Most messages in the queue of one device. Each day has a window, and a device takes part in few days at once.
const OUTBOX: usize = 16 * 1024;
/// Messages in flight; far below the 256 at which the server stops reading.
const IN_FLIGHT: usize = 64;
/// Number of local addresses. Each has 28,000 ports for connections.
const ADDRESSES: u64 = 16;
/// Longest absence of a device that drops its connection on purpose.
const ABSENCE: Duration = Duration::from_secs(3);

/// Names the line of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineRef {
    pub(crate) day: u32,
    pub(crate) line: u32,
}

/// One device.
#[derive(Debug)]
pub(crate) struct Device {
    /// A name for reports: `handle#1`.
    pub(crate) name: String,
    pub(crate) user: UserId,
    handle: String,
    id: DeviceId,
    pub(crate) seed: u64,
    pub(crate) socket: SocketOptions,
    tokens: Mutex<Tokens>,
    pub(crate) outbox: Mutex<Outbox<LineRef>>,
    pub(crate) changes: Mutex<Changes>,
    /// There is something to send, or the device is no longer needed.
    pub(crate) wake: Notify,
    pub(crate) memory: Mutex<Memory>,
    place: Mutex<Place>,
    pub(crate) connected: watch::Sender<bool>,
}

/// State of a device that survives reconnects.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) cursor: Option<SealedCursor>,
    /// By day.
    pub(crate) records: HashMap<u32, Record>,
    /// Days of whose open channel the user is a member, each with a number that changes with each return.
    pub(crate) open: BTreeMap<u32, u32>,
    /// Days of whose group a snapshot has shown entries that history must provide.
    pub(crate) behind: BTreeSet<u32>,
    pub(crate) was_connected: bool,
}

#[derive(Debug, Default)]
struct Place {
    /// Number of running days that need this device.
    wanted: usize,
    is_running: bool,
}

/// The password of a user that this tool created.
pub(crate) fn password(handle: &str) -> String {
    format!("correct horse {handle}")
}

impl Device {
    pub(crate) fn new(handle: &str, number: u32, signed_in: SignedIn, seed: u64) -> Self {
        let (user, id) = (signed_in.user.id, signed_in.device_id);
        Self {
            name: format!("{handle}#{}", number + 1),
            user,
            handle: handle.to_owned(),
            id,
            seed,
            socket: SocketOptions { reset_on_drop: true, ..SocketOptions::default() },
            tokens: Mutex::new(Tokens::from(signed_in)),
            outbox: Mutex::new(Outbox::new(OUTBOX, IN_FLIGHT)),
            changes: Mutex::default(),
            wake: Notify::new(),
            memory: Mutex::new(Memory::default()),
            place: Mutex::default(),
            connected: watch::channel(false).0,
        }
    }

    /// Connects from one of several loopback addresses.
    pub(crate) fn with_spread_source(mut self) -> Self {
        let last = u8::try_from(2 + self.seed % ADDRESSES).unwrap_or(2);
        self.socket.source = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
        self
    }

    /// Another day needs this device. Returns `true` if its task must be started.
    pub(crate) fn want(&self) -> bool {
        let mut place = lock(&self.place);
        place.wanted += 1;
        self.wake.notify_one();
        !std::mem::replace(&mut place.is_running, true)
    }

    /// A day no longer needs it.
    pub(crate) fn release(&self) {
        lock(&self.place).wanted -= 1;
        self.wake.notify_one();
    }

    pub(crate) fn is_wanted(&self) -> bool {
        lock(&self.place).wanted > 0
    }

    /// Whether every message and every change was answered.
    pub(crate) fn is_done(&self) -> bool {
        lock(&self.outbox).is_empty() && lock(&self.changes).is_empty()
    }

    pub(crate) fn is_running(&self) -> bool {
        lock(&self.place).is_running
    }

    /// Whether the task may end. It may not if another day needs the device meanwhile.
    fn leave(&self) -> bool {
        let mut place = lock(&self.place);
        if place.wanted == 0 {
            place.is_running = false;
        }
        !place.is_running
    }

    /// Enqueues a line.
    pub(crate) fn say(&self, send: Send, line: LineRef) {
        // The window of each day bounds its lines here. A line that did not fit would be reported as never acked.
        let _ = lock(&self.outbox).enqueue(send, line);
        self.wake.notify_one();
    }

    /// Waits until the device is connected.
    pub(crate) async fn is_connected(&self) {
        // This cannot fail: the sender lives as long as the device.
        let _ = self.connected.subscribe().wait_for(|connected| *connected).await;
    }

    pub(crate) fn access_token(&self) -> String {
        lock(&self.tokens).access.clone()
    }

    /// Gets new tokens with the refresh token. If that was used up by a call whose answer was lost in a kill, logs in
    /// with the password.
    pub(crate) async fn renew(&self, world: &World) -> Result<(), ClientError> {
        let refresh = lock(&self.tokens).refresh.clone();
        let rest = world.rest_of(self);
        let signed_in = match rest.refresh(&refresh).await {
            Err(ClientError::Refused(body)) if body.code == ErrorCode::Unauthorized => {
                let login = Login {
                    handle: self.handle.clone(),
                    password: password(&self.handle),
                    device_name: String::new(),
                    device_id: Some(self.id),
                };
                rest.log_in(&login).await?
            }
            done => done?,
        };
        *lock(&self.tokens) = Tokens::from(signed_in);
        Ok(())
    }
}

/// Keeps the socket of a device open while a day needs it, then resumes once more and compares.
pub(crate) async fn drive(world: Arc<World>, device: Arc<Device>) {
    let mut random = SmallRng::seed_from_u64(device.seed);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    // Nodes that a node which drains has named.
    let mut named = VecDeque::new();
    loop {
        world.server_is_up().await;
        let end = Live::run(&world, &device, &mut random, (&mut backoff, &mut named)).await;
        device.connected.send_replace(false);
        lose_connection(&world, &device);
        match end {
            Ok(End::Checked) if device.leave() => break,
            Ok(End::Checked | End::Unwanted) => {}
            Ok(End::Dropped) => sleep(ABSENCE.mul_f64(random.random())).await,
            Ok(End::ComeBack(wait, nodes)) => {
                named = nodes;
                sleep(wait).await;
            }
            Err(error) => {
                world.note_trouble(error.to_string());
                if is_about_token(&error) {
                    // If the renewal failed, the next attempt shows it.
                    let _ = device.renew(&world).await;
                }
                sleep(backoff.next_wait(&mut random)).await;
            }
        }
    }
    world.sockets.fetch_sub(1, Ordering::SeqCst);
    world.socket_freed.notify_one();
}

/// The connection ended: messages in flight have an unknown outcome.
fn lose_connection(world: &World, device: &Device) {
    let mut outbox = lock(&device.outbox);
    world.counters.in_flight.fetch_sub(outbox.in_flight(), Ordering::SeqCst);
    outbox.handle_disconnected();
    drop(outbox);
    lock(&device.changes).handle_disconnected(Instant::now());
}

fn is_about_token(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(body) => body.code == ErrorCode::Unauthorized,
        ClientError::Closed { code, .. } => {
            *code == CloseReason::Unauthorized.code() || *code == CloseReason::TokenExpired.code()
        }
        _ => false,
    }
}
