//! The subscriptions of one connection to open channels, and the place of each.
//!
//! Pure, as [`crate::sync`] is for the inbox. An entry of an open channel is delivered if it follows the last delivered one,
//! and dropped if it came before. Entries without room in the queue are left out, and once there is room one head with a *gap*
//! names the last of them (G4: every entry, or an explicit gap). A passive subscription gets only the head, from time to time.

use madang_ids::{ChannelId, Ordinal, Seq};
use madang_proto::{ChannelHead, Mode, Pacing, limits};

use crate::log::Row;

/// A place in a log, with the count of messages up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct At {
    /// The place of the entry.
    pub seq: Seq,
    /// Messages up to and including it.
    pub ordinal: Ordinal,
}

impl At {
    fn head(self, channel_id: ChannelId, gap: bool) -> ChannelHead {
        ChannelHead { channel_id, seq: self.seq, ordinal: self.ordinal, gap, pacing: None }
    }
}

/// The rows of one delivery: behind `before`, up to and with `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The channel.
    pub channel: ChannelId,
    /// The place before the first row.
    pub before: At,
    /// The place of the last row.
    pub last: At,
}

impl Stretch {
    /// The stretch of these rows of a channel. `None` without rows.
    #[must_use]
    pub fn of(channel: ChannelId, rows: &[Row]) -> Option<Self> {
        let (first, last) = rows.first().zip(rows.last())?;
        let messages = u64::from(first.entry.content.message().is_some());
        let before = At {
            seq: first.entry.seq.minus(1),
            ordinal: Ordinal::new(first.ordinal.get().saturating_sub(messages)),
        };
        Some(Self { channel, before, last: At { seq: last.entry.seq, ordinal: last.ordinal } })
    }
}

/// What to do with a live delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// Enqueue it.
    Deliver,
    /// Rows before it never came: enqueue this head, then the delivery.
    DeliverBehind(ChannelHead),
    /// The first rows of it were read or delivered before: enqueue those after this place.
    DeliverAfter(Seq),
    /// Do nothing.
    Drop,
    /// There is no room; [`Subscriptions::take_gaps`] returns the gap later.
    FellBehind,
    /// A passive subscription has moved; [`Subscriptions::take_moved`] returns its head. Returned once until then.
    Moved,
}

/// The state of a subscription after its rows were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// Entries are delivered from now on.
    Live,
    /// The same, and a passive one has moved meanwhile: as [`Live::Moved`].
    Moved,
    /// Rows came meanwhile, up to here: read on.
    ReadOn(At),
    /// The subscription has ended meanwhile.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its first rows are being read; live ones have come up to `at`.
    Starting(Mode),
    /// Delivered up to `at`.
    Active,
    /// Left out up to `at`. Nothing is delivered before the gap is sent.
    Behind,
    /// Passive; the head at `at` was sent.
    Passive,
    /// Passive, and has moved to `at` since the last head was sent.
    Moved,
}

#[derive(Debug)]
struct Subscription {
    channel: ChannelId,
    phase: Phase,
    at: At,
    /// While it starts, the place of the user's last leave that came; later, the begin of the user's present stay.
    edge: Seq,
    /// What the client was notified of last.
    notified: Pacing,
}

/// The subscriptions of one connection, at most [`limits::SUBSCRIPTIONS`].
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// In the order of channel ids.
    all: Vec<Subscription>,
    has_gaps: bool,
    has_moved: bool,
}

impl Subscriptions {
    /// Begins a subscription, or restarts one. `false` if there is no room for one more.
    pub fn begin(&mut self, channel: ChannelId, mode: Mode) -> bool {
        let (at, edge, notified) = (At::default(), Seq::ZERO, Pacing::default());
        let new = Subscription { channel, phase: Phase::Starting(mode), at, edge, notified };
        match self.find(channel) {
            Ok(index) => self.all[index] = new,
            Err(_) if self.all.len() >= limits::SUBSCRIPTIONS => return false,
            Err(index) => self.all.insert(index, new),
        }
        true
    }

