//! Bodies of the REST API.

mod accounts;
mod export;

use std::collections::BTreeMap;

use madang_ids::{ChannelId, ClientMsgId, Millis, Ordinal, SealedCursor, Seq, UserId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cards::{ChannelCard, ChannelKind, Role, UserCard};
use crate::channel_settings::ChannelSettings;
use crate::entry::{Body, Entry};
use crate::error::ErrorBody;
use crate::json;

pub use accounts::{
    Deletion, DeviceCard, DeviceChange, Login, Me, NewDevice, PasswordChange, ProfileChange, Refresh,
    RevokeAll, ServerInfo, SignUp, SignedIn, UserIds, UserSearch,
};
pub use export::{ChannelMessage, ExportEnd, ExportLine, ExportedChannel, ExportedReaction, Stay};

/// Reads a body by the rule of [`json::read_request`](crate::json::read_request).
///
/// # Errors
/// Names the field, `body` for the whole of it.
pub fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ErrorBody> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ErrorBody::invalid("body", format!("body: is not UTF-8: {error}")))?;
    json::read_request(text).map_err(|error| error.refusal("body"))
}

/// A list without pages.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "List_{T}"))]
pub struct List<T> {
    /// All of it.
    pub items: Vec<T>,
}

/// The order of `GET /v1/channels`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChannelOrder {
    /// The most recently active first. It moves while it is read: a channel may come on two pages, or on none.
    #[default]
    Activity,
    /// By id: each channel that the user is in from the first page to the last comes exactly once.
    Id,
}

/// `GET /v1/channels`: which page.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelsQuery {
    /// `activity` (default) or `id`; on a later page the same as on the first.
    #[serde(default)]
    pub order: ChannelOrder,
    /// Whether to list groups that the user has left and may still read, instead of those that the user is in; by id, whatever
    /// `order` says.
    #[serde(default)]
    pub left: bool,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// 1 to 500, default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// One page of a list. `next` goes into the `after` of the next call; absent on the last page.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Page_{T}"))]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `?after=…&limit=…`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PageQuery {
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// 1 to 500, default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `POST /v1/channels`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewChannel {
    /// `direct`, `group` or `open`.
    pub kind: ChannelKind,
    /// Of a group or an open channel, 1 to 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of a group or an open channel, at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Direct: the other one. Group: who is in it from the start besides the caller. Open: nobody.
    #[serde(default)]
    pub members: Vec<UserId>,
}

/// A channel as one of its members sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelView {
    /// Which.
    #[serde(flatten)]
    pub card: ChannelCard,
    /// The last entry's place.
    pub head_seq: Seq,
    /// Messages so far.
    pub head_ordinal: Ordinal,
    /// When the last entry was appended, whatever its kind.
    pub active_at: Millis,
    /// When the last message was sent; absent without one, and of a channel that the user has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message_at: Option<Millis>,
    /// How far the caller has read.
    pub read_seq: Seq,
    /// Messages after that.
    pub unread: u64,
    /// Messages after that which mention the caller.
    pub mentions: u64,
    /// The first entry that the caller may read.
    pub from_seq: Seq,
    /// The last one, if she is no longer a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_seq: Option<Seq>,
    /// The caller's role.
    pub role: Role,
    /// Messages that are pinned, the last one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Seq>,
    /// Seconds that a member waits between two messages.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_mode_seconds: u32,
    /// Whether the channel is archived: it takes no messages.
    #[serde(default, skip_serializing_if = "is_false")]
    pub archived: bool,
    /// The caller's own settings of it; absent if nothing was ever set.
    #[serde(default, skip_serializing_if = "ChannelSettings::is_default")]
    pub settings: ChannelSettings,
    /// In the answer to `POST /v1/channels`: those of `members` who were invited instead of added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invited: Vec<UserId>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_unset(rev: &u64) -> bool {
    *rev == 0
}

/// `PATCH /v1/channels/{id}/settings`: what is absent stays.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelSettingsChange {
    /// Whether the channel is a favourite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub favourite: Option<bool>,
    /// Whether it is marked as unread. Reading a later message ends the mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marked_unread: Option<bool>,
    /// No alerts before this time; 0 ends it. For ever: 9007199254740991.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Millis>,
    /// Hides the channel until a message with a greater ordinal comes: the `head_ordinal` that the user has seen. 0 shows
    /// it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_ordinal: Option<Ordinal>,
}

/// `PATCH /v1/channels/{id}`: what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelChange {
    /// 1 to 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// At most 500 characters; empty takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The address of a picture, at most 512 bytes; empty takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    /// 0 to 21,600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_mode_seconds: Option<u32>,
    /// Whether the channel takes no messages; the owner decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
}

/// A row of `GET /v1/open-channels`: what anybody may know of an open channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OpenChannel {
    /// Which.
    #[serde(flatten)]
    pub card: ChannelCard,
    /// Members now.
    pub member_count: u32,
}

