//! What is outstanding for one user in one channel.

use madang_ids::{Cursor, DeviceId, Epoch, Millis, Position, Seq};
use serde::{Deserialize, Serialize};

/// Messages that one job remembers. Of more, the newest: an alert shows the last one and a count.
pub const MARKS: usize = 32;

/// A message that may be worth an alert, and its place in the user's inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// The message.
    pub seq: Seq,
    /// The position of its item.
    pub position: Position,
}

/// The devices that a job may alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Target {
    /// All devices of the user.
    User,
    /// One device, whose provider did not take the alert.
    Device(DeviceId),
}

/// The messages of one channel for one user of which nobody was alerted yet. There is one for each target: more messages fold into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// For which devices.
    pub target: Target,
    /// When it is decided.
    pub due_at: Millis,
    /// When it is worthless.
    pub expires_at: Millis,
    /// How often a provider refused to take it.
    pub attempt: u32,
    epoch: Epoch,
    /// Rising by message; not empty.
    marks: Vec<Mark>,
}

impl Job {
    /// A job for the first message.
    #[must_use]
    pub fn new(seq: Seq, at: Cursor, due_at: Millis, expires_at: Millis) -> Self {
        let marks = vec![Mark { seq, position: at.position }];
        Self { target: Target::User, due_at, expires_at, attempt: 0, epoch: at.epoch, marks }
    }

    /// Adds a message. The job is not put off by it: a busy channel would never alert anybody. A message that the job has changes
    /// nothing.
    pub fn fold(&mut self, seq: Seq, at: Cursor, expires_at: Millis) {
        // Almost always the last. Notes of mentions may come in another order.
        let Err(index) = self.marks.binary_search_by_key(&seq, |mark| mark.seq) else { return };
        if self.epoch != at.epoch {
            // Positions of another epoch say nothing of those of this one. What was received before is found by the read marker.
            self.epoch = at.epoch;
            self.marks.iter_mut().for_each(|mark| mark.position = at.position);
        }
        self.marks.insert(index, Mark { seq, position: at.position });
        if self.marks.len() > MARKS {
            self.marks.remove(0);
        }
        self.expires_at = self.expires_at.max(expires_at);
    }

    /// The same messages for one device, which was not called.
    #[must_use]
    pub fn later_for(&self, device: DeviceId, due_at: Millis) -> Self {
        Self { target: Target::Device(device), due_at, ..self.clone() }
    }

    /// The same messages for one device, because its provider did not take them.
    #[must_use]
    pub fn again_for(&self, device: DeviceId, due_at: Millis) -> Self {
        Self { attempt: self.attempt + 1, ..self.later_for(device, due_at) }
    }

    /// Takes over the messages of another job of the same target.
    pub fn absorb(&mut self, other: Self) {
        let (older, newer) =
            if self.marks.last() <= other.marks.last() { (&*self, &other) } else { (&other, &*self) };
        let mut marks = older.marks.clone();
        if older.epoch != newer.epoch
            && let Some(first) = newer.marks.first()
        {
            marks.iter_mut().for_each(|mark| mark.position = first.position);
        }
        marks.extend_from_slice(&newer.marks);
        marks.sort_unstable();
        marks.dedup_by_key(|mark| mark.seq);
        marks.drain(..marks.len().saturating_sub(MARKS));
        self.epoch = newer.epoch;
        self.marks = marks;
        self.attempt = self.attempt.max(other.attempt);
        self.due_at = self.due_at.max(other.due_at);
        self.expires_at = self.expires_at.max(other.expires_at);
    }

    /// The messages of which no device has received the item, with these cursors of the user's devices.
    pub fn not_received<'a>(&'a self, received: &'a [Cursor]) -> impl Iterator<Item = Seq> + 'a {
        let upto =
            received.iter().filter(|cursor| cursor.epoch == self.epoch).map(|cursor| cursor.position).max();
        self.marks
            .iter()
            .filter(move |mark| upto.is_none_or(|upto| mark.position > upto))
            .map(|mark| mark.seq)
    }

    /// The first and the last of its messages.
    #[must_use]
    pub fn range(&self) -> (Seq, Seq) {
        let seq = |mark: Option<&Mark>| mark.map_or(Seq::ZERO, |mark| mark.seq);
        (seq(self.marks.first()), seq(self.marks.last()))
    }

    /// All its messages, oldest first.
    pub fn messages(&self) -> impl Iterator<Item = Seq> + '_ {
        self.marks.iter().map(|mark| mark.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Millis = Millis::new(9_000);

    fn at(epoch: u64, position: u64) -> Cursor {
        Cursor { epoch: Epoch::from_raw(epoch), position: Position::new(position) }
    }

    fn job() -> Job {
        Job::new(Seq::new(5), at(1, 50), Millis::new(100), LATER)
    }

    fn waiting(job: &Job, received: &[Cursor]) -> Vec<u64> {
        job.not_received(received).map(Seq::get).collect()
    }

    #[test]
    fn messages_fold_and_what_any_device_has_received_is_left_out() {
        let mut job = job();
        job.fold(Seq::new(6), at(1, 53), LATER);
        job.fold(Seq::new(6), at(1, 53), LATER);
        job.fold(Seq::new(8), at(1, 60), LATER);
        job.fold(Seq::new(7), at(1, 61), LATER);
        assert_eq!(waiting(&job, &[at(1, 60)]), [7], "the note of a mention came late");
        let mut job = self::job();
        job.fold(Seq::new(6), at(1, 53), LATER);
        job.fold(Seq::new(8), at(1, 60), LATER);
        assert_eq!(job.due_at, Millis::new(100));
        assert_eq!(waiting(&job, &[]), [5, 6, 8]);
        assert_eq!(waiting(&job, &[at(1, 40), at(1, 53)]), [8]);
        assert_eq!(waiting(&job, &[at(1, 60)]), [0; 0]);
        assert_eq!(waiting(&job, &[at(2, 99)]), [5, 6, 8], "a cursor of another epoch says nothing");
    }

    #[test]
    fn after_a_reset_older_positions_do_not_count() {
        let mut job = job();
        job.fold(Seq::new(6), at(2, 1), LATER);
        assert_eq!(waiting(&job, &[at(1, 99)]), [5, 6]);
        assert_eq!(waiting(&job, &[at(2, 1)]), [0; 0]);
    }

    #[test]
    fn a_job_absorbs_another() {
        let mut job = job();
        job.fold(Seq::new(9), at(1, 70), LATER);
        let mut other = Job::new(Seq::new(6), at(1, 55), Millis::new(300), LATER.next());
        other.fold(Seq::new(9), at(1, 70), LATER);
        job.absorb(other);
        assert_eq!(waiting(&job, &[]), [5, 6, 9]);
        assert_eq!((job.due_at, job.expires_at), (Millis::new(300), LATER.next()));
        assert_eq!(waiting(&job, &[at(1, 55)]), [9]);
        let after = Job::new(Seq::new(12), at(2, 3), Millis::new(300), LATER);
        job.absorb(after.clone());
        assert_eq!(waiting(&job, &[at(2, 2)]), [5, 6, 9, 12], "positions of the earlier epoch are unknown");
        assert_eq!(waiting(&job, &[at(2, 3)]), [0; 0]);
    }

    #[test]
    fn a_job_remembers_the_newest_messages() {
        let mut job = job();
        for seq in 6..200 {
            job.fold(Seq::new(seq), at(1, 50 + seq), LATER);
        }
        assert_eq!(waiting(&job, &[]), (168..200).collect::<Vec<_>>());
    }
}
