//! Checks a message's body and hashes it.

use madang_proto::limits::{DATA_BYTES, DATA_DEPTH, EMOJI_BYTES, MENTIONS, TEXT_BYTES, TEXT_CHARS};
use madang_proto::{Body, Content, ErrorBody, ErrorCode};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::log::BodyHash;

/// Refuses a body that is empty or beyond a limit. A character is a Unicode scalar.
///
/// # Errors
/// Names the field and the limit.
pub fn check(body: &Body) -> Result<(), ErrorBody> {
    let too_large = |field: &str, message: String| Err(ErrorBody::field(ErrorCode::TooLarge, field, message));
    if body.text.len() > TEXT_BYTES {
        let message = format!("body.text has {} bytes, the limit is {TEXT_BYTES}", body.text.len());
        return too_large("body.text", message);
    }
    // Only a text with more bytes than that can have more characters.
    if body.text.len() > TEXT_CHARS {
        let chars = body.text.chars().count();
        if chars > TEXT_CHARS {
            return too_large(
                "body.text",
                format!("body.text has {chars} characters, the limit is {TEXT_CHARS}"),
            );
        }
    }
    if let Some(data) = &body.data {
        let bytes = data.to_string().len();
        if bytes > DATA_BYTES {
            return too_large("body.data", format!("body.data has {bytes} bytes, the limit is {DATA_BYTES}"));
        }
        if !is_shallow(data, DATA_DEPTH) {
            return Err(ErrorBody::invalid(
                "body.data",
                format!("body.data is nested deeper than {DATA_DEPTH} levels"),
            ));
        }
    } else if body.text.is_empty() {
        return Err(ErrorBody::invalid("body.text", "body.text is empty and there is no body.data"));
    }
    if body.mentions.len() > MENTIONS {
        let message = format!("body.mentions has {} people, the limit is {MENTIONS}", body.mentions.len());
        return too_large("body.mentions", message);
    }
    if body.reply_to.is_some_and(|seq| seq.get() == 0) {
        return Err(ErrorBody::invalid("body.reply_to", "body.reply_to is 0, the first seq is 1"));
    }
    Ok(())
}

/// Refuses a reaction that is empty, too long, or has white space or control characters.
///
/// # Errors
/// Names the field and the limit.
pub fn check_emoji(emoji: &str) -> Result<(), ErrorBody> {
    let is_plain = !emoji.chars().any(|char| char.is_whitespace() || char.is_control());
    if (1..=EMOJI_BYTES).contains(&emoji.len()) && is_plain {
        return Ok(());
    }
    let message =
        format!("emoji has {} bytes, it must be 1 to {EMOJI_BYTES} without white space", emoji.len());
    Err(ErrorBody::invalid("emoji", message))
}

/// JSON readers give up at some depth, and frames nest the data deeper than it came.
fn is_shallow(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(values) => levels > 0 && values.iter().all(|value| is_shallow(value, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|value| is_shallow(value, levels - 1)),
        _ => true,
    }
}

/// The most bytes that the body takes as JSON.
#[must_use]
pub fn json_bytes(body: &Body) -> usize {
    const MENTION_BYTES: usize = 22;
    let mentions = body.mentions.len() * MENTION_BYTES;
    text_bytes(&body.text) + body.data.as_ref().map_or(0, value_bytes) + mentions
}

/// About the most bytes that an entry with this content takes as JSON; what it carries counts.
#[must_use]
pub fn entry_bytes(content: &Content) -> usize {
    /// Names, ids and times; of one that tells of details, these.
    const AROUND_BYTES: usize = 512;
    let carried = content.carried().map_or(0, |message| {
        let reactions = message.reactions.iter().map(|one| one.emoji.len() + 22 * one.users.len() + 64);
        json_bytes(&message.body) + reactions.sum::<usize>()
    });
    AROUND_BYTES + carried
}

fn value_bytes(value: &Value) -> usize {
    const NUMBER_BYTES: usize = 24;
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => NUMBER_BYTES,
        Value::String(text) => text_bytes(text),
        Value::Array(values) => values.iter().map(|value| value_bytes(value) + 1).sum::<usize>() + 2,
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| text_bytes(name) + value_bytes(value) + 2).sum::<usize>() + 2
        }
    }
}

