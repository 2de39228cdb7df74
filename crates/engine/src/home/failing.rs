//! Refuses commands when something fails: a command together with those that its connection sent behind it.

use std::collections::HashSet;

use madang_proto::ErrorBody;

use crate::home::command::{Command, Origin, Reply};
use crate::home::queue::Waiting;
use crate::home::{Home, Step};
use crate::now::Now;

impl Home {
    /// Refuses the commands of a step.
    pub(super) fn fail_step(&mut self, step: Step, error: &ErrorBody, now: Now) {
        let failed: Vec<Waiting> = match step {
            Step::Load => return self.fail_all(error, now),
            Step::Batch(batch) => batch.into_waiting().into(),
            Step::React(step) => step.into_waiting(),
            Step::Seats(step) => {
                if step.is_half_way() {
                    // Seats were changed. Without a head the next command loads first, finds the members half-way, and finishes them.
                    self.head = None;
                }
                let waiting = step.into_waiting();
                // The step finished members before any command. If that fails, no command can run: refuse all of them.
                if waiting.is_empty() {
                    return self.fail_all(error, now);
                }
                waiting
            }
        };
        self.fail(failed, error, now);
    }

    /// Refuses commands that have waited longer than [`QUEUE_WAIT`](super::QUEUE_WAIT).
    pub(super) fn fail_late(&mut self, now: Now) {
        let late = self.queue.take_late(now);
        if !late.is_empty() {
            self.fail(late, &ErrorBody::unavailable("the store is slow; try again", 1_000), now);
        }
    }

    /// Refuses commands, and the waiting sends of the same connections: otherwise these would be appended ahead of the retries.
    fn fail(&mut self, mut failed: Vec<Waiting>, error: &ErrorBody, now: Now) {
        let origins: HashSet<Origin> = failed.iter().filter_map(Waiting::origin).collect();
        for waiting in self.queue.take() {
            match waiting.origin() {
                Some(origin) if origins.contains(&origin) => failed.push(waiting),
                _ => self.queue.push_back(waiting),
            }
        }
        self.refuse(failed, error, now);
    }

    pub(super) fn fail_all(&mut self, error: &ErrorBody, now: Now) {
        let mut failed: Vec<Waiting> = self.queue.take().into();
        failed.extend(self.reactions.take_all().into_waiting());
        self.refuse(failed, error, now);
    }

    /// Refuses commands, in their order. The gate of each connection is shut until its first refused send comes again.
    pub(super) fn refuse(&mut self, failed: impl IntoIterator<Item = Waiting>, error: &ErrorBody, now: Now) {
        let mut origins: HashSet<Origin> = HashSet::new();
        for Waiting { ticket, command, .. } in failed {
            if let Command::Send { origin: Some(origin), key, .. } = command
                && error.retryable
                && origins.insert(origin)
            {
                self.gate.shut(origin, key.client_msg_id, error, now);
            }
            self.reply(ticket, Reply::Refused(error.clone()));
        }
    }
}
