//! The custom data of a message: JSON of the application, kept and served exactly as it was written.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::scan;
use crate::limits::{DATA_BYTES, DATA_DEPTH};

/// One JSON value of the application, without white space outside strings and otherwise exactly as it was written:
/// whole numbers of any size, the order of members and escapes are preserved. Two values are equal if their texts are.
///
/// Only [`super::read`] and [`super::read_request`] can read it. Any other deserializer refuses it, because a value
/// that passes through a tree of `serde_json` may come out changed.
#[derive(Debug, Clone)]
pub struct Data(Box<RawValue>);

/// Reasons for which a text cannot be the data of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataFault {
    /// The text is not one JSON value.
    #[error("is not JSON: {0}")]
    NotJson(String),
    /// The text without white space has too many bytes.
    #[error("has {bytes} bytes of JSON, the limit is {DATA_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Arrays and objects are nested too deeply.
    #[error("is nested deeper than {DATA_DEPTH} levels")]
    TooDeep,
    /// An object has two members with this name.
    #[error("has an object with the key {0:?} twice")]
    Twice(String),
    /// A number is larger in magnitude than every 64-bit floating-point number.
    #[error("has a number beyond the range of a 64-bit floating-point number")]
    NumberOutOfRange,
    /// A string contains one half of a surrogate pair without the other.
    #[error("has a string with half of a surrogate pair (\\ud800 to \\udfff) without the other")]
    LoneSurrogate,
}

impl Data {
    /// The JSON text.
    #[must_use]
    pub fn get(&self) -> &str {
        self.0.get()
    }
}

impl FromStr for Data {
    type Err = DataFault;

    fn from_str(text: &str) -> Result<Self, DataFault> {
        raw(checked(text)?).map(Self)
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Data {}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text)
    }
}

/// Accepts the bytes that [`super::reader::Reader`] passes on for a member named `data`.
struct Text;

impl Visitor<'_> for Text {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text of custom data, as madang_proto::json reads it")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Data, E> {
        let text = std::str::from_utf8(bytes).map_err(E::custom)?;
        raw(text.to_owned()).map(Data).map_err(E::custom)
    }
}

fn raw(text: String) -> Result<Box<RawValue>, DataFault> {
    RawValue::from_string(text).map_err(|error| DataFault::NotJson(error.to_string()))
}

/// The compact text of valid data. Size and depth are checked first, so that they bound the cost of the other checks.
pub(super) fn checked(text: &str) -> Result<String, DataFault> {
    // The grammar is checked before white space is removed, because there may be white space where JSON allows none.
    // The parser of `RawValue` does not recurse.
    serde_json::from_str::<&RawValue>(text).map_err(|error| DataFault::NotJson(error.to_string()))?;
    let text = scan::compact(text);
    if text.len() > DATA_BYTES {
        return Err(DataFault::TooLarge { bytes: text.len() });
    }
    if scan::is_deeper(&text, DATA_DEPTH) {
        return Err(DataFault::TooDeep);
    }
    check_tokens(&text)?;
    Ok(text)
}

/// An array or object that is open at a token. For an object: the names that it has had so far.
enum Open<'a> {
    Object { names: HashSet<Cow<'a, str>>, awaits_name: bool },
    Array,
}

