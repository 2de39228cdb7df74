//! Paces hot open channels. Entries are held for a moment, so that many leave together: a frame costs more than what is in it.
//! Subscribers are notified of it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use madang_bus::OpenRows;
use madang_engine::log::Row;
use madang_ids::{ChannelId, rendezvous};
use madang_store::SharedRows;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::gateway::Gateway;
use crate::gateway::connection::outbound::HeadsFrames;
use crate::heat::{HotChannel, HotChannels};

/// Bytes of one channel that are held. Beyond that they leave at once.
const HELD_BYTES: usize = 256 * 1024;
/// How long the task waits if nothing is held.
const IDLE: Duration = Duration::from_secs(3_600);
/// The shares of a window: the subscribers of a channel get what was held one share after the other, so that the writes of a large
/// channel are spread over the whole window. Written all at once, they would hold up everything else until they are done.
const SHARES: usize = 8;
/// Channels with fewer subscribers have one share: each encodes what was held anew.
const CROWD: usize = 128;
/// For how long entries of a channel wait at any level behind others that were delivered, for each subscriber: about the time that it
/// takes to write to all of them. A channel of thousands becomes busy before it is known to be hot.
const BEHIND: Duration = Duration::from_micros(10);
/// Shorter waits are none, and no wait is longer.
const LEAST: Duration = Duration::from_millis(5);
const MOST: Duration = Duration::from_millis(250);

/// A part of the subscribers of a channel, by the numbers of their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Share {
    index: usize,
    of: usize,
}

impl Share {
    /// All subscribers.
    pub(in crate::gateway) const ALL: Self = Self { index: 0, of: 1 };

    /// Whether the connection with this number belongs to it.
    pub(in crate::gateway) const fn has(self, number: u64) -> bool {
        // Mixed, because the numbers of one lane are a series too, and each share should have connections of every lane.
        self.of == 1 || (rendezvous::mix(number) >> 32) as usize % self.of == self.index
    }
}

/// Rows for a part of the subscribers.
type Part = (OpenRows, Share);

/// What becomes of rows that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// They are to be delivered now.
    Pass,
    /// They are held.
    Held,
    /// They are held, and with them more than may be: everything of the channel is to be delivered now.
    Full,
}

/// Entries that wait, by channel.
#[derive(Default)]
pub(in crate::gateway) struct Pacer {
    held: Mutex<HashMap<ChannelId, Held>>,
    /// Locked while held rows are taken and delivered. Rows that come meanwhile are held: they neither wait for it nor overtake.
    order: Mutex<()>,
    /// Something is held that was not before.
    woken: Notify,
}

/// What is held of a channel.
struct Held {
    rows: VecDeque<SharedRows>,
    bytes: usize,
    /// How many of `rows` each share has got.
    got: Vec<usize>,
    /// The share that is next, and when.
    next: usize,
    due: Duration,
    /// The time between two shares.
    step: Duration,
    /// What comes until then is held, also if nothing is held at present.
    until: Duration,
}

impl Pacer {
    /// Holds rows, or lets them pass. `window` is that of the level, `subscribers` those of the channel on this node.
    fn hold(&self, open: &OpenRows, window: Duration, now: Duration, subscribers: usize) -> Hold {
        let mut held = self.held.lock();
        let behind = BEHIND.saturating_mul(u32::try_from(subscribers).unwrap_or(u32::MAX));
        let behind = if behind < LEAST { Duration::ZERO } else { behind.min(MOST) };
        let (mut entry, is_first) = match held.entry(open.channel) {
            Entry::Occupied(entry) => (entry, false),
            Entry::Vacant(_) if window.is_zero() && behind.is_zero() => return Hold::Pass,
            Entry::Vacant(entry) => {
                let shares = if subscribers < CROWD { 1 } else { SHARES };
                (entry.insert_entry(Held::new(shares, now)), true)
            }
        };
        let (waiting, longest) = (entry.get_mut(), window.max(behind));
        // The task sleeps if nothing was held, and the rest is due at once if the channel has cooled down.
        if waiting.rows.is_empty() || longest.is_zero() {
            self.woken.notify_one();
        }
        waiting.push(open.rows.clone(), longest, now);
        if is_first && window.is_zero() {
            // The first one does not wait, and those that follow wait behind it.
            waiting.due = now;
        }
        if waiting.bytes >= HELD_BYTES { Hold::Full } else { Hold::Held }
    }

