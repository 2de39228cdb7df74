//! The page that shows the descriptions and can make calls. It has three files of its own: nothing is loaded from elsewhere, and
//! no other script runs.

use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::super::Api;
use super::super::extract::Visitor;
use super::prepared::Prepared;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

macro_rules! page_file {
    ($kind:literal, $path:literal) => {{
        static FILE: LazyLock<Prepared> = LazyLock::new(|| Prepared::new($kind, include_str!($path)));
        get(async |_: Visitor, headers: HeaderMap| file(&FILE, &headers))
    }};
}

/// The page and the files that it loads.
pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/docs", page_file!("text/html; charset=utf-8", "page/page.html"))
        .route("/docs/page.js", page_file!("text/javascript; charset=utf-8", "page/page.js"))
        .route("/docs/page.css", page_file!("text/css; charset=utf-8", "page/page.css"))
}

fn file(file: &Prepared, headers: &HeaderMap) -> Response {
    let policies = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (policies, file.answer(headers)).into_response()
}
