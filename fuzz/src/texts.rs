//! Smaller decoders: bodies, entries, ids.

use std::fmt::Display;
use std::str::FromStr;

use madang_engine::body;
use madang_ids::{ChannelId, ClientMsgId, UserId};
use madang_proto::{Body, Content, Entry, json, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::requests::print;

/// A body that is accepted is within the limits, is no larger than its computed size, and has the same hash after a
/// round trip.
pub(crate) fn check_body(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(parsed) = json::read_request::<Body>(text) else { return };
    let printed = print(&parsed);
    let kept: Body = json::read(&printed).expect("what was printed can be read");
    assert_eq!(kept.data, parsed.data, "{printed}");
    assert_eq!(body::hash(&kept), body::hash(&parsed), "{printed}");
    let bytes = print(&parsed.text).len() + parsed.data.as_ref().map_or(0, |data| print(data).len());
    assert!(bytes <= body::json_bytes(&parsed), "{bytes} bytes, not {}", body::json_bytes(&parsed));
    match body::check(&parsed) {
        Ok(()) => {
            assert!(parsed.text.chars().count() <= limits::TEXT_CHARS);
            assert!(!parsed.text.is_empty() || parsed.data.is_some());
            assert!(parsed.data.is_none_or(|data| print(&data).len() <= limits::DATA_BYTES));
        }
        Err(refused) => assert!(refused.field.is_some_and(|field| refused.message.contains(&field))),
    }
}

/// An entry as the store keeps it and as clients receive it round-trips.
pub(crate) fn check_entry(data: &[u8]) {
    survives::<Content>(data);
    survives::<Entry>(data);
}

fn survives<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(parsed) = json::read::<T>(text) else { return };
    let printed = print(&parsed);
    let again: T = json::read(&printed).unwrap_or_else(|error| panic!("{printed}: {error}"));
    assert_eq!(print(&again), printed);
}

/// An id has one text, except for leading zeros and the spellings of UUIDs.
pub(crate) fn check_ids(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(id) = reads_back::<UserId>(text) {
        assert!(id.raw() >= 1 && i64::try_from(id.raw()).is_ok());
        assert_eq!(text.trim_start_matches('0'), id.to_string());
        assert_eq!(text.parse(), Ok(ChannelId::from_raw(id.raw())));
    }
    if let Some(key) = reads_back::<ClientMsgId>(text) {
        let plain = |text: &str| text.replace('-', "").to_lowercase();
        assert_eq!(plain(text), plain(&key.to_string()));
    }
}

fn reads_back<T: FromStr + Display + PartialEq>(text: &str) -> Option<T> {
    let read: T = text.parse().ok()?;
    assert!(read.to_string().parse().is_ok_and(|again: T| again == read), "{text} is not read back");
    Some(read)
}