    /// What is due, and when the next is.
    fn take_due(&self, now: Duration) -> (Vec<Part>, Option<Duration>) {
        let (mut held, mut parts) = (self.held.lock(), Vec::new());
        held.retain(|channel, waiting| {
            let before = parts.len();
            waiting.take_due(*channel, now, &mut parts);
            // It stays until what was taken is delivered: what comes meanwhile must not overtake it.
            parts.len() > before || !waiting.rows.is_empty() || waiting.until > now
        });
        (parts, held.values().map(Held::next_look).min())
    }

    /// Everything that is held.
    fn take_all(&self) -> Vec<Part> {
        let mut held = self.held.lock();
        held.iter_mut().flat_map(|(channel, waiting)| waiting.take_all(*channel)).collect()
    }

    /// Everything that is held of one channel.
    fn take_all_of(&self, channel: ChannelId) -> Vec<Part> {
        self.held.lock().get_mut(&channel).map(|waiting| waiting.take_all(channel)).unwrap_or_default()
    }
}

impl Held {
    fn new(shares: usize, now: Duration) -> Self {
        let step = Duration::ZERO;
        Self { rows: VecDeque::new(), bytes: 0, got: vec![0; shares], next: 0, due: now, step, until: now }
    }

    fn push(&mut self, rows: SharedRows, window: Duration, now: Duration) {
        self.step = window / u32::try_from(self.got.len()).unwrap_or(1);
        if self.rows.is_empty() {
            self.due = now + self.step;
        }
        self.bytes += rows.size_bytes();
        self.rows.push_back(rows);
        self.until = now + window;
    }

    /// When it is to be looked at again.
    fn next_look(&self) -> Duration {
        if self.rows.is_empty() { self.until } else { self.due }
    }

    /// Takes the shares that are due, and drops what all have got.
    fn take_due(&mut self, channel: ChannelId, now: Duration, parts: &mut Vec<Part>) {
        for _ in 0..self.got.len() {
            if self.due > now || self.rows.is_empty() {
                break;
            }
            parts.extend(self.take(channel, self.next));
            self.next = (self.next + 1) % self.got.len();
            self.due += self.step;
        }
        // A task that comes late does not make up for it by bursts.
        self.due = self.due.max(now);
        let done = self.got.iter().copied().min().unwrap_or(0);
        self.bytes -= self.rows.drain(..done).map(|rows| rows.size_bytes()).sum::<usize>();
        self.got.iter_mut().for_each(|got| *got -= done);
    }

    fn take_all(&mut self, channel: ChannelId) -> Vec<Part> {
        let parts = (0..self.got.len()).filter_map(|index| self.take(channel, index)).collect();
        self.rows.clear();
        self.got.fill(0);
        self.bytes = 0;
        parts
    }

    /// What a share has not got yet.
    fn take(&mut self, channel: ChannelId, index: usize) -> Option<Part> {
        let got = std::mem::replace(&mut self.got[index], self.rows.len());
        let mut new = self.rows.range(got..);
        let first = new.next()?;
        let rows = match new.len() {
            0 => first.clone(),
            _ => {
                let all: Vec<Row> = self.rows.range(got..).flat_map(|rows| rows.iter().cloned()).collect();
                SharedRows::from(Arc::<[Row]>::from(all))
            }
        };
        Some((OpenRows { channel, rows }, Share { index, of: self.got.len() }))
    }
}

impl Gateway {
    /// Delivers rows of an open channel, or holds them if the channel is hot or has a crowd of subscribers.
    pub(in crate::gateway) fn pace_open(&self, open: &OpenRows) {
        let (window, now) = (self.operations.heats.window(open.channel), self.operations.clock.elapsed());
        match self.pacer.hold(open, window, now, self.subscribers.count(open.channel)) {
            Hold::Pass => self.deliver_open(open, Share::ALL),
            Hold::Held => {}
            Hold::Full => {
                let _order = self.pacer.order.lock();
                self.deliver_parts(&self.pacer.take_all_of(open.channel));
            }
        }
    }

