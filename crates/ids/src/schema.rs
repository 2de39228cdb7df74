//! JSON schemas of the ids: the texts that their parsers accept, and a description of each.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{ChannelId, ClientMsgId, DeviceId, MessageId, Millis, Ordinal, SealedCursor, Seq, UserId};

/// A decimal number of at least 1. The pattern does not exclude numbers above 2^63 − 1; the parser refuses them.
const ID: &str = "^0*[1-9][0-9]{0,18}$";
/// A UUID with or without hyphens, or a ULID.
const KEY: &str = "^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}|[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25})$";

fn text(pattern: &str, description: &str) -> Schema {
    json_schema!({ "type": "string", "pattern": pattern, "description": description })
}

fn number(description: &str) -> Schema {
    json_schema!({ "type": "integer", "format": "uint64", "minimum": 0, "description": description })
}

/// The place of an existing entry: at least 1, because 0 is the place before the first entry.
#[must_use]
pub fn place_of_an_entry(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "uint64", "minimum": 1 })
}

macro_rules! schemas {
    ($($name:ident => $schema:expr;)*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )*};
}

schemas! {
    UserId => text(ID, "A user.");
    DeviceId => text(ID, "An installed client of a user.");
    ChannelId => text(ID, "A conversation.");
    MessageId => text(ID, "A message; rises with `seq` inside its channel.");
    ClientMsgId => text(KEY, "The sender's retry key in a channel: a UUID or a ULID.");
    SealedCursor => json_schema!({
        "type": "string",
        "description": "How far a device has received its user's inbox. Opaque: its form has no meaning and may \
         change.",
    });
    Seq => number("Position of an entry in its log: 1, 2, 3 … without a hole.");
    Ordinal => number("Position of a message among the messages of its channel.");
    Millis => number("Milliseconds since 1970-01-01 UTC.");
}
