//! Carries out the effects of a home.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join, try_join_all, try_join3};
use madang_engine::home::{Between, Effect, Failure, Found, Loaded, Lookup, Reply};
use madang_engine::log::{Append, AppendOutcome, Head, ReactionChange};
use madang_engine::now::Now;
use madang_engine::seats::{Member, SeatChange, SeatOutcome};
use madang_ids::{ChannelId, LogId, Ordinal, Seq, UserId};
use madang_proto::{ChannelKind, Content, ErrorCode, JoinedState, Reaction, limits};
use madang_store::{Channel, Marker, Membership, Seating, Span, StoreError, StoreResult, patiently};

use super::written::Tally;
use super::{Cell, Homes};
use crate::heat::Saving;
use crate::refusal::refusal;

/// The next step of a driver.
enum Next {
    Effect(Box<Effect>),
    /// Nothing before this time has passed or a command comes.
    DueIn(Duration),
    Rest,
}

impl Homes {
    /// Runs the cell until it has nothing to do.
    pub(super) async fn drive(&self, cell: &Arc<Cell>) {
        loop {
            match self.next(cell) {
                Next::Effect(effect) => self.carry_out(cell, *effect).await,
                // A command that came after `next` has left a permit, so the wait ends at once.
                Next::DueIn(wait) => {
                    tokio::select! {
                        () = self.0.clock.sleep(wait) => {}
                        () = cell.asked.notified() => {}
                    }
                }
                Next::Rest => return,
            }
        }
    }

    fn next(&self, cell: &Cell) -> Next {
        let mut state = cell.state.lock();
        let now = self.now();
        state.home.slow_down(self.slow_mode_seconds(cell));
        if let Some(effect) = state.home.poll(now, &self.0.ids) {
            return Next::Effect(Box::new(effect));
        }
        match state.home.due_in(now) {
            Some(wait) => Next::DueIn(wait),
            None => {
                // Cleared under the lock in which nothing was found to do: a command that comes later sees it and starts a new
                // driver.
                state.is_driven = false;
                Next::Rest
            }
        }
    }

    /// The slow mode of a hot channel. Two users who talk with each other are not slowed down.
    fn slow_mode_seconds(&self, cell: &Cell) -> u32 {
        match (cell.log, cell.kind) {
            (LogId::Channel(channel), Some(ChannelKind::Open | ChannelKind::Group)) => {
                self.0.heats.hot(channel).map_or(0, |hot| hot.pacing.slow_mode_seconds.into())
            }
            _ => 0,
        }
    }

    pub(super) fn now(&self) -> Now {
        Now { at: self.0.clock.now_ms(), elapsed: self.0.clock.elapsed() }
    }

    async fn carry_out(&self, cell: &Arc<Cell>, effect: Effect) {
        match effect {
            Effect::Reply { ticket, reply } => {
                let answer = cell.state.lock().answers.remove(&ticket);
                self.count_reply(cell.log, &reply);
                if let Some(answer) = answer {
                    answer(reply);
                }
            }
            Effect::Fanout { rows, consequences, .. } => self.owe(cell, rows, consequences).await,
            Effect::Redrive { range, .. } => self.owe_again(cell, range).await,
            Effect::Load { rows, lookup, .. } => {
                let loaded = self.load(cell, rows, lookup).await.map_err(failure);
                cell.state.lock().home.handle_loaded(loaded, self.now());
            }
            Effect::Find(lookup) => {
                let found = self.find(cell, lookup).await.map_err(failure);
                cell.state.lock().home.handle_found(found, self.now());
            }
            Effect::FindSends { keys } => {
                let sends = match cell.log {
                    LogId::Channel(channel) => self.0.logs.find_sends(channel, &keys).await.map_err(failure),
                    LogId::User(_) => Ok(vec![None; keys.len()]),
                };
                cell.state.lock().home.handle_sends(sends, self.now());
            }
            Effect::FindRows { seqs, max_bytes } => {
                let rows = self.0.logs.rows_at(cell.log, &seqs, max_bytes).await.map_err(failure);
                let rows = rows.map(|rows| seqs.into_iter().zip(rows).collect());
                cell.state.lock().home.handle_rows(rows, self.now());
            }
            Effect::React { changes } => {
                let reacted = self.react(cell.log, &changes).await.map_err(failure);
                cell.state.lock().home.handle_reacted(reacted, self.now());
            }
            Effect::Append(append) => {
                let outcome = self.append(cell, append).await;
                cell.state.lock().home.handle_appended(outcome, self.now());
            }
            Effect::ChangeSeats(change) => {
                let outcome = self.change_seats(cell, change).await;
                cell.state.lock().home.handle_seated(outcome, self.now());
            }
            Effect::Accept { user_id } => self.accept(cell.log, user_id),
            Effect::Settle { members } => {
                let settled = self.settle(cell, &members).await;
                cell.state.lock().home.handle_settled(settled, self.now());
            }
        }
    }

