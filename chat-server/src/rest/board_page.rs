//! The operators' page: built from `web/`, and a part of this program.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use madang_proto::ErrorBody;

use super::Api;
use super::describe::Prepared;
use super::operator::Anybody;
use crate::refusal::Refusal;

/// Names below `web/dist`, and their content. Empty if the program was built without `cargo xtask web`.
static BUILT: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/web_files.rs"));

const INDEX: &str = "index.html";
/// Names in this folder contain a hash of the content.
const HASHED: &str = "assets/";
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types svelte-trusted-html";

/// What is served instead of a page that was not built.
const PLAIN: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Madang operator</title>\
    <h1>This program was built without its pages</h1>\
    <p>With Node 20.19 or later, run <code>cargo xtask web</code>, and build the program again. Until then the same is in the \
    terminal: <code>madang operator top</code>, <code>madang config</code>; and in the calls below /v1/operator, which \
    <a href=\"/docs\">the description of the REST API</a> lists.</p></html>";

static FILES: LazyLock<HashMap<&str, Prepared>> = LazyLock::new(|| {
    let index = BUILT.iter().any(|(name, _)| *name == INDEX);
    let plain = (!index).then_some(&(INDEX, PLAIN));
    let files = BUILT.iter().chain(plain);
    files.map(|(name, content)| (*name, Prepared::new(kind_of(name), (*content).to_owned()))).collect()
});

pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/operator", get(async |_: Anybody| Redirect::permanent("/operator/")))
        .route("/operator/", get(async |_: Anybody, headers: HeaderMap| file(INDEX, &headers)))
        .route("/operator/{*name}", get(named))
}

async fn named(_: Anybody, Path(name): Path<String>, headers: HeaderMap) -> Response {
    file(&name, &headers)
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = FILES.get(name) else {
        return Refusal(ErrorBody::not_found("this path")).into_response();
    };
    let policies = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let mut response = (policies, file.answer(headers)).into_response();
    if name.starts_with(HASHED) {
        response.headers_mut().insert(header::CACHE_CONTROL, FOR_EVER);
    }
    response
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_in_any_case() {
        let files = &*FILES;
        assert!(files.contains_key(INDEX));
        assert_eq!(kind_of("assets/index-1.js"), "text/javascript; charset=utf-8");
        assert_eq!(file("nonsense", &HeaderMap::new()).status(), 404);
        assert_eq!(file("../Cargo.toml", &HeaderMap::new()).status(), 404);
        let index = file(INDEX, &HeaderMap::new());
        assert_eq!(index.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
        assert_eq!(index.headers().get(header::CACHE_CONTROL), Some(&HeaderValue::from_static("no-cache")));
    }
}
