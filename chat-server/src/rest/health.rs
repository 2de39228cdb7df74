//! Health, metrics, and the answers of unknown paths and methods.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use madang_proto::{ErrorBody, ErrorCode};
use madang_service::Readiness;
use serde_json::{Value, json};

use super::Api;
use super::extract::Visitor;
use crate::refusal::Refusal;

pub(super) async fn hello(_: Visitor) -> Json<Value> {
    Json(json!({
        "name": "madang",
        "version": env!("CARGO_PKG_VERSION"),
        "rest": "/v1",
        "socket": "/v1/ws",
        "docs": "/docs",
    }))
}

/// Whether the process is alive.
pub(super) async fn healthz(_: Visitor) -> &'static str {
    "ok\n"
}

/// Whether the process accepts work.
pub(super) async fn readyz(_: Visitor, State(api): State<Api>) -> Response {
    let Readiness { ready, reasons } = api.health.readiness();
    let shed_level = api.gateway.operations.shedding.level();
    let body = Json(json!({ "ready": ready, "reasons": reasons, "shed_level": shed_level }));
    if ready {
        return body.into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response()
}

pub(super) async fn metrics(_: Visitor, State(api): State<Api>) -> Response {
    match api.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, madang_service::METRICS_CONTENT_TYPE)], text).into_response(),
        Err(_) => Refusal(ErrorBody::new(ErrorCode::Internal, "internal server error")).into_response(),
    }
}

pub(super) async fn not_found(_: Visitor) -> Refusal {
    Refusal(ErrorBody::not_found("this path"))
}

pub(super) async fn not_allowed(_: Visitor) -> Response {
    let error = ErrorBody::invalid("method", "this path does not support this method");
    (StatusCode::METHOD_NOT_ALLOWED, Json(error)).into_response()
}
