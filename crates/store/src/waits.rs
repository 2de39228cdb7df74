//! How long calls wait for their turn, for those who judge by it whether the node is overloaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The waits of calls since somebody looked. Cheap to clone; a clone shows the same waits.
///
/// A wait is the time from the call until the store begins with it. The wait of a write is less by what it waits for however little there
/// is to do: the sync that is under way. Reads inside [`urgently`](crate::urgently) are not seen: they have a queue of their own.
#[derive(Debug, Clone, Default)]
pub struct Waits(Arc<Sums>);

#[derive(Debug, Default)]
struct Sums {
    writes: Sum,
    reads: Sum,
}

#[derive(Debug, Default)]
struct Sum {
    calls: AtomicU64,
    waited_us: AtomicU64,
}

/// Calls with which the store has begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waited {
    /// Their number.
    pub calls: u32,
    /// The mean of their waits; zero if there are none.
    pub mean: Duration,
}

impl Waits {
    /// The store begins with a write that has waited this long.
    pub fn note_write(&self, waited: Duration) {
        self.0.writes.add(waited);
    }

    /// The store begins with a read that has waited this long.
    pub fn note_read(&self, waited: Duration) {
        self.0.reads.add(waited);
    }

    /// The writes since the last call. One that is noted at this moment may be counted in this call, and its wait in the next one.
    #[must_use]
    pub fn take_writes(&self) -> Waited {
        self.0.writes.take()
    }

    /// As [`take_writes`](Self::take_writes), of reads.
    #[must_use]
    pub fn take_reads(&self) -> Waited {
        self.0.reads.take()
    }
}

impl Sum {
    fn add(&self, waited: Duration) {
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.waited_us.fetch_add(us, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self) -> Waited {
        let calls = self.calls.swap(0, Ordering::Relaxed);
        let waited_us = self.waited_us.swap(0, Ordering::Relaxed);
        let mean = Duration::from_micros(waited_us.checked_div(calls).unwrap_or(0));
        Waited { calls: u32::try_from(calls).unwrap_or(u32::MAX), mean }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_sees_the_calls_since_the_last_one() {
        let ms = Duration::from_millis;
        let waits = Waits::default();
        assert_eq!(waits.take_writes(), Waited::default());
        let noting = waits.clone();
        [10, 20, 60].into_iter().for_each(|waited| noting.note_write(ms(waited)));
        noting.note_read(ms(7));
        assert_eq!(waits.take_writes(), Waited { calls: 3, mean: ms(30) });
        assert_eq!(waits.take_reads(), Waited { calls: 1, mean: ms(7) });
        assert_eq!(waits.take_writes(), Waited::default());
    }
}
