//! The export of the caller's own data. The body is made while it is read.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use madang_proto::rest::ExportLine;

use super::Api;
use super::describe::Lines;
use super::extract::Auth;
use super::meter::Streamed;
use crate::operations::Export;
use crate::refusal::Refusal;

/// Bytes that an export holds: lines that are being made, and lines that wait for the client.
const HELD_BYTES: usize = 512 * 1024;

pub(super) async fn own(State(api): State<Api>, Auth(caller): Auth) -> Result<Lines<ExportLine>, Refusal> {
    let export = api.operations().export(caller)?;
    Ok(Lines::new(answer(export)))
}

/// A body whose next lines are read when the lines before them were taken.
fn answer(export: Export) -> Response {
    let lines = stream::unfold(Some(export), |export| async {
        let mut export = export?;
        match export.next().await {
            Ok(Some(lines)) => Some((Ok(Bytes::from(lines)), Some(export))),
            Ok(None) => {
                let end = export.counts();
                tracing::info!(user.id = %end.user_id, end.lines, end.messages, "export complete");
                None
            }
            Err(error) => {
                let end = export.counts();
                tracing::warn!(user.id = %end.user_id, end.lines, %error, "export aborted");
                // Without its last chunk HTTP treats the body as incomplete.
                Some((Err(std::io::Error::other(error)), None))
            }
        }
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    // The compressor polls once more after the end.
    let mut response = (kind, Body::from_stream(lines.fuse())).into_response();
    response.extensions_mut().insert(Streamed(HELD_BYTES));
    response
}
