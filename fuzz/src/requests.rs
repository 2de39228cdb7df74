//! Requests of clients: frames of the socket, bodies of REST.

use std::fmt::Debug;

use madang_proto::rest::{
    AddMembers, Login, MarkRead, NewChannel, NewDevice, ProfileChange, Refresh, SendMessage, SignUp,
    SnapshotQuery, parse_body,
};
use madang_proto::{ErrorBody, Request, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bound of an error, in bytes: it must not grow with the request.
const ERROR_BYTES: usize = 4_096;

/// A text frame is either a valid request, which round-trips, or is refused with field and id.
pub(crate) fn check_frame(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Request::parse(text) {
        Ok(request) => {
            let printed = print(&request);
            let again = Request::parse(&printed).unwrap_or_else(|refused| panic!("{printed}: {refused:?}"));
            assert_eq!(print(&again), printed);
        }
        Err(refused) => {
            check_error(&refused.error);
            assert!(refused.id.is_none_or(|id| id.0.chars().count() <= limits::REQUEST_ID_CHARS));
        }
    }
}

/// The first byte selects the type of the body.
pub(crate) fn check_rest(data: &[u8]) {
    let Some((&kind, body)) = data.split_first() else { return };
    match kind % 10 {
        0 => check_one::<SignUp>(body),
        1 => check_one::<Login>(body),
        2 => check_one::<Refresh>(body),
        3 => check_one::<NewDevice>(body),
        4 => check_one::<ProfileChange>(body),
        5 => check_one::<NewChannel>(body),
        6 => check_one::<AddMembers>(body),
        7 => check_one::<SendMessage>(body),
        8 => check_one::<MarkRead>(body),
        _ => check_one::<SnapshotQuery>(body),
    }
}

fn check_one<T: DeserializeOwned + Serialize + Debug>(body: &[u8]) {
    match parse_body::<T>(body) {
        Ok(parsed) => {
            let printed = print(&parsed);
            let again = parse_body::<T>(printed.as_bytes());
            let again = again.unwrap_or_else(|refused| panic!("{printed}: {refused:?}"));
            assert_eq!(print(&again), printed);
        }
        Err(refused) => check_error(&refused),
    }
}

fn check_error(error: &ErrorBody) {
    assert!(error.field.as_ref().is_some_and(|field| !field.is_empty()), "no field: {error:?}");
    assert!(!error.message.is_empty(), "no message: {error:?}");
    assert!(print(error).len() <= ERROR_BYTES, "{} bytes of error", print(error).len());
}

pub(crate) fn print(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what was read can be printed")
}
