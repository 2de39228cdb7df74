//! Reads requests: which frame a text contains, by the same JSON rule as all input from clients.

use std::fmt;

use madang_ids::{ChannelId, SealedCursor, Seq};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{ClientFrame, Mode, Request, RequestId, yes};
use crate::error::{ErrorBody, ErrorCode};
use crate::json::{Checked, JsonError};
use crate::limits;

/// Members that every frame may have. They are read before the others.
const ENVELOPE: &[&str] = &["type", "id"];
/// How many bytes of an oversized frame are searched for its `id`.
const PREFIX_BYTES: usize = 1_024;

/// A text frame that is not a valid request.
#[derive(Debug, Clone)]
pub struct ParseError {
    /// The name of the request, if it could be read.
    pub id: Option<RequestId>,
    /// Why the frame was refused.
    pub error: ErrorBody,
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
    /// Reads a text frame by the rule of [`crate::json::read_request`].
    ///
    /// # Errors
    /// The error names the invalid field and contains the name of the request if it could be read. For an oversized
    /// frame that is the case if `id` is within the first 1,024 bytes.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.len() > limits::FRAME_BYTES_IN {
            let message =
                format!("the frame has {} bytes, the limit is {}", text.len(), limits::FRAME_BYTES_IN);
            let error = ErrorBody::field(ErrorCode::TooLarge, "frame", message);
            return Err(ParseError { id: early_id(text), error });
        }
        let nameless = |error| ParseError { id: None, error };
        let text = Checked::new(text).map_err(|error| nameless(error.refusal("frame")))?;
        let Envelope { id, kind } = Envelope::of(text).map_err(nameless)?;
        match kind.and_then(|kind| frame(&kind, text)) {
            Ok(frame) => Ok(Self { id, frame }),
            Err(error) => Err(ParseError { id, error }),
        }
    }
}

/// The members that every frame may have.
struct Envelope {
    id: Option<RequestId>,
    kind: Result<String, ErrorBody>,
}

impl Envelope {
    /// Fails if there is no `id` that an answer could repeat.
    fn of(text: Checked<'_>) -> Result<Self, ErrorBody> {
        let Some(members) = text.members() else {
            return Err(ErrorBody::invalid("frame", "the frame is not a JSON object"));
        };
        let (mut id, mut kind): (Option<Option<RequestId>>, Option<Result<String, ErrorBody>>) = (None, None);
        for member in members {
            let member = member.map_err(|error| error.refusal("frame"))?;
            match &*member.name {
                "id" if id.is_some() => return Err(ErrorBody::invalid("id", "id occurs twice")),
                "id" => id = Some(read_id(member.value)?),
                "type" if kind.is_some() => kind = Some(Err(ErrorBody::invalid("type", "type occurs twice"))),
                "type" => kind = Some(read_kind(member.value)),
                _ => {}
            }
        }
        let missing = || Err(ErrorBody::invalid("type", "type must be a string that names the frame"));
        Ok(Self { id: id.flatten(), kind: kind.unwrap_or_else(missing) })
    }
}

fn read_id(value: &str) -> Result<Option<RequestId>, ErrorBody> {
    let max = limits::REQUEST_ID_CHARS;
    let id: Option<RequestId> = crate::json::read(value).map_err(|error| {
        ErrorBody::invalid("id", format!("id must be a string of at most {max} characters: {error}"))
    })?;
    match &id {
        Some(id) if id.0.chars().count() > max => {
            let message = format!("id has {} characters, the limit is {max}", id.0.chars().count());
            Err(ErrorBody::field(ErrorCode::TooLarge, "id", message))
        }
        _ => Ok(id),
    }
}

fn read_kind(value: &str) -> Result<String, ErrorBody> {
    crate::json::read(value).map_err(|error| {
        ErrorBody::invalid("type", format!("type must be a string that names the frame: {error}"))
    })
}