fn text_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum::<usize>() + 2
}

/// The hash by which a retry with another body is told from a true one. Keys of `data` are in alphabetical order
/// (serde_json's map keeps them so), each part is preceded by its length.
#[must_use]
pub fn hash(body: &Body) -> BodyHash {
    let data = body.data.as_ref().map(ToString::to_string).unwrap_or_default();
    let reply_to = body.reply_to.map_or(0, madang_ids::Seq::get);
    let mut hasher = Sha256::new();
    hasher.update((body.text.len() as u64).to_be_bytes());
    hasher.update(body.text.as_bytes());
    hasher.update((data.len() as u64).to_be_bytes());
    hasher.update(data.as_bytes());
    hasher.update(reply_to.to_be_bytes());
    if !body.mentions.is_empty() || body.mentions_everyone {
        hasher.update([u8::from(body.mentions_everyone)]);
        body.mentions.iter().for_each(|user| hasher.update(user.raw().to_be_bytes()));
    }
    let digest = hasher.finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    BodyHash(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::{Seq, UserId};
    use serde_json::json;

    fn text(text: String) -> Body {
        Body { text, ..Body::default() }
    }

    fn refused_field(body: &Body) -> Option<String> {
        check(body).err().and_then(|error| error.field)
    }

    #[test]
    fn limits_are_inclusive() {
        assert_eq!(refused_field(&text("a".repeat(TEXT_CHARS))), None);
        assert_eq!(refused_field(&text("a".repeat(TEXT_CHARS + 1))), Some("body.text".into()));
        assert_eq!(refused_field(&text("\u{1F600}".repeat(TEXT_CHARS))), None);
        assert_eq!(refused_field(&text(String::new())), Some("body.text".into()));
        let large = Body { data: Some(json!("a".repeat(DATA_BYTES))), ..Body::default() };
        assert_eq!(refused_field(&large), Some("body.data".into()));
        let nest = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let deep = |levels| Body { data: Some(nest(levels)), ..Body::default() };
        assert_eq!(refused_field(&deep(DATA_DEPTH)), None);
        assert_eq!(refused_field(&deep(DATA_DEPTH + 1)), Some("body.data".into()));
        let mention = |count| Body { mentions: vec![UserId::from_raw(7); count], ..text("a".into()) };
        assert_eq!(refused_field(&mention(MENTIONS)), None);
        assert_eq!(refused_field(&mention(MENTIONS + 1)), Some("body.mentions".into()));
        let zero = Body { reply_to: Some(Seq::ZERO), ..text("a".into()) };
        assert_eq!(refused_field(&zero), Some("body.reply_to".into()));
    }

    #[test]
    fn a_reaction_is_short_and_plain() {
        for good in ["a", "\u{1F375}", "+1", &"x".repeat(EMOJI_BYTES)] {
            assert!(check_emoji(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\n", "\u{7}", &"x".repeat(EMOJI_BYTES + 1)] {
            assert!(check_emoji(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_body_that_was_kept_has_the_hash_of_the_one_that_came() {
        for data in ["12325678901234567890123", "1.2325678901234567e22", "2.5e-7", "-0.0", "1e300"] {
            let came: Body = serde_json::from_str(&format!(r#"{{"data":{data}}}"#)).unwrap();
            let kept: Body = serde_json::from_str(&serde_json::to_string(&came).unwrap()).unwrap();
            assert_eq!(hash(&kept), hash(&came), "{data}");
        }
    }

    #[test]
    fn the_hash_tells_bodies_apart_but_not_spellings() {
        let one = Body { data: Some(json!({"a": 1, "b": 2})), ..text("hi".into()) };
        let same: Body = serde_json::from_str(r#"{"text":"hi","data":{"b":2,"a":1}}"#).unwrap();
        assert_eq!(hash(&one), hash(&same));
        assert_ne!(hash(&one), hash(&text("hi".into())));
        let mentions = Body { mentions: vec![UserId::from_raw(7)], ..text("hi".into()) };
        assert_ne!(hash(&mentions), hash(&text("hi".into())));
        assert_ne!(
            hash(&text("hi".into())),
            hash(&Body { reply_to: Some(Seq::new(1)), ..text("hi".into()) })
        );
    }
}
