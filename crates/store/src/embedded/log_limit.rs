//! Limits a line of the log that would come with each write while a disk is full: one in ten seconds, with the number of lines
//! that were left out.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct LogLimit {
    logged_at: Option<Instant>,
    unlogged: u64,
}

impl LogLimit {
    /// The number of lines left out since the last one, if a line is to be logged now.
    pub(super) fn unlogged(&mut self) -> Option<u64> {
        self.unlogged_at(Instant::now())
    }

    fn unlogged_at(&mut self, now: Instant) -> Option<u64> {
        if self.logged_at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            self.unlogged += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_logged_and_then_one_in_ten_seconds() {
        let (mut limit, began) = (LogLimit::default(), Instant::now());
        let told: Vec<Option<u64>> =
            (0..=20).map(|second| limit.unlogged_at(began + Duration::from_secs(second))).collect();
        assert_eq!((told[0], told[10], told[20]), (Some(0), Some(9), Some(9)));
        assert_eq!(told.iter().flatten().count(), 3);
    }
}
