//! Deserializes values from slices of a text whose grammar and depth were checked.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::de::value::CowStrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};

use super::data::{self, DataFault};
use super::error::JsonError;
use super::pieces::{Member, Members, Values, elements, members, string};

/// 2^53, the greatest magnitude up to which every JSON reader represents each whole number exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// How strictly a text is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rules {
    /// Text that this version of the project wrote, or a later one.
    Lenient,
    /// Text of a request, by the rule of the protocol. `envelope` names members of the outermost object that are read
    /// separately. `is_part` says that other structures read the other members, so that there need not be a known
    /// member.
    Strict { envelope: &'static [&'static str], is_part: bool },
}

/// One value of the text.
#[derive(Clone, Copy)]
pub(super) struct Reader<'de> {
    text: &'de str,
    rules: Rules,
    /// Whether the value is custom data of the application. It is passed on as bytes, which only [`super::Data`]
    /// accepts. JSON has no bytes, so no other type can accept it, even where serde buffers values (`flatten`, tagged
    /// enums).
    is_data: bool,
}

impl<'de> Reader<'de> {
    pub(super) const fn new(text: &'de str, rules: Rules) -> Self {
        Self { text, rules, is_data: false }
    }

    fn inner(&self, text: &'de str) -> Self {
        let rules = match self.rules {
            Rules::Lenient => Rules::Lenient,
            Rules::Strict { .. } => Rules::Strict { envelope: &[], is_part: false },
        };
        Self::new(text, rules)
    }

    const fn is_strict(&self) -> bool {
        matches!(self.rules, Rules::Strict { .. })
    }

    fn first(&self) -> u8 {
        self.text.bytes().next().unwrap_or(b' ')
    }

    fn string(&self) -> Result<Option<Cow<'de, str>>, JsonError> {
        if self.first() == b'"' { string(self.text).map(Some) } else { Ok(None) }
    }

    /// An error that says which type was found in place of the expected one.
    fn unexpected(&self, expected: &dyn de::Expected) -> JsonError {
        let string;
        let unexpected = match self.first() {
            b'{' => Unexpected::Map,
            b'[' => Unexpected::Seq,
            b'n' => Unexpected::Other("null"),
            b't' => Unexpected::Bool(true),
            b'f' => Unexpected::Bool(false),
            b'"' => {
                string = self.string().ok().flatten().unwrap_or_default();
                Unexpected::Str(&string)
            }
            _ => Unexpected::Other("a number"),
        };
        JsonError::invalid_type(unexpected, expected)
    }

    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if let Ok(value) = self.text.parse::<u64>() {
            return visitor.visit_u64(value);
        }
        if let Ok(value) = self.text.parse::<i64>() {
            return visitor.visit_i64(value);
        }
        match self.text.parse::<f64>() {
            Ok(value) if value.is_finite() => visitor.visit_f64(value),
            _ => Err(JsonError::new("the number is out of range")),
        }
    }

    /// A whole number may be written as `2`, `2.0` or `2e0`: JSON has one kind of numbers.
    fn whole<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if !matches!(self.first(), b'-' | b'0'..=b'9') {
            return Err(self.unexpected(&visitor));
        }
        match self.text.parse::<f64>() {
            Ok(value) if self.is_spelt_as_fraction() && value.fract() == 0.0 && value.abs() <= EXACT => {
                #[expect(clippy::cast_possible_truncation, reason = "it is whole and below 2^53")]
                let value = value as i64;
                if let Ok(value) = u64::try_from(value) {
                    visitor.visit_u64(value)
                } else {
                    visitor.visit_i64(value)
                }
            }
            _ => self.number(visitor),
        }
    }

    fn is_spelt_as_fraction(&self) -> bool {
        self.text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
    }

    fn data<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if !self.is_strict() {
            return visitor.visit_borrowed_bytes(self.text.as_bytes());
        }
        match data::checked(self.text) {
            Ok(text) => visitor.visit_byte_buf(text.into_bytes()),
            Err(fault @ DataFault::TooLarge { .. }) => Err(JsonError::too_large(fault.to_string())),
            Err(fault) => Err(JsonError::new(fault.to_string())),
        }
    }
}

macro_rules! whole_numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            self.whole(visitor)
        }
    )*};
}

