//! Details of a channel that members change: name, topic, picture, slow mode, pins.

use madang_engine::home::{Command, DetailChange};
use madang_engine::log::ChannelState;
use madang_ids::{ChannelId, Seq};
use madang_proto::rest::{ChannelChange, ChannelView};
use madang_proto::{ErrorBody, ErrorCode, limits};

use crate::operations::channels::check_name;
use crate::operations::messages::texts::check_lines;
use crate::operations::{Caller, Operations};
use crate::refusal::Result;

impl Operations {
    /// Changes the name, topic, picture or slow mode, or archives the channel. Absent fields stay as they are. A change that
    /// changes nothing makes no entry.
    ///
    /// # Errors
    /// A field is beyond its limit; `forbidden` without the right; `not_found`.
    pub async fn change_channel(
        &self,
        caller: Caller,
        channel_id: ChannelId,
        change: ChannelChange,
    ) -> Result<ChannelView> {
        for change in check(change)? {
            self.change_detail(caller, channel_id, change).await?;
        }
        self.channel_view(caller, channel_id).await
    }

    /// Pins a message.
    ///
    /// # Errors
    /// `forbidden` without the right; `full` above 50; `not_found`.
    pub async fn pin(&self, caller: Caller, channel: ChannelId, target: Seq) -> Result<()> {
        self.change_detail(caller, channel, DetailChange::Pin(target)).await
    }

    /// Unpins a message.
    ///
    /// # Errors
    /// `forbidden` without the right; `not_found`.
    pub async fn unpin(&self, caller: Caller, channel: ChannelId, target: Seq) -> Result<()> {
        self.change_detail(caller, channel, DetailChange::Unpin(target)).await
    }

    async fn change_detail(&self, caller: Caller, channel_id: ChannelId, change: DetailChange) -> Result<()> {
        let channel = self.channel(channel_id).await?;
        let command = Command::Detail { by: caller.user_id, change };
        self.homes.ask(&channel, command).await?;
        Ok(())
    }
}

fn check(change: ChannelChange) -> Result<Vec<DetailChange>, ErrorBody> {
    let ChannelChange { name, topic, avatar, slow_mode_seconds, archived } = change;
    let mut changes = Vec::new();
    if let Some(name) = name {
        changes.push(DetailChange::Name(check_name(Some(&name))?));
    }
    if let Some(topic) = topic {
        changes.push(DetailChange::Topic(check_topic(&topic)?));
    }
    if let Some(avatar) = avatar {
        changes.push(DetailChange::Avatar(check_avatar(&avatar)?));
    }
    if let Some(seconds) = slow_mode_seconds {
        if seconds > limits::SLOW_MODE_SECONDS {
            let max = limits::SLOW_MODE_SECONDS;
            let message = format!("slow_mode_seconds is {seconds}, it must be 0 to {max}");
            return Err(ErrorBody::invalid("slow_mode_seconds", message));
        }
        changes.push(DetailChange::SlowMode(seconds));
    }
    if let Some(archived) = archived {
        let state = if archived { ChannelState::Archived } else { ChannelState::Active };
        // An archived channel accepts no other change, so unarchiving comes first and archiving last.
        let place = if archived { changes.len() } else { 0 };
        changes.insert(place, DetailChange::State(state));
    }
    Ok(changes)
}

/// A topic may be empty and may have several lines.
pub(in crate::operations) fn check_topic(topic: &str) -> Result<String, ErrorBody> {
    check_lines("topic", topic, 0..=limits::TOPIC_CHARS)
}

/// The address of a picture. The server does not read what is there.
pub(in crate::operations) fn check_avatar(avatar: &str) -> Result<String, ErrorBody> {
    let max = limits::AVATAR_BYTES;
    if avatar.len() > max {
        let message = format!("avatar has {} bytes, the limit is {max}", avatar.len());
        return Err(ErrorBody::field(ErrorCode::TooLarge, "avatar", message));
    }
    if avatar.is_empty() || avatar.starts_with("https://") && !avatar.contains(char::is_whitespace) {
        return Ok(avatar.to_owned());
    }
    Err(ErrorBody::invalid("avatar", "avatar must be an address that starts with https://, or empty"))
}