    /// Delivers everything that is held.
    pub(in crate::gateway) fn deliver_held(&self) {
        let _order = self.pacer.order.lock();
        self.deliver_parts(&self.pacer.take_all());
    }

    /// Delivers what is due, and says when the next is.
    fn deliver_due(&self) -> Option<Duration> {
        let _order = self.pacer.order.lock();
        let (due, next) = self.pacer.take_due(self.operations.clock.elapsed());
        self.deliver_parts(&due);
        next
    }

    fn deliver_parts(&self, parts: &[Part]) {
        parts.iter().for_each(|(open, share)| self.deliver_open(open, *share));
    }
}

/// Notifies subscribers how their channels are paced, each time that changes; never returns.
pub async fn notify(gateway: Arc<Gateway>) {
    let heats = &gateway.operations.heats;
    let mut known: Arc<HotChannels> = Arc::default();
    loop {
        heats.changed().await;
        let now = heats.all();
        let all: BTreeSet<ChannelId> = known.keys().chain(now.keys()).copied().collect();
        for channel in all {
            let of = |all: &HotChannels| all.get(&channel).map(HotChannel::notice).unwrap_or_default();
            let pacing = of(&now);
            if pacing != of(&known) {
                let mut frames = HeadsFrames::default();
                gateway
                    .subscribers
                    .visit(channel, |connection| connection.notify_pacing(&mut frames, channel, pacing));
            }
        }
        known = now;
    }
}

