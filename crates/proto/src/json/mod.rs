//! How JSON of the wire is read: by clients and the store leniently ([`read`]), from outside by one rule for every frame
//! and body ([`read_request`]).
//!
//! Depth is bounded and the grammar is checked before anything recursive sees the text. A value is then read from its
//! own slice of the text, so a fault is known by its path, and the custom data of a message ([`Data`]) stays as it was
//! spelt: no part of it passes through a value of `serde_json`, whose features (`raw_value`, `arbitrary_precision`) give
//! some member names a meaning of their own.

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

/// Reads what a server or a store of this project wrote. Unknown members are ignored.
///
/// # Errors
/// Names the path of what cannot be read.
pub fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, JsonError> {
    T::deserialize(Reader::new(Checked::new(text)?.0, Rules::Lenient))
}

/// The names of the fields of a structure, as its deserializer knows them; `None` for another type.
#[must_use]
pub fn fields_of<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut fields = None;
    // It always fails: there is nothing to read.
    let _ = T::deserialize(fields::Fields(&mut fields));
    fields
}

/// Reads what came from outside, by the rule that the protocol states for every body: an object is an object, a whole
/// number has a whole value, `null` is absence, no member is there twice, unknown members are ignored unless none is
/// known.
///
/// # Errors
/// Names the path of what is refused.
pub fn read_request<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, JsonError> {
    Checked::new(text)?.read_frame(&[])
}

/// The one value of a text, whose grammar and depth were checked.
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

    /// As [`read_request`], of an object whose members `envelope` were read apart.
    pub(crate) fn read_frame<T: Deserialize<'a>>(
        self,
        envelope: &'static [&'static str],
    ) -> Result<T, JsonError> {
        T::deserialize(Reader::new(self.0, Rules::Strict { envelope, is_part: false }))
    }

    /// As [`read_request`], of an object that says more than this.
    pub(crate) fn read_part<T: Deserialize<'a>>(self) -> Result<T, JsonError> {
        T::deserialize(Reader::new(self.0, Rules::Strict { envelope: &[], is_part: true }))
    }
}
