//! Which node a client opens its socket on.

use axum::Json as Answer;
use axum::extract::State;
use madang_discovery::SOCKET_PATH;
use madang_proto::rest::{AssignedNode, Assignment, Connect};
use madang_proto::{ErrorBody, ErrorCode, limits};

use super::Api;
use super::extract::{Auth, Json};
use crate::refusal::Refusal;

pub(super) async fn assign(
    State(api): State<Api>,
    Auth(caller): Auth,
    Json(Connect { region }): Json<Connect>,
) -> Result<Answer<Assignment>, Refusal> {
    if region.as_ref().is_some_and(|region| region.chars().count() > limits::REGION_CHARS) {
        let message = format!("region: has more than {} characters", limits::REGION_CHARS);
        return Err(ErrorBody::field(ErrorCode::TooLarge, "region", message).into());
    }
    Ok(Answer(match api.gateway.discovery() {
        Some(discovery) => discovery.assign(caller.user_id, region.as_deref()),
        None => this_process(),
    }))
}

/// One process: the socket is on the server that was asked, and needs no ticket.
fn this_process() -> Assignment {
    let node = AssignedNode { url: SOCKET_PATH.to_owned(), expires_at: None };
    Assignment { nodes: vec![node], wait: None }
}
