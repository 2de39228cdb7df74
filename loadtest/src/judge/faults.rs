//! Broken guarantees: counted by kind, and the first hundred with details.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use madang_ids::ChannelId;
use serde::Serialize;

/// Most faults with details in a report. A broken server may produce millions.
const NAMED: usize = 100;

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// Acked and not in history; in history and not on a device of a member; or sent and never acked.
    Lost,
    /// Received twice on one connection, received again although a cursor covered it, or one key in two rows.
    Duplicated,
    /// Received after a later entry, or ids that do not rise.
    Reordered,
    /// A place was skipped when a later entry was received, or history has no entry there.
    Hole,
    /// Two contents at one place, a text that was not sent, or a retry refused as another message.
    Conflict,
    /// A device that had a cursor was asked to take a snapshot.
    Snapshot,
    /// At the end a device has another content of a message than the store.
    Stale,
    /// The store lacks an acked edit that no later edit replaced.
    EditLost,
    /// The store's reaction is not the one that was acked last.
    ReactionLost,
    /// The store still has a message, or its text, whose deletion was acked.
    Undeleted,
    /// A device received an entry although its user was not a member when it was appended.
    Leaked,
}

/// One fault with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    pub(crate) channel: Option<ChannelId>,
    pub(crate) seq: Option<u64>,
    /// The user's handle and the number of the device; absent if the log itself is at fault.
    pub(crate) device: Option<String>,
    pub(crate) what: String,
}

/// All faults so far.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// For each kind the number of faults, and the first of them.
    kinds: BTreeMap<FaultKind, (u64, Vec<Fault>)>,
}

impl Faults {
    /// Records a fault.
    pub(crate) fn note(&self, kind: FaultKind, fault: Fault) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, named) = inner.kinds.entry(kind).or_default();
        *count += 1;
        if named.len() < NAMED {
            named.push(fault);
        }
    }

    /// Number of faults of a kind.
    pub(crate) fn count(&self, kind: FaultKind) -> u64 {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.kinds.get(&kind).map_or(0, |(count, _)| *count)
    }

    /// Number of faults of all kinds.
    pub(crate) fn total(&self) -> u64 {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.kinds.values().map(|(count, _)| count).sum()
    }

    /// A hundred faults with details, taken from the kinds in turn, so that no kind hides another.
    pub(crate) fn named(&self) -> Vec<Fault> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let round = |index: usize| inner.kinds.values().filter_map(move |(_, named)| named.get(index));
        (0..NAMED).flat_map(round).take(NAMED).cloned().collect()
    }
}
