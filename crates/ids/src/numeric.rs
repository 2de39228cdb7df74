//! Newtypes over `u64`: ids (strings in JSON) and places (numbers in JSON).

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a decimal number between 1 and 2^63 − 1.
    #[error("is not an id: expected a decimal number as a string, from 1 to 9223372036854775807")]
    NotANumber,
    /// Neither a UUID nor a ULID.
    #[error("is neither a UUID nor a ULID")]
    NotAUuidOrUlid,
}

macro_rules! string_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Takes a raw value that came from a generator or a store. Ids lie between 1 and 2^63 − 1.
            #[must_use]
            pub const fn from_raw(raw: u64) -> Self {
                Self(raw)
            }

            /// The raw value, for keys and storage.
            #[must_use]
            pub const fn raw(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                match text.parse::<u64>() {
                    Ok(raw) if digits && raw >= 1 && i64::try_from(raw).is_ok() => Ok(Self(raw)),
                    _ => Err(IdError::NotANumber),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor::<Self>::new())
            }
        }
    };
}

macro_rules! place {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The place before the first one.
            pub const ZERO: Self = Self(0);

            /// The place with this number.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The place `count` further on.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }

            /// The place after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }

            /// The place `count` before this one, not below zero.
            #[must_use]
            pub const fn minus(self, count: u64) -> Self {
                Self(self.0.saturating_sub(count))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

string_id!(
    /// A user.
    UserId
);
string_id!(
    /// An installed client of a user.
    DeviceId
);
string_id!(
    /// A conversation.
    ChannelId
);
string_id!(
    /// A message: a snowflake, rising with `seq` inside its channel. Never a key of the store.
    MessageId
);
string_id!(
    /// A live socket. Unique within one run of one process.
    ConnectionId
);

place!(
    /// Position of an entry in its log: 1, 2, 3 … without a hole.
    Seq
);
place!(
    /// Place of a message among the messages of its channel; for an entry that is no message, that of the last
    /// message before it.
    Ordinal
);
place!(
    /// Wall-clock milliseconds since 1970-01-01 UTC.
    Millis
);

/// Names a log: that of a channel, or a user's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogId {
    /// The log of a channel.
    Channel(ChannelId),
    /// A user's own log: read markers set on other devices, channels joined and left, revoked devices.
    User(UserId),
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(id) => write!(f, "channel {id}"),
            Self::User(id) => write!(f, "user log {id}"),
        }
    }
}

/// Deserialises any type that implements `FromStr` from a string.
pub(crate) struct TextVisitor<T>(std::marker::PhantomData<T>);

impl<T> TextVisitor<T> {
    pub(crate) const fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T: FromStr<Err = IdError>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id as a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_strings_in_json() {
        let id = UserId::from_raw(9_007_199_254_740_993);
        assert_eq!(serde_json::to_string(&id).unwrap(), r#""9007199254740993""#);
        assert_eq!(serde_json::from_str::<UserId>(r#""9007199254740993""#).unwrap(), id);
    }

    #[test]
    fn texts_that_are_not_ids_are_refused() {
        for text in
            [r#""""#, r#""0""#, r#""-1""#, r#""+1""#, r#""1x""#, r#""9223372036854775808""#, "7", "null"]
        {
            assert!(serde_json::from_str::<ChannelId>(text).is_err(), "{text}");
        }
    }
}
