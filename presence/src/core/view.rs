//! Which presence process owns which user.

use madang_ids::{NodeEpoch, NodeId, UserId, rendezvous};
use serde::{Deserialize, Serialize};

/// A process of the fleet in one of its epochs: a presence process, or a chat node. The number may survive a restart, the epoch does
/// not: it only rises, so that messages of an earlier life of the process can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ProcessRun {
    /// The number of the process. No other live process of the fleet has it.
    pub process: u16,
    /// Rises with each start of the process.
    pub epoch: NodeEpoch,
}

/// A fingerprint of a [`View`]. Two views with the same processes have the same fingerprint, on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ViewId(u64);

/// The live presence processes, and with them the owner of each user.
///
/// The owner is found by rendezvous hash ([`rendezvous`]). So a process that joins takes users from all others, one that leaves
/// gives its users to all others, and no other user moves. The numbers of the processes count, not their epochs: a restart moves
/// nobody. The formula is a contract between processes of different versions; [`tests`] has fixed vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// `None`: one process owns every user, and nothing is computed.
    processes: Option<Box<[u16]>>,
}

impl View {
    /// One process that owns every user.
    #[must_use]
    pub const fn whole() -> Self {
        Self { processes: None }
    }

    /// The view of these live processes, in any order.
    #[must_use]
    pub fn of(processes: &[u16]) -> Self {
        let mut processes = processes.to_vec();
        processes.sort_unstable();
        processes.dedup();
        Self { processes: Some(processes.into()) }
    }

    /// The fingerprint of the view. A node states with its set under which view it has chosen the users of the set.
    #[must_use]
    pub fn id(&self) -> ViewId {
        let hash = |hash: u64, process: &u16| rendezvous::mix(hash ^ u64::from(*process));
        ViewId(self.processes.as_deref().map_or(u64::MAX, |processes| processes.iter().fold(0, hash)))
    }

    /// The process that owns a user. `None` if there is no process, or if the view is [`Self::whole`].
    #[must_use]
    pub fn owner(&self, user: UserId) -> Option<u16> {
        rendezvous::owner(user.raw(), self.processes.as_deref()?.iter().copied())
    }

    /// Whether `process` owns a user.
    #[must_use]
    pub fn owns(&self, process: u16, user: UserId) -> bool {
        self.is_whole() || self.owner(user) == Some(process)
    }

    /// Whether one process owns every user.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.processes.is_none()
    }

    /// The live processes in ascending order; none in the whole view.
    pub(crate) fn processes(&self) -> &[u16] {
        self.processes.as_deref().unwrap_or_default()
    }
}

impl From<(NodeId, NodeEpoch)> for ProcessRun {
    fn from((NodeId(process), epoch): (NodeId, NodeEpoch)) -> Self {
        Self { process, epoch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_has_fixed_vectors() {
        // Computed by another implementation.
        let owners = |view: &View| (1..=12).map(|id| view.owner(UserId::from_raw(id))).collect::<Vec<_>>();
        let of_two = [1, 1, 2, 2, 1, 2, 1, 2, 2, 2, 1, 2].map(Some);
        let of_three = [3, 1, 3, 2, 3, 2, 3, 2, 2, 2, 1, 2].map(Some);
        assert_eq!(
            (owners(&View::of(&[2, 1])), owners(&View::of(&[3, 1, 2]))),
            (of_two.to_vec(), of_three.to_vec())
        );
        let ids = [&[][..], &[1], &[1, 2], &[2, 3, 1]].map(|processes| View::of(processes).id().0);
        assert_eq!(ids, [0, 0x910a_2dec_8902_5cc1, 0xbcd9_dbb4_9673_066b, 0xd073_4750_fde3_62b3]);
    }

    #[test]
    fn a_process_that_leaves_moves_only_its_own_users_and_they_spread() {
        let (all, left) = (View::of(&[1, 2, 3, 4]), View::of(&[1, 2, 4]));
        let mut taken = std::collections::BTreeMap::new();
        for user in (1..=10_000).map(UserId::from_raw) {
            match all.owner(user) {
                Some(3) => *taken.entry(left.owner(user)).or_insert(0) += 1,
                owner => assert_eq!(left.owner(user), owner),
            }
        }
        assert!(taken.len() == 3 && taken.values().all(|users| (600..1_100).contains(users)), "{taken:?}");
    }

    #[test]
    fn the_whole_view_owns_everybody_and_an_empty_one_nobody() {
        let user = UserId::from_raw(1);
        assert!(View::whole().owns(9, user) && !View::of(&[]).owns(9, user));
        assert_ne!(View::whole().id(), View::of(&[]).id());
    }
}
