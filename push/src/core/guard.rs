//! Keeps a wrong key from removing everybody's subscriptions: providers answer "gone" for every token that is not theirs.

use std::collections::VecDeque;

use madang_ids::Millis;

/// The time that is looked at.
const WINDOW_MS: u64 = 300_000;
/// It is counted in parts of this length.
const PART_MS: u64 = 30_000;
/// Fewer answers say nothing.
const ENOUGH: u64 = 100;
/// More than one in this many is not the users' doing.
const ONE_IN: u64 = 10;

/// Counts the answers of one provider.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Beginning, answers, and those among them that said "gone"; oldest first. At most one more than fit into the window.
    parts: VecDeque<(u64, u64, u64)>,
}

impl Guard {
    /// Counts an answer. Whether a subscription that is gone may be removed now; if not, it is marked.
    pub fn count(&mut self, now: Millis, is_gone: bool) -> bool {
        let begin = now.get() / PART_MS * PART_MS;
        while self.parts.front().is_some_and(|(first, ..)| first + WINDOW_MS <= begin) {
            self.parts.pop_front();
        }
        if self.parts.back().is_none_or(|(last, ..)| *last < begin) {
            self.parts.push_back((begin, 0, 0));
        }
        if let Some((_, answers, gone)) = self.parts.back_mut() {
            *answers += 1;
            *gone += u64::from(is_gone);
        }
        !self.is_tripped()
    }

    /// Whether more subscriptions are gone than users leave: the operator must look.
    #[must_use]
    pub fn is_tripped(&self) -> bool {
        let (answers, gone) =
            self.parts.iter().fold((0, 0), |(all, ended), (_, answers, gone)| (all + answers, ended + gone));
        answers >= ENOUGH && gone * ONE_IN > answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_users_leave_and_all_of_them_do_not() {
        let mut guard = Guard::default();
        let at = |second: u64| Millis::new(1_800_000_000_000 + second * 1_000);
        // One in twenty, for a long time.
        for number in 0..2_000 {
            assert!(guard.count(at(number), number % 20 == 0), "{number}");
        }
        // From here on all.
        let kept = (2_000..2_300).filter(|number| !guard.count(at(*number), true)).count();
        assert!(kept > 250, "{kept}");
        // And the operator has mended it.
        assert!((2_300..2_700).map(|number| guard.count(at(number), false)).next_back().unwrap());
        assert!(guard.parts.len() <= 11);
    }

    #[test]
    fn few_answers_say_nothing() {
        let mut guard = Guard::default();
        assert!((0..99).all(|_| guard.count(Millis::new(5), true)));
        assert!(!guard.count(Millis::new(5), true));
    }
}
