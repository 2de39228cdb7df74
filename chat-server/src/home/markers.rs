//! Notes read markers in the own logs of their users.
//!
//! A note says where the marker is when the note is made, not how far the caller moved it. Two devices that read at the same
//! moment then note the same place or rising places, and the home of the user's log drops a note that is overtaken.
//!
//! Sending moves the sender's marker. In a direct channel or a group every device of the sender receives the message. Entries of
//! an open channel reach only subscribed devices, so the user's own log notes the marker there, at most once a second for each
//! user and channel.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use madang_engine::log::Row;
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::{Content, UnreadMentions};
use madang_store::{Marker, Overview};

use super::Homes;
use crate::refusal::Result;

/// The time between two rounds of notes of markers that moved by sending.
const ROUND: Duration = Duration::from_secs(1);
/// Notes in one round: a busy channel must not cause as many appends to its senders' logs as to its own.
const ROUND_NOTES: usize = 256;
/// Notes that are made concurrently.
const AT_ONCE: usize = 16;
/// Markers that wait, 16 bytes each. Above it they are not noted, and the user's next `read` corrects them.
const OWED: usize = 65_536;
/// The memory of all of them in bytes, in the queue and in the set.
pub(super) const OWED_BYTES: u64 = OWED as u64 * 48;

/// Markers that moved by sending and are not noted yet. Each is in the queue once.
#[derive(Debug, Default)]
pub(super) struct OwedMarkers {
    waiting: VecDeque<(UserId, ChannelId)>,
    known: HashSet<(UserId, ChannelId)>,
    is_tended: bool,
}

impl OwedMarkers {
    fn push(&mut self, marker: (UserId, ChannelId)) -> bool {
        if self.waiting.len() >= OWED {
            return false;
        }
        if self.known.insert(marker) {
            self.waiting.push_back(marker);
        }
        true
    }

    fn take(&mut self) -> Vec<(UserId, ChannelId)> {
        let count = self.waiting.len().min(ROUND_NOTES);
        let taken: Vec<_> = self.waiting.drain(..count).collect();
        for marker in &taken {
            self.known.remove(marker);
        }
        taken
    }
}

impl Homes {
    /// Notes how far a user has read a channel, and how many mentions are unread. Returns the marker, or `None` if the user has
    /// never been a member.
    ///
    /// # Errors
    /// Those of the store, or the refusal of the home.
    pub async fn note_marker(&self, user: UserId, channel: ChannelId) -> Result<Option<Seq>> {
        let row = self.0.store.overview_of(user, channel).await?;
        let Some(Overview { marker: Marker { seq, ordinal }, head, mentions, .. }) = row else {
            return Ok(None);
        };
        let left = Some(UnreadMentions { mentions, head_seq: head.seq });
        self.note(user, Content::Read { channel_id: channel, seq, ordinal, left }).await?;
        Ok(Some(seq))
    }

    /// Rows of an open channel were appended: the markers of their senders have moved.
    pub(super) fn owe_markers(&self, log: LogId, rows: &[Row]) {
        let LogId::Channel(channel) = log else { return };
        let senders = rows.iter().filter_map(|row| Some(row.entry.content.message()?.sender_id));
        let mut owed = self.0.owed_markers.lock();
        for sender in senders {
            if !owed.push((sender, channel)) {
                tracing::debug!(channel.id = %channel, "too many pending read markers: one was dropped");
            }
        }
        self.tend(&mut owed);
    }

    fn tend(&self, owed: &mut OwedMarkers) {
        if !owed.waiting.is_empty() && !std::mem::replace(&mut owed.is_tended, true) {
            let due = self.0.clock.elapsed() + ROUND;
            self.0.tasks.spawn("markers", self.clone().tend_markers(due));
        }
    }

    /// Notes markers until none is left. When the process drains it makes one last round.
    async fn tend_markers(self, mut due: Duration) {
        loop {
            let is_last = tokio::select! {
                () = self.0.clock.sleep(due.saturating_sub(self.0.clock.elapsed())) => false,
                () = self.0.tasks.drain().draining() => true,
            };
            due += ROUND;
            // Taken before the marker is read: a message that is sent from here on enqueues its marker again.
            let round = self.0.owed_markers.lock().take();
            let homes = &self;
            let noted = iter(round).map(|(user, channel)| async move {
                let is_done = homes.try_note_marker(user, channel).await;
                (!is_done).then_some((user, channel))
            });
            let left: Vec<_> = noted.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
            let mut owed = self.0.owed_markers.lock();
            for marker in left {
                owed.push(marker);
            }
            // Both under one lock: a marker that is pushed later finds the flag cleared and starts a new task.
            if owed.waiting.is_empty() || is_last {
                owed.is_tended = false;
                return;
            }
        }
    }

    /// Whether the note was made, or would be refused again.
    async fn try_note_marker(&self, user: UserId, channel: ChannelId) -> bool {
        match self.note_marker(user, channel).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(channel.id = %channel, user.id = %user, %error, "saving a read marker failed");
                !error.code().is_retryable()
            }
        }
    }
}
