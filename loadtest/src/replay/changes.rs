//! Changes of messages that a device must still make. They survive reconnects. Pure.
//!
//! A chain is what one user does to one message, step by step. The next step is sent only after the one before it was
//! answered, so the step that was acked last must hold.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::device::LineRef;
use super::plan::Steps;
use crate::judge::fates::Step;

/// Most unanswered changes of one device.
const IN_FLIGHT: usize = 16;

/// Steps that wait for their time or their answer.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    waiting: BTreeMap<(Instant, u64), Chain>,
    flying: HashMap<u64, Chain>,
    last: u64,
}

/// What one user does to one message.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) line: LineRef,
    /// The place of the message.
    pub(crate) target: u64,
    steps: VecDeque<(Duration, Step)>,
    /// The message's version as far as this user knows.
    pub(crate) version: u32,
    /// Attempts of the present step.
    pub(crate) tries: u32,
}

impl Chain {
    /// `None` if there are no steps.
    pub(crate) fn new(line: LineRef, target: u64, steps: Steps) -> Option<Self> {
        let steps = VecDeque::from(steps);
        (!steps.is_empty()).then_some(Self { line, target, steps, version: 1, tries: 0 })
    }

    /// The present step.
    pub(crate) fn step(&self) -> Option<Step> {
        self.steps.front().map(|(_, step)| *step)
    }

    fn wait(&self) -> Duration {
        self.steps.front().map_or(Duration::ZERO, |(wait, _)| *wait)
    }

    /// The present step is done.
    pub(crate) fn advance(&mut self, version: u32) {
        self.steps.pop_front();
        (self.version, self.tries) = (version, 0);
    }
}

impl Changes {
    /// Adds a chain. Its next step is sent when its time has come.
    pub(crate) fn push(&mut self, chain: Chain, now: Instant) {
        let due = now + chain.wait();
        self.put(chain, due);
    }

    /// Repeats the same step after a wait.
    pub(crate) fn push_again(&mut self, chain: Chain, due: Instant) {
        self.put(chain, due);
    }

    /// A step that may be sent now, and the number of its request.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(u64, Chain)> {
        if self.flying.len() >= IN_FLIGHT || self.waiting.first_key_value()?.0.0 > now {
            return None;
        }
        let (_, mut chain) = self.waiting.pop_first()?;
        chain.tries += 1;
        self.last += 1;
        self.flying.insert(self.last, chain.clone());
        Some((self.last, chain))
    }

    /// Removes the chain whose request was answered.
    pub(crate) fn take(&mut self, request: u64) -> Option<Chain> {
        self.flying.remove(&request)
    }

    /// The connection ended: steps in flight are sent again on the next one.
    pub(crate) fn handle_disconnected(&mut self, now: Instant) {
        let flying: Vec<Chain> = self.flying.drain().map(|(_, chain)| chain).collect();
        flying.into_iter().for_each(|chain| self.put(chain, now));
    }

    /// When to call [`Self::poll`] again although nothing was answered.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let next = self.waiting.first_key_value().map(|((due, _), _)| *due);
        next.filter(|_| self.flying.len() < IN_FLIGHT)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.flying.is_empty()
    }

    fn put(&mut self, chain: Chain, due: Instant) {
        self.last += 1;
        self.waiting.insert((due, self.last), chain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn chain() -> Chain {
        let steps = vec![(SECOND, Step::Edit(1)), (SECOND, Step::Delete)];
        Chain::new(LineRef { day: 0, line: 3 }, 5, steps).unwrap()
    }

    #[test]
    fn a_step_waits_for_its_time_and_for_the_answer_to_the_previous_one() {
        let (mut changes, start) = (Changes::default(), Instant::now());
        changes.push(chain(), start);
        assert!(changes.poll(start).is_none());
        assert_eq!(changes.next_due(), Some(start + SECOND));
        let (request, sent) = changes.poll(start + SECOND).unwrap();
        assert_eq!((sent.step(), sent.tries), (Some(Step::Edit(1)), 1));
        assert!(changes.poll(start + SECOND * 9).is_none(), "the previous step is not answered");
        let mut chain = changes.take(request).unwrap();
        chain.advance(2);
        changes.push(chain, start + SECOND);
        let (_, sent) = changes.poll(start + SECOND * 2).unwrap();
        assert_eq!((sent.step(), sent.tries, sent.version), (Some(Step::Delete), 1, 2));
    }

    #[test]
    fn steps_in_flight_are_sent_again_on_the_next_connection() {
        let (mut changes, start) = (Changes::default(), Instant::now());
        changes.push(chain(), start);
        let (first, _) = changes.poll(start + SECOND).unwrap();
        changes.handle_disconnected(start + SECOND);
        assert!(changes.take(first).is_none(), "an answer of the previous connection is ignored");
        let (_, sent) = changes.poll(start + SECOND).unwrap();
        assert_eq!((sent.step(), sent.tries), (Some(Step::Edit(1)), 2));
        assert!(!changes.is_empty());
    }
}
