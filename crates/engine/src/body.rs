//! Checks a message's body and hashes it.

mod canonical;

use madang_proto::limits::{MENTIONS, TEXT_BYTES, TEXT_CHARS};
use madang_proto::{Body, Content, ErrorBody, ErrorCode, Reaction};
use sha2::{Digest, Sha256};

use crate::body::canonical::Numbers;
use crate::log::BodyHash;

/// Refuses a body that is empty or beyond a limit. A character is a Unicode scalar. `data` was checked when it was read
/// ([`madang_proto::Data`]).
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
    if body.data.is_none() && body.text.is_empty() {
        return Err(ErrorBody::invalid("body.text", "body.text is empty and there is no body.data"));
    }
    if body.mentions.len() > MENTIONS {
        let message = format!("body.mentions has {} users, the limit is {MENTIONS}", body.mentions.len());
        return too_large("body.mentions", message);
    }
    if body.reply_to.is_some_and(|seq| seq.get() == 0) {
        return Err(ErrorBody::invalid("body.reply_to", "body.reply_to is 0, the smallest seq is 1"));
    }
    Ok(())
}

/// The most bytes that the body takes as JSON.
#[must_use]
pub fn json_bytes(body: &Body) -> usize {
    const MENTION_BYTES: usize = 22;
    let mentions = body.mentions.len() * MENTION_BYTES;
    text_bytes(&body.text) + body.data.as_ref().map_or(0, |data| data.get().len()) + mentions
}

/// About the most bytes that an entry with this content takes as JSON; what it carries counts.
#[must_use]
pub fn entry_bytes(content: &Content) -> usize {
    /// Names, ids and times; for an entry about details, the details.
    const AROUND_BYTES: usize = 512;
    let message = content.carried();
    let reactions = message.map(|message| &message.reactions);
    let reactions = reactions.or_else(|| content.reacted().map(|state| &state.reactions));
    let body = message.map_or(0, |message| json_bytes(&message.body));
    AROUND_BYTES + body + reactions.map_or(0, |reactions| reactions_bytes(reactions))
}

fn reactions_bytes(reactions: &[Reaction]) -> usize {
    reactions.iter().map(|one| one.emoji.len() + 22 * one.users.len() + 64).sum()
}

fn text_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum::<usize>() + 2
}

/// The hash by which a retry with another body is distinguished from a true retry.
///
/// Bodies are the same if their fields are. `data` is compared by value: the order of members and the spelling of
/// strings do not matter. Numbers compare by value as well, but one with a fraction or an exponent (`1.0`, `1e0`) is
/// another one than a whole number (`1`).
#[must_use]
pub fn hash(body: &Body) -> BodyHash {
    hash_with(body, Numbers::Exact)
}

/// Whether a message whose hash is known has this body. Versions that kept numbers as 64-bit floating-point numbers
/// hashed them so: such a hash counts as well, or a retry across the upgrade would be refused.
#[must_use]
pub fn is_hash_of(known: BodyHash, body: &Body) -> bool {
    known == hash(body) || (body.data.is_some() && known == hash_with(body, Numbers::Rounded))
}

/// Each part of variable length is preceded by its length.
fn hash_with(body: &Body, numbers: Numbers) -> BodyHash {
    let data = body.data.as_ref().map(|data| canonical::text(data, numbers)).unwrap_or_default();
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

    fn text(text: String) -> Body {
        Body { text, ..Body::default() }
    }

    fn data(text: &str) -> Body {
        Body { data: Some(text.parse().unwrap()), ..Body::default() }
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
        let mention = |count| Body { mentions: vec![UserId::from_raw(7); count], ..text("a".into()) };
        assert_eq!(refused_field(&mention(MENTIONS)), None);
        assert_eq!(refused_field(&mention(MENTIONS + 1)), Some("body.mentions".into()));
        let zero = Body { reply_to: Some(Seq::ZERO), ..text("a".into()) };
        assert_eq!(refused_field(&zero), Some("body.reply_to".into()));
    }

    #[test]
    fn the_hash_tells_bodies_apart_but_not_spellings() {
        let same = |one: &str, other: &str| hash(&data(one)) == hash(&data(other));
        assert!(same(r#"{"a":1,"b":"\u00e9"}"#, r#"{ "b": "é", "a": 1 }"#));
        assert!(same("[1.50,1e2]", "[1.5,100.0]"));
        assert!(same("123456789012345678901234567890", "123456789012345678901234567890"));
        assert!(!same("18446744073709551617", "18446744073709551618"));
        assert!(!same("0.1", "0.1000000000000000055"));
        assert!(!same("1", "1.0"));
        assert!(!same("1", r#""1""#));
        assert!(!same("[[1],2]", "[[1,2]]"));
        assert_ne!(hash(&data("1")), hash(&text("1".into())));
        let mentions = Body { mentions: vec![UserId::from_raw(7)], ..text("hi".into()) };
        assert_ne!(hash(&mentions), hash(&text("hi".into())));
        assert_ne!(
            hash(&text("hi".into())),
            hash(&Body { reply_to: Some(Seq::new(1)), ..text("hi".into()) })
        );
    }

    #[test]
    fn hashes_of_earlier_versions_stay_good() {
        // Written by the version that kept `data` as a tree with floating-point numbers.
        let kept = [
            (r#"{"b":2,"a":1}"#, "99e910a58aab02fa9535bf8376cdb8b4"),
            ("18446744073709551617", "28313eba6a72641398e5b557224761c3"),
            ("[1.50,1e2,-0,2.5e-7,1e300]", "e2f33d67f1cc600dd4e4b20f70c5dc95"),
            (r#"{"é":"\u00e9\/"}"#, "f11383c5442338fcd45f891b79ad8730"),
        ];
        for (text, hex) in kept {
            let bytes = u128::from_str_radix(hex, 16).unwrap().to_be_bytes();
            assert!(is_hash_of(BodyHash(bytes), &data(text)), "{text}");
        }
        assert!(!is_hash_of(hash(&data("1")), &data("2")));
    }
}
