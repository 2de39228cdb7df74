//! Bodies of the REST API.

mod accounts;
mod connect;
mod export;
mod operator;
mod operator_acts;
mod push;

use std::collections::BTreeMap;

use madang_ids::{ChannelId, ClientMsgId, Millis, Ordinal, SealedCursor, Seq, UserId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::alerts::AlertLevel;
use crate::cards::{ChannelCard, ChannelKind, Role, UserCard};
use crate::channel_settings::ChannelSettings;
use crate::entry::{Body, Entry};
use crate::error::ErrorBody;
use crate::json;

pub use accounts::{
    Deletion, DeviceCard, DeviceChange, Login, Me, NewDevice, PasswordChange, ProfileChange, Refresh,
    RevokeAll, ServerInfo, SignUp, SignedIn, UserIds, UserSearch,
};
pub use connect::{AssignedNode, Assignment, Connect, Waiting};
pub use export::{ChannelMessage, ExportEnd, ExportLine, ExportedChannel, ExportedReaction, Stay};
pub use operator::{
    Board, BoardNode, Forecast, GuaranteeRow, HeatCause, HeatChangeRow, HeatPoint, HotDetail, HotRow,
    JoinRow, OperatorScope, OperatorSignIn, OperatorToken, OverrideAnswer, OverrideCard, OverrideSettings,
    OverrideWish, PushProcess, PushRow, Quantiles, SenderRow, Spared, WorkRow,
};
pub use operator_acts::{
    ActCard, ActKind, ActQuery, AlertTrace, ChannelName, ConfigChange, DeadLetterQuery, EndOverride,
    OperatorConfig, RateLimits, RuntimeConfig, SendAgain, SentAgain, ShowName,
};
pub use push::{
    AlertData, AlertHistory, AlertKind, AlertQuery, DeadLetterCard, NewAlertSettings, PushInfo,
    PushRegistered, PushRegistration, PushSubscription, PushTest,
};

/// Reads a body by the rule of [`json::read_request`](crate::json::read_request).
///
/// # Errors
/// The error names the field, or `body` for the body as a whole.
pub fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ErrorBody> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ErrorBody::invalid("body", format!("body: is not UTF-8: {error}")))?;
    json::read_request(text).map_err(|error| error.refusal("body"))
}

/// A list without pages.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "List_{T}"))]
pub struct List<T> {
    /// All items.
    pub items: Vec<T>,
}

/// Order of `GET /v1/channels`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChannelOrder {
    /// The most recently active channel first. The order changes while pages are read: a channel may be on two pages,
    /// or on none.
    #[default]
    Activity,
    /// By id. Each channel of which the user is a member from the first page to the last is listed exactly once.
    Id,
}

/// `GET /v1/channels`: order and page.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelsQuery {
    /// `activity` (default) or `id`. It must be the same on all pages.
    #[serde(default)]
    pub order: ChannelOrder,
    /// Whether to list groups that the user has left and may still read, instead of those of which the user is a
    /// member. The order is then always by id.
    #[serde(default)]
    pub left: bool,
    /// The `next` of the previous page.
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
    /// Where the next page begins; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `?after=…&limit=…`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PageQuery {
    /// The `next` of the previous page.
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
    /// Name of a group or an open channel, 1 to 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Topic of a group or an open channel, at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Direct channel: the other user. Group: its first members besides the caller. Open channel: empty.
    #[serde(default)]
    pub members: Vec<UserId>,
}

/// A channel as one of its members sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelView {
    /// The channel.
    #[serde(flatten)]
    pub card: ChannelCard,
    /// The place of the last entry.
    pub head_seq: Seq,
    /// Number of messages so far.
    pub head_ordinal: Ordinal,
    /// Time of the last entry of any kind.
    pub active_at: Millis,
    /// Time of the last message; absent if there is none, and for a channel that the user has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message_at: Option<Millis>,
    /// The caller's read marker.
    pub read_seq: Seq,
    /// Messages after `read_seq`.
    pub unread: u64,
    /// Messages after `read_seq` that mention the caller.
    pub mentions: u64,
    /// The first entry that the caller may read.
    pub from_seq: Seq,
    /// The last entry that the caller may read; present only if the caller is no longer a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_seq: Option<Seq>,
    /// The caller's role.
    pub role: Role,
    /// Pinned messages, the one pinned last first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Seq>,
    /// Seconds that a member must wait between two messages.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_mode_seconds: u32,
    /// Whether the channel is archived. An archived channel accepts no messages.
    #[serde(default, skip_serializing_if = "is_false")]
    pub archived: bool,
    /// The caller's own settings of the channel; absent if they were never changed.
    #[serde(default, skip_serializing_if = "ChannelSettings::is_default")]
    pub settings: ChannelSettings,
    /// Only in the answer to `POST /v1/channels`: the users of `members` who were invited instead of added.
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

/// `PATCH /v1/channels/{id}/settings`. Absent fields stay unchanged.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelSettingsChange {
    /// Whether the channel is a favourite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub favourite: Option<bool>,
    /// Whether the channel is marked as unread. Reading a later message removes the mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marked_unread: Option<bool>,
    /// Time until which the channel makes no alerts; 0 ends the mute. For ever: 9007199254740991.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Millis>,
    /// Hides the channel until a message with a greater ordinal arrives; the client sends the `head_ordinal` that the
    /// user has seen. 0 shows the channel again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_ordinal: Option<Ordinal>,
    /// The messages of the channel of which the user wants to be alerted; `default`: those of the user's own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<ChannelAlerts>,
}

/// The level of alerts of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChannelAlerts {
    /// As in the user's own settings.
    Default,
    /// Every message. In an open channel the same as `mentions`.
    All,
    /// Messages that mention the user, and replies to the user's own messages.
    Mentions,
    /// None.
    Nothing,
}

