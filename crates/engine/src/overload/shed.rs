//! Load shedding: a node that cannot serve everything in time serves the important part in time, and refuses the rest at once.
//!
//! Intended wiring: one [`Shed`] for each node, behind a mutex, and the [`Threshold`] in an `AtomicU32` beside it. Each request that
//! arrives asks the threshold and is counted, and each request that leaves a queue reports its wait. A timer closes the window once a
//! second; the request that reports a wait closes it earlier. Acknowledgements of messages that are appended have no class: they are
//! the end of work that is done, so refusing them would only bring the message again.

use std::time::Duration;

use madang_ids::{Millis, rendezvous};

/// The slots of a class.
const SLOTS: usize = 128;
/// All (class, slot) pairs in the order in which they are shed.
const PLACES: usize = Class::ALL.len() * SLOTS;
/// The first place of messages.
const MESSAGES: usize = Class::Messages as usize * SLOTS;
/// A node is overloaded if requests wait for longer than this on average.
const MEAN_WAIT: Duration = Duration::from_millis(20);
/// Messages are refused only if they wait for longer than this: to refuse them costs about as much as to take them, so below it their
/// senders would lose more than they gain.
const MEAN_WAIT_OF_MESSAGES: Duration = Duration::from_millis(200);
/// A window ends after this time or this number of waits.
const WINDOW: Duration = Duration::from_secs(1);
const WINDOW_WAITS: u32 = 2_000;
/// An overloaded window sheds one request in this number of those that were admitted: 5 %.
const SHEDS: u64 = 20;
/// And not more than one class. Otherwise a slow second of an idle node could reach messages, because all classes between are empty.
const SHEDS_PLACES: usize = SLOTS;
/// The k-th recovered window in a row admits k of this number of all requests more: 1 %, 2 %, 3 % …, together 100 % after 14.
const ADMITS: u64 = 100;
/// Recovered windows in a row after which everything is admitted, even if the load has moved to places that are shed meanwhile.
const RECOVERED: u64 = 20;
const MS_PER_HOUR: u64 = 3_600_000;

/// The kinds of requests, in the order in which they are shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Presence and typing.
    Presence,
    /// Markers of what was read and delivered.
    Receipts,
    /// Alerts for users who are away.
    Push,
    /// Reads of history.
    History,
    /// Users who join a channel.
    Joins,
    /// New connections.
    Connections,
    /// Messages, edits and reactions.
    Messages,
}

impl Class {
    /// All of them, in the order in which they are shed.
    pub const ALL: [Self; 7] = [
        Self::Presence,
        Self::Receipts,
        Self::Push,
        Self::History,
        Self::Joins,
        Self::Connections,
        Self::Messages,
    ];
}

/// The place of a caller within each class: lower slots are shed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    /// The slot of a caller in this hour: a user id, or the hash of a network before there is a user.
    ///
    /// It stays the same for an hour, so that a conversation is served or refused as a whole, and then changes, so that nobody is always
    /// the first to be refused. All nodes agree on it.
    #[must_use]
    pub const fn of(caller: u64, at: Millis) -> Self {
        let hash = rendezvous::mix(caller ^ rendezvous::mix(at.get() / MS_PER_HOUR));
        // The upper seven bits: 0 to 127.
        Self((hash >> 57) as u8)
    }
}

/// What is shed: everything before a place in the order of (class, slot). Zero sheds nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(u16);

impl Threshold {
    /// The threshold that sheds most: the last slot of messages is always admitted, so that there are waits to judge by.
    const MOST: usize = PLACES - 1;

    /// Whether a request is served.
    #[must_use]
    pub const fn admits(self, class: Class, slot: Slot) -> bool {
        place(class, slot) >= self.0 as usize
    }

    /// The number of classes of which something is shed: 0 is nothing, and 7 is all classes including messages.
    #[must_use]
    pub fn level(self) -> usize {
        usize::from(self.0).div_ceil(SLOTS)
    }