    fn count_reply(&self, log: LogId, reply: &Reply) {
        let metrics = &self.0.metrics;
        match reply {
            Reply::Sent(sent) if sent.by_retry => drop(metrics.acked_by_retry.inc()),
            Reply::Sent(_) => drop(metrics.acked.inc()),
            Reply::Refused(error) if error.code == ErrorCode::Full => drop(metrics.full.inc()),
            Reply::Refused(error) if error.code == ErrorCode::Limited => self.note_slowed(log),
            _ => {}
        }
    }

    /// A command was refused because its sender must wait. In a channel that is slowed down, that is most often why.
    fn note_slowed(&self, log: LogId) {
        let LogId::Channel(channel) = log else { return };
        if let Some(hot) = self.0.heats.hot(channel).filter(|hot| hot.pacing.slow_mode_seconds > 0) {
            hot.spare(Saving::Send, 1);
        }
    }

    async fn load(&self, cell: &Cell, rows: usize, lookup: Lookup) -> StoreResult<Loaded> {
        let store = &self.0.store;
        let tail = self.0.logs.tail(cell.log, rows).await?;
        let LogId::Channel(channel) = cell.log else { return Ok(Loaded { tail, ..Loaded::default() }) };
        let users = users_of(&lookup, cell);
        // Behind the tail, so that what was settled before the tail's head is seen settled; among themselves in any order,
        // since the home compares the revision of the seats and the spans of the members with what it knows.
        let reads = try_join3(
            store.seating(channel, &users),
            store.channel(channel),
            self.is_blocked(cell, lookup.between),
        );
        let (Seating { seats, pending, members }, row, is_blocked) = reads.await?;
        let members = users.into_iter().zip(members).collect();
        let found = self.found(cell, lookup, members, is_blocked).await?;
        let details = row.map(|row| row.details()).unwrap_or_default();
        Ok(Loaded { tail, seats, pending, details, found })
    }

    async fn react(
        &self,
        log: LogId,
        changes: &[(Seq, Vec<ReactionChange>)],
    ) -> StoreResult<Vec<Vec<Reaction>>> {
        let LogId::Channel(channel) = log else { return Ok(vec![Vec::new(); changes.len()]) };
        let reacted = changes
            .iter()
            .map(|(target, changes)| self.0.logs.react(channel, *target, changes, limits::REACTION_USERS));
        join_all(reacted).await.into_iter().collect()
    }

    async fn find(&self, cell: &Cell, lookup: Lookup) -> StoreResult<Found> {
        let LogId::Channel(channel) = cell.log else { return Ok(Found::default()) };
        let users = users_of(&lookup, cell);
        let members = async {
            match &users[..] {
                [] => Ok(Vec::new()),
                users => self.0.store.members_of(channel, users).await,
            }
        };
        let (members, is_blocked) = try_join(members, self.is_blocked(cell, lookup.between)).await?;
        let members = users.into_iter().zip(members).collect();
        self.found(cell, lookup, members, is_blocked).await
    }

    /// Whether one of the two users of a direct channel blocks the other, if that is wanted.
    async fn is_blocked(&self, cell: &Cell, is_wanted: bool) -> StoreResult<bool> {
        match cell.between.filter(|_| is_wanted) {
            Some([one, other]) => self.0.store.is_blocked(one, other).await,
            None => Ok(false),
        }
    }

    /// The answer to a lookup from the members of [`users_of`] it. In a direct channel it says also which of the two users may
    /// not write: a user who has opened the channel or has written in it has accepted it, and receives the other's messages from
    /// then on.
    async fn found(
        &self,
        cell: &Cell,
        lookup: Lookup,
        members: HashMap<UserId, Option<Member>>,
        is_blocked: bool,
    ) -> StoreResult<Found> {
        let mut between = lookup.between.then(|| Between { is_blocked, unwanted: Vec::new() });
        if let (Some(between), Some([one, other])) = (&mut between, cell.between) {
            for (to, from) in [(one, other), (other, one)] {
                let member = members.get(&to).and_then(Option::as_ref);
                if member.is_none_or(|member| member.has_accepted) {
                    continue;
                }
                // This may read all groups of one of them.
                let takes = self.0.consent.takes_messages(self.0.store.as_ref(), to, from);
                if !patiently(takes).await?.0 {
                    between.unwanted.push(from);
                }
            }
        }
        let member = |user: UserId| (user, members.get(&user).cloned().flatten());
        Ok(Found { members: lookup.users.into_iter().map(member).collect(), between })
    }

