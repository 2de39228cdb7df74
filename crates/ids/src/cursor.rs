//! How far a device has received its user's inbox.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Place of an item in a user's inbox. It rises, with gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// The position before the first item.
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

/// A random 64-bit value that names one numbering of positions. It is durable before the first cursor that contains it
/// is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
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

/// How far one device has received its user's inbox. Clients see it as a [`SealedCursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The numbering that `position` belongs to.
    pub epoch: Epoch,
    /// The device has received every item up to and including this position.
    pub position: Position,
}

/// A [`Cursor`] in the form that clients keep: an opaque text that only the server can read, and only for the user to
/// whom it was given. Any text can be parsed, because a client cannot check the text that it kept: whether the server
/// accepts it is said in `welcome`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedCursor(Arc<str>);

impl SealedCursor {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for SealedCursor {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for SealedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_a_sealed_cursor_and_nothing_else_is() {
        for text in ["", "00000000deadbeef:42", "x\u{0}"] {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(serde_json::from_str::<SealedCursor>(&json).unwrap().as_str(), text);
        }
        for json in ["5", "null", "[]", "{}"] {
            assert!(serde_json::from_str::<SealedCursor>(json).is_err(), "{json}");
        }
    }
}
