//! The caller's own settings of a channel: favourite, muted, marked as unread, hidden; and messages that the caller deletes for
//! themselves only.

use madang_ids::{ChannelId, LogId, Millis, Ordinal, Seq};
use madang_proto::rest::{ChannelAlerts, ChannelSettingsChange};
use madang_proto::{ChannelSettings, Content, ErrorBody, ErrorCode, limits};
use madang_store::Overview;

use crate::operations::messages::history::readable;
use crate::operations::{Caller, Operations, check_not_deleted};
use crate::refusal::Result;

/// Attempts while other devices of the user change the same settings.
const TRIES: usize = 8;

impl Operations {
    /// Changes the caller's settings of a channel. Their other devices are notified through the user's own log. Absent fields
    /// stay as they are. Repeating it is harmless.
    ///
    /// # Errors
    /// `invalid` if nothing is to change or `hidden_ordinal` is above the head; `not_found` for a channel of others.
    pub async fn change_channel_settings(
        &self,
        caller: Caller,
        channel: ChannelId,
        change: ChannelSettingsChange,
    ) -> Result<ChannelSettings> {
        for _ in 0..TRIES {
            let overview = self.overview_of(caller.user_id, channel).await?;
            check(change, &overview)?;
            let wanted = changed(overview.settings, change);
            if self.put_channel_settings(caller, channel, overview.settings, wanted).await? {
                return Ok(ChannelSettings { rev: rev_of(overview.settings, wanted), ..wanted });
            }
        }
        Err(ErrorBody::unavailable(
            "another device is changing these settings at the same time; try again",
            200,
        )
        .into())
    }

    /// Ends a mark as unread, because the caller has read on.
    pub(in crate::operations) async fn end_unread_mark(
        &self,
        caller: Caller,
        channel: ChannelId,
        before: ChannelSettings,
    ) -> Result<()> {
        if before.marked_unread {
            let wanted = ChannelSettings { marked_unread: false, ..before };
            // If another device was first, its change is the later one and what the user wants.
            self.put_channel_settings(caller, channel, before, wanted).await?;
        }
        Ok(())
    }

    /// Writes settings that differ and notifies the user's devices. `false` if another device was first.
    ///
    /// The row and the note are two steps. The note carries `rev`, so two devices' notes may arrive in the wrong order: clients
    /// keep the greater one. After a crash between the steps a repeated call finds the row as it should be, and the home of the
    /// log adds the note if it is missing.
    async fn put_channel_settings(
        &self,
        caller: Caller,
        channel_id: ChannelId,
        before: ChannelSettings,
        wanted: ChannelSettings,
    ) -> Result<bool> {
        let settings = ChannelSettings { rev: rev_of(before, wanted), ..wanted };
        if settings.rev == before.rev {
            if before.is_default() {
                return Ok(true);
            }
        } else {
            if !self.store.put_channel_settings(caller.user_id, channel_id, &settings).await? {
                return Ok(false);
            }
        }
        self.homes.note(caller.user_id, Content::ChannelSettings { channel_id, settings }).await?;
        Ok(true)
    }

    /// Deletes a message for the caller only: from now on they get its place without its content. Repeating it is harmless. It
    /// cannot be undone.
    ///
    /// # Errors
    /// `not_found` for a place without a message that the caller may read; `full` above 10,000 messages of a channel.
    pub async fn hide_message(&self, caller: Caller, channel_id: ChannelId, seq: Seq) -> Result<()> {
        let overview = self.overview_of(caller.user_id, channel_id).await?;
        check_not_deleted(&overview.channel)?;
        self.readable_message(&overview, seq).await?;
        let user = caller.user_id;
        let most = limits::HIDDEN_MESSAGES;
        if !self.store.hide_message(user, channel_id, seq, most).await? {
            let message = format!("you have deleted {most} messages of this channel for yourself, the limit");
            return Err(ErrorBody::field(ErrorCode::Full, "seq", message).into());
        }
        self.homes.note(user, Content::MessageHidden { channel_id, seq }).await?;
        Ok(())
    }

    /// Checks that `seq` is a message that the caller may read.
    async fn readable_message(&self, overview: &Overview, seq: Seq) -> Result<()> {
        let missing = || {
            let message = format!("seq {seq} is not a message of this channel that you may read");
            ErrorBody::field(ErrorCode::NotFound, "seq", message)
        };
        if !readable(overview.channel.card.kind, &overview.membership.spans)?.contains(seq) {
            return Err(missing().into());
        }
        let rows = self.logs.rows_at(LogId::Channel(overview.channel.card.id), &[seq], 1).await?;
        let row = rows.first().and_then(Option::as_ref);
        Ok(row.and_then(|row| row.entry.content.message()).map(drop).ok_or_else(missing)?)
    }
}

/// The revision that `wanted` gets: that of `before` if nothing differs.
fn rev_of(before: ChannelSettings, wanted: ChannelSettings) -> u64 {
    let is_same = ChannelSettings { rev: before.rev, ..wanted } == before;
    if is_same { before.rev } else { before.rev + 1 }
}

fn check(change: ChannelSettingsChange, overview: &Overview) -> Result<(), ErrorBody> {
    let ChannelSettingsChange { favourite, marked_unread, muted_until, hidden_ordinal, alerts } = change;
    let has_mark = favourite.is_some() || marked_unread.is_some() || hidden_ordinal.is_some();
    if !has_mark && muted_until.is_none() && alerts.is_none() {
        let message = "body has none of favourite, marked_unread, muted_until, hidden_ordinal, alerts";
        return Err(ErrorBody::invalid("body", message));
    }
    let head = overview.head.ordinal;
    match hidden_ordinal {
        Some(ordinal) if ordinal > head => {
            let message =
                format!("hidden_ordinal is {ordinal}, above the head_ordinal of the channel, {head}");
            Err(ErrorBody::invalid("hidden_ordinal", message))
        }
        _ => Ok(()),
    }
}

fn changed(before: ChannelSettings, change: ChannelSettingsChange) -> ChannelSettings {
    ChannelSettings {
        rev: before.rev,
        favourite: change.favourite.unwrap_or(before.favourite),
        marked_unread: change.marked_unread.unwrap_or(before.marked_unread),
        muted_until: match change.muted_until {
            Some(until) => Some(until).filter(|until| *until != Millis::ZERO),
            None => before.muted_until,
        },
        hidden_ordinal: match change.hidden_ordinal {
            Some(ordinal) => Some(ordinal).filter(|ordinal| *ordinal != Ordinal::ZERO),
            None => before.hidden_ordinal,
        },
        alerts: change.alerts.map_or(before.alerts, ChannelAlerts::level),
    }
}
