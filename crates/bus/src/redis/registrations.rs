//! The users and open channels for which this node is registered: leases in Redis that are renewed while somebody is connected.
//!
//! Each renewal also compares: it returns the end of the user's inbox, and a user who has not been sent everything after a second
//! more reads the inbox. That finds rows whose envelope was lost, at the latest after [`ROUND`].

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use madang_ids::{ChannelId, Position, Seq, UserId};
use madang_store::StoreResult;
use parking_lot::Mutex;
use redis::Pipeline;
use tokio::time::{MissedTickBehavior, interval};

use super::connection::PIPELINE;
use super::scripts::{self, call};
use super::values::Reply;
use super::{RedisBus, channel_nodes, epoch_of, inbox_keys};
use crate::bus::{Envelope, Loss};

/// Every registration is renewed once in this many seconds, a part of them each second.
const ROUND: u64 = 30;
/// Registrations that wait to be ended. Beyond that they end with their leases.
const LEAVING: usize = 100_000;

/// What this node is registered for. `U` is how far it has come.
#[derive(Debug)]
struct Registration<P> {
    /// Connections, or subscriptions.
    count: u32,
    /// Distinguishes it from an earlier registration, which may be ended after this one was made.
    token: u64,
    /// Redis has it.
    is_held: bool,
    /// The last position, or place, that reached this node.
    reached: P,
    /// The end that the last comparison has found, if it was beyond `reached`.
    behind: Option<P>,
}

/// All registrations of this node.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    users: DashMap<UserId, Registration<Position>>,
    channels: DashMap<ChannelId, Registration<Seq>>,
    leaving: Mutex<Vec<(Target, u64)>>,
}

/// What a registration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    User(UserId),
    Channel(ChannelId),
}

impl Registrations {
    /// Rows up to here have reached this node. `false` if the user is not connected.
    pub(super) fn reached(&self, user: UserId, position: Position) -> bool {
        reach(&self.users, user, position)
    }

    /// The same for rows of an open channel, `first` to `last`. `None` if it has no subscribers here; otherwise whether the rows follow
    /// those before.
    pub(super) fn reached_open(&self, channel: ChannelId, first: Seq, last: Seq) -> Option<bool> {
        let mut registration = self.channels.get_mut(&channel)?;
        let before = registration.reached;
        registration.reached = before.max(last);
        Some(before == Seq::ZERO || first <= before.next())
    }

    /// Whether the user is connected.
    pub(super) fn has(&self, user: UserId) -> bool {
        self.users.contains_key(&user)
    }
}

fn reach<K: Eq + std::hash::Hash, P: Ord + Copy>(
    all: &DashMap<K, Registration<P>>,
    key: K,
    reached: P,
) -> bool {
    let Some(mut registration) = all.get_mut(&key) else { return false };
    registration.reached = registration.reached.max(reached);
    true
}

/// Counts one more. Returns the token of the registration, unless it holds already.
fn count<K: Eq + std::hash::Hash, P>(
    all: &DashMap<K, Registration<P>>,
    key: K,
    first: impl FnOnce() -> Registration<P>,
) -> Option<u64> {
    let mut registration = all.entry(key).or_insert_with(first);
    registration.count += 1;
    (!registration.is_held).then_some(registration.token)
}

/// Counts one less. Returns the token of a registration that ends.
fn uncount<K: Eq + std::hash::Hash, P>(all: &DashMap<K, Registration<P>>, key: K) -> Option<u64> {
    let Entry::Occupied(mut entry) = all.entry(key) else { return None };
    entry.get_mut().count -= 1;
    (entry.get().count == 0).then(|| entry.remove().token)
}

impl<P> Registration<P> {
    const fn new(token: u64, reached: P) -> Self {
        Self { count: 0, token, is_held: false, reached, behind: None }
    }
}

impl RedisBus {
    pub(super) async fn attach_user(&self, user: UserId) -> StoreResult<()> {
        let first = || Registration::new(self.token(), Position::ZERO);
        match count(&self.registrations.users, user, first) {
            Some(token) => self.register(&[(Target::User(user), token)], false).await,
            None => Ok(()),
        }
    }

    pub(super) fn detach_user(&self, user: UserId) {
        if let Some(token) = uncount(&self.registrations.users, user) {
            self.leave(Target::User(user), token);
        }
    }

    pub(super) async fn subscribe_channel(&self, channel: ChannelId) -> StoreResult<()> {
        let first = || Registration::new(self.token(), Seq::ZERO);
        match count(&self.registrations.channels, channel, first) {
            Some(token) => self.register(&[(Target::Channel(channel), token)], false).await,
            None => Ok(()),
        }
    }

    pub(super) fn unsubscribe_channel(&self, channel: ChannelId) {
        if let Some(token) = uncount(&self.registrations.channels, channel) {
            self.leave(Target::Channel(channel), token);
        }
    }

    fn leave(&self, target: Target, token: u64) {
        let mut leaving = self.registrations.leaving.lock();
        if leaving.len() < LEAVING {
            leaving.push((target, token));
        }
    }

