//! What clients send over the socket.

use std::fmt;

use madang_ids::{ChannelId, ClientMsgId, Cursor, Seq};
use serde::{Deserialize, Serialize};

use crate::entry::Body;
use crate::error::{ErrorBody, ErrorCode};
use crate::limits;
use crate::presence::SetPresence;

/// The client's name for a request; its answer repeats it. At most 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("maxLength" = 64)))]
#[serde(transparent)]
pub struct RequestId(pub String);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A frame and the name that its answer repeats. Frames that want no answer may leave the name out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// What is asked.
    #[serde(flatten)]
    pub frame: ClientFrame,
}

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// The first frame: who is there, and how far she has received.
    Hello(Hello),
    /// A message.
    Send(Box<Send>),
    /// Another body for a message of the caller's.
    Edit(Box<Edit>),
    /// Deletes a message for everyone: the caller's own, or as an admin anybody's.
    Delete {
        /// Where.
        channel_id: ChannelId,
        /// Which message.
        seq: Seq,
    },
    /// The caller reacts to a message, or takes that back.
    React {
        /// Where.
        channel_id: ChannelId,
        /// To which message.
        seq: Seq,
        /// How: an emoji or a short name, 1 to 64 bytes without white space.
        emoji: String,
        /// `false` takes it back.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        on: bool,
    },
    /// The caller is writing. Told to others, kept nowhere; wants no answer.
    Typing {
        /// Where.
        channel_id: ChannelId,
    },
    /// This connection wants what happens in an open channel. Replaces its earlier subscription to that channel.
    Subscribe {
        /// Which.
        channel_id: ChannelId,
        /// The last entry that the client has. Without it, entries come from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after_seq: Option<Seq>,
        /// Everything, or heads alone.
        #[serde(default)]
        mode: Mode,
    },
    /// Ends a subscription.
    Unsubscribe {
        /// To which channel.
        channel_id: ChannelId,
    },
    /// The user has read a channel up to here.
    Read {
        /// Which channel.
        channel_id: ChannelId,
        /// Up to here.
        seq: Seq,
    },
    /// A page of a channel's log.
    History {
        /// Which channel.
        channel_id: ChannelId,
        /// Where.
        #[serde(flatten)]
        page: crate::rest::HistoryQuery,
    },
    /// Alive; answered by the same.
    Heartbeat,
    /// The device keeps everything up to this cursor.
    Received {
        /// From a `cursor` frame.
        cursor: Cursor,
    },
    /// Whether the user is there, and what she says of herself.
    Presence(SetPresence),
    /// A new token for the same device, before the old one ends.
    Auth {
        /// An access token.
        token: String,
    },
}

/// The first frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hello {
    /// An access token; it names user and device.
    pub token: String,
    /// How far this device has received; absent if it has nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// A message to be appended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Send {
    /// Where.
    pub channel_id: ChannelId,
    /// The sender's retry key in this channel.
    pub client_msg_id: ClientMsgId,
    /// What.
    pub body: Body,
}

/// Another body for a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Edit {
    /// Where.
    pub channel_id: ChannelId,
    /// Which message.
    pub seq: Seq,
    /// The version that the client edited. If the body was changed since, the edit is refused as `conflict`; without
    /// it the last edit wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// What it says from now on. Its `reply_to` must be absent or as it was.
    pub body: Body,
}

/// What a subscription brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every entry, or an explicit gap.
    #[default]
    Active,
    /// One `heads` frame a second at most.
    Passive,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_yes(on: &bool) -> bool {
    *on
}

/// A text frame that is no request.
#[derive(Debug, Clone)]
pub struct ParseError {
    /// The request's name, as far as it could be read.
    pub id: Option<RequestId>,
    /// What is wrong with it.
    pub error: ErrorBody,
}

#[derive(Deserialize)]
struct Envelope {
    id: Option<serde_json::Value>,
    #[serde(rename = "type")]
    kind: Option<serde_json::Value>,
}

/// The `type` of each client frame.
pub const KINDS: [&str; 14] = [
    "hello",
    "send",
    "edit",
    "delete",
    "react",
    "typing",
    "subscribe",
    "unsubscribe",
    "read",
    "history",
    "heartbeat",
    "received",
    "presence",
    "auth",
];

