//! Typed calls of the REST API. Stateless: the access token is an argument of every call.

mod changes;
mod open;

use std::sync::Arc;
use std::time::Duration;

use madang_ids::{ChannelId, DeviceId, Millis, UserId};
use madang_proto::rest::{
    AddMembers, Added, ChannelView, DeviceCard, HistoryPage, HistoryQuery, List, Login, MarkRead, MemberCard,
    NewChannel, NewDevice, Page, PageQuery, ProfileChange, Refresh, SendMessage, SignUp, SignedIn, Snapshot,
    SnapshotQuery,
};
use madang_proto::{Ack, ContactCard, ErrorBody, PresenceCounts, PresenceList, UserCard};
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;

use crate::error::ClientError;

/// The tokens of one device.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Access token, for `hello` and `Authorization`.
    pub access: String,
    /// Refresh token, for the next access token. It can be used once.
    pub refresh: String,
    /// The time at which `access` expires, by the server's clock.
    pub expires_at: Millis,
}

impl From<SignedIn> for Tokens {
    fn from(signed_in: SignedIn) -> Self {
        Self {
            access: signed_in.access_token,
            refresh: signed_in.refresh_token,
            expires_at: signed_in.access_expires_at,
        }
    }
}

/// The REST API of one server. Cheap to clone; clones share a pool of connections.
#[derive(Debug, Clone)]
pub struct Rest {
    http: reqwest::Client,
    base: Arc<str>,
}

type Result<T> = std::result::Result<T, ClientError>;

impl Rest {
    /// A client of the server at `base`, such as `http://127.0.0.1:8080`. Every call ends within `timeout`.
    ///
    /// # Errors
    /// If the HTTP client cannot be built.
    pub fn new(base: &str, timeout: Duration) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(timeout).no_proxy().build()?;
        Ok(Self { http, base: base.trim_end_matches('/').into() })
    }

    /// Signs up. A repeated call with the same `key` has no further effect.
    ///
    /// # Errors
    /// As for every call: [`ClientError::Refused`] with the server's error, or a failure of the connection.
    pub async fn sign_up(&self, sign_up: &SignUp, key: Option<&str>) -> Result<SignedIn> {
        read(with_key(self.http.post(self.url("/v1/accounts")), key).json(sign_up)).await
    }

    /// Logs in.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn log_in(&self, login: &Login) -> Result<SignedIn> {
        read(self.http.post(self.url("/v1/sessions")).json(login)).await
    }

    /// Gets new tokens for the device of a refresh token.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn refresh(&self, refresh_token: &str) -> Result<SignedIn> {
        let body = Refresh { refresh_token: refresh_token.to_owned() };
        read(self.http.post(self.url("/v1/tokens")).json(&body)).await
    }

    /// Logs this device out.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn log_out(&self, token: &str) -> Result<()> {
        run(self.http.delete(self.url("/v1/sessions")).bearer_auth(token)).await
    }

    /// The caller's card.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn me(&self, token: &str) -> Result<UserCard> {
        self.get(token, "/v1/me").await
    }

    /// Changes the caller's profile.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn change_me(&self, token: &str, change: &ProfileChange) -> Result<UserCard> {
        read(self.http.patch(self.url("/v1/me")).bearer_auth(token).json(change)).await
    }

    /// The user with a handle.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn user_by_handle(&self, token: &str, handle: &str) -> Result<UserCard> {
        self.get(token, &format!("/v1/users?handle={}", encoded(handle))).await
    }

    /// The caller's devices.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn devices(&self, token: &str) -> Result<List<DeviceCard>> {
        self.get(token, "/v1/devices").await
    }

    /// Adds a device of the caller.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn add_device(&self, token: &str, device: &NewDevice) -> Result<SignedIn> {
        read(self.http.post(self.url("/v1/devices")).bearer_auth(token).json(device)).await
    }

    /// Revokes one of the caller's devices.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn revoke_device(&self, token: &str, device: DeviceId) -> Result<()> {
        run(self.http.delete(self.url(&format!("/v1/devices/{device}"))).bearer_auth(token)).await
    }

    /// The users that the caller has blocked.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn blocks(&self, token: &str, page: &PageQuery) -> Result<Page<UserCard>> {
        self.get(token, &format!("/v1/blocks{}", page_query(page))).await
    }

    /// Blocks a user.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn block(&self, token: &str, user: UserId) -> Result<()> {
        run(self.http.put(self.url(&format!("/v1/blocks/{user}"))).bearer_auth(token)).await
    }

    /// Unblocks a user.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn unblock(&self, token: &str, user: UserId) -> Result<()> {
        run(self.http.delete(self.url(&format!("/v1/blocks/{user}"))).bearer_auth(token)).await
    }

    /// The caller's contacts and contact requests.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn contacts(&self, token: &str, page: &PageQuery) -> Result<Page<ContactCard>> {
        self.get(token, &format!("/v1/contacts{}", page_query(page))).await
    }

    /// Asks a user to be a contact, or accepts the user's request.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn put_contact(&self, token: &str, user: UserId) -> Result<ContactCard> {
        read(self.http.put(self.url(&format!("/v1/contacts/{user}"))).bearer_auth(token)).await
    }

    /// Removes a contact, withdraws a request, or declines one.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn remove_contact(&self, token: &str, user: UserId) -> Result<()> {
        run(self.http.delete(self.url(&format!("/v1/contacts/{user}"))).bearer_auth(token)).await
    }

    /// Presence of users; at most 100.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn presence(&self, token: &str, users: &[UserId]) -> Result<PresenceList> {
        let ids: Vec<String> = users.iter().map(ToString::to_string).collect();
        self.get(token, &format!("/v1/presence?user_ids={}", ids.join(","))).await
    }

    /// Number of members of a channel who are online or away.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn channel_presence(&self, token: &str, channel: ChannelId) -> Result<PresenceCounts> {
        self.get(token, &format!("/v1/channels/{channel}/presence")).await
    }

    /// Creates a channel. A repeated call with the same `key` has no further effect.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn create_channel(
        &self,
        token: &str,
        channel: &NewChannel,
        key: Option<&str>,
    ) -> Result<ChannelView> {
        let call = self.http.post(self.url("/v1/channels")).bearer_auth(token);
        read(with_key(call, key).json(channel)).await
    }

    /// The caller's channels, the most recently active first.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn channels(&self, token: &str, page: &PageQuery) -> Result<Page<ChannelView>> {
        self.get(token, &format!("/v1/channels{}", page_query(page))).await
    }

    /// One channel.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn channel(&self, token: &str, channel: ChannelId) -> Result<ChannelView> {
        self.get(token, &format!("/v1/channels/{channel}")).await
    }

    /// The members of a channel.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn members(
        &self,
        token: &str,
        channel: ChannelId,
        page: &PageQuery,
    ) -> Result<Page<MemberCard>> {
        self.get(token, &format!("/v1/channels/{channel}/members{}", page_query(page))).await
    }

    /// Adds users to a group. Returns the users who were invited instead.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn add_members(&self, token: &str, channel: ChannelId, user_ids: Vec<UserId>) -> Result<Added> {
        let url = self.url(&format!("/v1/channels/{channel}/members"));
        read(self.http.put(url).bearer_auth(token).json(&AddMembers { user_ids })).await
    }

    /// Removes a user from a channel. A user who removes themselves leaves.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn remove_member(&self, token: &str, channel: ChannelId, user: UserId) -> Result<()> {
        let url = self.url(&format!("/v1/channels/{channel}/members/{user}"));
        run(self.http.delete(url).bearer_auth(token)).await
    }

    /// A page of a channel's log.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn history(
        &self,
        token: &str,
        channel: ChannelId,
        query: &HistoryQuery,
    ) -> Result<HistoryPage> {
        let query = history_query(query);
        self.get(token, &format!("/v1/channels/{channel}/entries{query}")).await
    }

    /// Sends a message without a socket.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn send(&self, token: &str, channel: ChannelId, message: &SendMessage) -> Result<Ack> {
        let url = self.url(&format!("/v1/channels/{channel}/messages"));
        read(self.http.post(url).bearer_auth(token).json(message)).await
    }

    /// Sets the caller's read marker of a channel.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn mark_read(&self, token: &str, channel: ChannelId, mark: &MarkRead) -> Result<()> {
        let url = self.url(&format!("/v1/channels/{channel}/read"));
        run(self.http.put(url).bearer_auth(token).json(mark)).await
    }

    /// A page of the snapshot.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn snapshot(&self, token: &str, query: &SnapshotQuery) -> Result<Snapshot> {
        read(self.http.post(self.url("/v1/snapshot")).bearer_auth(token).json(query)).await
    }

    /// Whether the server accepts work.
    pub async fn is_ready(&self) -> bool {
        run(self.http.get(self.url("/readyz"))).await.is_ok()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn get<T: DeserializeOwned>(&self, token: &str, path: &str) -> Result<T> {
        read(self.http.get(self.url(path)).bearer_auth(token)).await
    }
}

