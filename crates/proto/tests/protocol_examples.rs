//! `docs/protocol.md` agrees with the types: every example parses into its type and back into the same JSON, and every
//! frame, kind of entry, error code, close code and limit is on the page.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::collections::BTreeSet;

use madang_proto::rest::{
    AddMembers, Added, AlertHistory, Assignment, BanCard, ChannelChange, ChannelMessage,
    ChannelSettingsChange, ChannelView, Connect, Deletion, DeviceCard, DeviceChange, EditMessage, ExportLine,
    HistoryPage, List, Login, MarkRead, Me, MemberCard, MemberChange, NewAlertSettings, NewChannel,
    NewDevice, OpenChannel, Page, PasswordChange, ProfileChange, PushInfo, PushRegistered, PushRegistration,
    PushTest, Refresh, Restrict, SendMessage, ServerInfo, SignUp, SignedIn, Snapshot, SnapshotQuery,
};
use madang_proto::{
    Ack, Changed, ChannelSettings, ClientFrame, CloseReason, ContactCard, Content, Entry, ErrorBody,
    ErrorCode, InvitationCard, PresenceCounts, PresenceList, Request, ServerFrame, SnapshotReason, UserCard,
    json, limits,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// A fenced block: its line, the text of its fence after `json`, and its content.
struct Example {
    line: usize,
    marker: String,
    text: String,
}

fn examples() -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let (mut is_open, mut is_text) = (false, false);
    for (index, line) in PAGE.lines().enumerate() {
        if is_text || line == "```text" {
            // Pseudo-code is not an example.
            is_text = line != "```";
        } else if is_open && line == "```" {
            is_open = false;
        } else if is_open {
            let example = examples.last_mut().unwrap();
            example.text.push_str(line);
            example.text.push('\n');
        } else if let Some(marker) = line.strip_prefix("```") {
            let marker =
                marker.strip_prefix("json ").unwrap_or_else(|| panic!("line {}: no marker", index + 1));
            examples.push(Example { line: index + 1, marker: marker.to_owned(), text: String::new() });
            is_open = true;
        }
    }
    examples
}

/// Parses an example and compares the result with it: no member was ignored, and none was added.
fn parse<T: DeserializeOwned + Serialize>(example: &Example) -> T {
    let Example { line, marker, text } = example;
    let written: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("line {line}: {error}"));
    let parsed: T = json::read(text).unwrap_or_else(|error| panic!("line {line}, {marker}: {error}"));
    assert_eq!(serde_json::to_value(&parsed).unwrap(), written, "line {line}, {marker}");
    parsed
}

/// Defines a function that names the variants of an enum, and the list of all names. A variant that is missing here
/// does not compile; a name without an example fails the test.
macro_rules! names {
    ($all:ident, $name_of:ident($type:ty) { $($pattern:pat => $name:expr,)* }) => {
        const $all: &[&str] = &[$($name),*];
        const fn $name_of(value: &$type) -> &'static str {
            match value {
                $($pattern => $name,)*
            }
        }
    };
}

names!(CLIENT_FRAMES, client_frame(ClientFrame) {
    ClientFrame::Hello(_) => "hello",
    ClientFrame::Send(_) => "send",
    ClientFrame::Read { .. } => "read",
    ClientFrame::History { .. } => "history",
    ClientFrame::Heartbeat => "heartbeat",
    ClientFrame::Edit(_) => "edit",
    ClientFrame::Delete { .. } => "delete",
    ClientFrame::React { .. } => "react",
    ClientFrame::Typing { .. } => "typing",
    ClientFrame::Subscribe { .. } => "subscribe",
    ClientFrame::Unsubscribe { .. } => "unsubscribe",
    ClientFrame::Received { .. } => "received",
    ClientFrame::Presence(_) => "presence",
    ClientFrame::Auth { .. } => "auth",
});