    /// The threshold as a number, for an atomic.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0 as u32
    }

    /// The threshold of a number that [`Threshold::raw`] gave.
    #[must_use]
    pub fn from_raw(raw: u32) -> Self {
        Self::at(usize::try_from(raw).unwrap_or(usize::MAX))
    }

    fn at(place: usize) -> Self {
        Self(u16::try_from(place.min(Self::MOST)).unwrap_or(0))
    }
}

/// How long requests wait for their turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wait {
    /// In the longest of the queues.
    pub longest: Duration,
    /// In the longest of those in which messages wait.
    pub of_messages: Duration,
}

impl Wait {
    /// Messages wait as long as everything else.
    #[must_use]
    pub const fn of_all(wait: Duration) -> Self {
        Self { longest: wait, of_messages: wait }
    }
}

/// Judges the load of a node by the waits in its queues, after DAGOR (Zhou et al., "Overload Control for Scaling WeChat Microservices",
/// SoCC 2018).
///
/// Call [`Shed::count`] for each request that arrives, whether it is admitted or not, and [`Shed::observe`] with the waits of
/// admitted requests when their work begins: the wait in queue and not the latency, which also grows if a backend is slow. Call
/// [`Shed::close_window`] after an `observe`, and once a second in any case. It does nothing before the window is over; then a mean
/// wait above 20 ms sheds 5 % of what was admitted, but no messages before theirs is above 200 ms, and each other window admits more.
/// A queue that does not move gives no waits, so a window in which requests were admitted and none began changes nothing. All is
/// admitted again 20 windows after the last overloaded one. 3.6 KB; `count` and `observe` are O(1).
#[derive(Debug, Clone)]
pub struct Shed {
    threshold: Threshold,
    /// The requests of this window that arrived, by place.
    counts: Vec<u32>,
    waits: u32,
    /// The sums of both waits.
    waited: Wait,
    since: Duration,
    /// The place to which the threshold moves while windows are like the last one.
    goal: usize,
    /// Windows in a row with this goal in which the threshold was above it.
    recovered: u64,
}

impl Shed {
    /// A node that sheds nothing.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        let (threshold, counts) = (Threshold::default(), vec![0; PLACES]);
        Self { threshold, counts, waits: 0, waited: Wait::default(), since: now, goal: 0, recovered: 0 }
    }

    /// A request has arrived.
    pub fn count(&mut self, class: Class, slot: Slot) {
        let count = &mut self.counts[place(class, slot)];
        *count = count.saturating_add(1);
    }

    /// The work on this number of admitted requests begins. They have waited this long, in the mean.
    pub fn observe(&mut self, requests: u32, wait: Wait) {
        self.waits = self.waits.saturating_add(requests);
        let Wait { longest, of_messages } = &mut self.waited;
        *longest = longest.saturating_add(wait.longest.saturating_mul(requests));
        *of_messages = of_messages.saturating_add(wait.of_messages.saturating_mul(requests));
    }

    /// Closes the window if it is over, and returns the threshold from now on.
    pub fn close_window(&mut self, now: Duration) -> Threshold {
        let is_over = now.saturating_sub(self.since) >= WINDOW || self.waits >= WINDOW_WAITS;
        if is_over {
            self.judge();
            self.counts.fill(0);
            (self.waits, self.waited, self.since) = (0, Wait::default(), now);
        }
        self.threshold
    }

    fn judge(&mut self) {
        let place = usize::from(self.threshold.0);
        let admitted = sum(&self.counts[place..]);
        if self.waits == 0 && admitted > 0 {
            return;
        }
        let Wait { longest, of_messages } = self.waited;
        let goal = if of_messages > MEAN_WAIT_OF_MESSAGES.saturating_mul(self.waits) {
            PLACES
        } else if longest > MEAN_WAIT.saturating_mul(self.waits) {
            MESSAGES
        } else {
            0
        };
        self.recovered = match place > goal {
            true if goal == self.goal => self.recovered + 1,
            true => 1,
            false => 0,
        };
        self.goal = goal;
        if place < goal {
            self.shed_more(admitted);
        } else {
            self.admit_more();
        }
    }

    fn shed_more(&mut self, admitted: u64) {
        let (goal, mut shed) = (admitted.div_ceil(SHEDS), 0);
        let mut place = usize::from(self.threshold.0);
        let end = self.goal.min(place + SHEDS_PLACES);
        while place < end && shed < goal {
            shed += u64::from(self.counts[place]);
            place += 1;
        }
        self.threshold = Threshold::at(place);
    }

    fn admit_more(&mut self) {
        let all = sum(&self.counts);
        // Without any request there is nothing to shed.
        if self.recovered >= RECOVERED || all == 0 {
            self.threshold = Threshold::at(self.goal);
            return;
        }
        let (goal, mut admitted) = ((all * self.recovered).div_ceil(ADMITS), 0);
        let mut place = usize::from(self.threshold.0);
        while place > self.goal && admitted < goal {
            place -= 1;
            admitted += u64::from(self.counts[place]);
        }
        self.threshold = Threshold::at(place);
    }
}

