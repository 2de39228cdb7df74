//! The waiting line of a full fleet: who came first gets the next free place.
//!
//! One discovery process keeps one line. A client that asks another process waits at the end of that one's line: a place in a line
//! is a courtesy, and what protects the nodes is that full ones get no more clients.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use madang_ids::UserId;
use madang_proto::rest::Waiting;

/// Most users who wait. A user who comes later gets the last place as an answer, and has none.
const WAITING: usize = 100_000;
/// Between two asks of a client that waits.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// A place is kept for this time, beyond the pause in the answer to its client.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two searches for users who ask no more.
const SWEEP: Duration = Duration::from_secs(1);
/// The time over which the pace of the line is measured.
const PACE: Duration = Duration::from_secs(60);
/// The longest estimate.
const LONGEST: Duration = Duration::from_secs(3_600);

/// The users who wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The number of each, and until when it is kept.
    users: HashMap<UserId, (u64, Duration)>,
    /// One bit for each number from `first` on: whether its user still waits. So a place is the number of ones before a bit: 1,563
    /// words for the longest line.
    bits: VecDeque<u64>,
    /// A multiple of 64.
    first: u64,
    next: u64,
    swept: Duration,
    /// When users left the line for a node, the latest last.
    taken: VecDeque<Duration>,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// The place of a user, who joins the line if they are not in it: 1 is the first.
    pub(super) fn place(&mut self, user: UserId, now: Duration) -> u64 {
        self.sweep(now);
        let number = match self.users.get(&user) {
            Some((number, _)) => *number,
            None if self.users.len() >= WAITING => return self.users.len() as u64 + 1,
            None => self.join(user, now),
        };
        self.ones_before(number) + 1
    }

    /// The answer to a user who must wait. Keeps the place until the user has had time to ask again.
    pub(super) fn wait(&mut self, user: UserId, place: u64, now: Duration) -> Waiting {
        let estimate = self.estimate(place, now);
        let [shortest, longest] = RETRY;
        // Those at the end ask less often.
        let retry_after = (estimate / 4).clamp(shortest, longest);
        if let Some((_, until)) = self.users.get_mut(&user) {
            *until = now + 2 * retry_after + PATIENCE;
        }
        Waiting { place, estimate_ms: ms(estimate), retry_after_ms: ms(retry_after) }
    }

    /// The user gets a node.
    pub(super) fn take(&mut self, user: UserId, now: Duration) {
        if self.remove(user) {
            self.taken.push_back(now);
            // Enough to measure any pace at which the estimate matters.
            if self.taken.len() > 10_000 {
                self.taken.pop_front();
            }
        }
    }

    fn join(&mut self, user: UserId, now: Duration) -> u64 {
        let number = self.next;
        self.next += 1;
        if (number - self.first) / 64 >= self.bits.len() as u64 {
            self.bits.push_back(0);
        }
        if let Some(word) = self.bits.back_mut() {
            *word |= 1 << (number % 64);
        }
        self.users.insert(user, (number, now + PATIENCE));
        number
    }

    fn remove(&mut self, user: UserId) -> bool {
        let Some((number, _)) = self.users.remove(&user) else { return false };
        let word = usize::try_from((number - self.first) / 64).ok().and_then(|at| self.bits.get_mut(at));
        if let Some(word) = word {
            *word &= !(1 << (number % 64));
        }
        while self.bits.len() > 1 && self.bits.front() == Some(&0) {
            self.bits.pop_front();
            self.first += 64;
        }
        true
    }

    fn ones_before(&self, number: u64) -> u64 {
        let whole = usize::try_from((number - self.first) / 64).unwrap_or(usize::MAX);
        let before: u32 = self.bits.iter().take(whole).map(|word| word.count_ones()).sum();
        let last = self.bits.get(whole).map_or(0, |word| (word & ((1 << (number % 64)) - 1)).count_ones());
        u64::from(before + last)
    }

    /// Removes the users who have asked no more.
    fn sweep(&mut self, now: Duration) {
        if now < self.swept + SWEEP {
            return;
        }
        self.swept = now;
        let gone: Vec<UserId> =
            self.users.iter().filter(|(_, (_, until))| *until <= now).map(|(user, _)| *user).collect();
        for user in gone {
            self.remove(user);
        }
        while self.taken.front().is_some_and(|at| *at + PACE <= now) {
            self.taken.pop_front();
        }
    }

    /// At the pace of the last minute; while nobody has left the line, one user a second.
    fn estimate(&self, place: u64, now: Duration) -> Duration {
        let ms_each = match self.taken.front() {
            Some(first) => ms(now.saturating_sub(*first)).max(1_000) / self.taken.len() as u64,
            None => 1_000,
        };
        Duration::from_millis(ms_each.max(1).saturating_mul(place)).min(LONGEST)
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(raw: u64) -> UserId {
        UserId::from_raw(raw)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000 + seconds)
    }

    #[test]
    fn places_follow_the_order_of_arrival_and_are_kept() {
        let mut line = Line::default();
        for raw in 1..=200 {
            assert_eq!(line.place(user(raw), at(0)), raw);
        }
        for raw in (1..=200).rev() {
            assert_eq!(line.place(user(raw), at(0)), raw);
        }
        line.take(user(1), at(0));
        line.take(user(70), at(0));
        assert_eq!(line.place(user(2), at(0)), 1);
        assert_eq!(line.place(user(200), at(0)), 198);
        assert_eq!(line.place(user(70), at(0)), 199, "one who comes again stands at the end");
    }

    #[test]
    fn users_who_ask_no_more_lose_their_place() {
        let mut line = Line::default();
        for raw in 1..=3 {
            let place = line.place(user(raw), at(0));
            assert_eq!(line.wait(user(raw), place, at(0)).retry_after_ms, 1_000);
        }
        for seconds in [5, 11] {
            let place = line.place(user(3), at(seconds));
            assert_eq!(place, 3);
            line.wait(user(3), place, at(seconds));
        }
        assert_eq!(line.place(user(3), at(13)), 1);
        assert_eq!(line.len(), 1);
    }

    #[test]
    fn the_estimate_follows_the_pace_of_the_line() {
        let mut line = Line::default();
        for raw in 1..=1_000 {
            line.place(user(raw), at(0));
        }
        assert_eq!(line.wait(user(1_000), 1_000, at(0)).estimate_ms, 1_000_000);
        for raw in 1..=100 {
            line.take(user(raw), at(1));
        }
        let waiting = line.wait(user(1_000), 900, at(11));
        assert_eq!(waiting, Waiting { place: 900, estimate_ms: 90_000, retry_after_ms: 22_500 });
        assert_eq!(line.wait(user(1_000), 1 << 40, at(11)).estimate_ms, 3_600_000);
    }

    #[test]
    fn the_line_is_bounded() {
        let mut line = Line::default();
        for raw in 1..=WAITING as u64 + 5 {
            line.place(user(raw), at(0));
        }
        assert_eq!(line.len(), WAITING);
        assert_eq!(line.place(user(1 << 40), at(0)), WAITING as u64 + 1);
        assert!(line.bits.len() <= WAITING / 64 + 1);
        for raw in 1..=WAITING as u64 {
            line.take(user(raw), at(0));
        }
        assert_eq!((line.len(), line.bits.len(), line.taken.len()), (0, 1, 10_000));
        assert_eq!(line.place(user(7), at(0)), 1);
    }
}