    /// The rows up to `upto` are enqueued, or left out as requested. The user was found to be a member since `since`.
    pub fn handle_read(&mut self, channel: ChannelId, upto: At, since: Seq) -> Started {
        let Some(it) = self.get(channel) else { return Started::Ended };
        let Phase::Starting(mode) = it.phase else { return Started::Live };
        if it.edge > since {
            self.end(channel);
            return Started::Ended;
        }
        let has_moved = it.at > upto;
        if mode == Mode::Active && has_moved {
            return Started::ReadOn(it.at);
        }
        it.at = it.at.max(upto);
        it.edge = since;
        it.phase = match mode {
            Mode::Active => Phase::Active,
            Mode::Passive if has_moved => Phase::Moved,
            Mode::Passive => Phase::Passive,
        };
        if !has_moved || std::mem::replace(&mut self.has_moved, true) {
            Started::Live
        } else {
            Started::Moved
        }
    }

    /// As [`Self::handle_read`], for rows that come faster than they can be read: those that came meanwhile are left out.
    pub fn give_up_reading(&mut self, channel: ChannelId, upto: At, since: Seq) -> Started {
        let started = self.handle_read(channel, upto, since);
        match self.get(channel) {
            Some(it) if matches!(started, Started::ReadOn(_)) => {
                (it.phase, it.edge) = (Phase::Behind, since);
                self.has_gaps = true;
                Started::Live
            }
            _ => started,
        }
    }

    /// Rows came.
    pub fn handle_rows(&mut self, rows: &Stretch, has_room: bool) -> Live {
        let Some(it) = self.get(rows.channel).filter(|it| it.at.seq < rows.last.seq) else {
            return Live::Drop;
        };
        let at = std::mem::replace(&mut it.at, rows.last);
        match it.phase {
            Phase::Starting(_) | Phase::Behind | Phase::Moved => Live::Drop,
            Phase::Active if !has_room => {
                it.phase = Phase::Behind;
                self.has_gaps = true;
                Live::FellBehind
            }
            Phase::Active if rows.before.seq > at.seq => {
                Live::DeliverBehind(rows.before.head(rows.channel, true))
            }
            // Also the rows of before the user's stay: the subscription began behind them.
            Phase::Active if rows.before.seq < at.seq => Live::DeliverAfter(at.seq),
            Phase::Active => Live::Deliver,
            Phase::Passive => {
                it.phase = Phase::Moved;
                match std::mem::replace(&mut self.has_moved, true) {
                    true => Live::Drop,
                    false => Live::Moved,
                }
            }
        }
    }

    /// The row at `at` says that the user has left. Returns whether the subscription ends with it: not if the user has joined
    /// again since. While the subscription starts, that is not known yet.
    pub fn handle_left(&mut self, channel: ChannelId, at: Seq) -> bool {
        match self.get(channel) {
            Some(it) if matches!(it.phase, Phase::Starting(_)) => {
                it.edge = at;
                false
            }
            Some(it) => at > it.edge,
            None => false,
        }
    }

    /// Rows up to `head` may have been lost on the way. As [`Self::handle_rows`] without room.
    pub fn handle_loss(&mut self, channel: ChannelId, head: At) -> Live {
        self.handle_rows(&Stretch { channel, before: head, last: head }, false)
    }

    /// There is room again: the heads up to which entries were left out. What follows is delivered.
    pub fn take_gaps(&mut self) -> Option<Vec<ChannelHead>> {
        let has_gaps = std::mem::take(&mut self.has_gaps);
        has_gaps.then(|| self.take(Phase::Behind, Phase::Active, |_| true)).filter(|heads| !heads.is_empty())
    }

    /// The heads of passive subscriptions that have moved since the last call, of those that are due. The others remain; then
    /// [`Self::has_moved`] is still true.
    pub fn take_moved(&mut self, is_due: impl Fn(ChannelId) -> bool) -> Option<Vec<ChannelHead>> {
        if !self.has_moved {
            return None;
        }
        let heads = self.take(Phase::Moved, Phase::Passive, is_due);
        self.has_moved = self.all.iter().any(|it| it.phase == Phase::Moved);
        Some(heads).filter(|heads| !heads.is_empty())
    }

    /// Whether a passive subscription has moved and its head was not taken.
    #[must_use]
    pub const fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// The head that notifies the client how a channel is paced from now on. `None` if the client knows, or while the subscription
    /// starts: to be called again behind [`Self::handle_read`].
    pub fn notice(&mut self, channel: ChannelId, pacing: Pacing) -> Option<ChannelHead> {
        let it = self.get(channel).filter(|it| !matches!(it.phase, Phase::Starting(_)))?;
        let is_new = std::mem::replace(&mut it.notified, pacing) != pacing;
        is_new.then(|| ChannelHead { pacing: Some(pacing), ..it.at.head(channel, false) })
    }

