//! The numbered frames between a core and the nodes, on the side of the core.

use std::collections::BTreeMap;
use std::time::Duration;

use super::wire::{Part, Reported, Taken};
use crate::api::{CALM, NodeReport, NodeRun, Up};
use crate::core::{NoticeTarget, ProcessRun, View};
use madang_proto::PresenceList;

/// The most connections of one node (48 bytes each). Parts of a set beyond it are dropped.
const CONNECTIONS: usize = 200_000;

/// Frames of one node, in their order.
#[derive(Debug)]
pub(crate) struct Heard {
    /// The node, with the set whose frames are taken.
    run: NodeRun,
    /// The number of the next frame.
    next: u64,
    /// A frame is missing, so nothing else is taken before the next set.
    is_broken: bool,
    /// The parts of the set that have come.
    parts: Vec<Up>,
    /// The earliest time at which the node is asked again for its set.
    asks_at: Duration,
}

/// The full set of a node.
#[derive(Debug, PartialEq)]
pub(crate) struct Set {
    /// The view by which the node has chosen the users.
    pub(crate) view: View,
    pub(crate) connections: Vec<Up>,
    /// Whether the rows of these users must be read again.
    pub(crate) rereads: bool,
    /// Reports behind it.
    pub(crate) reports: Vec<NodeReport>,
}

/// What a core does with a frame of a node.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It was taken before, or it is part of a set that is not complete.
    Nothing,
    /// It comes from an earlier life of the node, or the present set contains it.
    Refused,
    /// Frames are missing. The node lives, but only its set says what is true.
    Missing,
    /// A whole set.
    Set(Set),
    /// The next reports.
    Reports(Vec<NodeReport>),
}

impl Heard {
    /// A node of which nothing is known, before its first frame.
    pub(crate) fn of(run: NodeRun) -> Self {
        let run = NodeRun { set: 0, ..run };
        Self { run, next: 0, is_broken: true, parts: Vec::new(), asks_at: Duration::ZERO }
    }

    pub(crate) fn take(&mut self, reported: Reported) -> Verdict {
        let Reported { from, number, part, reports } = reported;
        if from.is_before(self.run) {
            return Verdict::Refused;
        }
        if from != self.run && number == 0 {
            (self.run, self.next, self.is_broken) = (from, 0, false);
            self.parts = Vec::new();
        }
        if from != self.run || self.is_broken || number > self.next {
            // The beginning of a set is missing, or something behind it.
            self.is_broken |= from == self.run;
            return Verdict::Missing;
        }
        if number < self.next {
            return Verdict::Nothing;
        }
        self.next += 1;
        let Some(Part { view, connections, is_last, rereads }) = part else {
            return Verdict::Reports(reports);
        };
        if self.parts.len() + connections.len() <= CONNECTIONS {
            self.parts.extend(connections);
        }
        match is_last {
            true => {
                let (view, connections) = (View::of(&view), std::mem::take(&mut self.parts));
                Verdict::Set(Set { view, connections, rereads, reports })
            }
            false => Verdict::Nothing,
        }
    }

    /// Whether the node may be asked for its set now. If so, it is asked.
    pub(crate) fn may_ask(&mut self, now: Duration) -> bool {
        let may = self.asks_at <= now;
        if may {
            self.asks_at = now + CALM;
        }
        may
    }

    pub(crate) const fn taken(&self) -> Taken {
        Taken { set: self.run.set, next: self.next }
    }
}

/// Frames to one node.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) to: ProcessRun,
    /// The number of the next frame.
    pub(crate) number: u64,
    pub(crate) notices: Vec<(NoticeTarget, PresenceList)>,
    /// The cards and the receivers of these notices.
    pub(crate) cards: usize,
    pub(crate) receivers: usize,
    pub(crate) asks_set: bool,
    pub(crate) taken: Option<Taken>,
}

/// Frames to all nodes, by worker number. There are only a thousand numbers.
pub(crate) type Lanes = BTreeMap<u16, Lane>;

impl Lane {
    pub(crate) fn new(to: ProcessRun) -> Self {
        let (notices, taken) = (Vec::new(), None);
        Self { to, number: 0, notices, cards: 0, receivers: 0, asks_set: false, taken }
    }
}
