//! The parts of a log: rows, head, details and appends, as the cores and every store use them.

use std::sync::Arc;

use madang_ids::{ClientMsgId, LogId, MessageId, Millis, Ordinal, Seq, Snowflakes, UserId};
use madang_proto::{Body, Content, Entry, Message};
use serde::{Deserialize, Serialize};

/// The most rows of one append.
pub const MAX_APPEND_ROWS: usize = 256;
/// The most bytes of one append, counted as the JSON of its entries. One row alone may be larger.
pub const MAX_APPEND_BYTES: usize = 1024 * 1024;

/// The first 16 bytes of SHA-256 over the canonical first body of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BodyHash(pub [u8; 16]);

/// The key by which a retry is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RowKey {
    /// The sender of the message.
    pub sender: UserId,
    /// The sender's retry key.
    pub client_msg_id: ClientMsgId,
    /// Hash of the first body; an edit does not change it.
    pub body_hash: BodyHash,
}

/// A row of a log. Rows never move or vanish; a [`RowChange`] may replace their content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The part that clients receive.
    pub entry: Entry,
    /// Number of messages of the log up to and including this row.
    pub ordinal: Ordinal,
    /// Present on messages.
    pub key: Option<RowKey>,
}

impl Row {
    /// An empty stand-in for a message that cannot be read, so that it can be deleted.
    #[must_use]
    pub fn lost_message(&self) -> Option<Message> {
        let (Content::Unreadable(unreadable), Some(key)) = (&self.entry.content, self.key) else {
            return None;
        };
        let id = Snowflakes::last_of(self.entry.at);
        let message = Message::new(id, self.ordinal, key.sender, key.client_msg_id, Body::default());
        Some(Message { version: unreadable.version, ..message })
    }

    /// The row as a home needs it: a message without body and reactions, a change without the message that it carries. The rest
    /// has at most a few KiB.
    #[must_use]
    pub fn without_body(mut self) -> Self {
        if let Content::Message(message) = &mut self.entry.content {
            message.body = Body::default();
            message.reactions = Vec::new();
        } else {
            self.entry.content.carry(None);
        }
        self
    }
}

/// The end of a log. The compare-and-set compares all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Head {
    /// The last row's place; zero for a log without rows.
    pub seq: Seq,
    /// The number of messages in the log.
    pub ordinal: Ordinal,
    /// The time of the last row. Message ids are minted above it.
    pub at: Millis,
}

impl Head {
    /// The head after `row`.
    #[must_use]
    pub const fn after(row: &Row) -> Self {
        Self { seq: row.entry.seq, ordinal: row.ordinal, at: row.entry.at }
    }
}

/// Whether a channel accepts messages and members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelState {
    /// It accepts both.
    #[default]
    Active,
    /// No messages and no new members, until the owner makes it active again.
    Archived,
    /// Neither, for ever. The entry of the deletion is the last one of the log.
    Deleted,
}

/// The properties of a channel that members may change. An append may replace them together with its rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Active, archived or deleted.
    pub state: ChannelState,
    /// The name; direct channels have none.
    pub name: Option<String>,
    /// The topic; empty means none.
    pub topic: String,
    /// The address of the picture; empty means none.
    pub avatar: String,
    /// Seconds that a member waits between two messages.
    pub slow_mode_seconds: u32,
    /// Pinned messages, the one that was pinned last first.
    pub pins: Vec<Seq>,
}

/// Adds or removes one user's reaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReactionChange {
    /// The user who reacts.
    pub user_id: UserId,
    /// The canonical form of the reaction.
    pub emoji: String,
    /// Whether it is there from now on.
    pub on: bool,
    /// When the request came to the node that took it from the client, in microseconds. Of two changes of one reaction the later one
    /// stays, in whichever order nodes carry them out: one that was paused, or that a slow link held up, carries its change out late,
    /// and perhaps for the second time.
    pub at_us: u64,
}

/// A change of an earlier row's content (edit, deletion, reactions).
#[derive(Debug, Clone)]
pub struct RowChange {
    /// The place of the row.
    pub target: Seq,
    /// The version that the row must have.
    pub if_version: u32,
    /// The new content: a message with the version `if_version + 1`.
    pub content: Content,
}

impl RowChange {
    /// Whether the message is deleted from now on.
    #[must_use]
    pub fn deletes(&self) -> bool {
        self.content.message().is_some_and(|message| message.deleted.is_some())
    }
}

/// One append.
#[derive(Debug, Clone)]
pub struct Append {
    /// The log to append to.
    pub log: LogId,
    /// The head that the writer saw.
    pub expected: Head,
    /// 1 to [`MAX_APPEND_ROWS`] rows whose `seq` go on from `expected` without a hole.
    pub rows: Arc<[Row]>,
    /// Changes of earlier rows. Applied before the rows, each by compare-and-set on the version; a store without
    /// atomicity between them and the rows may leave them applied when the append did not happen.
    pub changes: Vec<RowChange>,
    /// The channel's new details, if they change. Only for a channel's log.
    pub details: Option<Details>,
    /// Records of messages that are about to leave the writer's window, only for a channel's log. Written first; they are valid
    /// whether the rows are appended or not.
    pub records: Vec<SendRecord>,
    /// Whether the keys of the rows may have been recorded before. Then they are looked up after `records` are written and
    /// before anything else. Only for a channel's log.
    pub looks_up_keys: bool,
}

impl Append {
    /// An append of rows alone.
    #[must_use]
    pub const fn of(log: LogId, expected: Head, rows: Arc<[Row]>) -> Self {
        Self {
            log,
            expected,
            rows,
            changes: Vec::new(),
            details: None,
            records: Vec::new(),
            looks_up_keys: false,
        }
    }

    /// The retry keys of the rows.
    pub fn keys(&self) -> impl Iterator<Item = (UserId, ClientMsgId)> + '_ {
        self.rows.iter().filter_map(|row| row.key).map(|key| (key.sender, key.client_msg_id))
    }

    /// The head after this append.
    #[must_use]
    pub fn head(&self) -> Head {
        self.rows.last().map_or(self.expected, Head::after)
    }
}

/// The result of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendOutcome {
    /// All rows are durable.
    Appended,
    /// No row was appended: these keys of the rows were recorded before. Takes precedence over `Moved`, since it is valid for any
    /// head.
    SentBefore(Vec<SendRecord>),
    /// No row was appended: the head is not `expected`. Read the tail and check again.
    Moved,
    /// No row was appended: a row to change has another version. Read it and check again.
    Stale,
}

/// The end of a log, as one consistent read.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    /// The head.
    pub head: Head,
    /// The last rows up to it, rising, each [`Row::without_body`]: 256 messages of the largest size have 100 MB.
    pub rows: Vec<Row>,
}

/// A message that was sent, by its retry key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendRecord {
    /// The key, with the hash of the first body.
    pub key: RowKey,
    /// The message's place.
    pub seq: Seq,
    /// The message's id.
    pub message_id: MessageId,
    /// The time of the append; the record is kept for 30 days from then on.
    pub at: Millis,
}