/// Reads a frame of a known kind.
fn frame(kind: &str, text: Checked<'_>) -> Result<ClientFrame, ErrorBody> {
    let frame = match kind {
        "hello" => read(text).map(ClientFrame::Hello),
        "send" => read(text).map(|send| ClientFrame::Send(Box::new(send))),
        "edit" => read(text).map(|edit| ClientFrame::Edit(Box::new(edit))),
        "delete" => read(text).map(|AtPlace { channel_id, seq }| ClientFrame::Delete { channel_id, seq }),
        "react" => read(text).map(|React { channel_id, seq, emoji, on }| ClientFrame::React {
            channel_id,
            seq,
            emoji,
            on,
        }),
        "typing" => read(text).map(|InChannel { channel_id }| ClientFrame::Typing { channel_id }),
        "subscribe" => read(text).map(|Subscribe { channel_id, after_seq, mode }| ClientFrame::Subscribe {
            channel_id,
            after_seq,
            mode,
        }),
        "unsubscribe" => read(text).map(|InChannel { channel_id }| ClientFrame::Unsubscribe { channel_id }),
        "read" => read(text).map(|AtPlace { channel_id, seq }| ClientFrame::Read { channel_id, seq }),
        "history" => history(text),
        "heartbeat" => Ok(ClientFrame::Heartbeat),
        "received" => read(text).map(|Received { cursor }| ClientFrame::Received { cursor }),
        "presence" => read(text).map(ClientFrame::Presence),
        "auth" => read(text).map(|Auth { token }| ClientFrame::Auth { token }),
        _ => {
            let kind: String = kind.chars().take(32).collect();
            let message = format!("type {kind:?} is unknown");
            return Err(ErrorBody::field(ErrorCode::Unsupported, "type", message));
        }
    };
    frame.map_err(|error| error.refusal("frame"))
}

fn read<'de, T: Deserialize<'de>>(text: Checked<'de>) -> Result<T, JsonError> {
    text.read_frame(ENVELOPE)
}

/// Reads the channel and the page of a `history` frame.
fn history(text: Checked<'_>) -> Result<ClientFrame, JsonError> {
    let InChannel { channel_id } = text.read_part()?;
    let page = text.read_frame(&["type", "id", "channel_id"])?;
    Ok(ClientFrame::History { channel_id, page })
}

#[derive(Deserialize)]
struct InChannel {
    channel_id: ChannelId,
}

#[derive(Deserialize)]
struct AtPlace {
    channel_id: ChannelId,
    seq: Seq,
}

#[derive(Deserialize)]
struct React {
    channel_id: ChannelId,
    seq: Seq,
    emoji: String,
    #[serde(default = "yes")]
    on: bool,
}

#[derive(Deserialize)]
struct Subscribe {
    channel_id: ChannelId,
    after_seq: Option<Seq>,
    #[serde(default)]
    mode: Mode,
}

#[derive(Deserialize)]
struct Received {
    cursor: SealedCursor,
}

#[derive(Deserialize)]
struct Auth {
    token: String,
}

/// The `id` among the first members of an oversized frame, so that the client learns which request was refused.
fn early_id(text: &str) -> Option<RequestId> {
    let mut id = None;
    let mut json = serde_json::Deserializer::from_str(&text[..text.floor_char_boundary(PREFIX_BYTES)]);
    // Parsing always fails: the prefix ends inside the frame. `id` is set if its member came before that.
    let _ = EarlyId(&mut id).deserialize(&mut json);
    id.filter(|id: &RequestId| id.0.chars().count() <= limits::REQUEST_ID_CHARS)
}

struct EarlyId<'a>(&'a mut Option<RequestId>);

