//! Conversions between the types of this program and those of CQL.

use std::time::Duration;

use madang_ids::{ClientMsgId, LogId, Millis, Ordinal, Seq, UserId};
use madang_proto::json::read;
use madang_proto::{Body, Content, Entry, Reaction, Unreadable};
use scylla::DeserializeRow;
use scylla::value::{CqlValue, MaybeUnset};
use serde::Serialize;

use crate::error::{StoreError, StoreResult};
use crate::log::{BodyHash, Row, RowKey, kept};

/// Ids and places lie below 2^63.
pub(super) const fn int(value: u64) -> i64 {
    value.cast_signed()
}

/// A bound of a range, which callers may leave open at the top.
pub(super) fn bound(seq: Seq) -> i64 {
    i64::try_from(seq.get()).unwrap_or(i64::MAX)
}

pub(super) const fn number(value: i64) -> u64 {
    value.cast_unsigned()
}

pub(super) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn json<T: Serialize>(value: &T) -> StoreResult<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(format!("cannot be written: {error}")))
}

/// Kind and id of a log, as its partition has them.
pub(super) const fn log_key(log: LogId) -> (i8, i64) {
    match log {
        LogId::Channel(channel) => (0, int(channel.raw())),
        LogId::User(user) => (1, int(user.raw())),
    }
}

/// A retry key as a clustering column: the sender and the key.
pub(super) fn send_key(sender: UserId, client_msg_id: ClientMsgId) -> Vec<u8> {
    let mut key = sender.raw().to_be_bytes().to_vec();
    key.extend(client_msg_bytes(client_msg_id));
    key
}

pub(super) fn client_msg_bytes(id: ClientMsgId) -> Vec<u8> {
    id.value().to_be_bytes().to_vec()
}

pub(super) fn client_msg_id(bytes: &[u8]) -> Option<ClientMsgId> {
    bytes.try_into().ok().map(|bytes| ClientMsgId::from_uuid(u128::from_be_bytes(bytes)))
}

pub(super) fn hash(bytes: &[u8]) -> Option<BodyHash> {
    bytes.try_into().ok().map(BodyHash)
}

/// A row of part 0 with everything.
#[derive(Debug, DeserializeRow)]
pub(super) struct StoredRow {
    pub(super) seq: i64,
    pub(super) at: i64,
    pub(super) ordinal: i64,
    pub(super) version: i32,
    pub(super) sender: Option<i64>,
    pub(super) client_msg_id: Option<Vec<u8>>,
    pub(super) body_hash: Option<Vec<u8>>,
    pub(super) content: Option<String>,
    pub(super) body: Option<String>,
    pub(super) reactions: Option<String>,
}

impl StoredRow {
    /// The row; a placeholder stands for content that cannot be read.
    pub(super) fn row(self) -> Row {
        let sender = self.sender.map(|sender| UserId::from_raw(number(sender)));
        let key = sender.and_then(|sender| {
            let client_msg_id = client_msg_id(self.client_msg_id.as_deref()?)?;
            Some(RowKey { sender, client_msg_id, body_hash: hash(self.body_hash.as_deref()?)? })
        });
        let ordinal = Ordinal::new(number(self.ordinal));
        let content = self.content().unwrap_or_else(|| {
            Content::Unreadable(Unreadable {
                sender_id: sender,
                ordinal: sender.map(|_| ordinal),
                version: u32::try_from(self.version).unwrap_or(0),
            })
        });
        let entry = Entry { seq: Seq::new(number(self.seq)), at: Millis::new(number(self.at)), content };
        Row { entry, ordinal, key }
    }

    fn content(&self) -> Option<Content> {
        let mut content: Content = read(self.content.as_deref()?).ok()?;
        if let Content::Message(message) = &mut content {
            if let Some(body) = &self.body {
                message.body = read::<Body>(body).ok()?;
            }
            if let Some(reactions) = &self.reactions {
                message.reactions = read::<Vec<Reaction>>(reactions).ok()?;
            }
        }
        Some(content)
    }
}

/// The columns of a row's content: content, body, reactions, version.
pub(super) struct Written {
    pub(super) content: String,
    pub(super) body: Option<String>,
    pub(super) reactions: Option<String>,
    pub(super) version: i32,
}

impl Written {
    pub(super) fn of(content: &Content) -> StoreResult<Self> {
        let kept = kept(content);
        let Content::Message(message) = &*kept else {
            return Ok(Self { content: json(&*kept)?, body: None, reactions: None, version: 0 });
        };
        let mut slim = message.clone();
        (slim.body, slim.reactions) = (Body::default(), Vec::new());
        Ok(Self {
            content: json(&Content::Message(slim))?,
            body: Some(json(&message.body)?),
            reactions: if message.reactions.is_empty() { None } else { Some(json(&message.reactions)?) },
            version: i32::try_from(message.version).unwrap_or(i32::MAX),
        })
    }
}

/// A value of a batch.
pub(super) const fn set(value: CqlValue) -> MaybeUnset<Option<CqlValue>> {
    MaybeUnset::Set(Some(value))
}

/// A text, or nothing: an unset column leaves no tombstone.
pub(super) fn text_or_unset(text: Option<String>) -> MaybeUnset<Option<CqlValue>> {
    text.map_or(MaybeUnset::Unset, |text| set(CqlValue::Text(text)))
}

pub(super) const fn big(value: u64) -> MaybeUnset<Option<CqlValue>> {
    set(CqlValue::BigInt(int(value)))
}