impl Request {
    /// Reads a text frame. Unknown fields are ignored.
    ///
    /// # Errors
    /// Says which field is wrong and repeats the request's name where that could be read.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.len() > limits::FRAME_BYTES_IN {
            let message =
                format!("the frame has {} bytes, the limit is {}", text.len(), limits::FRAME_BYTES_IN);
            return Err(ParseError {
                id: None,
                error: ErrorBody::field(ErrorCode::TooLarge, "frame", message),
            });
        }
        match serde_json::from_str::<Self>(text) {
            Ok(request) => request.check(),
            Err(cause) => Err(Self::explain(text, &cause)),
        }
    }

    fn check(self) -> Result<Self, ParseError> {
        match &self.id {
            Some(id) if id.0.len() > limits::REQUEST_ID_BYTES => {
                let message =
                    format!("id has {} bytes, the limit is {}", id.0.len(), limits::REQUEST_ID_BYTES);
                Err(ParseError { id: None, error: ErrorBody::field(ErrorCode::TooLarge, "id", message) })
            }
            _ => Ok(self),
        }
    }

    /// The slow path: which part of a frame that did not parse is to blame?
    fn explain(text: &str, cause: &serde_json::Error) -> ParseError {
        let Ok(envelope) = serde_json::from_str::<Envelope>(text) else {
            let message = format!("the frame is not a JSON object: {cause}");
            return ParseError { id: None, error: ErrorBody::invalid("frame", message) };
        };
        let id = match envelope.id {
            Some(serde_json::Value::String(id)) if id.len() <= limits::REQUEST_ID_BYTES => {
                Some(RequestId(id))
            }
            None => None,
            Some(_) => {
                let message = format!("id must be a string of at most {} bytes", limits::REQUEST_ID_BYTES);
                return ParseError { id: None, error: ErrorBody::invalid("id", message) };
            }
        };
        let error = match envelope.kind {
            Some(serde_json::Value::String(kind)) if KINDS.contains(&kind.as_str()) => {
                let field = blamed_field(&kind, text);
                ErrorBody::invalid(&field, format!("{kind}: {field}: {}", plain(cause)))
            }
            Some(serde_json::Value::String(kind)) => {
                let kind: String = kind.chars().take(32).collect();
                ErrorBody::field(ErrorCode::Unsupported, "type", format!("type {kind:?} is not known here"))
            }
            _ => ErrorBody::invalid("type", "type must be a string that names the frame"),
        };
        ParseError { id, error }
    }
}

/// The path of the field that a frame of a known type fails on, such as `body.text`.
fn blamed_field(kind: &str, text: &str) -> String {
    fn path<'de, T: Deserialize<'de>>(text: &'de str) -> Option<(String, String)> {
        let mut json = serde_json::Deserializer::from_str(text);
        let error = serde_path_to_error::deserialize::<_, T>(&mut json).err()?;
        Some((error.path().to_string(), error.inner().to_string()))
    }
    #[derive(Deserialize)]
    struct InChannel {
        #[serde(rename = "channel_id")]
        _channel_id: ChannelId,
    }
    /// `read` and `delete`.
    #[derive(Deserialize)]
    struct AtPlace {
        #[serde(rename = "channel_id")]
        _channel_id: ChannelId,
        #[serde(rename = "seq")]
        _seq: Seq,
    }
    #[derive(Deserialize)]
    struct React {
        #[serde(rename = "channel_id")]
        _channel_id: ChannelId,
        #[serde(rename = "seq")]
        _seq: Seq,
        #[serde(rename = "emoji")]
        _emoji: String,
        #[serde(rename = "on")]
        _on: Option<bool>,
    }
    #[derive(Deserialize)]
    struct Subscribe {
        #[serde(rename = "channel_id")]
        _channel_id: ChannelId,
        #[serde(rename = "after_seq")]
        _after_seq: Option<Seq>,
        #[serde(rename = "mode")]
        _mode: Option<Mode>,
    }
    #[derive(Deserialize)]
    struct History {
        #[serde(rename = "channel_id")]
        _channel_id: ChannelId,
        #[serde(rename = "before")]
        _before: Option<Seq>,
        #[serde(rename = "after")]
        _after: Option<Seq>,
        #[serde(rename = "around")]
        _around: Option<Seq>,
        #[serde(rename = "at")]
        _at: Option<madang_ids::Millis>,
        #[serde(rename = "limit")]
        _limit: Option<u32>,
    }
    #[derive(Deserialize)]
    struct Received {
        #[serde(rename = "cursor")]
        _cursor: Cursor,
    }
    #[derive(Deserialize)]
    struct Auth {
        #[serde(rename = "token")]
        _token: String,
    }
    let found = match kind {
        "hello" => path::<Hello>(text),
        "send" => path::<Send>(text),
        "edit" => path::<Edit>(text),
        "read" | "delete" => path::<AtPlace>(text),
        "react" => path::<React>(text),
        "typing" | "unsubscribe" => path::<InChannel>(text),
        "subscribe" => path::<Subscribe>(text),
        "history" => path::<History>(text),
        "received" => path::<Received>(text),
        "presence" => path::<SetPresence>(text),
        "auth" => path::<Auth>(text),
        _ => None,
    };
    match found {
        Some((path, _)) if !matches!(path.as_str(), "" | "." | "?") => path,
        Some((_, message)) => missing_field(&message).unwrap_or("frame").to_owned(),
        None => "frame".to_owned(),
    }
}

