//! What homes of different nodes send each other: commands for the node that orders a channel, and their answers.

use std::sync::Arc;

use async_trait::async_trait;
use dashmap::DashMap;
use madang_engine::heat::{HeatReport, Level};
use madang_engine::home::{Command, Reply};
use madang_ids::{ChannelId, LogId, Millis, NodeRun, UserId};
use madang_proto::rest::{Board, HotDetail};
use madang_proto::{ChannelCard, ChannelKind};
use madang_store::{Channel, StoreResult};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::bounds::PEER_BYTES;

/// Frames of other nodes that wait for the homes of this one. Beyond that they are lost, and the senders append themselves.
const WAITING: usize = 16_384;

/// A frame between two nodes. It may be lost; frames of one node to another keep their order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "peer", rename_all = "snake_case")]
pub enum PeerFrame {
    /// A command for the home of its channel.
    Command(Box<ForwardedCommand>),
    /// The command with this ticket has arrived and takes longer.
    Working {
        /// The ticket.
        ticket: u64,
    },
    /// The answer to the command with this ticket.
    Answer {
        /// The ticket.
        ticket: u64,
        /// The answer.
        reply: Reply,
    },
    /// The home of this channel looks up again who may write there, which has changed without a row of the log. If the frame is
    /// lost, the home does so within five seconds.
    Forget {
        /// The channel.
        channel: ChannelId,
    },
    /// The same for the homes of all direct channels of this user.
    ForgetDirect {
        /// The user.
        user: UserId,
    },
    /// What channels cost on the sending node, for their homes on the receiving one.
    Heat {
        /// At most 64 channels.
        reports: Vec<HeatReport>,
    },
    /// How hot the homes on the sending node found channels that the receiving one has reported.
    HeatLevels {
        /// At most 64 channels.
        levels: Vec<(ChannelId, Level)>,
    },
    /// An operator watches the board on the sending node, which asks for that of the receiving one.
    BoardWanted {
        /// Also this channel in detail.
        channel: Option<ChannelId>,
    },
    /// The answer.
    Board {
        /// The board of the sending node alone.
        board: Box<Board>,
        /// The channel, if it was asked for.
        detail: Option<Box<HotDetail>>,
    },
}

/// A command for the home of a channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForwardedCommand {
    /// Unique on the node that forwards, in its epoch.
    pub ticket: u64,
    /// A home that finds this time passed drops the command: its sender does not wait for it any more.
    pub deadline: Millis,
    /// The channel.
    pub channel: HomeChannel,
    /// The command. It has a key, or may be repeated: the sender repeats it if no answer comes.
    pub command: Command,
}

/// What a home needs to know of a channel, and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeChannel {
    /// The channel.
    pub id: ChannelId,
    /// Its kind.
    pub kind: ChannelKind,
    /// Its seats.
    pub capacity: u32,
    /// The user who created it.
    pub created_by: UserId,
    /// The two users of a direct channel.
    pub between: Option<[UserId; 2]>,
}

impl From<&Channel> for HomeChannel {
    fn from(channel: &Channel) -> Self {
        let Channel { card, capacity, created_by, .. } = channel;
        let &ChannelCard { id, kind, between, .. } = card;
        Self { id, kind, capacity: *capacity, created_by: *created_by, between }
    }
}

/// The way to the other nodes.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// This node.
    fn me(&self) -> NodeRun;

    /// Sends a frame; never waits. `false` if it is certain that the frame does not arrive.
    fn send(&self, to: NodeRun, frame: &PeerFrame) -> bool;

    /// The frames for this node. `None` the second time.
    fn take_frames(&self) -> Option<mpsc::Receiver<Arrived>>;

    /// Some logs that runs of nodes had [announced](crate::Inbox::announce) when they ended, other than those in `alive`. They stay
    /// there until [`Self::take_over`]. No run is returned without logs.
    ///
    /// # Errors
    /// The logs are not known at present.
    async fn left_logs(&self, _alive: &[NodeRun]) -> StoreResult<Vec<(NodeRun, Vec<LogId>)>> {
        Ok(Vec::new())
    }

    /// Whether what this node has announced is still there. It is not if other nodes took this one for dead, or the memory of the
    /// bus was lost.
    ///
    /// # Errors
    /// It is not known at present.
    async fn is_listed(&self) -> StoreResult<bool> {
        Ok(true)
    }

    /// What these logs of a run lacked was repeated.
    ///
    /// # Errors
    /// The logs stay there, and are repeated once more.
    async fn take_over(&self, _run: NodeRun, _logs: &[LogId]) -> StoreResult<()> {
        Ok(())
    }
}

