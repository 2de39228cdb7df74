//! What happens to a message some time after its ack. It is drawn from the seed, so it is the same in each run.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::args::Shares;
use crate::judge::fates::{EMOJI, Step};

/// Longest time between an ack and the next step.
pub(super) const WAIT: Duration = Duration::from_secs(2);
/// Most edits of one message.
const EDITS: u8 = 3;
/// Most users who react to one message.
const REACTORS: usize = 3;

/// The steps of one user, each with the time to wait before it.
pub(super) type Steps = Vec<(Duration, Step)>;

/// What happens to one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LinePlan {
    /// Steps of its sender.
    pub(super) sender: Steps,
    /// Steps of others, by their index among the members.
    pub(super) others: Vec<(usize, Steps)>,
}

/// Draws the plan of one message.
pub(super) fn draw(seed: u64, (day, line): (u32, u32), shares: Shares, members: usize) -> LinePlan {
    let place = (u64::from(day) << 32) | u64::from(line);
    let mut random = SmallRng::seed_from_u64(seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut plan = LinePlan::default();
    if random.random_bool(shares.edits) {
        let edits = random.random_range(1..=EDITS);
        plan.sender.extend((1..=edits).map(|number| (WAIT.mul_f64(random.random()), Step::Edit(number))));
    }
    if random.random_bool(shares.deletes) {
        plan.sender.push((WAIT.mul_f64(random.random()), Step::Delete));
    }
    if random.random_bool(shares.reactions) && members > 0 {
        for _ in 0..random.random_range(1..=REACTORS) {
            let who = random.random_range(0..members);
            if plan.others.iter().all(|(known, _)| *known != who) {
                plan.others.push((who, reactions(&mut random)));
            }
        }
    }
    plan
}

/// Adds a reaction. One in three users removes it, and one in three of these adds it again.
fn reactions(random: &mut SmallRng) -> Steps {
    let emoji = random.random_range(0..u8::try_from(EMOJI.len()).unwrap_or(u8::MAX));
    let mut steps = Steps::new();
    for on in [true, false, true] {
        if !steps.is_empty() && random.random_range(0..3) > 0 {
            break;
        }
        steps.push((WAIT.mul_f64(random.random()), Step::React { emoji, on }));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_and_a_seed_gives_the_same_plan() {
        let shares = Shares { edits: 0.05, deletes: 0.02, reactions: 0.1, bans: 0.0 };
        let draw_all = |seed| (0..10_000).map(move |line| draw(seed, (1, line), shares, 50));
        let count = |is: fn(&LinePlan) -> bool| draw_all(7).filter(is).count();
        let edits = count(|plan| matches!(plan.sender.first(), Some((_, Step::Edit(1)))));
        let deletes = count(|plan| matches!(plan.sender.last(), Some((_, Step::Delete))));
        let reactions = count(|plan| !plan.others.is_empty());
        assert!((400..600).contains(&edits), "{edits}");
        assert!((130..270).contains(&deletes), "{deletes}");
        assert!((850..1_150).contains(&reactions), "{reactions}");
        assert!(draw_all(7).eq(draw_all(7)) && !draw_all(7).eq(draw_all(8)));
    }

    #[test]
    fn shares_of_zero_give_no_steps() {
        let none = Shares { edits: 0.0, deletes: 0.0, reactions: 0.0, bans: 0.0 };
        assert!((0..100).all(|line| draw(1, (0, line), none, 9) == LinePlan::default()));
    }
}
