//! The time as the cores are given it.

use std::time::Duration;

use madang_ids::Millis;

/// The time, by two clocks. Stamps, and ends that were written down (of tokens, mutes and bans), go by the one on the
/// wall. Every duration goes by the one that rises steadily: a wall clock that is set would end a wait too early, or
/// keep it for as long as the clock was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// On the wall.
    pub at: Millis,
    /// Since some moment before; it never falls.
    pub elapsed: Duration,
}

impl Now {
    /// The same time after a pause, by both clocks.
    #[must_use]
    pub fn plus(self, pause: Duration) -> Self {
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        Self { at: self.at.plus(pause_ms), elapsed: self.elapsed.saturating_add(pause) }
    }
}
