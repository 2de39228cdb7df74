//! Descriptions of this server for programs: REST as OpenAPI, the socket as AsyncAPI, and a page that shows both.
//!
//! Nothing is written twice: routes are added with their description ([`Routes`]), handlers are read ([`Described`]), schemas are
//! derived from the types of the wire, examples are those of `docs/protocol.md`.

mod asyncapi;
mod examples;
mod openapi;
mod page;
mod prepared;
mod routes;
mod schemas;
mod signature;

use std::sync::LazyLock;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use serde_json::Value;

pub(super) use prepared::Prepared;
pub(super) use routes::{Route, Routes};
pub(super) use signature::Lines;

use super::extract::Visitor;
use super::{Api, table};

static OPENAPI: LazyLock<Prepared> = LazyLock::new(|| json(&openapi::document(&table::routes())));
static ASYNCAPI: LazyLock<Prepared> = LazyLock::new(|| json(&asyncapi::document()));

/// The routes of the descriptions.
pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/v1/openapi.json", get(async |_: Visitor, headers: HeaderMap| OPENAPI.answer(&headers)))
        .route("/v1/asyncapi.json", get(async |_: Visitor, headers: HeaderMap| ASYNCAPI.answer(&headers)))
        .merge(page::router())
}

fn json(document: &Value) -> Prepared {
    Prepared::new("application/json", document.to_string())
}
