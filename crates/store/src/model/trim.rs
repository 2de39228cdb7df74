//! Trimming in memory: deletes old rows of own logs, and channels that were left long ago.

use std::cmp::Reverse;

use async_trait::async_trait;
use madang_ids::{ChannelId, LogId, UserId};

use super::{Model, Mutant, State};
use crate::error::StoreResult;
use crate::trim::{TrimStep, TrimStore, Trimmed};

impl Model {
    /// See [`crate::Upkeep::trim`].
    pub(super) async fn trim_users(&self, step: TrimStep) -> StoreResult<Trimmed> {
        let _call = self.journal.begin("trim");
        let (keeps_too_few, forgets_bans) =
            (self.is_mutant(Mutant::TrimKeepsTooFew), self.is_mutant(Mutant::TrimForgetsBans));
        self.write(|state| {
            let users: Vec<UserId> = state.users_with_own_log(step);
            let mut trimmed = Trimmed { after: step.after, more: true, ..Trimmed::default() };
            for &user in &users {
                let left = (step.forgets as u64).saturating_sub(trimmed.own_rows + trimmed.left_channels);
                let keep = step.own_rows.saturating_sub(u64::from(keeps_too_few));
                let rows = state.trim_own_log(user, keep, left);
                let channels = state.trim_left(user, step.left_channels, left - rows, forgets_bans);
                trimmed.own_rows += rows;
                trimmed.left_channels += channels;
                if rows + channels >= left {
                    return trimmed;
                }
                trimmed.after = Some(user);
            }
            Trimmed { more: users.len() == step.users, ..trimmed }
        })
        .await
    }
}

#[async_trait]
impl TrimStore for Model {
    async fn forget_user(&self, user: UserId, forgets: usize) -> StoreResult<usize> {
        let _call = self.journal.begin("forget_user");
        let forgets_all = self.is_mutant(Mutant::ForgetsClosedDirects);
        self.write(|state| {
            let rows = state.trim_own_log(user, 1, forgets as u64);
            let channels = state.trim_left(user, 0, forgets as u64 - rows, false);
            let mut room = forgets - usize::try_from(rows + channels).unwrap_or(forgets);
            // Returns whether a row is kept. Each deleted row uses up one place of `forgets`.
            let mut stays = |is_one: bool| {
                let goes = is_one && room > 0;
                room -= usize::from(goes);
                !goes
            };
            state.settings.retain(|(of, _), _| stays(*of == user));
            state.hidden.retain(|(of, _, _)| stays(*of == user));
            let directs = &state.directs;
            let is_closed = |other: UserId| directs.contains_key(&(user.min(other), user.max(other)));
            state.blocks.retain(|(of, other)| stays(*of == user && (forgets_all || !is_closed(*other))));
            forgets - room
        })
        .await
    }
}

impl State {
    fn users_with_own_log(&self, step: TrimStep) -> Vec<UserId> {
        let users = self.logs.keys().filter_map(|log| match log {
            LogId::User(user) => Some(*user),
            LogId::Channel(_) => None,
        });
        users.filter(|user| Some(*user) > step.after).take(step.users).collect()
    }

    fn trim_own_log(&mut self, user: UserId, keep: u64, at_most: u64) -> u64 {
        let Some(log) = self.logs.get_mut(&LogId::User(user)) else { return 0 };
        let too_many = (log.rows.len() as u64).saturating_sub(keep).min(at_most);
        log.rows.drain(..usize::try_from(too_many).unwrap_or(usize::MAX));
        log.trimmed += too_many;
        too_many
    }

    fn trim_left(&mut self, user: UserId, keep: usize, at_most: u64, forgets_bans: bool) -> u64 {
        let is_kept = |channel: ChannelId| {
            self.members.get(&(channel, user)).is_some_and(|member| {
                member.spans.is_open()
                    || member.pending.is_some()
                    || (member.banned.is_some() && !forgets_bans)
            })
        };
        let mut left: Vec<_> = self
            .memberships
            .values()
            .filter(|it| it.user_id == user && !it.spans.is_open() && !is_kept(it.channel_id))
            .map(|it| {
                let left_at = self.left_at.get(&(user, it.channel_id)).copied();
                (Reverse((it.in_inbox, it.has_accepted, left_at.unwrap_or_default())), it.channel_id)
            })
            .collect();
        left.sort_unstable();
        let at_most = usize::try_from(at_most).unwrap_or(usize::MAX);
        let forgotten: Vec<ChannelId> =
            left.into_iter().skip(keep).take(at_most).map(|(_, channel)| channel).collect();
        for &channel in &forgotten {
            self.note_forgotten(user, channel);
            self.members.remove(&(channel, user));
            self.memberships.remove(&(user, channel));
            self.markers.remove(&(user, channel));
            self.left_at.remove(&(user, channel));
            self.settings.remove(&(user, channel));
            self.hidden.retain(|(of, at, _)| (*of, *at) != (user, channel));
        }
        forgotten.len() as u64
    }

    /// Deleting the stay also removes from the inbox what it showed of the stay, up to the row that ended it.
    fn note_forgotten(&mut self, user: UserId, channel: ChannelId) {
        let Some(it) = self.memberships.get(&(user, channel)).filter(|it| it.in_inbox) else { return };
        let until = it.spans.last().and_then(|span| span.until);
        let rows = self.logs.get(&LogId::Channel(channel)).map_or(&[][..], |log| &log.rows);
        let ended = rows.iter().find(|stored| Some(stored.row.entry.seq) == until);
        let ended = ended.map_or(0, |stored| stored.position);
        let left = self.left_at.get(&(user, channel)).copied().unwrap_or_default();
        let upto = self.forgotten_upto.entry(user).or_default();
        *upto = ended.max(left).max(*upto);
    }
}
