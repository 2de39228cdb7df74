//! Calls about open channels and bans.

use madang_ids::{ChannelId, UserId};
use madang_proto::rest::{ChannelView, OpenChannel, OpenChannelQuery, Page, Restrict};

use super::{Rest, Result, encoded, joined};

impl Rest {
    /// Searches open channels by name and topic.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn open_channels(&self, token: &str, query: &OpenChannelQuery) -> Result<Page<OpenChannel>> {
        let query = joined([
            query.query.as_deref().map(|text| ("query", encoded(text))),
            query.after.as_deref().map(|after| ("after", encoded(after))),
            query.limit.map(|limit| ("limit", limit.to_string())),
        ]);
        self.get(token, &format!("/v1/open-channels{query}")).await
    }

    /// Joins an open channel.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn join(&self, token: &str, channel: ChannelId) -> Result<ChannelView> {
        let url = self.url(&format!("/v1/channels/{channel}/membership"));
        self.read(self.http.put(url).bearer_auth(token)).await
    }

    /// Bans a user.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn ban(&self, token: &str, channel: ChannelId, user: UserId, how: &Restrict) -> Result<()> {
        let url = self.url(&format!("/v1/channels/{channel}/bans/{user}"));
        self.run(self.http.put(url).bearer_auth(token).json(how)).await
    }

    /// Unbans a user.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn unban(&self, token: &str, channel: ChannelId, user: UserId) -> Result<()> {
        let url = self.url(&format!("/v1/channels/{channel}/bans/{user}"));
        self.run(self.http.delete(url).bearer_auth(token)).await
    }
}