    /// Records that a member has accepted the channel, in a task beside the work of the log.
    fn accept(&self, log: LogId, user_id: UserId) {
        let LogId::Channel(channel) = log else { return };
        let homes = self.clone();
        self.0.tasks.spawn("accept", async move {
            match homes.0.store.accept_stay(user_id, channel).await {
                Ok(()) => homes.0.presence.circle_changed(user_id),
                // When the home has evicted what it knows of the member, the next message records it again.
                Err(error) => tracing::debug!(channel.id = %channel, %error, "saving an acceptance failed"),
            }
        });
    }

    async fn append(&self, cell: &Cell, append: Append) -> Result<AppendOutcome, Failure> {
        let started = self.0.clock.elapsed();
        let (tally, log, rows) = (Tally::of(&append), append.log, Arc::clone(&append.rows));
        let shard = self.0.logs.shard(log, append.expected.seq.next());
        let (outcome, ()) = tokio::join!(
            self.0.bulkheads.appends.of(shard).call(None, self.0.logs.append(append)),
            self.announce(cell)
        );
        self.0.metrics.append_seconds.observe((self.0.clock.elapsed() - started).as_secs_f64());
        match &outcome {
            Ok(AppendOutcome::Appended) => {
                self.0.metrics.written_bytes.inc_by(tally.bytes());
                self.0.written.note(&tally);
                self.0.heats.appended(log, &rows);
            }
            Ok(AppendOutcome::SentBefore(_)) => {}
            Ok(AppendOutcome::Moved | AppendOutcome::Stale) => {
                self.0.metrics.moved.inc();
            }
            Err(_) => {
                self.0.metrics.append_failures.inc();
            }
        }
        outcome.map_err(failure)
    }

    async fn change_seats(&self, cell: &Cell, change: SeatChange) -> Result<SeatOutcome, Failure> {
        let memberships = memberships(cell, change.channel, &change.members);
        self.0.store.change_seats(change, &memberships).await.map_err(failure)
    }

    /// Writes the memberships, then notes in the members' own logs, and marks the members as settled last. Each step can be
    /// repeated: if the last one fails, the members stay pending and the next home that loads the log starts again. Returns the
    /// users whose own partitions could not be written: the channel does not wait for them.
    async fn settle(&self, cell: &Cell, members: &[Member]) -> Result<Vec<UserId>, Failure> {
        let LogId::Channel(channel) = cell.log else { return Ok(Vec::new()) };
        // Joins and leaves are noted in the member's own log. Changes of roles and restrictions are in the channel's log only.
        let moved = members.iter().filter(|member| member.is_moving());
        let moved: Vec<(&Member, Span)> =
            moved.filter_map(|member| Some((member, member.spans.last()?))).collect();
        let channel_now = async {
            // The head is read before the details. The note may then carry details that are newer than its head, never older ones.
            let heads = self.0.logs.heads(&[cell.log]).await?;
            let row = self.0.store.channel(channel).await?;
            let row = row.ok_or_else(|| StoreError::Corrupt("a channel has no row".into()))?;
            Ok((heads.first().copied().unwrap_or_default(), row))
        };
        let memberships = async {
            let came = moved.iter().filter(|(_, span)| span.until.is_none());
            let ordinals = self.ordinals(channel, came.map(|(_, span)| span.from)).await?;
            let unsettled = self.write_memberships(cell, channel, members, &moved, &ordinals).await;
            Ok((ordinals, unsettled))
        };
        let ((head, row), (ordinals, mut unsettled)) =
            try_join(channel_now, memberships).await.map_err(failure)?;
        let notes = moved.into_iter().map(|(member, span)| {
            let content = match span.until {
                None => joined(&row, head, member, span, ordinals.get(&span.from).copied()),
                Some(until_seq) => Content::ChannelLeft { channel_id: channel, until_seq },
            };
            async move { (member.user_id, self.note(member.user_id, content).await) }
        });
        for (user, noted) in join_all(notes).await {
            match noted {
                // The member's own log is damaged. Only readers of that log may suffer from it.
                Err(error) if error.code == ErrorCode::Internal => {
                    tracing::error!(channel.id = %channel, user.id = %user, "appending a change of membership to \
                         the member's own log failed");
                }
                Err(error) => {
                    tracing::warn!(channel.id = %channel, user.id = %user, %error, "a change of membership is \
                         not in the member's own log yet");
                    unsettled.push(user);
                }
                Ok(_) => {}
            }
        }
        unsettled.sort_unstable();
        unsettled.dedup();
        let settled = members.iter().map(|member| {
            let is_left = unsettled.contains(&member.user_id);
            member.clone().recorded(is_left)
        });
        let settled: Vec<Member> = settled.collect();
        self.0.store.settle_members(channel, &settled).await.map_err(failure)?;
        Ok(unsettled)
    }

