//! The outcomes of effects: how a step continues after the store's answer.

use madang_ids::{Seq, UserId};

use crate::home::command::{Failure, Loaded, Reply};
use crate::home::member_cache::Found;
use crate::home::membership::recorded_by;
use crate::home::{Flight, Home, Step};
use crate::log::{AppendOutcome, Row, SendRecord, Tail};
use crate::now::Now;
use crate::seats::{Member, SeatOutcome};

impl Home {
    /// The log was loaded.
    pub fn handle_loaded(&mut self, loaded: Result<Loaded, Failure>, now: Now) {
        let Flight::Out(Step::Load) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        match loaded {
            Ok(Loaded { tail, seats, pending, details, found }) => {
                self.window.load(&tail);
                self.head = Some(tail.head);
                self.details = details;
                self.pace.note(&tail.rows, self.slow_mode_seconds(), now);
                let is_ahead = self.is_ahead(&found);
                self.members.reload(seats, found, is_ahead, now);
                let (half_way, unsettled): (Vec<_>, Vec<_>) =
                    pending.into_iter().partition(Member::is_half_way);
                self.unsettled.replace(unsettled, now);
                self.unfinished = half_way.into_iter().map(|member| recorded_by(&tail, member)).collect();
                // In the order of their planned entries, so that no entry gets a place before the planned one: an entry before its
                // `place` would not be recognised by the next home, and would be appended twice.
                self.unfinished.sort_by_key(|(member, _)| member.version());
                self.answer_attempts(&tail);
                if std::mem::take(&mut self.must_redrive)
                    && let Some(first) = tail.rows.first()
                {
                    self.redrive(first.entry.seq..=tail.head.seq);
                }
            }
            Err(failure) => self.fail_all(&failure.error(), now),
        }
    }

    /// Answers notes whose append had an unknown outcome, if their rows are in the tail. A note that is not there is appended
    /// again; if the first append happens after that, the second one is refused, and the next tail has it. To hide a row from
    /// the tail, other homes would have to append a window of rows to one user's own log meanwhile; the note would then be there
    /// twice, not lost. Changes of seats do not rely on this: before anything is appended behind an entry about a member, that
    /// member is settled, or is marked as recorded.
    fn answer_attempts(&mut self, tail: &Tail) {
        for waiting in self.queue.take() {
            let is_there = |attempt: &&Row| tail.rows.iter().any(|row| is_same(row, attempt));
            match waiting.attempts.iter().find(is_there).map(|row| row.entry.seq) {
                Some(seq) => self.reply(waiting.ticket, Reply::Noted { seq }),
                None => self.queue.push_back(waiting),
            }
        }
    }

    /// Members were looked up.
    pub fn handle_found(&mut self, found: Result<Found, Failure>, now: Now) {
        let Flight::Out(step) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        match found {
            Ok(found) if self.is_ahead(&found) => self.handle_moved(step, now),
            Ok(found) => {
                self.members.learn(found, now);
                self.flight = Flight::Ready(step);
            }
            Err(failure) => self.fail_step(step, &failure.error(), now),
        }
    }

    /// Whether a member was found half-way, or with a span beyond our head. Seats and log are not read together, so another home
    /// may have changed both in between: a half-way member must be finished first, and our head is out of date.
    fn is_ahead(&self, found: &Found) -> bool {
        let head = self.head.map(|head| head.seq);
        found
            .members
            .iter()
            .flat_map(|(_, member)| member)
            .any(|member| member.is_half_way() || member.spans.edge() > head)
    }

    /// The records of refused sends were looked up.
    pub fn handle_sends(&mut self, sends: Result<Vec<Option<SendRecord>>, Failure>, now: Now) {
        let Flight::Out(step) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        match (sends, step) {
            (Ok(sends), Step::Batch(mut batch)) => {
                self.answer_refused(&mut batch, sends);
                self.flight = Flight::Ready(Step::Batch(batch));
            }
            (Err(failure), step) => self.fail_step(step, &failure.error(), now),
            (Ok(_), step) => self.flight = Flight::Ready(step),
        }
    }

    /// Single rows were read, in the order asked for.
    pub fn handle_rows(&mut self, rows: Result<Vec<(Seq, Option<Row>)>, Failure>, now: Now) {
        let Flight::Out(step) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        match (rows, step) {
            (Ok(rows), Step::Batch(mut batch)) => {
                batch.targets = Some(rows.into_iter().collect());
                self.flight = Flight::Ready(Step::Batch(batch));
            }
            (Ok(rows), Step::React(mut step)) => {
                self.take_messages(&mut step, &rows.into_iter().collect());
                self.flight = Flight::Ready(Step::React(step));
            }
            (Ok(_), step) => self.flight = Flight::Ready(step),
            (Err(failure), step) => self.fail_step(step, &failure.error(), now),
        }
    }

    /// An append came back.
    pub fn handle_appended(&mut self, outcome: Result<AppendOutcome, Failure>, now: Now) {
        let Flight::Out(step) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        match outcome {
            Ok(AppendOutcome::Appended) => {
                self.unknown = 0;
                self.backoff.clear();
                self.finish_append(step, now);
            }
            Ok(AppendOutcome::SentBefore(sent)) => {
                self.unknown = 0;
                match step {
                    Step::Batch(batch) => self.learn_sent(batch, &sent),
                    step => self.begin_again(step),
                }
            }
            // Another home appended: load its rows.
            Ok(AppendOutcome::Moved | AppendOutcome::Stale) => self.handle_moved(step, now),
            Err(Failure::Unknown(error)) => self.handle_unknown(step, &error, now),
            Err(Failure::Unavailable(error)) => self.fail_step(step, &error, now),
        }
    }

    /// A change of seats came back.
    pub fn handle_seated(&mut self, outcome: Result<SeatOutcome, Failure>, now: Now) {
        let Flight::Out(step) = std::mem::replace(&mut self.flight, Flight::Idle) else { return };
        let Step::Seats(mut step) = step else { return };
        match outcome {
            Ok(SeatOutcome::Changed(seats)) => {
                self.backoff.clear();
                self.members.seats = seats;
                self.answer_unchanged(&mut step);
                self.flight = Flight::Ready(Step::Seats(step.seated()));
            }
            // Another home changed them, and may have died half-way: load and finish its members.
            Ok(SeatOutcome::Moved) => self.handle_moved(Step::Seats(step), now),
            Err(Failure::Unknown(error)) => self.handle_unknown(Step::Seats(step.tried()), &error, now),
            Err(Failure::Unavailable(error)) => self.fail_step(Step::Seats(step), &error, now),
        }
    }

    /// Members were settled, except these users: their entries are appended and they are marked so, but their memberships or
    /// their own logs could not be written. They are settled later, and delay no command.
    pub fn handle_settled(&mut self, settled: Result<Vec<UserId>, Failure>, now: Now) {
        let Flight::Out(Step::Seats(step)) = std::mem::replace(&mut self.flight, Flight::Idle) else {
            return;
        };
        match settled {
            Ok(unsettled) => self.finish_seats(step, &unsettled, now),
            Err(failure) => self.fail_step(Step::Seats(step), &failure.error(), now),
        }
    }
}

/// Whether a row of the log is the row of an attempt.
fn is_same(found: &Row, attempt: &Row) -> bool {
    let json = |row: &Row| serde_json::to_string(&row.entry).ok();
    found.entry.seq == attempt.entry.seq && found.entry.at == attempt.entry.at && json(found) == json(attempt)
}