    /// Registers, or renews, and compares. A late registration has missed rows: its users read their inboxes.
    async fn register(&self, targets: &[(Target, u64)], is_late: bool) -> StoreResult<()> {
        for targets in targets.chunks(PIPELINE) {
            let mut pipeline = Pipeline::with_capacity(targets.len());
            for (target, token) in targets {
                let token = token.to_string();
                let arguments = [self.me.as_str().as_bytes(), token.as_bytes()];
                pipeline.add_command(match *target {
                    Target::User(user) => {
                        let [heads, _, nodes] = inbox_keys(user);
                        call(&scripts::ATTACH, &[&heads, &nodes], &arguments)
                    }
                    Target::Channel(channel) => {
                        call(&scripts::SUBSCRIBE, &[&channel_nodes(channel)], &arguments)
                    }
                });
            }
            let (mut late, mut lost) = (Vec::new(), Vec::new());
            let mut epoch = None;
            for (&(target, token), answer) in targets.iter().zip(self.redis.pipeline(&pipeline).await?) {
                let mut reply = Reply::of(answer)?;
                epoch = Some(epoch_of(&reply.text()?));
                let end = reply.number()?;
                match target {
                    Target::User(user) => {
                        match hold(&self.registrations.users, user, token, Position::new(end)) {
                            Held::Behind => lost.push(user),
                            Held::AtLast if is_late => late.push(user),
                            _ => {}
                        }
                    }
                    Target::Channel(channel) => {
                        let held = hold(&self.registrations.channels, channel, token, Seq::new(end));
                        if held == Held::Behind || (held == Held::AtLast && is_late) {
                            self.hand_over(Envelope::Lost(Loss::Channel(channel))).await;
                        }
                    }
                }
            }
            if let Some(epoch) = epoch {
                self.note_epoch(epoch).await;
            }
            self.metrics.behind.inc_by(lost.len() as u64);
            lost.append(&mut late);
            if !lost.is_empty() {
                self.hand_over(Envelope::Lost(Loss::Users(lost))).await;
            }
        }
        Ok(())
    }

    /// Renews the registrations; never returns.
    pub(super) async fn keep_registrations(self: &Arc<Self>) {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for second in 0_u64.. {
            seconds.tick().await;
            if let Err(error) = self.keep(second).await {
                tracing::debug!(%error, "registrations were not renewed");
            }
        }
    }

    async fn keep(&self, second: u64) -> StoreResult<()> {
        self.end_registrations().await?;
        let (mut late, mut due) = (Vec::new(), Vec::new());
        let mut look = |target, id: u64, is_held: bool, is_behind: bool, token| {
            if !is_held {
                late.push((target, token));
            } else if is_behind || id % ROUND == second % ROUND {
                due.push((target, token));
            }
        };
        for user in &self.registrations.users {
            let target = Target::User(*user.key());
            look(target, user.key().raw(), user.is_held, user.behind.is_some(), user.token);
        }
        for channel in &self.registrations.channels {
            let target = Target::Channel(*channel.key());
            look(target, channel.key().raw(), channel.is_held, channel.behind.is_some(), channel.token);
        }
        self.metrics.registrations_late.inc_by(late.len() as u64);
        self.register(&late, true).await?;
        self.register(&due, false).await
    }

    async fn end_registrations(&self) -> StoreResult<()> {
        let leaving = std::mem::take(&mut *self.registrations.leaving.lock());
        for leaving in leaving.chunks(PIPELINE) {
            let mut pipeline = Pipeline::with_capacity(leaving.len());
            for (target, token) in leaving {
                let key = match *target {
                    Target::User(user) => inbox_keys(user)[2].clone(),
                    Target::Channel(channel) => channel_nodes(channel),
                };
                let token = token.to_string();
                pipeline.add_command(call(
                    &scripts::DETACH,
                    &[&key],
                    &[self.me.as_str().as_bytes(), token.as_bytes()],
                ));
            }
            self.redis.pipeline(&pipeline).await?;
        }
        Ok(())
    }
}

/// What a renewal has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// The registration holds from now on.
    AtLast,
    /// It held before, and nothing is missing, or it is looked at again in a second.
    Still,
    /// Rows have not reached this node although they had a second for it.
    Behind,
    /// It has ended meanwhile.
    Gone,
}

fn hold<K: Eq + std::hash::Hash, P: Ord + Copy>(
    all: &DashMap<K, Registration<P>>,
    key: K,
    token: u64,
    end: P,
) -> Held {
    let Some(mut registration) = all.get_mut(&key).filter(|registration| registration.token == token) else {
        return Held::Gone;
    };
    if !std::mem::replace(&mut registration.is_held, true) {
        registration.reached = registration.reached.max(end);
        return Held::AtLast;
    }
    match registration.behind.take() {
        Some(seen) if seen > registration.reached => {
            registration.reached = registration.reached.max(end);
            Held::Behind
        }
        // Rows up to this end may be on their way.
        _ => {
            registration.behind = (end > registration.reached).then_some(end);
            Held::Still
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_a_second_before_they_count_as_lost() {
        let all = DashMap::new();
        assert_eq!(count(&all, 7, || Registration::new(1, 0)), Some(1));
        assert_eq!(hold(&all, 7, 1, 50), Held::AtLast);
        assert_eq!(count(&all, 7, || unreachable!()), None, "it holds");
        assert_eq!(hold(&all, 7, 1, 60), Held::Still);
        assert!(reach(&all, 7, 60), "the rows came");
        assert_eq!(hold(&all, 7, 1, 61), Held::Still);
        assert_eq!(hold(&all, 7, 1, 64), Held::Behind);
        assert_eq!(hold(&all, 7, 1, 64), Held::Still, "the inbox is read up to there");
        assert_eq!((uncount(&all, 7), uncount(&all, 7), uncount(&all, 7)), (None, Some(1), None));
        assert_eq!(hold(&all, 7, 1, 70), Held::Gone);
    }
}
