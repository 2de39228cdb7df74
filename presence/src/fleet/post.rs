//! Where frames go: to another process, or to the other role in this one. Nothing here waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use madang_service::Clock;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::wire::{Frame, ToCore, ToNode};
use crate::core::ProcessRun;
use crate::metrics::FleetMetrics;

/// Frames that wait for a role of this process, and their bytes. A process that was paused gets several thousand at once.
const INBOX: usize = 4_096;
const INBOX_BYTES: usize = 32 * 1024 * 1024;
/// The pause between two log lines about frames that cannot be read.
const QUIET: Duration = Duration::from_secs(60);

/// Brings frames to other processes.
pub trait Transport: Send + Sync + 'static {
    /// Enqueues a frame for a process; `false` if it is dropped. Never waits.
    ///
    /// Frames for one process arrive in their order. They may be lost and repeated: presence numbers them, and asks again. If the
    /// order is not kept, frames are dropped and full sets are sent instead, without end.
    fn send(&self, to: ProcessRun, frame: Vec<u8>) -> bool;
}

/// Sends and receives the frames of the presence roles of a process. A clone shares it.
#[derive(Clone)]
pub struct Post(Arc<Inner>);

struct Inner {
    transport: Box<dyn Transport>,
    to_node: Sender<ToNode>,
    to_core: Sender<ToCore>,
    clock: Clock,
    metrics: FleetMetrics,
    /// From then on a frame that cannot be read is logged again.
    logs_at: Mutex<Duration>,
}

/// What arrives for the chat node of this process. Drop it if there is none.
#[derive(Debug)]
pub struct NodeInbox(pub(crate) Receiver<ToNode>);

/// What arrives for the presence core of this process. Drop it if there is none.
#[derive(Debug)]
pub struct CoreInbox(pub(crate) Receiver<ToCore>);

/// A queue that is bounded in frames and in bytes.
#[derive(Debug)]
struct Sender<T> {
    frames: mpsc::Sender<(usize, T)>,
    held: Arc<AtomicUsize>,
}

#[derive(Debug)]
pub(crate) struct Receiver<T> {
    frames: mpsc::Receiver<(usize, T)>,
    held: Arc<AtomicUsize>,
}

fn inbox<T>() -> (Sender<T>, Receiver<T>) {
    let (frames, receiver) = mpsc::channel(INBOX);
    let held = Arc::new(AtomicUsize::new(0));
    (Sender { frames, held: Arc::clone(&held) }, Receiver { frames: receiver, held })
}

impl<T> Sender<T> {
    fn send(&self, weight: usize, frame: T) -> bool {
        if self.held.fetch_add(weight, Ordering::Relaxed) < INBOX_BYTES
            && self.frames.try_send((weight, frame)).is_ok()
        {
            return true;
        }
        self.held.fetch_sub(weight, Ordering::Relaxed);
        false
    }
}

impl<T> Receiver<T> {
    /// The next frame. Cancel safe.
    pub(crate) async fn recv(&mut self) -> Option<T> {
        let (weight, frame) = self.frames.recv().await?;
        self.held.fetch_sub(weight, Ordering::Relaxed);
        Some(frame)
    }

    /// The next frame that has arrived.
    pub(crate) fn try_recv(&mut self) -> Option<T> {
        let (weight, frame) = self.frames.try_recv().ok()?;
        self.held.fetch_sub(weight, Ordering::Relaxed);
        Some(frame)
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Post(..)")
    }
}

impl Post {
    /// The post of a process, and the inboxes of its roles.
    #[must_use]
    pub fn new(
        transport: impl Transport,
        clock: Clock,
        metrics: FleetMetrics,
    ) -> (Self, NodeInbox, CoreInbox) {
        let ((to_node, of_node), (to_core, of_core)) = (inbox(), inbox());
        let transport = Box::new(transport);
        let logs_at = Mutex::new(Duration::ZERO);
        let inner = Inner { transport, to_node, to_core, clock, metrics, logs_at };
        (Self(Arc::new(inner)), NodeInbox(of_node), CoreInbox(of_core))
    }

    /// Takes a frame of presence that has arrived in this process. Never waits.
    pub fn receive(&self, frame: &[u8]) {
        match Frame::decode(frame) {
            Ok(frame) => drop(self.deliver(frame)),
            Err(error) => {
                self.0.metrics.frames_unreadable.inc();
                let now = self.0.clock.elapsed();
                let mut logs_at = self.0.logs_at.lock();
                if *logs_at <= now {
                    *logs_at = now + QUIET;
                    tracing::warn!(%error, "a presence frame of another process cannot be read; further ones \
                         are not logged for a minute");
                }
            }
        }
    }

    /// Sends a frame from `me`; `false` if it is dropped. Within a process it is not encoded.
    pub(crate) fn send(&self, me: ProcessRun, to: ProcessRun, frame: &Frame) -> bool {
        if me == to {
            return self.deliver(frame.clone());
        }
        let is_sent = frame.encode().is_some_and(|bytes| self.0.transport.send(to, bytes));
        if !is_sent {
            self.0.metrics.frames_unsent.inc();
        }
        is_sent
    }

    fn deliver(&self, frame: Frame) -> bool {
        let weight = frame.weight();
        let is_taken = match frame {
            Frame::Node(frame) => self.0.to_node.send(weight, frame),
            Frame::Core(frame) => self.0.to_core.send(weight, frame),
        };
        if !is_taken {
            self.0.metrics.frames_unsent.inc();
        }
        is_taken
    }
}