/// serde says "missing field `x`" at the path of the struct; the field itself is meant.
fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// serde's message without its line and column: a frame is one line.
fn plain(cause: &serde_json::Error) -> String {
    let text = cause.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (Option<String>, ErrorCode, Option<String>) {
        let refused = Request::parse(text).unwrap_err();
        (refused.id.map(|id| id.0), refused.error.code, refused.error.field)
    }

    #[test]
    fn a_send_is_read() {
        let text = r#"{"type":"send","id":"7","channel_id":"12","client_msg_id":"0192f0e4-7b1c-7000-8000-000000000001",
            "body":{"text":"hi","data":{"b":1,"a":2}},"new_field":true}"#;
        let request = Request::parse(text).unwrap();
        let ClientFrame::Send(send) = request.frame else { panic!("not a send") };
        assert_eq!(send.body.text, "hi");
        assert_eq!(request.id, Some(RequestId("7".into())));
    }

    #[test]
    fn refusals_name_the_field_and_repeat_the_id() {
        use ErrorCode::{Invalid, Unsupported};
        let cases = [
            ("{", None, Invalid, "frame"),
            ("[]", None, Invalid, "frame"),
            (r#"{"id":"1"}"#, Some("1"), Invalid, "type"),
            (r#"{"id":1,"type":"heartbeat"}"#, None, Invalid, "id"),
            (r#"{"id":"1","type":"dance"}"#, Some("1"), Unsupported, "type"),
            (r#"{"id":"1","type":"hello"}"#, Some("1"), Invalid, "token"),
            (r#"{"id":"1","type":"hello","token":"x","cursor":"y"}"#, Some("1"), Invalid, "cursor"),
            (r#"{"id":"1","type":"read","channel_id":"9","seq":"x"}"#, Some("1"), Invalid, "seq"),
            (r#"{"id":"1","type":"read","channel_id":"-9","seq":1}"#, Some("1"), Invalid, "channel_id"),
            (r#"{"id":"1","type":"presence","idle":"yes"}"#, Some("1"), Invalid, "idle"),
            (
                r#"{"id":"1","type":"send","channel_id":"9","client_msg_id":"01920000-0000-7000-8000-000000000001","body":{"text":5}}"#,
                Some("1"),
                Invalid,
                "body.text",
            ),
        ];
        for (text, id, code, field) in cases {
            assert_eq!(refusal(text), (id.map(str::to_owned), code, Some(field.to_owned())), "{text}");
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_by_name() {
        let text = format!(r#"{{"type":"send","x":"{}"}}"#, "a".repeat(limits::FRAME_BYTES_IN));
        assert_eq!(refusal(&text), (None, ErrorCode::TooLarge, Some("frame".into())));
    }
}
