//! The store of channels and members, in memory.

use std::collections::BTreeSet;

use async_trait::async_trait;
use madang_ids::{ChannelId, LogId, Millis, Seq, UserId};
use madang_proto::ChannelKind;

use super::{Model, Mutant, State};
use crate::channels::{
    Channel, ChannelStore, MENTIONS_COUNTED, Member, Membership, Overview, OverviewOrder, SeatChange,
    SeatOutcome, Seating, Seats,
};
use crate::directory::{DirectoryStore, FoundChannel, FoundPage, caseless, searched};
use crate::error::{StoreError, StoreResult};
use crate::log::Marker;
use crate::log::{ChannelState, Details};

#[async_trait]
impl ChannelStore for Model {
    async fn create_channel(&self, channel: &Channel) -> StoreResult<()> {
        let _call = self.journal.begin("create_channel");
        self.write(|state| {
            state.channels.entry(channel.card.id).or_insert_with(|| channel.clone());
        })
        .await
    }

    async fn channel(&self, id: ChannelId) -> StoreResult<Option<Channel>> {
        let _call = self.journal.begin("channel");
        self.read(|state| {
            let old = state.old_channels.lock().remove(&id);
            old.or_else(|| state.channels.get(&id).cloned())
        })
        .await
    }

    async fn open_made(&self, user: UserId, most: u32) -> StoreResult<u32> {
        let _call = self.journal.begin("open_made");
        self.read(|state| {
            let active = state.channels.values().filter(|channel| channel.state == ChannelState::Active);
            let made = active.filter(|channel| channel.created_by == user);
            let open = made.filter(|channel| channel.card.kind == ChannelKind::Open);
            u32::try_from(open.take(most as usize).count()).unwrap_or(most)
        })
        .await
    }

    async fn channels_among(&self, user: UserId, channels: &[ChannelId]) -> StoreResult<Vec<ChannelId>> {
        let _call = self.journal.begin("channels_among");
        self.read(|state| {
            let is_known = |channel: &&ChannelId| state.memberships.contains_key(&(user, **channel));
            channels.iter().filter(is_known).copied().collect()
        })
        .await
    }

    async fn claim_direct(&self, one: UserId, other: UserId, candidate: ChannelId) -> StoreResult<ChannelId> {
        let _call = self.journal.begin("claim_direct");
        let pair = (one.min(other), one.max(other));
        let always = self.is_mutant(Mutant::DirectAlwaysCandidate);
        self.write(|state| {
            let claimed = *state.directs.entry(pair).or_insert(candidate);
            if always { candidate } else { claimed }
        })
        .await
    }

    async fn direct(&self, one: UserId, other: UserId) -> StoreResult<Option<ChannelId>> {
        let _call = self.journal.begin("direct");
        self.read(|state| state.directs.get(&(one.min(other), one.max(other))).copied()).await
    }

    async fn seats(&self, channel: ChannelId) -> StoreResult<Seats> {
        let _call = self.journal.begin("seats");
        self.read(|state| state.seats.get(&channel).copied().unwrap_or_default()).await
    }

    async fn change_seats(&self, change: SeatChange, memberships: &[Membership]) -> StoreResult<SeatOutcome> {
        let _call = self.journal.begin("change_seats");
        let is_blind = self.is_mutant(Mutant::SeatsIgnoreRevision);
        let changed = self.write(|state| {
            let seats = state.seats.entry(change.channel).or_default();
            if seats.rev != change.if_rev && !is_blind {
                return SeatOutcome::Moved;
            }
            *seats = Seats { count: change.count, rev: seats.rev + 1 };
            let seats = *seats;
            for member in &change.members {
                state.put_member(change.channel, member.clone());
            }
            SeatOutcome::Changed(seats)
        });
        let outcome = changed.await?;
        if let SeatOutcome::Changed(_) = outcome {
            let put = self.put_memberships(memberships).await;
            put.map_err(|error| StoreError::Unknown(error.to_string()))?;
        }
        Ok(outcome)
    }

