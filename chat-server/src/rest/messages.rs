//! Messages, history, read markers.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use madang_ids::ChannelId;
use madang_proto::Ack;
use madang_proto::rest::{HistoryPage, HistoryQuery, MarkRead, SendMessage};

use super::Api;
use super::extract::{Auth, Ids, Json, Params};
use crate::refusal::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

pub(super) async fn history(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
    Params(query): Params<HistoryQuery>,
) -> Result<Answer<HistoryPage>> {
    Ok(Answer(api.operations().history(caller, channel, &query).await?))
}

pub(super) async fn send(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
    Json(request): Json<SendMessage>,
) -> Result<Answer<Ack>> {
    let SendMessage { client_msg_id, body } = request;
    Ok(Answer(api.operations().send_and_wait(caller, channel, client_msg_id, body).await?))
}

pub(super) async fn mark_read(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
    Json(request): Json<MarkRead>,
) -> Result<StatusCode> {
    api.operations().mark_read(caller, channel, request.seq).await?;
    Ok(StatusCode::NO_CONTENT)
}
