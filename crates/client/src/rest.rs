//! Typed calls of the REST API. Stateless: the access token is an argument of every call.
//!
//! All nodes of a fleet answer the same calls. A call goes to the server that answered last. If that one cannot be
//! reached, it goes to the next one; a call that must not be repeated does so only if no connection was opened, because
//! then the first server has not received it.

mod changes;
mod connect;
mod open;
mod servers;

use std::sync::Arc;
use std::time::Duration;

use madang_ids::{ChannelId, DeviceId, Millis, UserId};
use madang_proto::rest::{
    AddMembers, Added, ChannelView, DeviceCard, HistoryPage, HistoryQuery, List, Login, MarkRead, MemberCard,
    NewChannel, NewDevice, Page, PageQuery, ProfileChange, Refresh, SendMessage, SignUp, SignedIn, Snapshot,
    SnapshotQuery,
};
use madang_proto::{Ack, ChannelKind, ContactCard, ErrorBody, PresenceCounts, PresenceList, UserCard};
use reqwest::{RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::ClientError;
use crate::trust::Trust;
use servers::Servers;

pub use connect::Assigned;

/// Time limit for opening a connection. A node that is gone without a trace must not use up the time of the call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

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

/// The REST API of one server, or of several nodes of a fleet. Cheap to clone; clones share a pool of connections and
/// the knowledge which server answered last.
#[derive(Debug, Clone)]
pub struct Rest {
    http: reqwest::Client,
    servers: Arc<Servers>,
}

type Result<T> = std::result::Result<T, ClientError>;

/// Whether a call may be sent again although the first attempt may have reached a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It has the same result: a `GET`, `PUT`, `DELETE` or `PATCH`, or a call with a retry key.
    Allowed,
    /// It would have another effect, or another answer.
    Forbidden,
}

/// What a server answered.
struct Answer {
    /// Which of the servers.
    server: usize,
    status: StatusCode,
    body: bytes::Bytes,
}

impl Rest {
    /// A client of the server at `base`, such as `http://127.0.0.1:8080`. Every call ends within `timeout`.
    ///
    /// # Errors
    /// If the address is invalid, or the HTTP client cannot be built.
    pub fn new(base: &str, timeout: Duration) -> Result<Self> {
        Self::with_servers(&[base], timeout, &Trust::default())
    }

    /// A client of several servers of one fleet, in the order in which they are tried first. Every attempt ends within
    /// `timeout`, so a call may take that long for each server.
    ///
    /// # Errors
    /// If there is no address, one is invalid, or the HTTP client cannot be built.
    pub fn with_servers<S: AsRef<str>>(bases: &[S], timeout: Duration, trust: &Trust) -> Result<Self> {
        Self::build(bases, timeout, trust, None)
    }

    /// Like [`Self::with_servers`]. Connections that are not used for `idle` are closed.
    pub(crate) fn build<S: AsRef<str>>(
        bases: &[S],
        timeout: Duration,
        trust: &Trust,
        idle: Option<Duration>,
    ) -> Result<Self> {
        let servers = Servers::parse(bases)?;
        let http = reqwest::Client::builder().timeout(timeout).connect_timeout(CONNECT_TIMEOUT).no_proxy();
        let http = match idle {
            Some(idle) => http.pool_idle_timeout(idle),
            None => http,
        };
        // Without TLS no root certificates are read.
        let http = match servers.need_tls() {
            true => http.tls_backend_preconfigured((*trust.config()?).clone()),
            false => http.tls_certs_only([]),
        };
        Ok(Self { http: http.build()?, servers: Arc::new(servers) })
    }

    /// Signs up. A repeated call with the same `key` has no further effect.
    ///
    /// # Errors
    /// As for every call: [`ClientError::Refused`] with the server's error, or a failure of the connection.
    pub async fn sign_up(&self, sign_up: &SignUp, key: Option<&str>) -> Result<SignedIn> {
        let call = with_key(self.http.post(self.url("/v1/accounts")), key).json(sign_up);
        self.read_with(call, by_key(key)).await
    }

