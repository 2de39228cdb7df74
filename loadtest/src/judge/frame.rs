//! Parses only those parts of the server's frames that are judged, without copying: tens of millions of entries are
//! parsed on the two cores that the server uses too.

use std::fmt;

use madang_proto::ChannelHead;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

/// A frame of any type.
#[derive(Debug, Deserialize)]
pub(crate) struct RawFrame<'a> {
    /// The type of the frame.
    #[serde(rename = "type", borrow)]
    pub(crate) kind: &'a str,
    /// The channel of an `entries` frame; absent for the user's own log.
    #[serde(default)]
    pub(crate) channel_id: Option<RawId>,
    /// The name of the request, in an answer.
    #[serde(default, borrow)]
    pub(crate) id: Option<&'a str>,
    /// Entries of an `entries` or a `history` frame.
    #[serde(default, borrow)]
    pub(crate) entries: Vec<RawEntry<'a>>,
    /// The cursor of a `cursor` frame.
    #[serde(default)]
    pub(crate) cursor: Option<madang_ids::SealedCursor>,
    /// The heads of a `heads` frame.
    #[serde(default)]
    pub(crate) heads: Vec<ChannelHead>,
    /// The wait of a `reconnect` frame in milliseconds.
    #[serde(default)]
    pub(crate) after_ms: Option<u64>,
    /// The nodes of a `reconnect` frame.
    #[serde(default)]
    pub(crate) nodes: Vec<String>,
    /// The reason of a `snapshot_required` frame.
    #[serde(default, borrow)]
    pub(crate) reason: Option<&'a str>,
}

impl<'a> RawFrame<'a> {
    /// Parses a frame.
    pub(crate) fn parse(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }
}

/// An entry of any kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawEntry<'a> {
    pub(crate) seq: u64,
    pub(crate) at_ms: u64,
    /// The message, if the entry is one.
    pub(crate) message: Option<RawMessage<'a>>,
    /// The change, if the entry changes a message.
    pub(crate) change: Option<RawChange<'a>>,
}

/// A change of kind `edited`, `deleted` or `reactions`.
#[derive(Debug, Clone)]
pub(crate) struct RawChange<'a> {
    pub(crate) target: u64,
    pub(crate) version: u32,
    pub(crate) is_deletion: bool,
    /// The message in an edit or a deletion; absent for users who may not read it.
    pub(crate) message: Option<RawMessage<'a>>,
    /// The state in a change of reactions.
    pub(crate) reacted: Option<RawReacted<'a>>,
}

/// The reactions to a message and its versions.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawReacted<'a> {
    pub(crate) version: u32,
    pub(crate) body_version: u32,
    #[serde(borrow)]
    pub(crate) reactions: Option<&'a RawValue>,
}

/// A message as it is in its frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawMessage<'a> {
    pub(crate) message_id: u64,
    pub(crate) key: u128,
    /// The text with its quotes and escapes.
    pub(crate) text: &'a str,
    pub(crate) version: u32,
    /// The version that gave the message its body.
    pub(crate) body_version: u32,
    pub(crate) is_deleted: bool,
    /// The JSON of the reactions, if there are any.
    pub(crate) reactions: Option<&'a str>,
}

/// A 64-bit id, which is a string in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawId(pub(crate) u64);

impl<'de> Deserialize<'de> for RawId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| D::Error::custom("an id is not a number"))
    }
}

#[derive(Deserialize)]
struct RawEdited {
    version: u32,
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
        let fields = deserializer.deserialize_map(FieldsVisitor)?;
        let change = match fields.kind {
            "edited" | "deleted" | "reactions" => Some(RawChange {
                target: fields.target,
                version: fields.version,
                is_deletion: fields.kind == "deleted",
                message: fields.message.as_deref().map(RawFields::message),
                reacted: fields.reacted.filter(|_| fields.kind == "reactions"),
            }),
            _ => None,
        };
        let message = (fields.kind == "message").then(|| fields.message());
        Ok(Self { seq: fields.seq, at_ms: fields.at_ms, message, change })
    }
}

/// Members of entries of all kinds, and of messages inside changes.
#[derive(Default)]
struct RawFields<'a> {
    seq: u64,
    at_ms: u64,
    kind: &'a str,
    message_id: u64,
    key: u128,
    text: &'a str,
    version: u32,
    body_version: u32,
    is_deleted: bool,
    reactions: Option<&'a str>,
    target: u64,
    message: Option<Box<Self>>,
    reacted: Option<RawReacted<'a>>,
}

impl<'a> RawFields<'a> {
    /// A message without `version` has version 1.
    fn message(&self) -> RawMessage<'a> {
        RawMessage {
            message_id: self.message_id,
            key: self.key,
            text: self.text,
            version: self.version.max(1),
            body_version: self.body_version.max(1),
            is_deleted: self.is_deleted,
            reactions: self.reactions,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = RawFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry")
    }

