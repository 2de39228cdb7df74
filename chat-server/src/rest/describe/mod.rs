//! What this server says of itself to programs: REST as OpenAPI, the socket as AsyncAPI, and a page that shows both.
//!
//! Nothing is told twice: routes come with their description ([`Routes`]), handlers are read ([`Described`]), schemas are
//! derived from the types of the wire, examples are those of `docs/protocol.md`.

mod asyncapi;
mod examples;
mod openapi;
mod page;
mod routes;
mod schemas;
mod signature;

use std::sync::LazyLock;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::Value;

pub(super) use routes::{Route, Routes};

use super::{Api, table};

static OPENAPI: LazyLock<Bytes> = LazyLock::new(|| bytes(&openapi::document(&table::routes())));
static ASYNCAPI: LazyLock<Bytes> = LazyLock::new(|| bytes(&asyncapi::document()));

/// Where the descriptions are served.
pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/v1/openapi.json", get(async || json(&OPENAPI)))
        .route("/v1/asyncapi.json", get(async || json(&ASYNCAPI)))
        .merge(page::router())
}

fn bytes(document: &Value) -> Bytes {
    document.to_string().into()
}

fn json(document: &Bytes) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, document.clone()).into_response()
}
