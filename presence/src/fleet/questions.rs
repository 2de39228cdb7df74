//! Questions of a node for the presence of users. Each is split by the owners of the users and has a deadline.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use madang_engine::session::Now;
use madang_ids::UserId;
use madang_proto::UserPresence;
use tokio::sync::oneshot;

use super::wire::{ASKED, Frame, ToCore};
use crate::api::States;
use crate::core::ProcessRun;

/// An owner that has not answered after this time is left out.
const DEADLINE: Duration = Duration::from_secs(2);
/// Users in all questions that wait. Above it questions have no answer.
const USERS: usize = 200_000;

#[derive(Debug)]
struct Question {
    users: Vec<Option<UserPresence>>,
    is_settled: bool,
    /// An owner has answered.
    has_answer: bool,
    /// The parts that wait.
    parts: usize,
    deadline: Duration,
    answer: oneshot::Sender<States>,
}

/// Questions that wait for their answers.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    last: u64,
    /// By the number of a part: the question, and the places of the users of the part in it.
    parts: HashMap<u64, (u64, Vec<usize>)>,
    /// In the order of their numbers, which is that of their deadlines.
    asked: BTreeMap<u64, Question>,
    users: usize,
}

impl Questions {
    /// Begins a question. Returns its parts for their owners. A user without an owner is not settled.
    pub(crate) fn ask(
        &mut self,
        me: ProcessRun,
        asker: Option<UserId>,
        users: Vec<UserId>,
        answer: oneshot::Sender<States>,
        now: Now,
        owner: impl Fn(UserId) -> Option<ProcessRun>,
    ) -> Vec<(ProcessRun, Frame)> {
        if self.users + users.len() > USERS {
            return Vec::new();
        }
        let mut by_owner: BTreeMap<u16, (ProcessRun, Vec<usize>)> = BTreeMap::new();
        for (place, user) in users.iter().enumerate() {
            if let Some(run) = owner(*user) {
                by_owner.entry(run.process).or_insert((run, Vec::new())).1.push(place);
            }
        }
        let owned: usize = by_owner.values().map(|(_, places)| places.len()).sum();
        self.last += 1;
        let question = self.last;
        let mut frames = Vec::new();
        for (run, places) in by_owner.into_values() {
            for places in places.chunks(ASKED) {
                self.last += 1;
                let users = places.iter().map(|place| users[*place]).collect();
                self.parts.insert(self.last, (question, places.to_vec()));
                frames.push((run, Frame::Core(ToCore::Question { from: me, id: self.last, asker, users })));
            }
        }
        self.users += users.len();
        let asked = Question {
            users: vec![None; users.len()],
            is_settled: owned == users.len(),
            has_answer: users.is_empty(),
            parts: frames.len(),
            deadline: now.elapsed + DEADLINE,
            answer,
        };
        self.asked.insert(question, asked);
        self.end_if_over(question);
        frames
    }

    /// An owner has answered a part.
    pub(crate) fn answer(&mut self, id: u64, states: Vec<Option<UserPresence>>, is_settled: bool) {
        // An answer that comes too late has no question.
        let Some((question, places)) = self.parts.remove(&id) else { return };
        let Some(found) = self.asked.get_mut(&question) else { return };
        found.is_settled &= is_settled && states.len() == places.len();
        found.has_answer = true;
        found.parts -= 1;
        for (place, state) in places.into_iter().zip(states) {
            found.users[place] = state;
        }
        self.end_if_over(question);
    }

    /// A part could not be sent.
    pub(crate) fn fail(&mut self, id: u64) {
        let Some((question, _)) = self.parts.remove(&id) else { return };
        if let Some(found) = self.asked.get_mut(&question) {
            found.is_settled = false;
            found.parts -= 1;
        }
        self.end_if_over(question);
    }

    /// Ends the questions whose time is over. Returns their number.
    pub(crate) fn expire(&mut self, now: Duration) -> u64 {
        let mut expired = 0;
        while let Some((id, found)) = self.asked.first_key_value() {
            let (id, parts) = (*id, found.parts);
            if found.deadline > now {
                break;
            }
            if parts > 0 {
                self.parts.retain(|_, (question, _)| *question != id);
            }
            if let Some(found) = self.asked.get_mut(&id) {
                (found.is_settled, found.parts) = (false, 0);
            }
            expired += 1;
            self.end_if_over(id);
        }
        expired
    }

    pub(crate) fn next_look(&self) -> Option<Duration> {
        self.asked.first_key_value().map(|(_, found)| found.deadline)
    }

    fn end_if_over(&mut self, id: u64) {
        if self.asked.get(&id).is_none_or(|found| found.parts > 0) {
            return;
        }
        let Some(Question { users, is_settled, has_answer, answer, .. }) = self.asked.remove(&id) else {
            return;
        };
        self.users -= users.len();
        // Without any answer the sender is dropped, which says that presence cannot answer.
        if has_answer {
            // The caller may have stopped waiting.
            let _ = answer.send(States { users, is_settled });
        }
    }
}
