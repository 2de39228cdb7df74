//! Limits a line of the log that would come with each write while a disk is full: one in ten seconds, with the number of lines
//! that were left out.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Seldom {
    told_at: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// The number of lines left out since the last one, if a line is to be logged now.
    pub(super) fn tell(&mut self) -> Option<u64> {
        self.tell_at(Instant::now())
    }

    fn tell_at(&mut self, now: Instant) -> Option<u64> {
        if self.told_at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            self.untold += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_each_ten_seconds() {
        let (mut seldom, began) = (Seldom::default(), Instant::now());
        let told: Vec<Option<u64>> =
            (0..=20).map(|second| seldom.tell_at(began + Duration::from_secs(second))).collect();
        assert_eq!((told[0], told[10], told[20]), (Some(0), Some(9), Some(9)));
        assert_eq!(told.iter().flatten().count(), 3);
    }
}
