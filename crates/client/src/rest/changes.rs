//! Calls that change a message or a channel.

use madang_ids::{ChannelId, Seq, UserId};
use madang_proto::rest::{ChannelChange, ChannelView, EditMessage, MemberChange, Page, PageQuery, Restrict};
use madang_proto::{Changed, Role, UserCard};

use super::{Rest, Result, encoded, page_query};

impl Rest {
    /// Replaces the body of one of the caller's messages.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn edit(
        &self,
        token: &str,
        channel: ChannelId,
        message: Seq,
        edit: &EditMessage,
    ) -> Result<Changed> {
        self.read(self.http.patch(self.message(channel, message)).bearer_auth(token).json(edit)).await
    }

    /// Deletes a message for everyone.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn delete(&self, token: &str, channel: ChannelId, message: Seq) -> Result<Changed> {
        self.read(self.http.delete(self.message(channel, message)).bearer_auth(token)).await
    }

    /// Adds a reaction to a message, or removes it (`on` is `false`).
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn react(
        &self,
        token: &str,
        channel: ChannelId,
        message: Seq,
        emoji: &str,
        on: bool,
    ) -> Result<Changed> {
        let url = format!("{}/reactions/{}", self.message(channel, message), encoded(emoji));
        let call = if on { self.http.put(url) } else { self.http.delete(url) };
        self.read(call.bearer_auth(token)).await
    }

    /// The users who reacted to a message with one emoji.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn reactors(
        &self,
        token: &str,
        channel: ChannelId,
        message: Seq,
        emoji: &str,
        page: &PageQuery,
    ) -> Result<Page<UserCard>> {
        let query = page_query(page);
        let path = format!("/v1/channels/{channel}/messages/{message}/reactions/{}{query}", encoded(emoji));
        self.get(token, &path).await
    }

    /// Changes name, topic, picture or slow mode of a channel.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn change_channel(
        &self,
        token: &str,
        channel: ChannelId,
        change: &ChannelChange,
    ) -> Result<ChannelView> {
        let url = self.url(&format!("/v1/channels/{channel}"));
        self.read(self.http.patch(url).bearer_auth(token).json(change)).await
    }

    /// Pins a message, or unpins it (`on` is `false`).
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn pin(&self, token: &str, channel: ChannelId, message: Seq, on: bool) -> Result<()> {
        let url = self.url(&format!("/v1/channels/{channel}/pins/{message}"));
        let call = if on { self.http.put(url) } else { self.http.delete(url) };
        self.run(call.bearer_auth(token)).await
    }

    /// Gives a role to a member.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn give_role(&self, token: &str, channel: ChannelId, user: UserId, role: Role) -> Result<()> {
        let url = self.url(&format!("/v1/channels/{channel}/members/{user}"));
        self.run(self.http.patch(url).bearer_auth(token).json(&MemberChange { role })).await
    }

    /// Mutes a member, or unmutes them (`None`).
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn mute(
        &self,
        token: &str,
        channel: ChannelId,
        user: UserId,
        how: Option<&Restrict>,
    ) -> Result<()> {
        let url = self.url(&format!("/v1/channels/{channel}/mutes/{user}"));
        let call = match how {
            Some(how) => self.http.put(url).json(how),
            None => self.http.delete(url),
        };
        self.run(call.bearer_auth(token)).await
    }

    fn message(&self, channel: ChannelId, message: Seq) -> String {
        self.url(&format!("/v1/channels/{channel}/messages/{message}"))
    }
}
