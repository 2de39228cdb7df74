//! Conversions between the types of this program and those of SQLite: 63-bit numbers, short texts for enums, JSON for structures.

use madang_proto::{Audience, ChannelKind, Role};
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Error, ErrorCode, Result, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StoreError;
use crate::log::ChannelState;

/// Ids and places lie below 2^63; random values (epochs) keep their bits.
pub(super) const fn int(value: u64) -> i64 {
    value.cast_signed()
}

/// A bound of a range, which callers may leave open at the top.
pub(super) fn bound(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A limit of rows.
pub(super) fn limit(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn number(row: &Row<'_>, column: usize) -> Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

pub(super) fn optional_number(row: &Row<'_>, column: usize) -> Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
}

pub(super) fn small_number(row: &Row<'_>, column: usize) -> Result<u32> {
    let value = row.get::<_, i64>(column)?;
    u32::try_from(value).map_err(|_| Error::IntegralValueOutOfRange(column, value))
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::ToSqlConversionFailure(error.into()))
}

pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, error.into()))
}

/// A structure in a column that may be null.
pub(super) fn optional_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>> {
    if row.get_ref(column)? == ValueRef::Null { Ok(None) } else { from_json(row, column).map(Some) }
}

pub(super) const fn kind_text(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Direct => "direct",
        ChannelKind::Group => "group",
        ChannelKind::Open => "open",
    }
}

pub(super) fn kind(row: &Row<'_>, column: usize) -> Result<ChannelKind> {
    match row.get_ref(column)?.as_str()? {
        "direct" => Ok(ChannelKind::Direct),
        "group" => Ok(ChannelKind::Group),
        "open" => Ok(ChannelKind::Open),
        other => Err(unknown_word(column, other)),
    }
}

pub(super) const fn role_text(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member => "member",
    }
}

pub(super) fn role(row: &Row<'_>, column: usize) -> Result<Role> {
    match row.get_ref(column)?.as_str()? {
        "owner" => Ok(Role::Owner),
        "admin" => Ok(Role::Admin),
        "member" => Ok(Role::Member),
        other => Err(unknown_word(column, other)),
    }
}

pub(super) const fn audience_text(audience: Audience) -> &'static str {
    match audience {
        Audience::Everybody => "everybody",
        Audience::SharedChannel => "shared_channel",
        Audience::Contacts => "contacts",
    }
}

pub(super) fn audience(row: &Row<'_>, column: usize) -> Result<Option<Audience>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        word => match word.as_str()? {
            "everybody" => Ok(Some(Audience::Everybody)),
            "shared_channel" => Ok(Some(Audience::SharedChannel)),
            "contacts" => Ok(Some(Audience::Contacts)),
            other => Err(unknown_word(column, other)),
        },
    }
}

pub(super) const fn state_number(state: ChannelState) -> i64 {
    match state {
        ChannelState::Active => 0,
        ChannelState::Archived => 1,
        ChannelState::Deleted => 2,
    }
}

pub(super) fn state(row: &Row<'_>, column: usize) -> Result<ChannelState> {
    match row.get::<_, i64>(column)? {
        0 => Ok(ChannelState::Active),
        1 => Ok(ChannelState::Archived),
        2 => Ok(ChannelState::Deleted),
        other => Err(Error::IntegralValueOutOfRange(column, other)),
    }
}

pub(super) fn unknown_word(column: usize, word: &str) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, format!("unknown value {word:?}").into())
}

/// The error for callers after an SQL error of a read, or of a transaction that was rolled back.
pub(super) fn store_error(error: &Error) -> StoreError {
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::ToSqlConversionFailure(..) => StoreError::Corrupt(error.to_string()),
        _ if matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation)
        ) =>
        {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}