    /// Writes memberships, and markers for new members, so that nothing from before the join counts as unread. All writes are
    /// made concurrently, so that the store can commit them together. If one fails, each member is tried alone; returns those who
    /// failed again.
    async fn write_memberships(
        &self,
        cell: &Cell,
        channel: ChannelId,
        members: &[Member],
        moved: &[(&Member, Span)],
        ordinals: &HashMap<Seq, Ordinal>,
    ) -> Vec<UserId> {
        let write = |members: Vec<Member>| async move {
            let is_here = |user: UserId| members.iter().any(|member| member.user_id == user);
            let came = moved.iter().filter(|(member, span)| span.until.is_none() && is_here(member.user_id));
            let markers = came.filter_map(|&(member, span)| {
                let marker = Marker { seq: span.from, ordinal: *ordinals.get(&span.from)? };
                Some(self.0.store.advance_marker(member.user_id, channel, marker))
            });
            let memberships = memberships(cell, channel, &members);
            try_join(self.0.store.put_memberships(&memberships), try_join_all(markers)).await.map(drop)
        };
        if write(members.to_vec()).await.is_ok() {
            return Vec::new();
        }
        let alone = members.iter().map(|member| async {
            let Err(error) = write(vec![member.clone()]).await else { return None };
            tracing::warn!(channel.id = %channel, user.id = %member.user_id, %error, "a membership is not written yet");
            Some(member.user_id)
        });
        join_all(alone).await.into_iter().flatten().collect()
    }

    /// The ordinals at some places. Usually there is one place, because all members who join in one append join at the same
    /// place.
    async fn ordinals(
        &self,
        channel: ChannelId,
        places: impl Iterator<Item = Seq>,
    ) -> StoreResult<HashMap<Seq, Ordinal>> {
        let mut ordinals = HashMap::new();
        for place in places {
            if !ordinals.contains_key(&place) {
                let rows = self.0.logs.rows(LogId::Channel(channel), place..=place, 1).await?;
                ordinals.extend(rows.first().map(|row| (place, row.ordinal)));
            }
        }
        Ok(ordinals)
    }
}

/// The note in the own log of a member who has joined: the channel as of `head`.
fn joined(channel: &Channel, head: Head, member: &Member, span: Span, read: Option<Ordinal>) -> Content {
    let unread = head.ordinal.get().saturating_sub(read.unwrap_or(head.ordinal).get());
    let state = JoinedState {
        role: member.role,
        head_seq: head.seq,
        head_ordinal: head.ordinal,
        read_seq: span.from,
        unread,
        slow_mode_seconds: channel.slow_mode_seconds,
        pins: channel.pins.clone(),
    };
    Content::ChannelJoined {
        channel: channel.card.clone(),
        from_seq: span.from,
        had_stays: member.spans.iter().count() > 1,
        state: Some(Box::new(state)),
    }
}

/// The rows of the members' own lists of channels after a change.
/// The members to read for a lookup: in a direct channel both users, since one may have to accept the other.
fn users_of(lookup: &Lookup, cell: &Cell) -> Vec<UserId> {
    let pair = cell.between.filter(|_| lookup.between).into_iter().flatten();
    let mut users: Vec<UserId> = lookup.users.iter().copied().chain(pair).collect();
    users.sort_unstable();
    users.dedup();
    users
}

fn memberships(cell: &Cell, channel: ChannelId, members: &[Member]) -> Vec<Membership> {
    let membership = |member: &Member| Membership {
        user_id: member.user_id,
        channel_id: channel,
        role: member.role,
        spans: member.spans.clone(),
        version: member.version(),
        in_inbox: cell.kind != Some(ChannelKind::Open),
        has_accepted: member.has_accepted,
    };
    // A user who was banned without ever having been a member has no membership.
    members.iter().filter(|member| member.spans.last().is_some()).map(membership).collect()
}

fn failure(error: StoreError) -> Failure {
    match &error {
        StoreError::Unknown(_) => Failure::Unknown(refusal(&error)),
        StoreError::Unavailable(_) | StoreError::Corrupt(_) => Failure::Unavailable(refusal(&error)),
    }
}
