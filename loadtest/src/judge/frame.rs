//! Reads of the server's frames only what is judged, without copying: tens of millions of entries pass here, on the
//! same two cores as the server.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

/// A frame of any type.
#[derive(Debug, Deserialize)]
pub(crate) struct RawFrame<'a> {
    /// The type.
    #[serde(rename = "type", borrow)]
    pub(crate) kind: &'a str,
    /// Of `entries`, if they are of a channel.
    #[serde(default)]
    pub(crate) channel_id: Option<RawId>,
    /// Of `entries`.
    #[serde(default, borrow)]
    pub(crate) entries: Vec<RawEntry<'a>>,
    /// Of `cursor`.
    #[serde(default)]
    pub(crate) cursor: Option<madang_ids::Cursor>,
    /// Of `reconnect`.
    #[serde(default)]
    pub(crate) after_ms: Option<u64>,
}

impl<'a> RawFrame<'a> {
    /// Reads a frame.
    pub(crate) fn parse(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }
}

/// An entry of any kind; what is no message has no `message`.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawEntry<'a> {
    pub(crate) seq: u64,
    pub(crate) at_ms: u64,
    pub(crate) message: Option<RawMessage<'a>>,
}

/// A message as it stands in its frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawMessage<'a> {
    pub(crate) message_id: u64,
    pub(crate) key: u128,
    /// The text with its quotes and escapes.
    pub(crate) text: &'a str,
}

/// A 64-bit id, which JSON holds as a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawId(pub(crate) u64);

impl<'de> Deserialize<'de> for RawId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| D::Error::custom("an id is not a number"))
    }
}

struct RawKey(u128);

impl<'de> Deserialize<'de> for RawKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        let uuid = Uuid::try_parse(text).map_err(|_| D::Error::custom("client_msg_id is not a UUID"))?;
        Ok(Self(uuid.as_u128()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawEntry<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = RawEntry<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry")
    }

    /// By hand, as some entries of a user's own log name a `seq` of their own behind the first, which a derived
    /// reader refuses.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawEntry<'de>, A::Error> {
        let mut entry = RawEntry::default();
        let (mut is_message, mut message_id, mut key, mut text) = (false, 0, 0, "");
        while let Some(name) = map.next_key::<&str>()? {
            match name {
                "seq" if entry.seq == 0 => entry.seq = map.next_value()?,
                "at" => entry.at_ms = map.next_value()?,
                "kind" => is_message = map.next_value::<&str>()? == "message",
                "message_id" => message_id = map.next_value::<RawId>()?.0,
                "client_msg_id" => key = map.next_value::<RawKey>()?.0,
                "text" => text = map.next_value::<&RawValue>()?.get(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        entry.message = is_message.then_some(RawMessage { message_id, key, text });
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_without_what_is_not_judged() {
        let text = r#"{"type":"entries","log":"channel","channel_id":"12","entries":[
            {"seq":3,"at":99,"kind":"message","message_id":"77","ordinal":2,"sender_id":"5",
             "client_msg_id":"00000000-0000-0001-0000-000200000003","text":"a \"b\" \u00e9","data":{"x":[1]}},
            {"seq":4,"at":100,"kind":"joined","user_id":"5","by":"6"}]}"#;
        let frame = RawFrame::parse(text).unwrap();
        assert_eq!((frame.kind, frame.channel_id), ("entries", Some(RawId(12))));
        let message = frame.entries[0].message.unwrap();
        assert_eq!((frame.entries[0].seq, frame.entries[0].at_ms, message.message_id), (3, 99, 77));
        assert_eq!(message.key, (1 << 64) | (2 << 32) | 3);
        assert_eq!(message.text, r#""a \"b\" \u00e9""#);
        assert_eq!((frame.entries[1].seq, frame.entries[1].message.is_none()), (4, true));
    }

    #[test]
    fn other_frames_and_a_second_seq_are_read() {
        let cursor = RawFrame::parse(r#"{"type":"cursor","cursor":"00000000deadbeef:42"}"#).unwrap();
        assert_eq!(cursor.cursor.unwrap().to_string(), "00000000deadbeef:42");
        assert_eq!(RawFrame::parse(r#"{"type":"heartbeat","at":1}"#).unwrap().kind, "heartbeat");
        let read = r#"{"type":"entries","log":"user","entries":[
            {"seq":9,"at":1,"kind":"read","channel_id":"3","seq":5,"ordinal":5}]}"#;
        assert_eq!(RawFrame::parse(read).unwrap().entries[0].seq, 9);
    }
}