    /// Written by hand, because some entries of a user's own log contain a second `seq`, which a derived implementation
    /// refuses.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFields<'de>, A::Error> {
        let mut fields = RawFields::default();
        while let Some(name) = map.next_key::<&str>()? {
            match name {
                "seq" if fields.seq == 0 => fields.seq = map.next_value()?,
                "at" => fields.at_ms = map.next_value()?,
                "kind" => fields.kind = map.next_value()?,
                "message_id" => fields.message_id = map.next_value::<RawId>()?.0,
                "client_msg_id" => fields.key = map.next_value::<RawKey>()?.0,
                "text" => fields.text = map.next_value::<&RawValue>()?.get(),
                "version" => fields.version = map.next_value()?,
                "target" => fields.target = map.next_value()?,
                "message" => fields.message = Some(map.next_value()?),
                "reactions" => fields.reactions = Some(map.next_value::<&RawValue>()?.get()),
                // In `channel_joined`, `state` has another meaning and is not read.
                "state" => fields.reacted = Some(map.next_value()?),
                "edited" => fields.body_version = map.next_value::<RawEdited>()?.version,
                "deleted" => {
                    map.next_value::<IgnoredAny>()?;
                    fields.is_deleted = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_judged_members_of_entries_are_parsed() {
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
    fn a_change_is_parsed_with_its_message() {
        let text = r#"{"type":"entries","log":"channel","channel_id":"12","entries":[
            {"seq":21,"at":9,"kind":"edited","target":4,"version":2,"by":"5","message":{"message_id":"77",
             "ordinal":1,"sender_id":"5","client_msg_id":"00000000-0000-0001-0000-000200000003","text":"hello",
             "version":3,"edited":{"at":8,"version":2},"reactions":[{"emoji":"x","count":1,"users":["5"]}]}},
            {"seq":22,"at":9,"kind":"reactions","target":4,"version":3,"by":"5","state":{"version":3,"body_version":2,
             "reactions":[{"emoji":"x","count":1,"users":["5"]}]}},
            {"seq":23,"at":9,"kind":"deleted","target":4,"version":4,"by":"5","message":{"message_id":"77",
             "ordinal":1,"sender_id":"5","client_msg_id":"00000000-0000-0001-0000-000200000003","text":"",
             "version":4,"deleted":{"at":9,"by":"5"}}},
            {"seq":24,"at":9,"kind":"edited","target":1,"version":2,"by":"5"}]}"#;
        let frame = RawFrame::parse(text).unwrap();
        let change = |index: usize| frame.entries[index].change.clone().unwrap();
        let message = change(0).message.unwrap();
        let read = (change(0).target, change(0).version, message.version, message.body_version);
        assert_eq!((read, message.is_deleted), ((4, 2, 3, 2), false));
        let reactions = r#"[{"emoji":"x","count":1,"users":["5"]}]"#;
        assert_eq!(message.reactions, Some(reactions));
        let reacted = change(1).reacted.unwrap();
        assert_eq!((reacted.version, reacted.body_version), (3, 2));
        assert_eq!(reacted.reactions.map(RawValue::get), Some(reactions));
        let message = change(2).message.unwrap();
        assert_eq!((message.text, message.is_deleted, message.reactions), (r#""""#, true, None));
        assert!(change(3).message.is_none() && frame.entries.iter().all(|entry| entry.message.is_none()));
    }

    #[test]
    fn heads_and_pages_of_history_are_parsed() {
        let heads =
            r#"{"type":"heads","id":"s1","heads":[{"channel_id":"9","seq":5,"ordinal":4,"gap":true}]}"#;
        let frame = RawFrame::parse(heads).unwrap();
        assert_eq!((frame.id, frame.heads[0].seq.get(), frame.heads[0].gap), (Some("s1"), 5, true));
        let page = r#"{"type":"history","id":"h1","as_of":9,"entries":[{"seq":3,"at":1,"kind":"created","by":"1"}]}"#;
        assert_eq!(RawFrame::parse(page).unwrap().entries[0].seq, 3);
    }

    #[test]
    fn other_frames_and_a_second_seq_are_parsed() {
        let cursor = RawFrame::parse(r#"{"type":"cursor","cursor":"opaque"}"#).unwrap();
        assert_eq!(cursor.cursor.unwrap().to_string(), "opaque");
        assert_eq!(RawFrame::parse(r#"{"type":"heartbeat","at":1}"#).unwrap().kind, "heartbeat");
        let read = r#"{"type":"entries","log":"user","entries":[
            {"seq":9,"at":1,"kind":"read","channel_id":"3","seq":5,"ordinal":5}]}"#;
        assert_eq!(RawFrame::parse(read).unwrap().entries[0].seq, 9);
    }
}