fn with_key(call: RequestBuilder, key: Option<&str>) -> RequestBuilder {
    match key {
        Some(key) => call.header("Idempotency-Key", key),
        None => call,
    }
}

/// Sends a call and decodes the body of its answer.
async fn read<T: DeserializeOwned>(call: RequestBuilder) -> Result<T> {
    let bytes = answer(call).await?;
    let text = std::str::from_utf8(&bytes).map_err(|error| ClientError::Protocol(error.to_string()))?;
    madang_proto::json::read(text).map_err(|error| ClientError::Protocol(error.to_string()))
}

/// Sends a call and ignores the body of its answer.
async fn run(call: RequestBuilder) -> Result<()> {
    answer(call).await.map(drop)
}

async fn answer(call: RequestBuilder) -> Result<bytes::Bytes> {
    let response = call.send().await?;
    let status = response.status();
    let bytes = response.bytes().await?;
    if status.is_success() {
        return Ok(bytes);
    }
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => Err(ClientError::Refused(body)),
        Err(_) => Err(ClientError::Protocol(format!("status {status} without an error body"))),
    }
}

fn page_query(page: &PageQuery) -> String {
    let after = page.after.as_deref().map(|after| ("after", encoded(after)));
    let limit = page.limit.map(|limit| ("limit", limit.to_string()));
    joined([after, limit])
}

fn history_query(query: &HistoryQuery) -> String {
    joined([
        query.before.map(|seq| ("before", seq.to_string())),
        query.after.map(|seq| ("after", seq.to_string())),
        query.around.map(|seq| ("around", seq.to_string())),
        query.at.map(|at| ("at", at.to_string())),
        query.limit.map(|limit| ("limit", limit.to_string())),
        query.users.then(|| ("users", "true".to_owned())),
    ])
}

fn joined<const N: usize>(pairs: [Option<(&str, String)>; N]) -> String {
    let pairs: Vec<String> =
        pairs.into_iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3).
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::Seq;

    #[test]
    fn queries_contain_only_the_given_parameters() {
        assert_eq!(history_query(&HistoryQuery::default()), "");
        let query = HistoryQuery { after: Some(Seq::new(7)), limit: Some(200), ..HistoryQuery::default() };
        assert_eq!(history_query(&query), "?after=7&limit=200");
        let page = PageQuery { after: Some("a/b c".into()), limit: None };
        assert_eq!(page_query(&page), "?after=a%2Fb%20c");
    }
}
