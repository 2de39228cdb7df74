//! Moves read markers.

use madang_engine::overload::Class;
use madang_ids::{ChannelId, LogId, Seq};
use madang_proto::{ChannelKind, ErrorBody};
use madang_store::{Marker, Membership, Overview};

use crate::operations::messages::history::readable;
use crate::operations::turns::Subject;
use crate::operations::{Caller, Operations, check_not_deleted};
use crate::refusal::Result;

impl Operations {
    /// Marks a channel as read up to `seq`. The user's other devices are notified, and in small channels the other members. A
    /// marker never moves back.
    ///
    /// # Errors
    /// `invalid` beyond the head or outside of what the caller may read; `not_found`; `unavailable` if the node is overloaded.
    pub async fn mark_read(&self, caller: Caller, channel_id: ChannelId, seq: Seq) -> Result<()> {
        self.shedding.admit(Class::Receipts, caller.user_id.raw())?;
        let row = self.overview_of(caller.user_id, channel_id).await?;
        check_not_deleted(&row.channel)?;
        if !readable(row.channel.card.kind, &row.membership.spans)?.contains(seq) || seq > row.head.seq {
            let message = format!("seq {seq} is not an entry of this channel that you may read");
            return Err(ErrorBody::invalid("seq", message).into());
        }
        let rows = self.logs.rows(LogId::Channel(channel_id), seq..=seq, 1).await?;
        let ordinal = rows.first().map(|row| row.ordinal).ok_or_else(|| ErrorBody::not_found("seq"))?;
        // Another device may move the marker at the same moment. The turn makes each device move, note and publish before the
        // next one does.
        let _turn = self.turns.take(Subject::Marker(caller.user_id, channel_id)).await;
        self.store.advance_marker(caller.user_id, channel_id, Marker { seq, ordinal }).await?;
        self.end_unread_mark(caller, channel_id, row.settings).await?;
        self.accept_by_reading(caller, &row).await?;
        if seq < row.marker.seq {
            return Ok(());
        }
        // An earlier call may have ended between its write and its note. The home drops a note that exists.
        let noted = self.homes.note_marker(caller.user_id, channel_id).await?;
        if let Some(seq) = noted.filter(|_| seq > row.marker.seq && row.membership.spans.is_open()) {
            self.publish_receipt(caller, channel_id, seq).await;
        }
        Ok(())
    }

    /// A user who was added to a group accepts it when they mark it as read for the first time. A direct channel is accepted only
    /// by writing: having read a stranger's message is not consent.
    async fn accept_by_reading(&self, caller: Caller, row: &Overview) -> Result<()> {
        let Membership { spans, has_accepted, .. } = &row.membership;
        if *has_accepted || !spans.is_open() || row.channel.card.kind != ChannelKind::Group {
            return Ok(());
        }
        self.store.accept_stay(caller.user_id, row.channel.card.id).await?;
        self.presence.circle_changed(caller.user_id);
        Ok(())
    }
}