/// The place of a request in the order in which requests are shed.
const fn place(class: Class, slot: Slot) -> usize {
    class as usize * SLOTS + slot.0 as usize
}

fn sum(counts: &[u32]) -> u64 {
    counts.iter().copied().map(u64::from).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const HOUR: Millis = Millis::new(500_000 * MS_PER_HOUR);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A window of a second with the same number of requests in each place, all of which wait for this time.
    fn window(shed: &mut Shed, second: u64, requests: u32, wait_ms: u64) -> Threshold {
        for place in 0..PLACES {
            shed.counts[place] = requests;
        }
        if requests > 0 {
            shed.observe(1, Wait::of_all(at(wait_ms)));
        }
        shed.close_window(at(second * 1_000))
    }

    #[test]
    fn the_slot_of_a_user_has_fixed_vectors_and_changes_each_hour() {
        // Computed by another implementation.
        let slots = |at: Millis| [0, 1, 2, 7_000_000_000_000].map(|user| Slot::of(user, at).0);
        assert_eq!(slots(Millis::new(0)), [83, 4, 107, 46]);
        assert_eq!(slots(HOUR), [88, 100, 117, 31]);
        assert_eq!(slots(HOUR.plus(MS_PER_HOUR - 1)), slots(HOUR));
        assert_eq!(slots(HOUR.plus(MS_PER_HOUR)), [84, 88, 123, 119]);
        let mut found = [0_u32; SLOTS];
        (0..128_000).for_each(|user| found[usize::from(Slot::of(user, HOUR).0)] += 1);
        assert!(found.iter().all(|count| (800..1_200).contains(count)), "{found:?}");
    }

    #[test]
    fn an_overloaded_window_sheds_five_per_cent_and_a_recovered_one_admits_one() {
        let mut shed = Shed::new(at(0));
        assert_eq!(window(&mut shed, 1, 10, 20), Threshold(0), "20 ms are no overload");
        assert_eq!(window(&mut shed, 2, 10, 21), Threshold(45), "448 of 8,960 requests");
        assert_eq!(window(&mut shed, 3, 10, 21), Threshold(88), "5 % of what was admitted");
        assert_eq!(window(&mut shed, 4, 10, 0), Threshold(79), "1 % of all");
        assert_eq!(window(&mut shed, 5, 10, 0), Threshold(61), "2 % of all");
        assert_eq!(window(&mut shed, 6, 10, 21), Threshold(103));
        assert_eq!(window(&mut shed, 7, 10, 0), Threshold(94), "it begins with 1 % again");
    }

    #[test]
    fn a_window_ends_after_a_second_or_two_thousand_waits() {
        let mut shed = Shed::new(at(0));
        (0..100).for_each(|caller| shed.count(Class::Presence, Slot::of(caller, HOUR)));
        (0..1_999).for_each(|_| shed.observe(1, Wait::of_all(at(30))));
        assert_eq!(shed.close_window(at(999)).level(), 0);
        shed.observe(1, Wait::of_all(at(30)));
        assert_eq!(shed.close_window(at(999)).level(), 1);
        assert_eq!(shed.waits, 0);
    }

    #[test]
    fn a_slow_second_of_an_idle_node_does_not_refuse_messages() {
        let mut shed = Shed::new(at(0));
        for second in 1..=6 {
            shed.count(Class::Messages, Slot(5));
            shed.observe(1, Wait::of_all(at(500)));
            let threshold = shed.close_window(at(second * 1_000));
            assert_eq!(u64::try_from(threshold.level()), Ok(second));
            assert!(threshold.admits(Class::Messages, Slot(0)));
        }
    }

    #[test]
    fn messages_are_refused_only_while_they_wait_for_long() {
        let mut shed = Shed::new(at(0));
        let place = |shed: &mut Shed, seconds: std::ops::RangeInclusive<u64>, wait_ms| {
            seconds.map(|second| window(shed, second, 10, wait_ms).0).last().unwrap()
        };
        assert_eq!(place(&mut shed, 1..=100, 200), 768, "all other classes");
        assert_eq!(place(&mut shed, 101..=110, 201), 824, "5 % of what is left, ten times");
        assert_eq!(place(&mut shed, 111..=130, 200), 768, "all messages are taken again");
        assert_eq!(
            place(&mut shed, 131..=131, 20),
            759,
            "the others as after any overload: 1 % in the first window"
        );
        assert_eq!(place(&mut shed, 132..=144, 20), 0);
        // What waits elsewhere is no reason to refuse them.
        for second in 145..=200 {
            shed.counts.fill(10);
            shed.observe(1, Wait { longest: at(5_000), of_messages: at(1) });
            shed.close_window(at(second * 1_000));
        }
        assert_eq!(shed.threshold, Threshold(768));
    }

    #[test]
    fn a_queue_that_does_not_move_is_no_recovery_and_silence_is_one() {
        let mut shed = Shed::new(at(0));
        for second in 1..=10 {
            window(&mut shed, second, 10, 50);
        }
        let before = shed.threshold;
        for second in 11..=20 {
            shed.count(Class::Messages, Slot(127));
            assert_eq!(shed.close_window(at(second * 1_000)), before);
        }
        // Requests that are all refused are a recovery: nothing waits.
        shed.count(Class::Presence, Slot(0));
        shed.count(Class::Receipts, Slot(0));
        assert_eq!(shed.close_window(at(21_000)), Threshold(128));
        assert_eq!(shed.close_window(at(22_000)), Threshold(0));
    }

    #[test]
    fn without_an_end_of_overload_one_slot_of_messages_remains() {
        let mut shed = Shed::new(at(0));
        for second in 1..=200 {
            window(&mut shed, second, 10, 500);
        }
        assert_eq!(shed.threshold, Threshold(895));
        assert!(shed.threshold.admits(Class::Messages, Slot(127)));
        assert!(!shed.threshold.admits(Class::Messages, Slot(126)));
        assert_eq!((shed.threshold.level(), Threshold::from_raw(u32::MAX)), (7, shed.threshold));
    }

    /// One worker that serves a request in a millisecond, and a queue of at most 500.
    #[test]
    fn a_node_at_twice_its_capacity_is_busy_and_serves_messages_in_time() {
        let mut shed = Shed::new(at(0));
        let (mut queue, mut threshold, mut random) = (VecDeque::new(), Threshold::default(), 1_u64);
        // Of the second minute, in which the threshold has found its place.
        let (mut waits, mut messages, mut refused) = (Vec::new(), 0, 0);
        for ms in 1..=180_000_u64 {
            // 2,000 requests a second for two minutes, four in ten of them messages; then 500.
            let arrivals = if ms <= 120_000 { 2 } else { u64::from(ms % 2 == 0) };
            for _ in 0..arrivals {
                random = rendezvous::mix(random);
                let class = Class::ALL[usize::try_from(random % 10).unwrap().min(6)];
                let slot = Slot::of(random >> 32, HOUR);
                shed.count(class, slot);
                let is_message = class == Class::Messages && (60_000..120_000).contains(&ms);
                messages += u32::from(is_message);
                if !threshold.admits(class, slot) {
                    refused += u32::from(is_message);
                } else if queue.len() < 500 {
                    queue.push_back(ms);
                }
            }
            if let Some(arrived) = queue.pop_front() {
                waits.extend((60_000..120_000).contains(&ms).then_some(ms - arrived));
                shed.observe(1, Wait::of_all(at(ms - arrived)));
            }
            threshold = shed.close_window(at(ms));
            if ms == 150_000 {
                assert_eq!(threshold, Threshold(0), "everything is admitted 30 s after the overload");
            }
        }
        waits.sort_unstable();
        let (median, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
        assert!(waits.len() > 57_000, "{} of 60,000 that could be served", waits.len());
        assert!(median < 20 && p99 < 200, "waits of {median} and {p99} ms");
        assert!(refused * 1_000 < messages, "{refused} of {messages} messages refused");
    }

    proptest! {
        /// A request of an earlier class, or of a lower slot of the same class, is never admitted while a later one is refused: no
        /// message is refused while any history is read, or while anybody is seen to type.
        #[test]
        fn the_order_holds_after_any_load(
            windows in prop::collection::vec((0_u64..60, prop::collection::vec((0_usize..7, 0_u8..128), 0..60)), 0..60),
        ) {
            let mut shed = Shed::new(at(0));
            let mut second = 0;
            for (wait, requests) in windows {
                let before = shed.threshold;
                second += 1;
                for (class, slot) in &requests {
                    shed.count(Class::ALL[*class], Slot(*slot));
                    shed.observe(1, Wait::of_all(at(wait)));
                }
                let threshold = Threshold::from_raw(shed.close_window(at(second * 1_000)).raw());
                let is_overloaded = wait > 20 && !requests.is_empty();
                let (less, more) = if is_overloaded { (before, threshold) } else { (threshold, before) };
                prop_assert!(less <= more);
                prop_assert!(threshold.level() <= before.level() + 1);
                let admitted: Vec<bool> = Class::ALL.iter().flat_map(|class| {
                    (0..128).map(move |slot| threshold.admits(*class, Slot(slot)))
                }).collect();
                prop_assert!(admitted.is_sorted(), "refused first, then admitted");
                let first = admitted.iter().position(|is_admitted| *is_admitted).unwrap();
                prop_assert_eq!(threshold.level(), first.div_ceil(128));
            }
        }

        /// Whatever was shed, and whatever load without overload follows.
        #[test]
        fn everything_is_admitted_within_twenty_windows_of_the_end(
            from in 0_u32..1_000,
            windows in prop::collection::vec((0_u64..=20, 0_u32..50), 20),
        ) {
            let mut shed = Shed::new(at(0));
            shed.threshold = Threshold::from_raw(from);
            for (second, (wait, requests)) in (1..).zip(windows) {
                // The worst load: all of it is where it is shed.
                let shed_places = usize::from(shed.threshold.0);
                shed.counts[..shed_places].fill(requests);
                shed.observe(1, Wait::of_all(at(wait)));
                shed.close_window(at(second * 1_000));
            }
            prop_assert_eq!(shed.threshold, Threshold(0));
        }
    }

    #[test]
    fn a_steady_load_recovers_by_small_steps() {
        let mut shed = Shed::new(at(0));
        for second in 1..=100 {
            window(&mut shed, second, 10, 300);
        }
        let steps: Vec<u16> = (101..=120).map(|second| window(&mut shed, second, 10, 1).0).collect();
        assert_eq!(steps.iter().position(|place| *place == 0), Some(13), "{steps:?}");
        assert!(steps.windows(2).all(|pair| pair[0] - pair[1] <= 126));
    }
}