/// A frame that has arrived.
#[derive(Debug)]
pub struct Arrived {
    /// Its sender.
    pub from: NodeRun,
    /// The frame.
    pub frame: PeerFrame,
    /// Its bytes, which count against [`PEER_BYTES`] until this is dropped.
    pub room: OwnedSemaphorePermit,
}

/// The receiving end of [`Peers`].
#[derive(Debug)]
pub(crate) struct Arrivals {
    sender: mpsc::Sender<Arrived>,
    receiver: Mutex<Option<mpsc::Receiver<Arrived>>>,
    room: Arc<Semaphore>,
}

impl Default for Arrivals {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let room = Arc::new(Semaphore::new(PEER_BYTES));
        Self { sender, receiver: Mutex::new(Some(receiver)), room }
    }
}

impl Arrivals {
    /// Whether there was room for a frame of this many bytes.
    pub(crate) fn put(&self, from: NodeRun, frame: PeerFrame, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else { return false };
        self.sender.try_send(Arrived { from, frame, room }).is_ok()
    }

    pub(crate) fn take(&self) -> Option<mpsc::Receiver<Arrived>> {
        self.receiver.lock().take()
    }
}

/// Nodes in one process, for tests: frames go from memory to memory, and may be dropped.
#[derive(Debug, Clone, Default)]
pub struct MemoryPeers(Arc<DashMap<NodeRun, Arc<Arrivals>>>);

impl MemoryPeers {
    /// A node among the others. Its frames are lost while `is_cut` says so for the sender and the receiver.
    #[must_use]
    pub fn node(
        &self,
        me: NodeRun,
        is_cut: impl Fn(NodeRun, NodeRun) -> bool + Send + Sync + 'static,
    ) -> Arc<dyn Peers> {
        self.0.entry(me).or_default();
        Arc::new(MemoryPeer { me, nodes: self.clone(), is_cut: Box::new(is_cut) })
    }
}

struct MemoryPeer {
    me: NodeRun,
    nodes: MemoryPeers,
    is_cut: Box<dyn Fn(NodeRun, NodeRun) -> bool + Send + Sync>,
}

impl Peers for MemoryPeer {
    fn me(&self) -> NodeRun {
        self.me
    }

    fn send(&self, to: NodeRun, frame: &PeerFrame) -> bool {
        if let Some(node) = self.nodes.0.get(&to).filter(|_| !(self.is_cut)(self.me, to)) {
            let _ = node.put(self.me, frame.clone(), 0);
        }
        true
    }

    fn take_frames(&self) -> Option<mpsc::Receiver<Arrived>> {
        self.nodes.0.get(&self.me)?.take()
    }
}

#[cfg(test)]
mod tests {
    use madang_ids::{NodeEpoch, NodeId};

    use super::*;

    #[test]
    fn frames_that_wait_are_bounded_in_bytes() {
        let (arrivals, from) = (Arrivals::default(), NodeRun { node: NodeId(1), epoch: NodeEpoch(1) });
        let mut frames = arrivals.take().unwrap();
        let put = |bytes| arrivals.put(from, PeerFrame::Working { ticket: 1 }, bytes);
        assert!(put(PEER_BYTES - 1));
        assert!(!put(2));
        let arrived = frames.try_recv().unwrap();
        assert!(!put(2), "a command that is carried out counts");
        drop(arrived);
        assert!(put(2));
    }
}
