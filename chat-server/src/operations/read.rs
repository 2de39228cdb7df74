//! Moves a read marker.

use madang_ids::{ChannelId, LogId, Seq};
use madang_proto::{Content, ErrorBody};
use madang_store::Marker;

use super::history::readable;
use super::{Caller, Operations, check_not_deleted};
use crate::refusal::refusal;

impl Operations {
    /// The caller has read a channel up to `seq`; her other devices learn of it, and in small channels
    /// the others. A marker never goes back.
    ///
    /// # Errors
    /// `invalid` beyond the head or outside of what she may read; `not_found`.
    pub async fn mark_read(&self, caller: Caller, channel_id: ChannelId, seq: Seq) -> Result<(), ErrorBody> {
        let row = self.overview_of(caller.user_id, channel_id).await?;
        check_not_deleted(&row.channel)?;
        if !readable(row.channel.card.kind, &row.membership.spans)?.contains(seq) || seq > row.head.seq {
            let message = format!("seq is {seq}, which is no entry of this channel that you may read");
            return Err(ErrorBody::invalid("seq", message));
        }
        let rows = self.store.rows(LogId::Channel(channel_id), seq..=seq, 1).await;
        let rows = rows.map_err(|error| refusal(&error))?;
        let ordinal = rows.first().map(|row| row.ordinal).ok_or_else(|| ErrorBody::not_found("seq"))?;
        let moved = self.store.advance_marker(caller.user_id, channel_id, Marker { seq, ordinal }).await;
        let moved = moved.map_err(|error| refusal(&error))?;
        self.end_unread_mark(caller, channel_id, row.settings).await?;
        // A retry of a call that crashed between marker and note finds the marker there, but not the note.
        if moved || (row.marker.seq == seq && !self.has_told_read(caller, channel_id, seq).await?) {
            self.homes.note(caller.user_id, Content::Read { channel_id, seq, ordinal }).await?;
            if row.membership.spans.is_open() {
                self.tell_receipt(caller, channel_id, seq).await;
            }
        }
        Ok(())
    }

    async fn has_told_read(&self, caller: Caller, channel: ChannelId, at: Seq) -> Result<bool, ErrorBody> {
        let is_it = |content: &Content| matches!(content, Content::Read { channel_id, seq, .. } if (*channel_id, *seq) == (channel, at));
        self.homes.noted_lately(caller.user_id, is_it).await.map_err(|error| refusal(&error))
    }
}