names!(SERVER_FRAMES, server_frame(ServerFrame<'_>) {
    ServerFrame::Welcome(_) => "welcome",
    ServerFrame::Ack(_) => "ack",
    ServerFrame::Changed(_) => "changed",
    ServerFrame::Heads { .. } => "heads",
    ServerFrame::Typing { .. } => "typing",
    ServerFrame::Receipt { .. } => "receipt",
    ServerFrame::Done { .. } => "done",
    ServerFrame::Error { .. } => "error",
    ServerFrame::Entries { .. } => "entries",
    ServerFrame::Cursor { .. } => "cursor",
    ServerFrame::History { .. } => "history",
    ServerFrame::Resync => "resync",
    ServerFrame::SnapshotRequired { .. } => "snapshot_required",
    ServerFrame::Presence(_) => "presence",
    ServerFrame::Profile { .. } => "profile",
    ServerFrame::Reconnect { .. } => "reconnect",
    ServerFrame::Heartbeat { .. } => "heartbeat",
});

names!(KINDS, kind(Content) {
    Content::Message(_) => "message",
    Content::Edited(_) => "edited",
    Content::Deleted(_) => "deleted",
    Content::Reactions(_) => "reactions",
    Content::Created { .. } => "created",
    Content::Joined { .. } => "joined",
    Content::Left { .. } => "left",
    Content::RoleChanged { .. } => "role_changed",
    Content::Renamed { .. } => "renamed",
    Content::TopicChanged { .. } => "topic_changed",
    Content::AvatarChanged { .. } => "avatar_changed",
    Content::SlowModeChanged { .. } => "slow_mode_changed",
    Content::Archived { .. } => "archived",
    Content::Unarchived { .. } => "unarchived",
    Content::ChannelDeleted { .. } => "channel_deleted",
    Content::ChannelSettings { .. } => "channel_settings",
    Content::MessageHidden { .. } => "message_hidden",
    Content::Pinned { .. } => "pinned",
    Content::Unpinned { .. } => "unpinned",
    Content::Banned { .. } => "banned",
    Content::Unbanned { .. } => "unbanned",
    Content::Muted { .. } => "muted",
    Content::Unmuted { .. } => "unmuted",
    Content::Mentioned { .. } => "mentioned",
    Content::Read { .. } => "read",
    Content::ChannelJoined { .. } => "channel_joined",
    Content::ChannelLeft { .. } => "channel_left",
    Content::AccountSettings { .. } => "account_settings",
    Content::Invited { .. } => "invited",
    Content::InvitationRemoved { .. } => "invitation_removed",
    Content::DeviceRevoked { .. } => "device_revoked",
    Content::Blocked { .. } => "blocked",
    Content::Unblocked { .. } => "unblocked",
    Content::ContactRequested { .. } => "contact_requested",
    Content::ContactAccepted { .. } => "contact_accepted",
    Content::ContactRemoved { .. } => "contact_removed",
    Content::Unreadable(_) => "unreadable",
    Content::Unknown => UNKNOWN,
});

/// The name that a client gives to kinds that it does not know. It is never on the wire.
const UNKNOWN: &str = "unknown";

names!(ERROR_CODES, error_code(ErrorCode) {
    ErrorCode::Invalid => "invalid",
    ErrorCode::Unsupported => "unsupported",
    ErrorCode::Unauthorized => "unauthorized",
    ErrorCode::Revoked => "revoked",
    ErrorCode::Forbidden => "forbidden",
    ErrorCode::NotFound => "not_found",
    ErrorCode::Conflict => "conflict",
    ErrorCode::TooLarge => "too_large",
    ErrorCode::Full => "full",
    ErrorCode::Limited => "limited",
    ErrorCode::Unavailable => "unavailable",
    ErrorCode::Internal => "internal",
});

names!(REASONS, reason(SnapshotReason) {
    SnapshotReason::NoCursor => "no_cursor",
    SnapshotReason::ForeignCursor => "foreign_cursor",
    SnapshotReason::BeyondStore => "beyond_store",
    SnapshotReason::TooFarBehind => "too_far_behind",
    SnapshotReason::InboxReset => "inbox_reset",
    SnapshotReason::InboxUnavailable => "inbox_unavailable",
});

