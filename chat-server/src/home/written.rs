//! Counts by hour the bytes that users write and that are written to channels: appended entries, and rows that are rewritten.
//! Memory is bounded: only the heaviest users and channels are counted, and these are always among the counted ones (Metwally,
//! Agrawal, El Abbadi: "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use madang_engine::body;
use madang_engine::log::Append;
use madang_ids::{ChannelId, LogId, UserId};
use madang_proto::Content;
use parking_lot::Mutex;

/// The length of a period. Then counting begins again, and the last period is kept.
pub const PERIOD: Duration = Duration::from_secs(3_600);
/// The number of users, and of channels, that are counted. Each one with a share above 1/256 is among them.
const COUNTED: usize = 256;

/// What was written on this node, in this period and in the last one. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct Written(Arc<Mutex<Periods>>);

#[derive(Debug, Default)]
struct Periods {
    begun: Duration,
    now: Period,
    last: Option<Period>,
}

/// What was written in one period.
#[derive(Debug, Clone, Default)]
pub struct Period {
    /// All bytes, also those that have no user or channel.
    pub bytes: u64,
    /// By user.
    pub users: Heaviest<UserId>,
    /// By channel.
    pub channels: Heaviest<ChannelId>,
}

/// The heaviest of many keys, with their counts.
#[derive(Debug, Clone)]
pub struct Heaviest<K> {
    counts: HashMap<K, Count>,
}

impl<K> Default for Heaviest<K> {
    fn default() -> Self {
        Self { counts: HashMap::new() }
    }
}

/// The bytes of one key, and how many of them may belong to keys that had the same counter before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// An upper bound, in bytes.
    pub at_most: u64,
    /// The part of it that may belong to other keys.
    pub of_others: u64,
}

impl Count {
    /// A lower bound, in bytes.
    #[must_use]
    pub const fn at_least(self) -> u64 {
        self.at_most - self.of_others
    }
}

impl<K: Copy + Eq + Hash + Ord> Heaviest<K> {
    fn add(&mut self, key: K, bytes: u64) {
        if let Some(count) = self.counts.get_mut(&key) {
            count.at_most += bytes;
            return;
        }
        let mut count = Count { at_most: bytes, of_others: 0 };
        if self.counts.len() >= COUNTED {
            let least = self.counts.iter().min_by_key(|(key, count)| (count.at_most, **key));
            let Some((&key, &Count { at_most, .. })) = least else { return };
            self.counts.remove(&key);
            count = Count { at_most: at_most + bytes, of_others: at_most };
        }
        self.counts.insert(key, count);
    }

    /// The `limit` heaviest keys by their lower bounds, the heaviest first.
    #[must_use]
    pub fn top(&self, limit: usize) -> Vec<(K, Count)> {
        let mut all: Vec<(K, Count)> = self.counts.iter().map(|(key, count)| (*key, *count)).collect();
        all.sort_unstable_by_key(|(key, count)| (std::cmp::Reverse(count.at_least()), *key));
        all.truncate(limit);
        all
    }
}

/// What an append would write. It is counted once the append has succeeded.
#[derive(Debug)]
pub(super) struct Tally {
    channel: Option<ChannelId>,
    users: Vec<(UserId, u64)>,
    bytes: u64,
}

impl Tally {
    pub(super) fn of(append: &Append) -> Self {
        let channel = match append.log {
            LogId::Channel(channel) => Some(channel),
            LogId::User(_) => None,
        };
        let mut tally = Self { channel, users: Vec::new(), bytes: 0 };
        for row in append.rows.iter() {
            let content = &row.entry.content;
            let target = content.change().map(|change| change.target);
            let changed = append.changes.iter().filter(|change| Some(change.target) == target);
            let anew: usize = changed.map(|change| body::entry_bytes(&change.content)).sum();
            let user = match append.log {
                LogId::User(user) => Some(user),
                LogId::Channel(_) => author(content),
            };
            tally.add(user, (body::entry_bytes(content) + anew) as u64);
        }
        tally
    }

