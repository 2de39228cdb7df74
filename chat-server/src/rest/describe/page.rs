//! The page that shows the descriptions and tries calls. Three files of ours: nothing is loaded from elsewhere, nothing
//! runs that is not in them.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::super::Api;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The page and what it loads.
pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/docs", get(async || file("text/html; charset=utf-8", include_str!("page/page.html"))))
        .route(
            "/docs/page.js",
            get(async || file("text/javascript; charset=utf-8", include_str!("page/page.js"))),
        )
        .route("/docs/page.css", get(async || file("text/css; charset=utf-8", include_str!("page/page.css"))))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}