/// The names that the examples contain.
#[derive(Default)]
struct Shown {
    client: BTreeSet<&'static str>,
    server: BTreeSet<&'static str>,
    kinds: BTreeSet<&'static str>,
    rest: BTreeSet<String>,
}

impl Shown {
    fn take(&mut self, example: &Example) {
        match example.marker.as_str() {
            "client" => {
                let request =
                    Request::parse(&example.text).unwrap_or_else(|_| panic!("line {}", example.line));
                let written: Value = serde_json::from_str(&example.text).unwrap();
                assert_eq!(serde_json::to_value(&request).unwrap(), written, "line {}", example.line);
                self.client.insert(client_frame(&request.frame));
            }
            "server" => {
                let frame: ServerFrame<'static> = parse(example);
                if let ServerFrame::Entries { entries, .. } = &frame {
                    self.kinds.extend(entries.iter().map(|entry| kind(&entry.content)));
                }
                self.server.insert(server_frame(&frame));
            }
            "entry" => {
                let entry: Entry = parse(example);
                self.kinds.insert(kind(&entry.content));
            }
            marker => {
                let name = marker.strip_prefix("rest:");
                let name = name.unwrap_or_else(|| panic!("line {}: {marker} is no marker", example.line));
                parse_body(name, example);
                self.rest.insert(name.to_owned());
            }
        }
    }
}

macro_rules! bodies {
    ($($name:literal => $type:ty,)*) => {
        const BODIES: &[&str] = &[$($name),*];
        fn parse_body(name: &str, example: &Example) {
            match name {
                $($name => drop(parse::<$type>(example)),)*
                _ => panic!("line {}: {name} is no body", example.line),
            }
        }
    };
}

bodies! {
    "SignUp" => SignUp,
    "Login" => Login,
    "Refresh" => Refresh,
    "Connect" => Connect,
    "Assignment" => Assignment,
    "SignedIn" => SignedIn,
    "NewDevice" => NewDevice,
    "ProfileChange" => ProfileChange,
    "UserCard" => UserCard,
    "List<UserCard>" => List<UserCard>,
    "Me" => Me,
    "ExportLine" => ExportLine,
    "PasswordChange" => PasswordChange,
    "Deletion" => Deletion,
    "DeviceChange" => DeviceChange,
    "ServerInfo" => ServerInfo,
    "List<DeviceCard>" => List<DeviceCard>,
    "Page<UserCard>" => Page<UserCard>,
    "Page<ChannelMessage>" => Page<ChannelMessage>,
    "Page<ChannelView>" => Page<ChannelView>,
    "Page<MemberCard>" => Page<MemberCard>,
    "NewChannel" => NewChannel,
    "ChannelView" => ChannelView,
    "ChannelChange" => ChannelChange,
    "ChannelSettings" => ChannelSettings,
    "ChannelSettingsChange" => ChannelSettingsChange,
    "Page<OpenChannel>" => Page<OpenChannel>,
    "MemberChange" => MemberChange,
    "Restrict" => Restrict,
    "Page<BanCard>" => Page<BanCard>,
    "EditMessage" => EditMessage,
    "Changed" => Changed,
    "AddMembers" => AddMembers,
    "Added" => Added,
    "Page<InvitationCard>" => Page<InvitationCard>,
    "SendMessage" => SendMessage,
    "Ack" => Ack,
    "MarkRead" => MarkRead,
    "HistoryPage" => HistoryPage,
    "SnapshotQuery" => SnapshotQuery,
    "Snapshot" => Snapshot,
    "ContactCard" => ContactCard,
    "Page<ContactCard>" => Page<ContactCard>,
    "PresenceList" => PresenceList,
    "PresenceCounts" => PresenceCounts,
    "PushInfo" => PushInfo,
    "PushRegistration" => PushRegistration,
    "PushRegistered" => PushRegistered,
    "NewAlertSettings" => NewAlertSettings,
    "AlertHistory" => AlertHistory,
    "PushTest" => PushTest,
    "ErrorBody" => ErrorBody,
}