    async fn accept_stay(&self, user: UserId, channel: ChannelId) -> StoreResult<()> {
        let _call = self.journal.begin("accept_stay");
        // The member's row is written first: a later call that finds it written repeats the write of the membership.
        self.write(|state| {
            let member = state.members.get_mut(&(channel, user)).filter(|member| member.spans.is_open());
            member.into_iter().for_each(|member| member.has_accepted = true);
        })
        .await?;
        let membership = self.write(|state| {
            let row = state.memberships.get_mut(&(user, channel)).filter(|row| row.spans.is_open());
            row.into_iter().for_each(|row| row.has_accepted = true);
        });
        membership.await.map_err(|error| StoreError::Unknown(error.to_string()))
    }

    async fn settle_members(&self, channel: ChannelId, members: &[Member]) -> StoreResult<()> {
        let _call = self.journal.begin("settle_members");
        let is_blind = self.is_mutant(Mutant::SettleIgnoresLaterChange);
        self.write_each(members, |state, settled| {
            let found = state.members.get_mut(&(channel, settled.user_id));
            if let Some(found) = found.filter(|found| is_blind || found.is_settled_by(settled)) {
                found.spans = settled.spans.clone();
                found.pending = settled.pending.filter(|pending| pending.is_recorded);
            }
        })
        .await
    }

