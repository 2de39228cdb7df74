//! Reads answers of scripts, part by part.

use bytes::Bytes;
use madang_store::{StoreError, StoreResult};
use redis::Value;

/// The parts of an answer that are not read yet.
pub(super) struct Reply(std::vec::IntoIter<Value>);

fn strange(what: &str) -> StoreError {
    StoreError::Unavailable(format!("Redis: the answer has no {what} where one belongs"))
}

impl Reply {
    /// The parts of a list.
    pub(super) fn of(value: Value) -> StoreResult<Self> {
        match value {
            Value::Array(parts) | Value::Set(parts) => Ok(Self(parts.into_iter())),
            Value::Map(pairs) => {
                let parts: Vec<Value> = pairs.into_iter().flat_map(|(key, value)| [key, value]).collect();
                Ok(Self(parts.into_iter()))
            }
            _ => Err(strange("list")),
        }
    }

    /// Parts that are not read yet.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all parts were read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Leaves the next part out.
    pub(super) fn skip(&mut self) -> &mut Self {
        let _ = self.0.next();
        self
    }

    pub(super) fn bytes(&mut self) -> StoreResult<Bytes> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes.into()),
            Some(Value::SimpleString(text)) => Ok(text.into()),
            Some(Value::Int(number)) => Ok(number.to_string().into()),
            _ => Err(strange("text")),
        }
    }

    pub(super) fn text(&mut self) -> StoreResult<String> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| strange("text"))
    }

    /// A text, or nothing where there is none.
    pub(super) fn optional_text(&mut self) -> StoreResult<Option<String>> {
        match self.0.as_slice() {
            [Value::Nil, ..] => {
                self.skip();
                Ok(None)
            }
            _ => self.text().map(Some),
        }
    }

    pub(super) fn number(&mut self) -> StoreResult<u64> {
        self.text()?.parse().map_err(|_| strange("number"))
    }

    pub(super) fn list(&mut self) -> StoreResult<Self> {
        self.next_list()?.ok_or_else(|| strange("list"))
    }

    /// The next part, which is a list; `None` behind the last one.
    pub(super) fn next_list(&mut self) -> StoreResult<Option<Self>> {
        self.0.next().map(Self::of).transpose()
    }
}