impl<'de> DeserializeSeed<'de> for EarlyId<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EarlyId<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a frame")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == "id" {
                *self.0 = map.next_value()?;
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
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
            (r#"{"id":"1","type":"hello","token":"x","cursor":5}"#, Some("1"), Invalid, "cursor"),
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

    #[test]
    fn an_oversized_frame_is_refused_with_its_id_if_that_comes_first() {
        let id = |front: &str| {
            let text = format!(r#"{{{front}"x":"{}"}}"#, "a".repeat(limits::FRAME_BYTES_IN));
            refusal(&text).0
        };
        assert_eq!(id(r#""type":"send","id":"7","#), Some("7".into()));
        assert_eq!(id(r#""y":[{"id":"8"}],"id":"7","#), Some("7".into()));
        assert_eq!(id(r#""id":7,"#), None);
        assert_eq!(id(&format!(r#""y":"{}","id":"7","#, "가".repeat(PREFIX_BYTES))), None);
    }

    #[test]
    fn the_same_rule_holds_for_every_frame() {
        use ErrorCode::Invalid;
        let deep = format!(r#"{{"type":"heartbeat","x":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
        let cases = [
            (r#"["heartbeat"]"#, None, "frame"),
            (deep.as_str(), None, "frame"),
            (r#"{"type":"read","id":"1","channel_id":"9","seq":null}"#, Some("1"), "seq"),
            (r#"{"type":"read","id":"1","channel_id":"9","seq":1,"seq":1}"#, Some("1"), "seq"),
            (r#"{"type":"read","id":"1","channel_id":"9","seq":1.5}"#, Some("1"), "seq"),
            (r#"{"type":"read","id":"1","channel_id":"9","seq":-1}"#, Some("1"), "seq"),
            (r#"{"type":"read","type":"read","id":"1"}"#, Some("1"), "type"),
            (r#"{"type":"heartbeat","id":"1","id":"2"}"#, None, "id"),
            (r#"{"type":"presence","id":"1","idel":true}"#, Some("1"), "idel"),
            (r#"{"type":"history","id":"1","channel_id":"9","befor":4}"#, Some("1"), "befor"),
            (r#"{"type":"history","id":"1","before":4}"#, Some("1"), "channel_id"),
            (r#"{"type":"history","id":"1","channel_id":"9","before":"4"}"#, Some("1"), "before"),
            (r#"{"type":"auth","id":"1","token":"\ud83d"}"#, Some("1"), "token"),
            (r#"{"type":"auth","id":"\ud83d","token":"x"}"#, None, "id"),
        ];
        for (text, id, field) in cases {
            assert_eq!(
                refusal(text),
                (id.map(str::to_owned), Invalid, Some(field.to_owned())),
                "{text:.200}"
            );
        }
        let body = |body: &str| {
            let text = format!(
                r#"{{"type":"send","id":"1","channel_id":"9","client_msg_id":"01920000-0000-7000-8000-000000000001","body":{body}}}"#
            );
            refusal(&text).2.unwrap_or_default()
        };
        assert_eq!(body(r#"["hi"]"#), "body");
        assert_eq!(body(r#"{"txt":"hi"}"#), "body.txt");
        assert_eq!(body(r#"{"text":"hi \ud83d"}"#), "body.text");
        assert_eq!(body(r#"{"data":{"a":1,"a":2}}"#), "body.data");
        assert_eq!(body(r#"{"text":"a","mentions":["7",null]}"#), "body.mentions[1]");
    }

    #[test]
    fn null_is_absence_and_a_whole_number_may_have_a_point() {
        for text in [
            r#"{"type":"react","id":"1","channel_id":"9","seq":2.0,"emoji":"+1","on":null}"#,
            r#"{"type":"subscribe","id":"1","channel_id":"9","mode":null,"after_seq":2e0}"#,
            r#"{"type":"history","id":null,"channel_id":"9","limit":50.0}"#,
            r#"{"type":"hello","token":"x","cursor":null}"#,
            r#"{"type":"presence","id":"1","idle":null}"#,
            r#"{"type":"heartbeat","x":[[[]]]}"#,
            r#"{"type":"send","id":"1","channel_id":"9","client_msg_id":"01920000-0000-7000-8000-000000000001",
                "body":{"text":null,"data":null,"mentions":null,"mentions_everyone":null,"reply_to":null}}"#,
        ] {
            assert!(Request::parse(text).is_ok(), "{text}: {:?}", Request::parse(text));
        }
    }
}
