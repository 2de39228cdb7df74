//! The time, which is a parameter of the cores.

use std::time::Duration;

use madang_ids::Millis;

/// The time, by two clocks. Stamps and stored ends (of tokens, mutes and bans) use the wall clock. Every duration uses the
/// steady clock: a wall clock that is set would end a wait too early, or prolong it by as much as it was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock.
    pub at: Millis,
    /// The steady clock: time since an arbitrary moment. It never falls.
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
