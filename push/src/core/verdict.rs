//! What an answer of a provider means, and what follows from it.

use std::time::Duration;

use madang_ids::Millis;
use madang_service::spread;
use serde::{Deserialize, Serialize};

/// The meaning of an answer. An adapter maps every answer, and every failure to get one, to exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The provider has taken it. More is never known.
    Delivered,
    /// The subscription has ended, at this time if the provider says when.
    Gone {
        /// The time.
        at: Option<Millis>,
    },
    /// The token belongs to another environment, topic or project of the provider.
    WrongEnvironment,
    /// The provider has certainly not taken it.
    NotTaken {
        /// The wait that the provider asks for. Zero: only the connection is at fault.
        after: Option<Duration>,
    },
    /// It may have taken it: the connection ended after the request was written, or no answer came in time.
    Unknown,
    /// The operator's keys are wrong or have expired.
    Credential,
    /// The request is at fault: repeating it cannot help.
    Ours,
}

/// A call whose answer is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// The answer.
    pub verdict: Verdict,
    /// The time of the answer.
    pub now: Millis,
    /// How often the provider had refused to take it before.
    pub attempt: u32,
    /// When the alert is worthless.
    pub expires_at: Millis,
    /// When the app registered the subscription.
    pub registered_at: Millis,
    /// Differs between jobs, so that what failed together is not tried together.
    pub seed: u64,
}

/// Why an alert is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// The request was at fault.
    Refused,
    /// It was not taken before it was worthless.
    Expired,
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing more is sent. Of an unknown outcome nobody is alerted twice.
    Done,
    /// Remove the subscription.
    Remove,
    /// Send nothing more to the subscription until its app registers it again.
    Mark,
    /// Send it again at this time. Everything is decided anew then.
    Again {
        /// The time.
        at: Millis,
    },
    /// The same, and send nothing else to this provider until then: the operator must look.
    Pause {
        /// The time.
        at: Millis,
    },
    /// Give it up. The operator can list it.
    Dead(DeadReason),
}

/// The first wait if the provider names none. Each further one is twice as long.
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(3_600);
/// A provider whose keys are wrong is tried again after this time: the operator may have mended them.
const PAUSE: Duration = Duration::from_secs(900);

/// What follows. Only what was certainly not taken is sent again (G9).
#[must_use]
pub fn after(answered: &Answered) -> Next {
    let Answered { verdict, now, expires_at, registered_at, .. } = *answered;
    let at = |wait: Duration| now.plus(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    let unless_expired =
        |at: Millis, next: Next| if at < expires_at { next } else { Next::Dead(DeadReason::Expired) };
    match verdict {
        Verdict::Delivered | Verdict::Unknown => Next::Done,
        // A token that the app registered again since is another subscription.
        Verdict::Gone { at: Some(at) } if at < registered_at => Next::Done,
        Verdict::Gone { .. } => Next::Remove,
        Verdict::WrongEnvironment => Next::Mark,
        Verdict::NotTaken { after } => {
            // A connection that has ended says nothing of the next one: one try there at once.
            let is_free = after == Some(Duration::ZERO) && answered.attempt == 0;
            let own = if is_free { Duration::ZERO } else { wait(answered.attempt, answered.seed) };
            let at = at(own.max(after.unwrap_or_default()));
            unless_expired(at, Next::Again { at })
        }
        Verdict::Credential => {
            let at = at(PAUSE);
            unless_expired(at, Next::Pause { at })
        }
        Verdict::Ours => Next::Dead(DeadReason::Refused),
    }
}

/// Between three quarters and all of the wait.
fn wait(attempt: u32, seed: u64) -> Duration {
    let whole = FIRST.saturating_mul(1 << attempt.min(20)).min(LONGEST);
    whole / 4 * 3 + spread(whole / 4, seed ^ u64::from(attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis::new(1_000_000);
    const WEEK: Millis = Millis::new(1_000_000 + 604_800_000);

    fn answered(verdict: Verdict) -> Answered {
        Answered {
            verdict,
            now: NOW,
            attempt: 0,
            expires_at: WEEK,
            registered_at: Millis::new(500_000),
            seed: 7,
        }
    }

    #[test]
    fn only_what_was_certainly_not_taken_is_sent_again() {
        let next = |verdict| after(&answered(verdict));
        assert_eq!(next(Verdict::Delivered), Next::Done);
        assert_eq!(next(Verdict::Unknown), Next::Done);
        assert_eq!(next(Verdict::WrongEnvironment), Next::Mark);
        assert_eq!(next(Verdict::Ours), Next::Dead(DeadReason::Refused));
        assert!(matches!(next(Verdict::NotTaken { after: None }), Next::Again { .. }));
        assert_eq!(next(Verdict::Credential), Next::Pause { at: NOW.plus(900_000) });
    }

    #[test]
    fn a_subscription_that_was_registered_again_survives_the_end_of_the_first() {
        let at = |at| after(&answered(Verdict::Gone { at }));
        assert_eq!(at(None), Next::Remove);
        assert_eq!(at(Some(Millis::new(500_000))), Next::Remove);
        assert_eq!(at(Some(Millis::new(499_999))), Next::Done);
    }

    #[test]
    fn waits_grow_keep_to_the_provider_and_end() {
        let at = |attempt, asked: u64| {
            let verdict = Verdict::NotTaken { after: Some(Duration::from_secs(asked)) };
            match after(&Answered { attempt, ..answered(verdict) }) {
                Next::Again { at } => at.get() - NOW.get(),
                other => panic!("{other:?}"),
            }
        };
        assert!((7_500..=10_000).contains(&at(0, 1)));
        assert!((30_000..=40_000).contains(&at(2, 1)));
        assert!((2_700_000..=3_600_000).contains(&at(99, 1)));
        assert_eq!(at(0, 0), 0, "once on another connection");
        assert!((15_000..=20_000).contains(&at(1, 0)));
        assert_eq!(at(0, 900), 900_000);
        let late = Answered { expires_at: NOW.plus(5_000), ..answered(Verdict::NotTaken { after: None }) };
        assert_eq!(after(&late), Next::Dead(DeadReason::Expired));
        let late = Answered { expires_at: NOW.plus(5_000), ..answered(Verdict::Credential) };
        assert_eq!(after(&late), Next::Dead(DeadReason::Expired));
    }

    #[test]
    fn jobs_that_failed_together_are_not_tried_together() {
        let waits: std::collections::BTreeSet<Duration> = (0..1_000).map(|seed| wait(3, seed)).collect();
        assert!(waits.len() > 500, "{}", waits.len());
    }
}
