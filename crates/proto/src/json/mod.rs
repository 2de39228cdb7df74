//! Reads the JSON of the wire. Clients and the store read leniently ([`read`]). Input from clients is read by one
//! strict rule for every frame and body ([`read_request`]).
//!
//! Depth is bounded and the grammar is checked before any recursive code reads the text. Each value is then read from
//! its own slice of the text. So an error can name its path, and the custom data of a message ([`Data`]) stays exactly
//! as it was written: no part of it passes through a value of `serde_json`, whose features (`raw_value`,
//! `arbitrary_precision`) treat some member names specially.

mod data;
mod error;
mod fields;
mod pieces;
mod reader;
mod scan;

pub use data::{Data, DataFault};
pub use error::JsonError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::limits;
use pieces::Members;
use reader::{Reader, Rules};

/// Reads JSON that a server or a store of this project wrote. Unknown members are ignored.
///
/// # Errors
/// The error names the path of the value that cannot be read.
pub fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, JsonError> {
    T::deserialize(Reader::new(Checked::new(text)?.0, Rules::Lenient))
}

/// The names of the fields of a structure, as its `Deserialize` implementation lists them; `None` for another type.
#[must_use]
pub fn fields_of<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut fields = None;
    // The call always fails, because there is nothing to read. The names are stored before it does.
    let _ = T::deserialize(fields::Fields(&mut fields));
    fields
}

/// Reads JSON from a client, by the rule that the protocol states for every body: an object must be an object, a whole
/// number may be written in any form with a whole value, `null` means absent, and no member may occur twice. Unknown
/// members are ignored, unless no member is known.
///
/// # Errors
/// The error names the path of the value that is refused.
pub fn read_request<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, JsonError> {
    Checked::new(text)?.read_frame(&[])
}

/// One JSON value, as a text whose grammar and depth were checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked<'a>(&'a str);

impl<'a> Checked<'a> {
    pub(crate) fn new(text: &'a str) -> Result<Self, JsonError> {
        if scan::is_deeper(text, limits::JSON_DEPTH) {
            return Err(JsonError::new(format!("is nested deeper than {} levels", limits::JSON_DEPTH)));
        }
        match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) => Ok(Self(raw.get())),
            Err(error) => Err(JsonError::new(format!("is not JSON: {error}"))),
        }
    }

    /// The members of an object; `None` if it is another value.
    pub(crate) fn members(self) -> Option<Members<'a>> {
        pieces::members(self.0)
    }

    /// Like [`read_request`], for an object of which the members named in `envelope` were read separately.
    pub(crate) fn read_frame<T: Deserialize<'a>>(
        self,
        envelope: &'static [&'static str],
    ) -> Result<T, JsonError> {
        T::deserialize(Reader::new(self.0, Rules::Strict { envelope, is_part: false }))
    }

    /// Like [`read_request`], for an object that also has members of other structures.
    pub(crate) fn read_part<T: Deserialize<'a>>(self) -> Result<T, JsonError> {
        T::deserialize(Reader::new(self.0, Rules::Strict { envelope: &[], is_part: true }))
    }
}