    async fn members_of(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Option<Member>>> {
        let _call = self.journal.begin("members_of");
        self.read(|state| users.iter().map(|&user| state.members.get(&(channel, user)).cloned()).collect())
            .await
    }

    async fn members(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        let _call = self.journal.begin("members");
        self.read(|state| {
            let is_now = |member: &&Member| member.spans.is_open() && Some(member.user_id) > after;
            state.members_of(channel).filter(is_now).take(limit).cloned().collect()
        })
        .await
    }

    async fn members_ever(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        let _call = self.journal.begin("members_ever");
        self.read(|state| {
            let is_later = |member: &&Member| Some(member.user_id) > after;
            state.members_of(channel).filter(is_later).take(limit).cloned().collect()
        })
        .await
    }

    async fn successor(&self, channel: ChannelId, owner: UserId) -> StoreResult<Option<UserId>> {
        let _call = self.journal.begin("successor");
        let ignores_roles = self.is_mutant(Mutant::SuccessorIgnoresRoles);
        self.read(|state| {
            let others = state.members_of(channel).filter(|it| it.spans.is_open() && it.user_id != owner);
            let rank = |it: &&Member| (!ignores_roles && !it.role.is_admin(), it.joined_at, it.user_id);
            others.min_by_key(rank).map(|member| member.user_id)
        })
        .await
    }

    async fn seating(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Seating> {
        let _call = self.journal.begin("seating");
        self.read(|state| Seating {
            seats: state.seats.get(&channel).copied().unwrap_or_default(),
            pending: state.members_of(channel).filter(|member| member.pending.is_some()).cloned().collect(),
            members: users.iter().map(|&user| state.members.get(&(channel, user)).cloned()).collect(),
        })
        .await
    }

    async fn banned(
        &self,
        channel: ChannelId,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<Member>> {
        let _call = self.journal.begin("banned");
        self.read(|state| {
            let is_banned = |member: &&Member| member.banned.is_some() && Some(member.user_id) > after;
            state.members_of(channel).filter(is_banned).take(limit).cloned().collect()
        })
        .await
    }

    async fn put_memberships(&self, memberships: &[Membership]) -> StoreResult<()> {
        let _call = self.journal.begin("put_memberships");
        let is_blind = self.is_mutant(Mutant::MembershipIgnoresLater);
        self.write_each(memberships, |state, new| {
            let key = (new.user_id, new.channel_id);
            let old = state.memberships.get(&key);
            if is_blind || old.is_none_or(|old| new.may_replace(old)) {
                let has_accepted = new.has_accepted || old.is_some_and(|old| keeps(old, new));
                if new.spans.is_open() {
                    state.left_at.remove(&key);
                    state.group_invitations.remove(&key);
                } else {
                    state.left_at.entry(key).or_insert(state.position);
                }
                state.memberships.insert(key, Membership { has_accepted, ..new.clone() });
            }
        })
        .await
    }

    async fn membership(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Membership>> {
        let _call = self.journal.begin("membership");
        self.read(|state| state.memberships.get(&(user, channel)).cloned()).await
    }

    async fn memberships(
        &self,
        user: UserId,
        after: Option<ChannelId>,
        limit: usize,
    ) -> StoreResult<Vec<Membership>> {
        let _call = self.journal.begin("memberships");
        self.read(|state| {
            let is_next = |one: &&Membership| one.user_id == user && Some(one.channel_id) > after;
            state.memberships.values().filter(is_next).take(limit).cloned().collect()
        })
        .await
    }

    async fn channel_counts(&self, users: &[UserId], most: u32) -> StoreResult<Vec<u32>> {
        let _call = self.journal.begin("channel_counts");
        let counts_ended = self.is_mutant(Mutant::CountsEndedMemberships);
        self.read(|state| {
            let count = |&user: &UserId| {
                let of_hers = |membership: &&Membership| {
                    membership.user_id == user && (counts_ended || membership.spans.is_open())
                };
                state.memberships.values().filter(of_hers).take(most as usize).count() as u32
            };
            users.iter().map(count).collect()
        })
        .await
    }

    async fn overview(&self, user: UserId, order: OverviewOrder, limit: usize) -> StoreResult<Vec<Overview>> {
        let _call = self.journal.begin("overview");
        let skips_ties = self.is_mutant(Mutant::ActivitySkipsTies);
        let is_left = matches!(order, OverviewOrder::Left(_));
        self.read(|state| {
            let mut all: Vec<Overview> = state
                .memberships
                .values()
                .filter(|membership| membership.user_id == user && membership.spans.is_open() != is_left)
                .filter_map(|membership| state.overview(membership))
                .filter(|overview| !is_left || is_readable_after(&overview.channel))
                .collect();
            match order {
                OverviewOrder::Id(after) | OverviewOrder::Left(after) => {
                    all.retain(|overview| Some(overview.channel.card.id) > after)
                }
                OverviewOrder::Activity(after) => {
                    let key = |overview: &Overview| (overview.head.at, overview.channel.card.id);
                    all.retain(|overview| {
                        after.is_none_or(|after| {
                            key(overview) < after && (!skips_ties || overview.head.at < after.0)
                        })
                    });
                    all.sort_by_key(|overview| std::cmp::Reverse(key(overview)));
                }
            }
            all.truncate(limit);
            all
        })
        .await
    }

    async fn overview_of(&self, user: UserId, channel: ChannelId) -> StoreResult<Option<Overview>> {
        let _call = self.journal.begin("overview_of");
        self.read(|state| state.overview(state.memberships.get(&(user, channel))?)).await
    }

    async fn markers(&self, channel: ChannelId, users: &[UserId]) -> StoreResult<Vec<Marker>> {
        let _call = self.journal.begin("markers");
        self.read(|state| {
            let marker = |user: &UserId| state.markers.get(&(*user, channel)).copied().unwrap_or_default();
            users.iter().map(marker).collect()
        })
        .await
    }

    async fn advance_marker(&self, user: UserId, channel: ChannelId, marker: Marker) -> StoreResult<()> {
        let _call = self.journal.begin("advance_marker");
        let goes_back = self.is_mutant(Mutant::MarkerGoesBack);
        self.write(|state| state.raise_marker(user, channel, marker, goes_back)).await
    }
}

#[async_trait]
impl DirectoryStore for Model {
    async fn find_open(
        &self,
        query: &str,
        after: Option<ChannelId>,
        limit: usize,
        scan: usize,
    ) -> StoreResult<FoundPage> {
        let _call = self.journal.begin("find_open");
        let query = match self.is_mutant(Mutant::FindIsCaseSensitive) {
            true => query.to_owned(),
            false => caseless(query),
        };
        self.read(|state| {
            let active = state.channels.values().filter(|channel| channel.state == ChannelState::Active);
            let open = active.map(|channel| &channel.card);
            let open = open.filter(|card| card.kind == ChannelKind::Open && Some(card.id) > after);
            let (mut page, mut count) = (FoundPage::default(), 0);
            for card in open.take(scan) {
                count += 1;
                page.next = Some(card.id);
                let is_found = searched(card.name.as_deref(), &card.topic).contains(&query);
                if let Some(seats) = state.seats.get(&card.id).filter(|_| is_found) {
                    page.channels.push(FoundChannel { card: card.clone(), members: seats.count });
                    if page.channels.len() == limit {
                        return page;
                    }
                }
            }
            page.next = page.next.filter(|_| count == scan);
            page
        })
        .await
    }
}

/// Whether a former member may read entries of the time of their membership.
fn is_readable_after(channel: &Channel) -> bool {
    channel.card.kind != ChannelKind::Open && channel.state != ChannelState::Deleted
}

/// Whether the acceptance of the stay is kept: the stay continues, or has ended.
fn keeps(old: &Membership, new: &Membership) -> bool {
    old.has_accepted && (old.spans.is_open() || !new.spans.is_open())
}

impl State {
    fn put_member(&mut self, channel: ChannelId, mut member: Member) {
        let key = (channel, member.user_id);
        let kept = self.members.get(&key).is_some_and(|old| old.has_accepted && old.spans.is_open());
        member.has_accepted |= kept && member.spans.is_open();
        self.members.insert(key, member);
    }

    fn members_of(&self, channel: ChannelId) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |((place, _), _)| *place == channel).map(|(_, member)| member)
    }

    fn overview(&self, membership: &Membership) -> Option<Overview> {
        let channel = self.channels.get(&membership.channel_id)?;
        let key = (membership.user_id, membership.channel_id);
        let marker = self.markers.get(&key).copied().unwrap_or_default();
        Some(Overview {
            channel: channel.clone(),
            membership: membership.clone(),
            head: self.head(LogId::Channel(membership.channel_id)),
            marker,
            mentions: self.mentions_after(membership, marker.seq),
            settings: self.settings_of(membership.user_id, membership.channel_id),
            last_message_at: self.last_message_at(membership.channel_id),
        })
    }

    fn last_message_at(&self, channel: ChannelId) -> Option<Millis> {
        let rows = &self.logs.get(&LogId::Channel(channel))?.rows;
        rows.iter().rfind(|stored| stored.row.key.is_some()).map(|stored| stored.row.entry.at)
    }

    fn mentions_after(&self, membership: &Membership, seq: Seq) -> u64 {
        let is_theirs = |user: &Option<UserId>| user.is_none_or(|user| user == membership.user_id);
        let until = membership.spans.last().and_then(|span| span.until);
        let mentions = self.mentions.iter().filter(|((channel, user, at), _)| {
            *channel == membership.channel_id && is_theirs(user) && *at > seq
        });
        let mentions = mentions.filter(|(_, sender)| !self.blocks.contains(&(membership.user_id, **sender)));
        let messages: BTreeSet<Seq> = mentions.map(|((_, _, seq), _)| *seq).collect();
        let messages = messages.iter().filter(|seq| until.is_none_or(|until| **seq <= until));
        messages.take(MENTIONS_COUNTED as usize).count() as u64
    }

    pub(super) fn set_details(&mut self, channel: ChannelId, details: &Details) {
        let Some(channel) = self.channels.get_mut(&channel) else { return };
        let Details { state, name, topic, avatar, slow_mode_seconds, pins } = details.clone();
        channel.state = state;
        (channel.card.name, channel.card.topic, channel.card.avatar) = (name, topic, avatar);
        (channel.slow_mode_seconds, channel.pins) = (slow_mode_seconds, pins);
    }

    pub(super) fn raise_marker(&mut self, user: UserId, channel: ChannelId, marker: Marker, goes_back: bool) {
        let place = self.markers.entry((user, channel)).or_default();
        if marker.seq > place.seq || goes_back {
            *place = marker;
        }
    }
}
