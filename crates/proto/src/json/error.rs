//! Errors in JSON texts, with their place.

use std::fmt::{Display, Write as _};

use serde::de;

use crate::error::{ErrorBody, ErrorCode};

/// An error in a JSON text, with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", self.place())]
pub struct JsonError {
    code: ErrorCode,
    message: String,
    /// The innermost step comes first.
    path: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Element(usize),
}

impl JsonError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::Invalid, message: message.into(), path: Vec::new() }
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::TooLarge, ..Self::new(message) }
    }

    /// The same error, inside a member of an object.
    pub(crate) fn in_member(mut self, name: &str) -> Self {
        self.path.push(Step::Member(name.to_owned()));
        self
    }

    /// The same error, inside an element of an array.
    pub(crate) fn in_element(mut self, index: usize) -> Self {
        self.path.push(Step::Element(index));
        self
    }

    /// The place of the error, such as `body.mentions[2]`; `None` for the text as a whole.
    #[must_use]
    pub fn path(&self) -> Option<String> {
        let mut path = String::new();
        for step in self.path.iter().rev() {
            let _ = match step {
                Step::Member(name) if path.is_empty() => write!(path, "{name}"),
                Step::Member(name) => write!(path, ".{name}"),
                Step::Element(index) => write!(path, "[{index}]"),
            };
        }
        (!path.is_empty()).then_some(path)
    }

    fn place(&self) -> String {
        self.path().map(|path| path + ": ").unwrap_or_default()
    }

    /// The error as an answer to a client; `whole` names the text as a whole.
    pub(crate) fn refusal(&self, whole: &str) -> ErrorBody {
        let field = self.path().unwrap_or_else(|| whole.to_owned());
        ErrorBody::field(self.code, &field, format!("{field}: {}", self.message))
    }
}

impl de::Error for JsonError {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("is missing").in_member(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new("occurs twice").in_member(field)
    }
}
