//! Members of objects and elements of arrays, as slices of a text whose grammar and depth were checked.

use std::borrow::Cow;

use super::error::JsonError;
use super::scan;

/// The value of a string: without quotes, and with its escapes decoded.
pub(super) fn string(text: &str) -> Result<Cow<'_, str>, JsonError> {
    if !text.contains('\\') {
        return Ok(Cow::Borrowed(&text[1..text.len() - 1]));
    }
    serde_json::from_str(text).map(Cow::Owned).map_err(|error| {
        let lone = "has half of a surrogate pair (\\ud800 to \\udfff) without the other: the text was cut inside a character";
        JsonError::new(if scan::has_lone_surrogate(text) { lone.to_owned() } else { error.to_string() })
    })
}

/// A member of an object: its name, and its value as it was written.
pub(crate) struct Member<'de> {
    pub(crate) name: Cow<'de, str>,
    pub(crate) value: &'de str,
}

/// The members of an object, in their order; `None` if the text is another value.
pub(super) fn members(text: &str) -> Option<Members<'_>> {
    Some(Members { rest: text.strip_prefix('{')? })
}

pub(crate) struct Members<'de> {
    rest: &'de str,
}

impl<'de> Iterator for Members<'de> {
    type Item = Result<Member<'de>, JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        let begins = self.rest.find('"')?;
        let (name, rest) = scan::split_value(&self.rest[begins..]);
        let (_, value) = rest.split_once(':')?;
        let (value, rest) = scan::split_value(value.trim_start());
        self.rest = rest;
        Some(string(name).map(|name| Member { name, value }))
    }
}

/// The elements of an array, in their order; `None` if the text is another value.
pub(super) fn elements(text: &str) -> Option<Values<'_>> {
    Some(Values { rest: text.strip_prefix('[')? })
}

pub(super) struct Values<'de> {
    rest: &'de str,
}

impl<'de> Iterator for Values<'de> {
    type Item = &'de str;

    fn next(&mut self) -> Option<&'de str> {
        let rest = self.rest.trim_start().trim_start_matches(',').trim_start();
        if rest.is_empty() || rest.starts_with(']') {
            return None;
        }
        let (value, rest) = scan::split_value(rest);
        self.rest = rest;
        Some(value)
    }
}