/// `?query=…&after=…&limit=…`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OpenChannelQuery {
    /// What name or topic must contain, in any case; at most 100 characters. Absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// 1 to 500, default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A row of `GET /v1/channels/{id}/members`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemberCard {
    /// Who.
    #[serde(flatten)]
    pub user: UserCard,
    /// What she may do.
    pub role: Role,
    /// Since when.
    pub joined_at: Millis,
    /// How far she has read; absent if she does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_seq: Option<Seq>,
    /// Present if she may not speak now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted: Option<Restriction>,
}

/// A time for which something is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Restriction {
    /// Until when; for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
}

/// `PUT /v1/channels/{id}/bans/{user_id}` and `PUT /v1/channels/{id}/mutes/{user_id}`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Restrict {
    /// How long, 1 to 31,536,000 (a year); for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

/// A row of `GET /v1/channels/{id}/bans`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BanCard {
    /// Who.
    #[serde(flatten)]
    pub user: UserCard,
    /// How long.
    #[serde(flatten)]
    pub restriction: Restriction,
}

/// `PATCH /v1/channels/{id}/members/{user_id}`
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemberChange {
    /// From now on. `owner` hands the channel over: the caller becomes an admin.
    pub role: Role,
}

/// `PATCH /v1/channels/{id}/messages/{seq}`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EditMessage {
    /// The version that the client edited; see the frame `edit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// What it says from now on.
    pub body: Body,
}

/// `PUT /v1/channels/{id}/members`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AddMembers {
    /// Whom; those who are members already are no error.
    pub user_ids: Vec<UserId>,
}

/// Answer to `PUT /v1/channels/{id}/members`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Added {
    /// Those who were invited instead of added: they do not let the caller add them.
    pub invited: Vec<UserId>,
}

/// `POST /v1/channels/{id}/messages`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SendMessage {
    /// The sender's retry key in this channel.
    pub client_msg_id: ClientMsgId,
    /// What.
    pub body: Body,
}

/// `PUT /v1/channels/{id}/read`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MarkRead {
    /// Up to here.
    #[cfg_attr(feature = "schema", schemars(schema_with = "madang_ids::place_of_an_entry"))]
    pub seq: Seq,
}

/// Which page of a log. At most one of `before`, `after`, `around`, `at`; none means the last page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HistoryQuery {
    /// The entries below this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Seq>,
    /// The entries above this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Seq>,
    /// The entries on both sides of this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<Seq>,
    /// The entries from this time on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Millis>,
    /// 1 to 200, default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Whether to add the cards of the users whom the page names; default false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub users: bool,
}

/// A page of a log, rising by `seq`, without a hole inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HistoryPage {
    /// The log's head when the page was read.
    pub as_of: Seq,
    /// The entries. A page ends early where it would exceed 256 KiB.
    pub entries: Vec<Entry>,
    /// Whether the caller may read entries below the first of the page.
    pub more_before: bool,
    /// Whether there are entries above the last of the page.
    pub more_after: bool,
    /// If asked for: the cards of those who sent the messages of the page, or did or met with what its other entries tell.
    /// Each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserCard>,
}

/// `POST /v1/snapshot`: what a device without a valid cursor starts from, by pages.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SnapshotQuery {
    /// What the device has: channels that are still so are left out, and those that the caller has left come with
    /// `until_seq`. At most 10,000.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub since: BTreeMap<ChannelId, Since>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// 1 to 500, default 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Whether to add the last 20 entries of the 10 most recent channels (first page only).
    #[serde(default)]
    pub recent: bool,
    /// Whether to add the cards of the users whom the page names; default false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub users: bool,
}

/// What a device has of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Since {
    /// The last entry.
    pub head_seq: Seq,
    /// How far the user has read, as this device knows.
    pub read_seq: Seq,
    /// The `rev` of the user's settings that this device has; absent means none.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub settings_rev: u64,
}

/// A page of the snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// On the first page: taken before anything was read. Resume from it once all pages are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<SealedCursor>,
    /// The channels of this page.
    pub channels: Vec<ChannelView>,
    /// Of `since`: channels that the user is not in and of which the server keeps nothing for the user. Drop them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<ChannelId>,
    /// On the first page, if asked for: the last entries of the most recent channels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recent: BTreeMap<ChannelId, Vec<Entry>>,
    /// If asked for: the cards of the two people of each direct channel of the page, and of those whom `recent` names. Each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserCard>,
    /// On the first page: invitations to groups that wait; absent if there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub invitations: u32,
    /// Where the next page begins; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_body_names_a_field() {
        let field = |text: &str| parse_body::<SnapshotQuery>(text.as_bytes()).unwrap_err().field;
        assert_eq!(field("{"), Some("body".into()));
        assert_eq!(field("{\"\":\"x"), Some("body".into()));
        assert_eq!(field("{} x"), Some("body".into()));
        assert_eq!(field("{\"limit\":-1}"), Some("limit".into()));
        assert_eq!(field("{\"since\":{\"7\":{\"head_seq\":\"x\"}}}"), Some("since.7.head_seq".into()));
    }
}
