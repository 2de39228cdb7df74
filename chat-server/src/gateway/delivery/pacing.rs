//! Paces hot open channels. Entries are held for a moment, so that many leave together: a frame costs more than what is in it.
//! Subscribers are notified of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use madang_bus::OpenRows;
use madang_engine::log::Row;
use madang_ids::ChannelId;
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

/// Entries that wait, by channel.
#[derive(Default)]
pub(in crate::gateway) struct Pacer {
    held: Mutex<HashMap<ChannelId, Held>>,
    /// Locked while rows are taken and delivered: rows that come meanwhile must not overtake them.
    order: Mutex<()>,
    /// Something is held that was not before.
    woken: Notify,
}

struct Held {
    rows: Vec<SharedRows>,
    bytes: usize,
    due: Duration,
}

impl Pacer {
    /// Rows to deliver now: these, with those that were held before them. `None` if they are held too.
    fn hold(&self, open: &OpenRows, window: Duration, now: Duration) -> Option<OpenRows> {
        let mut held = self.held.lock();
        if window.is_zero() && !held.contains_key(&open.channel) {
            return Some(open.clone());
        }
        let waiting = held.entry(open.channel).or_insert_with(|| {
            self.woken.notify_one();
            Held { rows: Vec::new(), bytes: 0, due: now + window }
        });
        waiting.bytes += open.rows.size_bytes();
        waiting.rows.push(open.rows.clone());
        let is_due = window.is_zero() || waiting.bytes >= HELD_BYTES || waiting.due <= now;
        is_due.then(|| held.remove(&open.channel)).flatten().map(|held| held.together(open.channel))
    }

    /// What is due, and when the next is.
    fn take_due(&self, now: Duration) -> (Vec<OpenRows>, Option<Duration>) {
        let mut held = self.held.lock();
        let due = held.extract_if(|_, waiting| waiting.due <= now);
        let due = due.map(|(channel, waiting)| waiting.together(channel)).collect();
        (due, held.values().map(|waiting| waiting.due).min())
    }

    /// Everything that is held.
    fn take_all(&self) -> Vec<OpenRows> {
        self.held.lock().drain().map(|(channel, waiting)| waiting.together(channel)).collect()
    }
}

impl Held {
    fn together(self, channel: ChannelId) -> OpenRows {
        let rows = match <[SharedRows; 1]>::try_from(self.rows) {
            Ok([rows]) => rows,
            Err(rows) => {
                let all: Vec<Row> = rows.iter().flat_map(|rows| rows.iter().cloned()).collect();
                SharedRows::from(Arc::<[Row]>::from(all))
            }
        };
        OpenRows { channel, rows }
    }
}

impl Gateway {
    /// Delivers rows of an open channel, or holds them if the channel is hot.
    pub(in crate::gateway) fn pace_open(&self, open: &OpenRows) {
        let window = self.operations.heats.window(open.channel);
        let _order = self.pacer.order.lock();
        if let Some(open) = self.pacer.hold(open, window, self.operations.clock.elapsed()) {
            self.deliver_open(&open);
        }
    }

    /// Delivers everything that is held.
    pub(in crate::gateway) fn deliver_held(&self) {
        let _order = self.pacer.order.lock();
        self.pacer.take_all().iter().for_each(|open| self.deliver_open(open));
    }

    /// Delivers what is due, and says when the next is.
    fn deliver_due(&self, now: Duration) -> Option<Duration> {
        let _order = self.pacer.order.lock();
        let (due, next) = self.pacer.take_due(now);
        due.iter().for_each(|open| self.deliver_open(open));
        next
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
        let next = gateway.deliver_due(clock.elapsed());
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

    fn seqs(open: &OpenRows) -> Vec<u64> {
        open.rows.iter().map(|row| row.entry.seq.get()).collect()
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn rows_of_a_window_leave_together_and_in_order() {
        let pacer = Pacer::default();
        assert_eq!(pacer.hold(&open(1, 1), ms(0), ms(0)).map(|open| seqs(&open)), Some(vec![1]));
        for seq in 2..5 {
            assert!(pacer.hold(&open(1, seq), ms(100), ms(seq)).is_none());
        }
        assert!(pacer.hold(&open(2, 9), ms(500), ms(10)).is_none());
        assert_eq!(pacer.take_due(ms(101)).1, Some(ms(102)));
        let (due, next) = pacer.take_due(ms(102));
        assert_eq!(due.iter().map(seqs).collect::<Vec<_>>(), [[2, 3, 4]]);
        assert_eq!(next, Some(ms(510)));
        // It has cooled down: what was held leaves first.
        assert!(pacer.hold(&open(1, 5), ms(100), ms(200)).is_none());
        assert_eq!(pacer.hold(&open(1, 6), ms(0), ms(201)).map(|open| seqs(&open)), Some(vec![5, 6]));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let pacer = Pacer::default();
        let size = open(1, 1).rows.size_bytes();
        let mut held = 0;
        while pacer.hold(&open(1, held + 1), ms(1_000), ms(0)).is_none() {
            held += 1;
        }
        assert!((held as usize + 1) * size >= HELD_BYTES && held as usize * size < HELD_BYTES, "{held}");
        pacer.hold(&open(1, 1), ms(1_000), ms(0));
        assert_eq!(pacer.take_all().len(), 1);
        assert_eq!(pacer.take_due(ms(9_000)).0.len(), 0);
    }
}
