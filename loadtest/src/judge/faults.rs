//! What broke: counted by kind, and the first hundred named.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use madang_ids::ChannelId;
use serde::Serialize;

/// Named faults in a report; a broken server breaks millions of times.
const NAMED: usize = 100;

/// The ways in which a guarantee breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// Acked and not in history, in history and not on a device of a member, or said and never acked.
    Lost,
    /// Twice on one connection, again though a cursor covered it, or one key in two rows.
    Duplicated,
    /// Below what had come before it, or ids that fall.
    Reordered,
    /// A place was skipped when the next one came, or history has none for it.
    Hole,
    /// Two contents for one place, other words than were said, or a retry refused as another message.
    Conflict,
    /// A device that had a cursor was told to take a snapshot.
    Snapshot,
    /// What a device has of a message at the end differs from what the store has.
    Stale,
    /// The store lacks an acked edit that no later one replaced.
    EditLost,
    /// The store has a reaction otherwise than it was last acked.
    ReactionLost,
    /// A message whose deletion was acked is there, or its text is.
    Undeleted,
    /// An entry came to somebody who was no member when it was written.
    Leaked,
}

/// One fault, with where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    pub(crate) channel: Option<ChannelId>,
    pub(crate) seq: Option<u64>,
    /// The user's handle and which of her devices; absent if the log itself is at fault.
    pub(crate) device: Option<String>,
    pub(crate) what: String,
}

/// Everything that broke so far.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Of each kind how many, and the first of them.
    kinds: BTreeMap<FaultKind, (u64, Vec<Fault>)>,
}

impl Faults {
    /// Notes a fault.
    pub(crate) fn note(&self, kind: FaultKind, fault: Fault) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, named) = inner.kinds.entry(kind).or_default();
        *count += 1;
        if named.len() < NAMED {
            named.push(fault);
        }
    }

    /// How many of a kind.
    pub(crate) fn count(&self, kind: FaultKind) -> u64 {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.kinds.get(&kind).map_or(0, |(count, _)| *count)
    }

    /// How many of all kinds.
    pub(crate) fn total(&self) -> u64 {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.kinds.values().map(|(count, _)| count).sum()
    }

    /// A hundred of them, the kinds in turn: one kind must not hide another.
    pub(crate) fn named(&self) -> Vec<Fault> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let round = |index: usize| inner.kinds.values().filter_map(move |(_, named)| named.get(index));
        (0..NAMED).flat_map(round).take(NAMED).cloned().collect()
    }
}