impl ChannelAlerts {
    /// The level; `None` for that of the user's own settings.
    #[must_use]
    pub const fn level(self) -> Option<AlertLevel> {
        match self {
            Self::Default => None,
            Self::All => Some(AlertLevel::All),
            Self::Mentions => Some(AlertLevel::Mentions),
            Self::Nothing => Some(AlertLevel::Nothing),
        }
    }
}

/// `PATCH /v1/channels/{id}`. Absent fields stay unchanged.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelChange {
    /// The name, 1 to 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The topic, at most 500 characters; empty removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The address of a picture, at most 512 bytes; empty removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    /// The interval of slow mode in seconds, 0 to 21,600; 0 means no wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_mode_seconds: Option<u32>,
    /// Whether the channel is archived and accepts no messages. Only the owner may set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
}

/// A row of `GET /v1/open-channels`: what every user may know of an open channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OpenChannel {
    /// The channel.
    #[serde(flatten)]
    pub card: ChannelCard,
    /// Present number of members.
    pub member_count: u32,
}

/// `?query=…&after=…&limit=…`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OpenChannelQuery {
    /// Text that the name or the topic must contain, ignoring case; at most 100 characters. If absent, all open
    /// channels are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The `next` of the previous page.
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
    /// The member.
    #[serde(flatten)]
    pub user: UserCard,
    /// The member's role.
    pub role: Role,
    /// The time at which the member joined.
    pub joined_at: Millis,
    /// The member's read marker; absent if the member does not send receipts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_seq: Option<Seq>,
    /// Present if the member is muted now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted: Option<Restriction>,
}

/// Duration of a mute or a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Restriction {
    /// The time at which it ends; absent means for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
}

/// `PUT /v1/channels/{id}/bans/{user_id}` and `PUT /v1/channels/{id}/mutes/{user_id}`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Restrict {
    /// Duration in seconds, 1 to 31,536,000 (a year); absent means for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

/// A row of `GET /v1/channels/{id}/bans`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BanCard {
    /// The banned user.
    #[serde(flatten)]
    pub user: UserCard,
    /// The duration of the ban.
    #[serde(flatten)]
    pub restriction: Restriction,
}

/// `PATCH /v1/channels/{id}/members/{user_id}`
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemberChange {
    /// The new role. `owner` transfers the channel: the caller becomes an admin.
    pub role: Role,
}

/// `PATCH /v1/channels/{id}/messages/{seq}`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EditMessage {
    /// The version that the client edited; see the frame `edit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The new body.
    pub body: Body,
}

/// `PUT /v1/channels/{id}/members`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AddMembers {
    /// The users to add. Users who are already members cause no error.
    pub user_ids: Vec<UserId>,
}

/// Answer to `PUT /v1/channels/{id}/members`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Added {
    /// The users who were invited instead of added, because they do not allow the caller to add them.
    pub invited: Vec<UserId>,
}

/// `POST /v1/channels/{id}/messages`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SendMessage {
    /// The sender's retry key, unique for the sender in this channel.
    pub client_msg_id: ClientMsgId,
    /// The content of the message.
    pub body: Body,
}

/// `PUT /v1/channels/{id}/read`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MarkRead {
    /// The last entry that the user has read.
    #[cfg_attr(feature = "schema", schemars(schema_with = "madang_ids::place_of_an_entry"))]
    pub seq: Seq,
}

/// Selects a page of a log. At most one of `before`, `after`, `around`, `at` is allowed; without one, it is the last
/// page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HistoryQuery {
    /// Entries below this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Seq>,
    /// Entries above this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Seq>,
    /// Entries on both sides of this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<Seq>,
    /// Entries from this time on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Millis>,
    /// 1 to 200, default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Whether to add the cards of the users whom the page names; default false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub users: bool,
}

/// A page of a log, in ascending order of `seq` and without gaps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HistoryPage {
    /// The log's head when the page was read.
    pub as_of: Seq,
    /// The entries. A page ends early if it would exceed 256 KiB.
    pub entries: Vec<Entry>,
    /// Whether the caller may read entries below the first of the page.
    pub more_before: bool,
    /// Whether there are entries above the last of the page.
    pub more_after: bool,
    /// If requested: the cards of the users named in the page, each once. These are the senders of its messages, and
    /// the users who caused its other entries or whom these concern.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserCard>,
}

/// `POST /v1/snapshot`: the state from which a device without a valid cursor starts, in pages.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SnapshotQuery {
    /// What the device has, at most 10,000 channels. Channels that have not changed since are omitted; channels that
    /// the caller has left are listed with `until_seq`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub since: BTreeMap<ChannelId, Since>,
    /// The `next` of the previous page.
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

/// State of a channel on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Since {
    /// The last entry that the device has.
    pub head_seq: Seq,
    /// The user's read marker, as far as this device knows.
    pub read_seq: Seq,
    /// The `rev` of the user's settings that this device has; absent means none.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub settings_rev: u64,
}

/// A page of the snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// Only on the first page: a cursor taken before anything was read. Resume from it once all pages have been
    /// received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<SealedCursor>,
    /// The channels of this page.
    pub channels: Vec<ChannelView>,
    /// Channels of `since` of which the user is not a member and of which the server keeps nothing for the user. The
    /// client deletes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<ChannelId>,
    /// Only on the first page, if requested: the last entries of the most recent channels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recent: BTreeMap<ChannelId, Vec<Entry>>,
    /// If requested: the cards of both users of each direct channel of the page, and of the users named in `recent`;
    /// each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserCard>,
    /// Only on the first page: invitations to groups that the user has not answered; absent if there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub invitations: u32,
    /// Where the next page begins; absent on the last page.
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
