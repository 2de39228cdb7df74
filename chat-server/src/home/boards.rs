//! Asks the other nodes of a fleet for their boards while an operator watches this one.
//!
//! A frame may be lost, and a node may be silent: its last board is shown, with the time it is from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use madang_bus::PeerFrame;
use madang_ids::{ChannelId, LogId, NodeRun};
use madang_proto::ErrorBody;
use madang_proto::rest::{Board, HotDetail};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::Homes;

/// How long one board waits for those of other nodes.
const PATIENCE: Duration = Duration::from_millis(300);
/// For how long the last board of a silent node is shown.
const SHOWN: Duration = Duration::from_secs(60);
/// Names of nodes in an error.
const NAMED: usize = 20;
/// Questions of other nodes that wait. One beyond it is lost, and asked again a second later.
const WAITING: usize = 64;

/// Another node asks for the board of this one.
#[derive(Debug, Clone, Copy)]
pub struct BoardQuestion {
    from: NodeRun,
    /// Also this channel in detail.
    pub channel: Option<ChannelId>,
}

/// The boards of other nodes.
pub(super) struct Boards {
    known: Mutex<BTreeMap<NodeRun, Known>>,
    arrived: Notify,
    questions: mpsc::Sender<BoardQuestion>,
    taken: Mutex<Option<mpsc::Receiver<BoardQuestion>>>,
}

struct Known {
    at: Duration,
    board: Board,
    detail: Option<HotDetail>,
}

impl Known {
    fn has(&self, channel: Option<ChannelId>) -> bool {
        channel.is_none() || self.detail.as_ref().map(|detail| detail.row.channel_id) == channel
    }
}

impl Default for Boards {
    fn default() -> Self {
        let (questions, taken) = mpsc::channel(WAITING);
        Self { known: Mutex::default(), arrived: Notify::new(), questions, taken: Mutex::new(Some(taken)) }
    }
}

impl Boards {
    pub(super) fn handle_question(&self, from: NodeRun, channel: Option<ChannelId>) {
        // It is lost if many wait.
        let _ = self.questions.try_send(BoardQuestion { from, channel });
    }

    pub(super) fn handle_answer(&self, from: NodeRun, at: Duration, board: Board, detail: Option<HotDetail>) {
        self.known.lock().insert(from, Known { at, board, detail });
        self.arrived.notify_waiters();
    }

    /// Waits until all nodes have answered since `asked`. Cancel safe.
    async fn answered(&self, nodes: &[NodeRun], asked: Duration, channel: Option<ChannelId>) {
        let has_answered = |known: &Known| known.at >= asked && known.has(channel);
        loop {
            let arrived = self.arrived.notified();
            let are_here = {
                let known = self.known.lock();
                nodes.iter().all(|node| known.get(node).is_some_and(has_answered))
            };
            if are_here {
                return;
            }
            arrived.await;
        }
    }
}

impl Homes {
    /// The questions of other nodes. `None` in one process, and the second time.
    #[must_use]
    pub fn take_board_questions(&self) -> Option<mpsc::Receiver<BoardQuestion>> {
        self.0.forwards.as_ref()?.boards.taken.lock().take()
    }

    /// Answers another node.
    pub fn answer_board(&self, question: BoardQuestion, board: Board, detail: Option<HotDetail>) {
        if let Some(forwards) = &self.0.forwards {
            let (board, detail) = (Box::new(board), detail.map(Box::new));
            forwards.peers.send(question.from, &PeerFrame::Board { board, detail });
        }
    }

    /// The name of the node that orders a channel; `None` in one process.
    #[must_use]
    pub fn home_name(&self, channel: ChannelId) -> Option<Arc<str>> {
        self.0.forwards.as_ref()?.home_name(LogId::Channel(channel))
    }

    /// Checks that a node is there, and another one to which its channels can move.
    ///
    /// # Errors
    /// `invalid`, with the names of the live nodes.
    pub fn check_moves_from(&self, name: &str) -> Result<(), ErrorBody> {
        let Some(forwards) = &self.0.forwards else {
            let message = "away_from: this server is one process, and the home of all its channels";
            return Err(ErrorBody::invalid("away_from", message));
        };
        let nodes = forwards.nodes.borrow();
        if nodes.len() > 1 && nodes.iter().any(|node| &*node.name == name) {
            return Ok(());
        }
        let names = nodes.iter().map(|node| &*node.name).take(NAMED).collect::<Vec<_>>().join(", ");
        let message = format!("away_from must be one of two or more nodes that are alive; alive: {names}");
        Err(ErrorBody::invalid("away_from", message))
    }

    /// Asks all other nodes, and waits a little for their answers. Returns the last board of each, and the channel in detail as they
    /// see it. Cancel safe.
    pub async fn ask_boards(&self, channel: Option<ChannelId>) -> (Vec<Board>, Vec<HotDetail>) {
        let Some(forwards) = &self.0.forwards else { return Default::default() };
        let nodes = forwards.others();
        let asked = self.0.clock.elapsed();
        for node in &nodes {
            forwards.peers.send(*node, &PeerFrame::BoardWanted { channel });
        }
        let boards = &forwards.boards;
        // By the time of the machine, because a clock of tests stands still. Those who do not answer are shown as they were.
        let _ = tokio::time::timeout(PATIENCE, boards.answered(&nodes, asked, channel)).await;
        let mut known = boards.known.lock();
        known.retain(|node, known| nodes.contains(node) && asked.saturating_sub(known.at) < SHOWN);
        let details = known.values().filter(|known| channel.is_some() && known.has(channel));
        let details = details.filter_map(|known| known.detail.clone()).collect();
        (known.values().map(|known| known.board.clone()).collect(), details)
    }
}
