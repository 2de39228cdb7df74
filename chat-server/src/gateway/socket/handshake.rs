//! The opening handshake of RFC 6455 §4.2: checks the request and makes the answer that opens the socket.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use madang_proto::{ErrorBody, SUBPROTOCOL_JSON};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The only version of the WebSocket protocol that this server supports.
const VERSION: &str = "13";
/// A key is 16 bytes in base64: 22 characters and two characters of padding.
const KEY_CHARACTERS: usize = 22;

/// Why a request does not open a socket.
#[derive(Debug)]
pub(in crate::gateway) enum Refused {
    /// The request does not ask for an upgrade to WebSocket, or asks for another version. Answered by 426 with the supported
    /// version.
    UpgradeRequired(ErrorBody),
    /// A header is missing, repeated or wrong.
    Invalid(ErrorBody),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Invalid(error) => crate::refusal::Refusal(error).into_response(),
            Self::UpgradeRequired(error) => {
                let headers = [
                    (header::UPGRADE, "websocket"),
                    (header::CONNECTION, "Upgrade"),
                    (header::SEC_WEBSOCKET_VERSION, VERSION),
                ];
                (StatusCode::UPGRADE_REQUIRED, headers, axum::Json(error)).into_response()
            }
        }
    }
}

/// The answer to a request that may open a socket.
///
/// # Errors
/// The request is not a valid handshake for `madang.v1.json`.
pub(in crate::gateway) fn answer(request: &Parts) -> Result<Response, Refused> {
    let headers = &request.headers;
    let is_upgrade = lists(headers, &header::CONNECTION, "upgrade")
        && lists(headers, &header::UPGRADE, "websocket")
        && request.method == Method::GET
        && request.version >= Version::HTTP_11;
    if !is_upgrade {
        let message =
            "this path is a WebSocket: GET over HTTP/1.1 with Connection: Upgrade and Upgrade: websocket";
        return Err(Refused::UpgradeRequired(ErrorBody::invalid("Upgrade", message)));
    }
    if one(headers, &header::SEC_WEBSOCKET_VERSION) != Some(VERSION.as_bytes()) {
        let message = format!("Sec-WebSocket-Version must be {VERSION}");
        return Err(Refused::UpgradeRequired(ErrorBody::invalid("Sec-WebSocket-Version", message)));
    }
    let key = one(headers, &header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).ok_or_else(|| {
        let message = "Sec-WebSocket-Key must occur once, 16 bytes in base64";
        Refused::Invalid(ErrorBody::invalid("Sec-WebSocket-Key", message))
    })?;
    if !offers(headers, SUBPROTOCOL_JSON) {
        let message = format!("offer the subprotocol {SUBPROTOCOL_JSON}");
        return Err(Refused::Invalid(ErrorBody::invalid("Sec-WebSocket-Protocol", message)));
    }
    let accept = HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| {
        Refused::Invalid(ErrorBody::invalid("Sec-WebSocket-Key", "Sec-WebSocket-Key has no valid answer"))
    })?;
    let headers = [
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL_JSON)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response())
}

/// The comma-separated elements of a header, over all of its lines.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// The names of subprotocols are case-sensitive.
fn offers(headers: &HeaderMap, wanted: &str) -> bool {
    elements(headers, &header::SEC_WEBSOCKET_PROTOCOL).any(|element| element == wanted.as_bytes())
}

/// The value of a header that must be present exactly once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    Some(value.as_bytes().trim_ascii())
}

fn is_key(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|key| {
        key.len() == KEY_CHARACTERS
            && key.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    })
}