/// Delivers what was held; never returns.
pub async fn run(gateway: Arc<Gateway>) {
    let clock = gateway.operations.clock.clone();
    loop {
        // Not on a thread that serves everybody: it may have to wait for connections that are written to.
        let delivers = Arc::clone(&gateway);
        let delivered = tokio::task::spawn_blocking(move || delivers.deliver_due()).await;
        let next = delivered.unwrap_or_else(|failed| match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        });
        let until = next.unwrap_or_else(|| clock.elapsed() + IDLE);
        tokio::select! {
            () = gateway.pacer.woken.notified() => {}
            () = clock.sleep_until(until) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use madang_ids::{Millis, Ordinal, Seq, UserId};
    use madang_proto::{Content, Entry};

    use super::*;

    fn open(channel: u64, seq: u64) -> OpenRows {
        let entry = Entry {
            seq: Seq::new(seq),
            at: Millis::ZERO,
            content: Content::Created { by: UserId::from_raw(1) },
        };
        let rows: Arc<[Row]> = Arc::new([Row { entry, ordinal: Ordinal::ZERO, key: None }]);
        OpenRows { channel: ChannelId::from_raw(channel), rows: rows.into() }
    }

    fn seqs((open, _): &Part) -> Vec<u64> {
        open.rows.iter().map(|row| row.entry.seq.get()).collect()
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Holds an entry of a channel with a few subscribers.
    fn hold(pacer: &Pacer, open: &OpenRows, window: Duration, now: Duration) -> Hold {
        pacer.hold(open, window, now, 3)
    }

    #[test]
    fn rows_of_a_window_leave_together_and_in_order() {
        let pacer = Pacer::default();
        assert_eq!(hold(&pacer, &open(1, 1), ms(0), ms(0)), Hold::Pass);
        for seq in 2..5 {
            assert_eq!(hold(&pacer, &open(1, seq), ms(100), ms(seq)), Hold::Held);
        }
        assert_eq!(hold(&pacer, &open(2, 9), ms(500), ms(10)), Hold::Held);
        assert_eq!(pacer.take_due(ms(101)).1, Some(ms(102)));
        let (due, next) = pacer.take_due(ms(102));
        assert_eq!(due.iter().map(seqs).collect::<Vec<_>>(), [[2, 3, 4]]);
        assert_eq!(next, Some(ms(104)), "it is looked at once more before entries pass");
        // It has cooled down, and what was taken is not delivered yet.
        assert_eq!(hold(&pacer, &open(1, 5), ms(0), ms(103)), Hold::Held);
        let (due, _) = pacer.take_due(ms(103));
        assert_eq!(due.iter().map(seqs).collect::<Vec<_>>(), [[5]]);
        assert!(pacer.take_due(ms(105)).0.is_empty());
        assert_eq!(hold(&pacer, &open(1, 6), ms(0), ms(106)), Hold::Pass);
    }

    #[test]
    fn each_share_of_a_crowd_gets_every_row_once_in_order_and_within_the_window() {
        let (pacer, window) = (Pacer::default(), ms(400));
        let mut got: Vec<Vec<(u64, u64)>> = vec![Vec::new(); SHARES];
        let mut most = 0;
        // One row in each 10 ms, with a pause in which everything leaves.
        for now in 0..3_000 {
            if now % 10 == 0 && !(1_000..2_000).contains(&now) {
                assert_eq!(pacer.hold(&open(1, now), window, ms(now), 5_000), Hold::Held);
            }
            let (due, _) = pacer.take_due(ms(now));
            most = most.max(due.len());
            for part in &due {
                got[part.1.index].extend(seqs(part).into_iter().map(|seq| (seq, now)));
            }
        }
        let rest = pacer.take_all();
        rest.iter().for_each(|part| got[part.1.index].extend(seqs(part).into_iter().map(|seq| (seq, 3_000))));
        let all: Vec<u64> = (0..3_000).step_by(10).filter(|now| !(1_000..2_000).contains(now)).collect();
        for share in &got {
            assert_eq!(share.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), all);
            assert!(share.iter().all(|(seq, now)| now - seq <= 400), "later than the window");
        }
        assert_eq!(most, 1, "never two shares at once");
        let numbers = |index| (0..8_000).filter(|number| Share { index, of: SHARES }.has(*number)).count();
        assert_eq!((0..SHARES).map(numbers).sum::<usize>(), 8_000);
        assert!((0..SHARES).map(numbers).all(|count| (900..1_100).contains(&count)));
    }

    #[test]
    fn a_crowd_gets_the_first_entry_soon_and_those_behind_it_together() {
        let (pacer, crowd) = (Pacer::default(), 5_000);
        let mut got = vec![Vec::new(); SHARES];
        let mut frames = 0;
        for now in 0..200 {
            if now < 20 {
                assert_eq!(pacer.hold(&open(1, now), ms(0), ms(now), crowd), Hold::Held);
            }
            let (due, next) = pacer.take_due(ms(now));
            due.iter().for_each(|part| got[part.1.index].extend(seqs(part)));
            assert!(now > 0 || due.len() == 1, "the first share does not wait");
            assert!(next.is_none_or(|next| next > ms(now)));
            frames += due.len();
        }
        assert!(got.iter().all(|seqs| *seqs == (0..20).collect::<Vec<u64>>()), "{got:?}");
        assert!(frames <= 2 * SHARES, "{frames} frames");
        assert!(pacer.held.lock().is_empty());
        // A channel that is small does not wait, however many entries come.
        assert!((1..50).all(|seq| hold(&pacer, &open(2, seq), ms(0), ms(300)) == Hold::Pass));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let pacer = Pacer::default();
        let size = open(1, 1).rows.size_bytes();
        let mut held = 0;
        while hold(&pacer, &open(1, held + 1), ms(1_000), ms(0)) == Hold::Held {
            held += 1;
        }
        assert!((held as usize + 1) * size >= HELD_BYTES && held as usize * size < HELD_BYTES, "{held}");
        assert_eq!(pacer.take_all_of(ChannelId::from_raw(1)).len(), 1);
        assert_eq!(hold(&pacer, &open(1, 1), ms(1_000), ms(0)), Hold::Held);
        assert_eq!(pacer.take_all().len(), 1);
        assert_eq!(pacer.take_due(ms(9_000)).0.len(), 0);
        assert!(pacer.held.lock().is_empty());
    }
}
