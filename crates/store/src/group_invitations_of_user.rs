//! The invitations of one user, for stores that change them in memory.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use madang_ids::ChannelId;

use crate::group_invitations::{GroupInvitation, GroupInvitationLimits, GroupInvitationState, renewed};

/// The invitations of one user, in memory, while a store changes its partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OfUser(pub(crate) BTreeMap<ChannelId, GroupInvitation>);

impl OfUser {
    /// Invites the user; returns the invitations whose notes are to be appended.
    pub(crate) fn invite(
        &mut self,
        new: GroupInvitation,
        limits: GroupInvitationLimits,
        is_blocked: bool,
    ) -> Vec<GroupInvitation> {
        let found = self.0.get(&new.channel_id).copied();
        let Some(renewed) = renewed(found, new, is_blocked) else {
            return found.filter(|found| !found.is_recorded).into_iter().collect();
        };
        let mut due = Vec::new();
        if renewed.state == GroupInvitationState::Waiting {
            due.extend(self.make_room(new, limits));
        }
        self.0.insert(new.channel_id, renewed);
        if renewed.state == GroupInvitationState::Declined {
            self.forget_declined(limits.declined);
        }
        due.extend(Some(renewed).filter(|renewed| !renewed.is_recorded));
        due
    }

    /// Ends the oldest invitation of a crowded list.
    fn make_room(&mut self, new: GroupInvitation, limits: GroupInvitationLimits) -> Option<GroupInvitation> {
        let all = || self.0.values().filter(|found| found.state == GroupInvitationState::Waiting);
        let by_one = || all().filter(|found| found.by == new.by);
        let place = |found: &&GroupInvitation| (found.at, found.channel_id);
        let oldest = if by_one().count() >= limits.by_one as usize {
            by_one().min_by_key(place)
        } else if all().count() >= limits.waiting as usize {
            all().min_by_key(place)
        } else {
            None
        };
        let oldest = *oldest?;
        Some(self.change(oldest, GroupInvitationState::Ended))
    }

    /// Changes the state of an invitation.
    pub(crate) fn change(&mut self, found: GroupInvitation, state: GroupInvitationState) -> GroupInvitation {
        let changed = GroupInvitation { state, rev: found.rev + 1, is_recorded: false, ..found };
        self.0.insert(found.channel_id, changed);
        changed
    }

    /// Keeps the `most` most relevant declines: first the latest decline of each inviter, then the second of each, and
    /// so on.
    pub(crate) fn forget_declined(&mut self, most: u32) {
        let declined = self.0.values().filter(|found| found.state == GroupInvitationState::Declined);
        let mut declined: Vec<GroupInvitation> = declined.copied().collect();
        declined.sort_unstable_by_key(|found| Reverse((found.at, found.channel_id)));
        let mut counts = BTreeMap::new();
        let mut ranked: Vec<(u32, ChannelId)> = Vec::new();
        for found in declined {
            let count = counts.entry(found.by).or_insert(0_u32);
            *count += 1;
            ranked.push((*count, found.channel_id));
        }
        // The sort is stable: within one rank the later declines come first.
        ranked.sort_by_key(|(rank, _)| *rank);
        for (_, channel) in ranked.into_iter().skip(most as usize) {
            self.0.remove(&channel);
        }
    }
}
