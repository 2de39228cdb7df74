//! The sender's retry key.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};
use ulid::Ulid;
use uuid::Uuid;

use crate::numeric::{IdError, TextVisitor};

/// Sender's retry key within a channel: a UUID or a ULID, chosen by the client.
///
/// Two keys are equal if their 128-bit values are, so both spellings of one value are one key. A key is written back in
/// the spelling that the client used (a UUID hyphenated in lower case, a ULID in upper case).
#[derive(Clone, Copy)]
pub struct ClientMsgId {
    value: u128,
    is_ulid: bool,
}

impl ClientMsgId {
    /// A key from a UUID's value.
    #[must_use]
    pub const fn from_uuid(value: u128) -> Self {
        Self { value, is_ulid: false }
    }

    /// The 128-bit value, for keys and storage.
    #[must_use]
    pub const fn value(self) -> u128 {
        self.value
    }
}

impl PartialEq for ClientMsgId {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for ClientMsgId {}

impl Hash for ClientMsgId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

impl fmt::Display for ClientMsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ulid {
            f.write_str(Ulid::from(self.value).array_to_str(&mut [0; ulid::ULID_LEN]))
        } else {
            f.write_str(Uuid::from_u128(self.value).hyphenated().encode_lower(&mut Uuid::encode_buffer()))
        }
    }
}

impl fmt::Debug for ClientMsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClientMsgId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() == ulid::ULID_LEN {
            let ulid = Ulid::from_string(text).map_err(|_| IdError::NotAUuidOrUlid)?;
            // 26 characters hold two bits more than a ULID has. Above `7ZZ…` two different texts would be one key.
            if !text.starts_with(|first| ('0'..='7').contains(&first)) {
                return Err(IdError::NotAUuidOrUlid);
            }
            return Ok(Self { value: ulid.into(), is_ulid: true });
        }
        // With or without hyphens. Braces and `urn:uuid:` are refused, because the schema does not name them.
        let uuid = Some(text).filter(|text| matches!(text.len(), 32 | 36)).map(Uuid::try_parse);
        let Some(Ok(uuid)) = uuid else { return Err(IdError::NotAUuidOrUlid) };
        Ok(Self { value: uuid.as_u128(), is_ulid: false })
    }
}

impl Serialize for ClientMsgId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClientMsgId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::<Self>::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_one_value_are_one_key() {
        let uuid: ClientMsgId = "0192F0E4-7B1C-7000-8000-000000000001".parse().unwrap();
        let ulid: ClientMsgId = Ulid::from(uuid.value()).to_string().parse().unwrap();
        assert_eq!(uuid, ulid);
        assert_eq!(uuid.to_string(), "0192f0e4-7b1c-7000-8000-000000000001");
        assert_eq!(ulid.to_string(), Ulid::from(uuid.value()).to_string());
        assert_eq!("0192F0E47B1C70008000000000000001".parse(), Ok(uuid));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "1",
            "not-a-key",
            "0192f0e4-7b1c-7000-8000-00000000000",
            "UUUUUUUUUUUUUUUUUUUUUUUUUU",
            "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "{0192f0e4-7b1c-7000-8000-000000000001}",
            "urn:uuid:0192f0e4-7b1c-7000-8000-000000000001",
        ] {
            assert!(text.parse::<ClientMsgId>().is_err(), "{text}");
        }
    }
}