    fn add(&mut self, user: Option<UserId>, bytes: u64) {
        self.bytes += bytes;
        let Some(user) = user else { return };
        match self.users.iter_mut().find(|(known, _)| *known == user) {
            Some((_, sum)) => *sum += bytes,
            None => self.users.push((user, bytes)),
        }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The user who caused an entry of a channel.
fn author(content: &Content) -> Option<UserId> {
    match content {
        Content::Message(message) => Some(message.sender_id),
        Content::Edited(change) | Content::Deleted(change) => Some(change.by),
        Content::Reactions(change) => Some(change.by),
        Content::Pinned { by, .. }
        | Content::Unpinned { by, .. }
        | Content::Created { by }
        | Content::Joined { by, .. }
        | Content::Left { by, .. }
        | Content::RoleChanged { by, .. }
        | Content::Renamed { by, .. }
        | Content::TopicChanged { by, .. }
        | Content::AvatarChanged { by, .. }
        | Content::SlowModeChanged { by, .. } => Some(*by),
        _ => None,
    }
}

impl Written {
    pub(super) fn note(&self, tally: &Tally) {
        let mut periods = self.0.lock();
        let now = &mut periods.now;
        now.bytes += tally.bytes;
        for (user, bytes) in &tally.users {
            now.users.add(*user, *bytes);
        }
        if let Some(channel) = tally.channel {
            now.channels.add(channel, tally.bytes);
        }
    }

    /// Ends the period if its time has passed, by the steady clock. Returns the period that has ended.
    pub fn turn(&self, now: Duration) -> Option<Period> {
        let mut periods = self.0.lock();
        if now.saturating_sub(periods.begun) < PERIOD {
            return None;
        }
        periods.begun = now;
        let ended = std::mem::take(&mut periods.now);
        periods.last = Some(ended.clone());
        Some(ended)
    }

    /// This period, how long it has lasted, and the last period.
    #[must_use]
    pub fn periods(&self, now: Duration) -> (Period, Duration, Option<Period>) {
        let periods = self.0.lock();
        (periods.now.clone(), now.saturating_sub(periods.begun), periods.last.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_period_ends_once_and_is_kept() {
        let written = Written::default();
        let user = UserId::from_raw(1);
        let tally = Tally { channel: Some(ChannelId::from_raw(7)), users: vec![(user, 30)], bytes: 30 };
        written.note(&tally);
        assert!(written.turn(Duration::from_secs(3_599)).is_none());
        let ended = written.turn(Duration::from_secs(3_600)).unwrap();
        assert_eq!(ended.users.top(9), [(user, Count { at_most: 30, of_others: 0 })]);
        assert!(written.turn(Duration::from_secs(3_601)).is_none());
        written.note(&tally);
        let (now, lasts, last) = written.periods(Duration::from_secs(3_610));
        assert_eq!((now.bytes, lasts, last.map(|last| last.bytes)), (30, Duration::from_secs(10), Some(30)));
    }

    proptest! {
        #[test]
        fn the_heaviest_are_counted_among_any_number_of_others(
            heavy in prop::collection::vec(1_u64..10, 200..400),
            others in prop::collection::vec(1_000_u64..100_000, 1_000..3_000),
        ) {
            let (mut sketch, mut exact) = (Heaviest::default(), HashMap::<UserId, u64>::new());
            let mut sum = 0;
            for (index, other) in others.into_iter().enumerate() {
                let heavy = heavy[index % heavy.len()];
                for (user, bytes) in [(heavy, 500), (other, 10)] {
                    let user = UserId::from_raw(user);
                    sketch.add(user, bytes);
                    *exact.entry(user).or_default() += bytes;
                    sum += bytes;
                }
            }
            prop_assert!(sketch.counts.len() <= COUNTED);
            for (user, count) in &sketch.counts {
                let bytes = exact[user];
                prop_assert!(count.at_least() <= bytes && bytes <= count.at_most);
            }
            for (user, bytes) in exact {
                prop_assert!(bytes <= sum / COUNTED as u64 || sketch.counts.contains_key(&user));
            }
        }
    }
}