    /// Logs in.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn log_in(&self, login: &Login) -> Result<SignedIn> {
        self.read_with(self.http.post(self.url("/v1/sessions")).json(login), Repeat::Forbidden).await
    }

    /// Gets new tokens for the device of a refresh token.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn refresh(&self, refresh_token: &str) -> Result<SignedIn> {
        let body = Refresh { refresh_token: refresh_token.to_owned() };
        self.read(self.http.post(self.url("/v1/tokens")).json(&body)).await
    }

    /// Logs this device out.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn log_out(&self, token: &str) -> Result<()> {
        let call = self.http.delete(self.url("/v1/sessions")).bearer_auth(token);
        // A repeated call is refused, because the device is logged out.
        self.answer(call, Repeat::Forbidden).await?.accepted().map(drop)
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
        self.read(self.http.patch(self.url("/v1/me")).bearer_auth(token).json(change)).await
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
        let call = self.http.post(self.url("/v1/devices")).bearer_auth(token).json(device);
        self.read_with(call, Repeat::Forbidden).await
    }

    /// Revokes one of the caller's devices.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn revoke_device(&self, token: &str, device: DeviceId) -> Result<()> {
        self.run(self.http.delete(self.url(&format!("/v1/devices/{device}"))).bearer_auth(token)).await
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
        self.run(self.http.put(self.url(&format!("/v1/blocks/{user}"))).bearer_auth(token)).await
    }

    /// Unblocks a user.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn unblock(&self, token: &str, user: UserId) -> Result<()> {
        self.run(self.http.delete(self.url(&format!("/v1/blocks/{user}"))).bearer_auth(token)).await
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
        self.read(self.http.put(self.url(&format!("/v1/contacts/{user}"))).bearer_auth(token)).await
    }

    /// Removes a contact, withdraws a request, or declines one.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn remove_contact(&self, token: &str, user: UserId) -> Result<()> {
        self.run(self.http.delete(self.url(&format!("/v1/contacts/{user}"))).bearer_auth(token)).await
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
        let repeat = if channel.kind == ChannelKind::Direct { Repeat::Allowed } else { by_key(key) };
        self.read_with(with_key(call, key).json(channel), repeat).await
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
        self.read(self.http.put(url).bearer_auth(token).json(&AddMembers { user_ids })).await
    }

    /// Removes a user from a channel. A user who removes themselves leaves.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn remove_member(&self, token: &str, channel: ChannelId, user: UserId) -> Result<()> {
        let url = self.url(&format!("/v1/channels/{channel}/members/{user}"));
        self.run(self.http.delete(url).bearer_auth(token)).await
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
        self.read(self.http.post(url).bearer_auth(token).json(message)).await
    }

    /// Sets the caller's read marker of a channel.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn mark_read(&self, token: &str, channel: ChannelId, mark: &MarkRead) -> Result<()> {
        let url = self.url(&format!("/v1/channels/{channel}/read"));
        self.run(self.http.put(url).bearer_auth(token).json(mark)).await
    }

    /// A page of the snapshot.
    ///
    /// # Errors
    /// See [`Self::sign_up`].
    pub async fn snapshot(&self, token: &str, query: &SnapshotQuery) -> Result<Snapshot> {
        self.read(self.http.post(self.url("/v1/snapshot")).bearer_auth(token).json(query)).await
    }

    /// Whether a server accepts work.
    pub async fn is_ready(&self) -> bool {
        self.run(self.http.get(self.url("/readyz"))).await.is_ok()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.servers.base())
    }

    async fn get<T: DeserializeOwned>(&self, token: &str, path: &str) -> Result<T> {
        self.read(self.http.get(self.url(path)).bearer_auth(token)).await
    }

    /// Sends a call that may be repeated, and decodes the body of its answer.
    async fn read<T: DeserializeOwned>(&self, call: RequestBuilder) -> Result<T> {
        self.read_with(call, Repeat::Allowed).await
    }

    async fn read_with<T: DeserializeOwned>(&self, call: RequestBuilder, repeat: Repeat) -> Result<T> {
        decode(&self.answer(call, repeat).await?.accepted()?)
    }

    /// Sends a call that may be repeated, and ignores the body of its answer.
    async fn run(&self, call: RequestBuilder) -> Result<()> {
        self.answer(call, Repeat::Allowed).await?.accepted().map(drop)
    }

    /// Sends a call to one server after the other, until one answers.
    async fn answer(&self, call: RequestBuilder, repeat: Repeat) -> Result<Answer> {
        let call = call.build()?;
        let mut failed = ClientError::Protocol("the call cannot be sent".into());
        for server in self.servers.in_order() {
            let Some(request) = self.servers.for_server(&call, server) else { continue };
            match self.attempt(request).await {
                Ok((status, body)) => {
                    self.servers.note_answer(server);
                    return Ok(Answer { server, status, body });
                }
                Err(error) => {
                    let may_be_sent = repeat == Repeat::Allowed || error.is_connect();
                    failed = error.into();
                    if !may_be_sent {
                        break;
                    }
                }
            }
        }
        Err(failed)
    }

    async fn attempt(&self, request: reqwest::Request) -> reqwest::Result<(StatusCode, bytes::Bytes)> {
        let response = self.http.execute(request).await?;
        Ok((response.status(), response.bytes().await?))
    }
}

impl Answer {
    /// The body of a successful answer; otherwise the server's error.
    fn accepted(self) -> Result<bytes::Bytes> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        match serde_json::from_slice::<ErrorBody>(&self.body) {
            Ok(body) => Err(ClientError::Refused(body)),
            Err(_) => Err(ClientError::Protocol(format!("status {} without an error body", self.status))),
        }
    }
}

fn with_key(call: RequestBuilder, key: Option<&str>) -> RequestBuilder {
    match key {
        Some(key) => call.header("Idempotency-Key", key),
        None => call,
    }
}

const fn by_key(key: Option<&str>) -> Repeat {
    if key.is_some() { Repeat::Allowed } else { Repeat::Forbidden }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(body).map_err(|error| ClientError::Protocol(error.to_string()))?;
    madang_proto::json::read(text).map_err(|error| ClientError::Protocol(error.to_string()))
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