macro_rules! strings {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            match self.string()? {
                Some(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
                Some(Cow::Owned(text)) => visitor.visit_string(text),
                None => Err(self.unexpected(&visitor)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = JsonError;

    whole_numbers!(deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64);
    strings!(deserialize_str deserialize_string deserialize_char deserialize_identifier);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.first() {
            b'n' => visitor.visit_unit(),
            _ if self.is_data => self.data(visitor),
            b'{' => self.deserialize_map(visitor),
            b'[' => self.deserialize_seq(visitor),
            b'"' => self.deserialize_str(visitor),
            b't' | b'f' => self.deserialize_bool(visitor),
            _ => self.number(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.text {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(self.unexpected(&visitor)),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.first() {
            b'-' | b'0'..=b'9' => self.number(visitor),
            _ => Err(self.unexpected(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.text == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.text == "null" { visitor.visit_unit() } else { Err(self.unexpected(&visitor)) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match elements(self.text) {
            Some(elements) => visitor.visit_seq(Elements { elements, of: self, index: 0 }),
            None => Err(self.unexpected(&visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match members(self.text) {
            Some(members) => {
                visitor.visit_map(Entries { members, of: self, seen: HashSet::new(), next: None })
            }
            None => Err(self.unexpected(&visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        let Some(members) = members(self.text) else { return Err(self.unexpected(&visitor)) };
        let members = match self.rules {
            Rules::Lenient => members.collect::<Result<Vec<_>, _>>()?,
            Rules::Strict { envelope, is_part } => known(members, fields, envelope, is_part)?,
        };
        visitor.visit_map(Fields { members: members.into_iter(), of: self, next: None })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self.string()? {
            Some(name) => visitor.visit_enum(name.into_deserializer()),
            None => Err(self.unexpected(&visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_unit()
    }
}

/// The known members of a request that are not `null`. No known member may occur twice, and at least one must be known.
fn known<'de>(
    members: Members<'de>,
    fields: &'static [&'static str],
    envelope: &'static [&'static str],
    is_part: bool,
) -> Result<Vec<Member<'de>>, JsonError> {
    let (mut known, mut seen): (Vec<Member<'de>>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut first_unknown = None;
    for member in members {
        let member = member?;
        let Some(&name) = fields.iter().find(|name| **name == member.name) else {
            if !envelope.contains(&&*member.name) {
                first_unknown.get_or_insert(member.name);
            }
            continue;
        };
        if seen.contains(&name) {
            return Err(JsonError::duplicate_field(name));
        }
        seen.push(name);
        if member.value != "null" {
            known.push(member);
        }
    }
    match first_unknown {
        Some(name) if seen.is_empty() && !fields.is_empty() && !is_part => {
            let known = fields.join(", ");
            Err(JsonError::new(format!("is unknown, and no other field is given; known are {known}"))
                .in_member(&name))
        }
        _ => Ok(known),
    }
}

struct Elements<'de> {
    elements: Values<'de>,
    of: Reader<'de>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, JsonError> {
        let Some(value) = self.elements.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(self.of.inner(value)).map(Some).map_err(|error| error.in_element(index))
    }
}

/// The members of a map, whose names are arbitrary.
struct Entries<'de> {
    members: Members<'de>,
    of: Reader<'de>,
    seen: HashSet<Cow<'de, str>>,
    next: Option<Member<'de>>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, JsonError> {
        let Some(member) = self.members.next().transpose()? else { return Ok(None) };
        if self.of.is_strict() && !self.seen.insert(member.name.clone()) {
            return Err(JsonError::new("occurs twice").in_member(&member.name));
        }
        take_key(seed, member, &mut self.next).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, JsonError> {
        take_value(seed, &self.of, self.next.take())
    }
}

/// The members of a structure, whose names are its fields.
struct Fields<'de> {
    members: std::vec::IntoIter<Member<'de>>,
    of: Reader<'de>,
    next: Option<Member<'de>>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, JsonError> {
        let Some(member) = self.members.next() else { return Ok(None) };
        take_key(seed, member, &mut self.next).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, JsonError> {
        take_value(seed, &self.of, self.next.take())
    }
}

fn take_key<'de, K: DeserializeSeed<'de>>(
    seed: K,
    member: Member<'de>,
    next: &mut Option<Member<'de>>,
) -> Result<K::Value, JsonError> {
    let key = seed.deserialize(CowStrDeserializer::<JsonError>::new(member.name.clone()));
    let key = key.map_err(|error| error.in_member(&member.name));
    *next = Some(member);
    key
}

fn take_value<'de, V: DeserializeSeed<'de>>(
    seed: V,
    of: &Reader<'de>,
    member: Option<Member<'de>>,
) -> Result<V::Value, JsonError> {
    let Some(Member { name, value }) = member else { return Err(JsonError::new("a value without a name")) };
    let reader = Reader { is_data: name == "data", ..of.inner(value) };
    seed.deserialize(reader).map_err(|error| error.in_member(&name))
}