/// Checks strings, numbers and names of a compact text with valid grammar.
fn check_tokens(text: &str) -> Result<(), DataFault> {
    let (mut open, mut rest): (Vec<Open<'_>>, &str) = (Vec::new(), text);
    while let Some(byte) = rest.bytes().next() {
        let length = match byte {
            b'{' => {
                open.push(Open::Object { names: HashSet::new(), awaits_name: true });
                1
            }
            b'[' => {
                open.push(Open::Array);
                1
            }
            b'}' | b']' => {
                open.pop();
                1
            }
            b',' => {
                if let Some(Open::Object { awaits_name, .. }) = open.last_mut() {
                    *awaits_name = true;
                }
                1
            }
            b'"' => {
                let (token, _) = scan::split_value(rest);
                take_string(token, open.last_mut())?;
                token.len()
            }
            b'-' | b'0'..=b'9' => {
                let (token, _) = scan::split_value(rest);
                check_number(token)?;
                token.len()
            }
            _ => 1,
        };
        rest = &rest[length..];
    }
    Ok(())
}

fn take_string<'a>(token: &'a str, open: Option<&mut Open<'a>>) -> Result<(), DataFault> {
    let text = match token.contains('\\') {
        true => Cow::Owned(serde_json::from_str::<String>(token).map_err(|error| {
            if scan::has_lone_surrogate(token) {
                DataFault::LoneSurrogate
            } else {
                DataFault::NotJson(error.to_string())
            }
        })?),
        false => Cow::Borrowed(&token[1..token.len() - 1]),
    };
    if let Some(Open::Object { names, awaits_name }) = open
        && std::mem::take(awaits_name)
        && let Some(twice) = names.replace(text)
    {
        return Err(DataFault::Twice(twice.into_owned()));
    }
    Ok(())
}

/// Refuses numbers that a reader without big numbers could not read.
fn check_number(token: &str) -> Result<(), DataFault> {
    match token.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(()),
        _ => Err(DataFault::NumberOutOfRange),
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Data {
    fn schema_name() -> Cow<'static, str> {
        "Data".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_data_stays_as_it_was_written() {
        for text in [
            r#"{"b":1,"a":18446744073709551617,"c":1.0,"d":1e2,"e":-0,"f":"\u00e9\/","g":null}"#,
            r#"{"a":1,"$serde_json::private::RawValue":"[1"}"#,
            r#"{"$serde_json::private::RawValue":"[[[1"}"#,
            r#"{"$serde_json::private::Number":"x"}"#,
            r#"{"":{"":[{},[]]}}"#,
            "123456789012345678901234567890",
            r#""\ud83d\ude00""#,
            "true",
            "null",
        ] {
            let data: Data = text.parse().unwrap();
            assert_eq!(data.get(), text);
            assert_eq!(serde_json::to_string(&data).unwrap(), text);
        }
        assert_eq!(" { \"a\" : [ 1 , \" \" ] } ".parse::<Data>().unwrap().get(), r#"{"a":[1," "]}"#);
    }

    #[test]
    fn data_that_readers_disagree_about_is_refused() {
        let fault = |text: &str| text.parse::<Data>().unwrap_err();
        assert_eq!(fault(r#"{"a":{"b":1,"\u0062":2}}"#), DataFault::Twice("b".into()));
        assert_eq!(fault(r#"{"a":[{"b":1}],"a":2}"#), DataFault::Twice("a".into()));
        assert_eq!(fault("[1e400]"), DataFault::NumberOutOfRange);
        assert_eq!(fault(&"9".repeat(400)), DataFault::NumberOutOfRange);
        assert_eq!(fault(r#"["\ud83d"]"#), DataFault::LoneSurrogate);
        assert_eq!(fault(r#"{"\udc00":1}"#), DataFault::LoneSurrogate);
        assert!(matches!(fault("[1"), DataFault::NotJson(_)));
        assert!(matches!(fault("1 2"), DataFault::NotJson(_)));
        assert!(matches!(fault("tr ue"), DataFault::NotJson(_)));
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(nested(DATA_DEPTH).parse::<Data>().is_ok());
        assert_eq!(fault(&nested(DATA_DEPTH + 1)), DataFault::TooDeep);
        let long = |bytes: usize| format!("\"{}\"", "a".repeat(bytes - 2));
        assert!(long(DATA_BYTES).parse::<Data>().is_ok());
        assert_eq!(fault(&long(DATA_BYTES + 1)), DataFault::TooLarge { bytes: DATA_BYTES + 1 });
        // Names must be unique within one object only.
        assert!(r#"[{"a":1},{"a":1},{"b":{"a":{"a":1}}}]"#.parse::<Data>().is_ok());
    }
}
