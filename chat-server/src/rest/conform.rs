//! The rules of HTTP for every request (RFC 9110, RFC 9112).

use axum::extract::Request;
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use madang_proto::ErrorBody;

/// Replaces a plain `OPTIONS` on its way to the routes. No route accepts it, so the answer names the methods that are accepted.
const OPTIONS: &str = "X-OPTIONS";

/// The answer to a request that breaks the rules of HTTP.
pub(super) fn refusal(request: &Request) -> Option<Response> {
    let headers = request.headers();
    if !has_host(headers, request.version()) {
        let message = "an HTTP/1.1 request must have one Host, a name with or without a port";
        return Some(refuse(StatusCode::BAD_REQUEST, "Host", message));
    }
    if values(headers, &header::CONTENT_TYPE).any(|value| !is_utf8(value)) {
        let message = "the charset of Content-Type must be UTF-8";
        return Some(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type", message));
    }
    if values(headers, &header::CONTENT_ENCODING).any(|value| !is(value, "identity")) {
        let message = "Content-Encoding is not supported: send bodies as they are";
        return Some(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Encoding", message));
    }
    if values(headers, &header::EXPECT).any(|value| !is(value, "100-continue")) {
        let message = "Expect must be 100-continue";
        return Some(refuse(StatusCode::EXPECTATION_FAILED, "Expect", message));
    }
    None
}

fn refuse(status: StatusCode, field: &str, message: &str) -> Response {
    (status, axum::Json(ErrorBody::invalid(field, message))).into_response()
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii())
}

fn is(value: &[u8], wanted: &str) -> bool {
    value.eq_ignore_ascii_case(wanted.as_bytes())
}

fn has_host(headers: &HeaderMap, version: Version) -> bool {
    let mut hosts = values(headers, &header::HOST);
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => host.is_empty() || (!host.contains(&b'@') && Authority::try_from(host).is_ok()),
        _ => false,
    }
}

/// Whether a media type names no charset, or UTF-8, or ASCII, which is a part of it.
fn is_utf8(media_type: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(media_type) else { return false };
    text.split(';').skip(1).filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
        let value = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset")
            || ["utf-8", "utf8", "us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known))
    })
}

/// Decodes percent-encoded characters that need no encoding (RFC 3986 §6.2.2.2): both spellings are the same path.
pub(crate) fn normalise<B>(request: &mut Request<B>) {
    let Some(path) = decoded(request.uri().path()) else { return };
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let Ok(path) = PathAndQuery::try_from(format!("{path}{query}")) else { return };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = Some(path);
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

fn decoded(path: &str) -> Option<String> {
    let mut pieces = path.split('%');
    let mut text = pieces.next()?.to_owned();
    let mut is_changed = false;
    for piece in pieces {
        let octet = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match octet.map(char::from).filter(|c| c.is_ascii_alphanumeric() || "-._~".contains(*c)) {
            Some(character) => {
                text.push(character);
                text.push_str(&piece[2..]);
                is_changed = true;
            }
            None => {
                text.push('%');
                text.push_str(piece);
            }
        }
    }
    is_changed.then_some(text)
}

/// Answers a plain `OPTIONS` with the methods of its path. A browser's preflight is answered elsewhere.
pub(super) async fn options(mut request: Request, next: Next) -> Response {
    let is_plain = request.method() == Method::OPTIONS
        && !request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !is_plain {
        return next.run(request).await;
    }
    if let Ok(method) = Method::from_bytes(OPTIONS.as_bytes()) {
        *request.method_mut() = method;
    }
    let response = next.run(request).await;
    // The router adds `Allow` to answers that pass here.
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        StatusCode::NO_CONTENT.into_response()
    } else {
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_characters_that_need_no_encoding_are_decoded() {
        assert_eq!(decoded("/v1/%6De").as_deref(), Some("/v1/me"));
        assert_eq!(decoded("/v1/%7euser%2fx").as_deref(), Some("/v1/~user%2fx"));
        for path in ["/v1/me", "/v1/%2e%2", "/%", "/%zz", "/%C3%A9", "/%2F"] {
            let expected = (path == "/v1/%2e%2").then_some("/v1/.%2");
            assert_eq!(decoded(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn bodies_are_utf8_for_every_media_type() {
        for good in [
            "application/json",
            "application/json; charset=UTF-8",
            "text/plain;charset=\"utf-8\"",
            "application/x-www-form-urlencoded",
            "application/json; v=1; Charset = us-ascii",
            "",
        ] {
            assert!(is_utf8(good.as_bytes()), "{good}");
        }
        for bad in ["application/json; charset=utf-16", "text/plain; CHARSET=iso-8859-1"] {
            assert!(!is_utf8(bad.as_bytes()), "{bad}");
        }
    }
}
