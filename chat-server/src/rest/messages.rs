//! Messages, history, read markers.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use madang_ids::{ChannelId, Seq};
use madang_proto::rest::{
    ChannelMessage, EditMessage, HistoryPage, HistoryQuery, MarkRead, Page, PageQuery, SendMessage,
};
use madang_proto::{Ack, Changed, UserCard};

use super::Api;
use super::extract::{Auth, Ids, Json, Params};
use crate::operations::Change;
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

pub(super) async fn mentions(
    State(api): State<Api>,
    Auth(caller): Auth,
    Params(query): Params<PageQuery>,
) -> Result<Answer<Page<ChannelMessage>>> {
    Ok(Answer(api.operations().mentions(caller, query).await?))
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

pub(super) async fn edit(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, seq)): Ids<(ChannelId, Seq)>,
    Json(EditMessage { version, body }): Json<EditMessage>,
) -> Result<Answer<Changed>> {
    let change = Change::Edit { body, version };
    Ok(Answer(api.operations().change_and_wait(caller, channel, seq, change).await?))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, seq)): Ids<(ChannelId, Seq)>,
) -> Result<Answer<Changed>> {
    Ok(Answer(api.operations().change_and_wait(caller, channel, seq, Change::Delete).await?))
}

pub(super) async fn hide(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, seq)): Ids<(ChannelId, Seq)>,
) -> Result<StatusCode> {
    api.operations().hide_message(caller, channel, seq).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn react(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, seq, emoji)): Ids<(ChannelId, Seq, String)>,
) -> Result<Answer<Changed>> {
    let change = Change::React { emoji, on: true };
    Ok(Answer(api.operations().change_and_wait(caller, channel, seq, change).await?))
}

pub(super) async fn unreact(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, seq, emoji)): Ids<(ChannelId, Seq, String)>,
) -> Result<Answer<Changed>> {
    let change = Change::React { emoji, on: false };
    Ok(Answer(api.operations().change_and_wait(caller, channel, seq, change).await?))
}

pub(super) async fn reactors(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, seq, emoji)): Ids<(ChannelId, Seq, String)>,
    Params(query): Params<PageQuery>,
) -> Result<Answer<Page<UserCard>>> {
    Ok(Answer(api.operations().reactors(caller, channel, seq, &emoji, query).await?))
}
