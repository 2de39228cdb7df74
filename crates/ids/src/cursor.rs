//! How far a device has received its user's inbox.

use std::fmt;
use std::str::FromStr;

use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};

use crate::numeric::{IdError, TextVisitor};

/// Place in a user's inbox; rises, with gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// Before the first item.
    pub const ZERO: Self = Self(0);

    /// The position with this number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A random 64-bit value under which positions were given out; durable before the first cursor with it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Draws a new epoch from the operating system's randomness.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// An epoch read back from a store, or chosen by a test.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw value, for storage.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How far one device has received its user's inbox: `epoch:position`, opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Under which numbering.
    pub epoch: Epoch,
    /// Everything up to here was received.
    pub position: Position,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.position.0)
    }
}

impl FromStr for Cursor {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (epoch, position) = text.split_once(':').ok_or(IdError::NotACursor)?;
        let plain = epoch.len() == 16
            && epoch.bytes().all(|byte| byte.is_ascii_hexdigit())
            && position.bytes().all(|byte| byte.is_ascii_digit());
        let epoch = u64::from_str_radix(epoch, 16).map_err(|_| IdError::NotACursor)?;
        let position = position.parse::<u64>().map_err(|_| IdError::NotACursor)?;
        if !plain || i64::try_from(position).is_err() {
            return Err(IdError::NotACursor);
        }
        Ok(Self { epoch: Epoch(epoch), position: Position(position) })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::<Self>::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text() {
        let cursor = Cursor { epoch: Epoch::from_raw(0xdead_beef), position: Position::new(42) };
        assert_eq!(cursor.to_string(), "00000000deadbeef:42");
        assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            ":",
            "42",
            "00000000deadbeef:",
            "deadbeef:1",
            "00000000deadbeef:-1",
            "00000000deadbeef:+1",
            "+0000000deadbeef:1",
            "00000000deadbeeg:1",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(IdError::NotACursor), "{text}");
        }
    }
}