fn missing(all: &[&'static str], shown: &BTreeSet<&'static str>) -> Vec<&'static str> {
    all.iter().copied().filter(|name| !shown.contains(name)).collect()
}

/// The row of a table whose first cell contains `code`.
fn row(code: &str) -> Option<&'static str> {
    PAGE.lines().find(|line| {
        line.strip_prefix("| ")
            .and_then(|rest| rest.split(" |").next())
            .is_some_and(|cell| cell.split(", ").any(|part| part == code))
    })
}

#[test]
fn every_example_parses_and_every_name_has_an_example() {
    let mut shown = Shown::default();
    let examples = examples();
    examples.iter().for_each(|example| shown.take(example));
    assert_eq!(missing(CLIENT_FRAMES, &shown.client), [""; 0], "client frames without an example");
    assert_eq!(missing(SERVER_FRAMES, &shown.server), [""; 0], "server frames without an example");
    let kinds = missing(KINDS, &shown.kinds);
    assert_eq!(kinds, [UNKNOWN], "kinds without an example");
    let bodies: Vec<&&str> = BODIES.iter().filter(|name| !shown.rest.contains(**name)).collect();
    assert_eq!(bodies, [&""; 0], "bodies without an example");
}

#[test]
fn an_entry_of_a_later_kind_keeps_its_place() {
    let text = r#"{"seq": 5, "at": 7, "kind": "levitated", "height": {"m": 3}}"#;
    let entry: Entry = json::read(text).unwrap();
    assert!(matches!(entry.content, Content::Unknown));
    assert_eq!((entry.seq.get(), entry.at.get()), (5, 7));
}

#[test]
fn every_kind_and_reason_has_a_row() {
    for name in KINDS.iter().chain(REASONS).filter(|name| **name != UNKNOWN) {
        assert!(row(&format!("`{name}`")).is_some(), "{name} has no row");
    }
    // The names in the rows are the names on the wire.
    for known in [SnapshotReason::NoCursor, SnapshotReason::TooFarBehind] {
        assert_eq!(serde_json::to_value(known).unwrap(), reason(&known));
    }
}

#[test]
fn every_error_code_has_a_row_with_its_status() {
    for name in ERROR_CODES {
        let code: ErrorCode = serde_json::from_value(Value::String((*name).to_owned())).unwrap();
        assert_eq!(error_code(&code), *name);
        let retryable = if code.is_retryable() { "yes" } else { "no" };
        let expected = format!("| `{name}` | {} | {retryable} |", code.http_status());
        assert!(PAGE.lines().any(|line| line.starts_with(&expected)), "no row `{expected} …`");
    }
}

#[test]
fn every_close_code_has_a_row() {
    for reason in CloseReason::ALL {
        assert!(row(&reason.code().to_string()).is_some(), "{} has no row", reason.code());
    }
}