    fn take(&mut self, from: Phase, to: Phase, is_taken: impl Fn(ChannelId) -> bool) -> Vec<ChannelHead> {
        let of_phase = self.all.iter_mut().filter(|it| it.phase == from && is_taken(it.channel));
        let heads = of_phase.map(|it| {
            it.phase = to;
            it.at.head(it.channel, from == Phase::Behind)
        });
        heads.collect()
    }

    /// Ends a subscription. `false` if there is none.
    pub fn end(&mut self, channel: ChannelId) -> bool {
        let found = self.find(channel);
        found.map(|index| self.all.remove(index)).is_ok()
    }

    /// Whether a gap waits to be sent.
    #[must_use]
    pub fn is_behind(&self, channel: ChannelId) -> bool {
        self.find(channel).is_ok_and(|index| self.all[index].phase == Phase::Behind)
    }

    /// Whether there is a subscription to a channel.
    #[must_use]
    pub fn contains(&self, channel: ChannelId) -> bool {
        self.find(channel).is_ok()
    }

    /// Whether entries of a channel are delivered now.
    #[must_use]
    pub fn is_active(&self, channel: ChannelId) -> bool {
        self.find(channel).is_ok_and(|index| self.all[index].phase == Phase::Active)
    }

    /// The channels, rising.
    pub fn channels(&self) -> impl Iterator<Item = ChannelId> + '_ {
        self.all.iter().map(|it| it.channel)
    }

    fn find(&self, channel: ChannelId) -> Result<usize, usize> {
        self.all.binary_search_by_key(&channel, |it| it.channel)
    }

    fn get(&mut self, channel: ChannelId) -> Option<&mut Subscription> {
        self.find(channel).ok().map(|index| &mut self.all[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_proto::HeatLevel;
    use proptest::prelude::*;

    const TEA: ChannelId = ChannelId::from_raw(7);

    fn at(place: u64) -> At {
        At { seq: Seq::new(place), ordinal: Ordinal::new(place) }
    }

    fn stretch(first: u64, last: u64) -> Stretch {
        Stretch { channel: TEA, before: at(first - 1), last: at(last) }
    }

    fn live_at(place: u64, mode: Mode) -> Subscriptions {
        let mut subscriptions = Subscriptions::default();
        assert!(subscriptions.begin(TEA, mode));
        assert_eq!(subscriptions.handle_read(TEA, at(place), Seq::new(1)), Started::Live);
        subscriptions
    }

    fn head(place: u64, gap: bool) -> ChannelHead {
        at(place).head(TEA, gap)
    }

    #[test]
    fn what_follows_is_delivered_and_what_came_before_is_dropped() {
        let mut subscriptions = live_at(4, Mode::Active);
        assert_eq!(subscriptions.handle_rows(&stretch(3, 4), true), Live::Drop);
        assert_eq!(subscriptions.handle_rows(&stretch(5, 6), true), Live::Deliver);
        assert_eq!(subscriptions.handle_rows(&stretch(5, 6), true), Live::Drop);
        assert_eq!(subscriptions.handle_rows(&stretch(9, 9), true), Live::DeliverBehind(head(8, true)));
        assert!(subscriptions.end(TEA) && !subscriptions.end(TEA));
        assert_eq!(subscriptions.handle_rows(&stretch(10, 10), true), Live::Drop);
    }

    #[test]
    fn of_rows_that_were_held_only_those_after_the_place_are_delivered() {
        let mut subscriptions = live_at(4, Mode::Active);
        assert_eq!(subscriptions.handle_rows(&stretch(2, 6), true), Live::DeliverAfter(Seq::new(4)));
        assert_eq!(subscriptions.handle_rows(&stretch(7, 8), true), Live::Deliver);
        assert_eq!(subscriptions.handle_rows(&stretch(7, 9), false), Live::FellBehind);
        assert_eq!(subscriptions.take_gaps(), Some(vec![head(9, true)]));
        assert_eq!(subscriptions.handle_rows(&stretch(8, 11), true), Live::DeliverAfter(Seq::new(9)));
        assert_eq!(live_at(4, Mode::Passive).handle_rows(&stretch(2, 6), true), Live::Moved);
    }

    #[test]
    fn what_comes_while_rows_are_read_is_read_as_well() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.begin(TEA, Mode::Active);
        assert_eq!(subscriptions.handle_rows(&stretch(5, 6), true), Live::Drop);
        assert_eq!(subscriptions.handle_read(TEA, at(4), Seq::new(1)), Started::ReadOn(at(6)));
        assert_eq!(subscriptions.handle_read(TEA, at(6), Seq::new(1)), Started::Live);
        assert_eq!(subscriptions.handle_rows(&stretch(7, 7), true), Live::Deliver);
        subscriptions.begin(TEA, Mode::Active);
        subscriptions.handle_rows(&stretch(8, 9), true);
        assert_eq!(subscriptions.give_up_reading(TEA, at(7), Seq::new(1)), Started::Live);
        assert_eq!(subscriptions.take_gaps(), Some(vec![head(9, true)]));
        subscriptions.end(TEA);
        assert_eq!(subscriptions.handle_read(TEA, at(6), Seq::new(1)), Started::Ended);
    }

    #[test]
    fn a_leave_before_the_present_stay_does_not_end_the_subscription() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.begin(TEA, Mode::Active);
        assert!(!subscriptions.handle_left(TEA, Seq::new(7)), "whether she came again is not known yet");
        assert_eq!(subscriptions.handle_read(TEA, at(6), Seq::new(8)), Started::Live);
        assert!(!subscriptions.handle_left(TEA, Seq::new(7)));
        assert!(subscriptions.handle_left(TEA, Seq::new(9)));
        subscriptions.begin(TEA, Mode::Active);
        subscriptions.handle_left(TEA, Seq::new(9));
        assert_eq!(subscriptions.handle_read(TEA, at(6), Seq::new(8)), Started::Ended);
        assert!(!subscriptions.contains(TEA) && !subscriptions.handle_left(TEA, Seq::new(10)));
    }

    #[test]
    fn a_gap_is_returned_once_with_the_present_head() {
        let mut subscriptions = live_at(4, Mode::Active);
        assert_eq!(subscriptions.handle_rows(&stretch(5, 6), false), Live::FellBehind);
        assert_eq!(subscriptions.handle_rows(&stretch(7, 9), true), Live::Drop);
        assert_eq!(subscriptions.take_gaps(), Some(vec![head(9, true)]));
        assert_eq!(subscriptions.take_gaps(), None);
        assert_eq!(subscriptions.handle_rows(&stretch(10, 10), true), Live::Deliver);
        assert_eq!(subscriptions.handle_loss(TEA, at(10)), Live::Drop, "nothing was lost of this one");
        assert_eq!(subscriptions.handle_loss(TEA, at(12)), Live::FellBehind);
        assert_eq!(subscriptions.take_gaps(), Some(vec![head(12, true)]));
    }

    #[test]
    fn heads_of_passive_subscriptions_wait_until_they_are_taken() {
        let mut subscriptions = live_at(4, Mode::Passive);
        assert_eq!(subscriptions.take_moved(|_| true), None);
        assert_eq!(subscriptions.handle_rows(&stretch(5, 6), false), Live::Moved);
        assert_eq!(subscriptions.handle_rows(&stretch(7, 9), true), Live::Drop);
        assert_eq!(subscriptions.take_moved(|_| true), Some(vec![head(9, false)]));
        assert_eq!(subscriptions.handle_rows(&stretch(10, 10), true), Live::Moved);
        let mut subscriptions = Subscriptions::default();
        subscriptions.begin(TEA, Mode::Passive);
        subscriptions.handle_rows(&stretch(5, 6), true);
        assert_eq!(subscriptions.handle_read(TEA, at(4), Seq::new(1)), Started::Moved);
        assert_eq!(subscriptions.take_moved(|_| true), Some(vec![head(6, false)]));
    }

    #[test]
    fn heads_that_are_not_due_wait_and_the_others_do_not() {
        let mut subscriptions = live_at(4, Mode::Passive);
        let quiet = ChannelId::from_raw(8);
        subscriptions.begin(quiet, Mode::Passive);
        subscriptions.handle_read(quiet, at(4), Seq::new(1));
        assert_eq!(subscriptions.handle_rows(&stretch(5, 6), true), Live::Moved);
        let of_quiet = Stretch { channel: quiet, ..stretch(5, 5) };
        assert_eq!(subscriptions.handle_rows(&of_quiet, true), Live::Drop, "it is in the list");
        let taken = subscriptions.take_moved(|channel| channel != TEA);
        assert_eq!(taken, Some(vec![at(5).head(quiet, false)]));
        assert!(subscriptions.has_moved());
        assert_eq!(subscriptions.take_moved(|channel| channel != TEA), None);
        assert_eq!(subscriptions.handle_rows(&stretch(7, 7), true), Live::Drop, "it is still in the list");
        assert_eq!(subscriptions.take_moved(|_| true), Some(vec![head(7, false)]));
        assert!(!subscriptions.has_moved());
    }

    #[test]
    fn a_client_is_notified_once_how_a_channel_is_paced() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.begin(TEA, Mode::Active);
        let [warm, hot] =
            [HeatLevel::Warm, HeatLevel::Hot].map(|level| Pacing { level, ..Pacing::default() });
        assert_eq!(subscriptions.notice(TEA, warm), None, "it starts");
        subscriptions.handle_read(TEA, at(4), Seq::new(1));
        let told = |pacing| Some(ChannelHead { pacing: Some(pacing), ..head(4, false) });
        assert_eq!(subscriptions.notice(TEA, Pacing::default()), None, "nothing else was said");
        assert_eq!(subscriptions.notice(TEA, hot), told(hot));
        assert_eq!(subscriptions.notice(TEA, hot), None);
        assert_eq!(subscriptions.notice(TEA, Pacing::default()), told(Pacing::default()));
        assert_eq!(subscriptions.notice(ChannelId::from_raw(9), hot), None);
    }

    /// A node may have half a million of them.
    #[test]
    fn a_subscription_is_small() {
        assert!(size_of::<Subscription>() <= 40);
    }

    #[test]
    fn subscriptions_are_bounded() {
        let mut subscriptions = Subscriptions::default();
        for id in (1..=limits::SUBSCRIPTIONS as u64).rev() {
            assert!(subscriptions.begin(ChannelId::from_raw(id), Mode::Active));
        }
        assert!(!subscriptions.begin(ChannelId::from_raw(9_999), Mode::Active));
        assert!(subscriptions.begin(TEA, Mode::Passive), "one that is there begins anew");
        assert!(subscriptions.channels().is_sorted());
    }

    proptest! {
        /// Whatever is lost, repeated or finds no room: delivered entries and gaps together cover everything once, in order.
        #[test]
        fn entries_and_gaps_together_are_dense(
            happenings in prop::collection::vec((0_u8..8, 1_u64..4, any::<bool>()), 1..80),
        ) {
            let mut subscriptions = live_at(0, Mode::Active);
            let (mut head, mut covered) = (0, 0);
            let tell = |subscriptions: &mut Subscriptions, covered: &mut u64| {
                for told in subscriptions.take_gaps().into_iter().flatten() {
                    prop_assert!(told.gap && told.seq.get() > *covered);
                    *covered = told.seq.get();
                }
                Ok(())
            };
            for (what, count, has_room) in happenings {
                match what {
                    0 => { head += count; }
                    1 => { subscriptions.handle_loss(TEA, at(head)); }
                    2 => tell(&mut subscriptions, &mut covered)?,
                    _ => {
                        // Now and then the rows before come once more.
                        let first = if what == 3 { head.max(1) } else { head + 1 };
                        head += count;
                        match subscriptions.handle_rows(&stretch(first, head), has_room) {
                            Live::Deliver => {
                                prop_assert_eq!(first, covered + 1);
                                covered = head;
                            }
                            Live::DeliverAfter(place) => {
                                prop_assert!(first <= covered);
                                prop_assert_eq!(place.get(), covered);
                                covered = head;
                            }
                            Live::DeliverBehind(told) => {
                                prop_assert_eq!(told.seq.get() + 1, first);
                                covered = head;
                            }
                            _ => {}
                        }
                    }
                }
            }
            subscriptions.handle_loss(TEA, at(head));
            tell(&mut subscriptions, &mut covered)?;
            prop_assert_eq!(covered, head);
        }
    }
}