#[test]
fn the_limits_are_those_of_the_server() {
    let rows = [
        ("text of a message", vec![limits::TEXT_CHARS, limits::TEXT_BYTES]),
        ("`data` of a message", vec![limits::DATA_BYTES, limits::DATA_DEPTH]),
        ("nesting of a frame or body", vec![limits::JSON_DEPTH]),
        ("frame or REST body that is read", vec![limits::FRAME_BYTES_IN]),
        ("frame that closes the socket (1009)", vec![limits::FRAME_BYTES_LIBRARY]),
        ("`entries` frame, page of history", vec![limits::BATCH_BYTES_OUT]),
        ("`id` of a request", vec![limits::REQUEST_ID_CHARS]),
        ("handle", vec![limits::HANDLE_CHARS]),
        ("display name", vec![limits::DISPLAY_NAME_CHARS]),
        ("password", vec![limits::PASSWORD_CHARS_MIN, limits::PASSWORD_BYTES_MAX]),
        ("name of a device", vec![limits::DEVICE_NAME_CHARS]),
        ("devices of a user", vec![limits::DEVICES_PER_USER]),
        ("name of a group or an open channel", vec![limits::CHANNEL_NAME_CHARS]),
        ("topic of a channel", vec![limits::TOPIC_CHARS]),
        ("address of a picture of a channel or a user", vec![limits::AVATAR_BYTES]),
        ("members of an open channel", vec![limits::OPEN_MEMBERS_MAX as usize]),
        ("people whom a message mentions by name", vec![limits::MENTIONS]),
        ("unread mentions of a channel that are counted", vec![limits::MENTIONS_COUNTED as usize]),
        ("different reactions to a message", vec![limits::REACTIONS, limits::EMOJI_BYTES]),
        ("users named for each reaction", vec![limits::REACTION_USERS]),
        ("pinned messages of a channel", vec![limits::PINS]),
        ("messages of a channel that a user deletes for themselves", vec![limits::HIDDEN_MESSAGES]),
        ("slow mode", vec![limits::SLOW_MODE_SECONDS as usize]),
        ("subscriptions of a connection", vec![limits::SUBSCRIPTIONS]),
        ("entries that `subscribe` brings", vec![limits::SUBSCRIBE_ENTRIES as usize]),
        ("members of a group", vec![limits::GROUP_MEMBERS_MAX as usize]),
        ("entries of a page of history", vec![limits::HISTORY_PAGE as usize]),
        ("rows of a page of a list or of the snapshot", vec![limits::LIST_PAGE as usize]),
        ("contacts of a user", vec![limits::CONTACTS as usize]),
        ("contacts that a user asked and that have not answered", vec![limits::CONTACT_REQUESTS as usize]),
        ("requests of others that wait for a user", vec![limits::CONTACT_ASKED as usize]),
        ("invitations to groups that wait for a user", vec![limits::INVITATIONS as usize]),
        ("invitations of one inviter that wait for a user", vec![limits::INVITATIONS_BY_ONE as usize]),
        ("declined invitations that are remembered", vec![limits::INVITATIONS_DECLINED as usize]),
        ("members of a group that watch each other", vec![limits::WATCHED_GROUP_MEMBERS as usize]),
        ("status text", vec![limits::STATUS_CHARS]),
        ("users of a `presence` frame", vec![limits::PRESENCE_USERS]),
        ("users asked for at once", vec![limits::PRESENCE_QUERY]),
        ("items missed before a snapshot is required", vec![limits::SYNC_ITEMS as usize]),
        ("channels that a user has left and that stay known", vec![limits::LEFT_CHANNELS]),
        ("time for `hello`", vec![limits::HELLO_SECONDS as usize]),
        ("`region` in `POST /v1/connect`", vec![limits::REGION_CHARS]),
        ("`Idempotency-Key`", vec![limits::IDEMPOTENCY_KEY_BYTES]),
        ("time for which an `Idempotency-Key` is kept", vec![limits::IDEMPOTENCY_KEY_HOURS as usize]),
        ("time to present a used refresh token again", vec![limits::REFRESH_REPEAT_SECONDS as usize]),
    ];
    for (what, values) in rows {
        let prefix = format!("| {what} | ");
        let line = PAGE.lines().find_map(|line| line.strip_prefix(&prefix));
        let line = line.unwrap_or_else(|| panic!("no row for {what}"));
        let words: Vec<&str> = line.split([' ', ';']).map(|word| word.trim_end_matches(',')).collect();
        for value in values {
            assert!(words.contains(&grouped(value).as_str()), "{what}: {line} does not say {value}");
        }
    }
}

/// Formats 1310720 as 1,310,720.
fn grouped(value: usize) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
