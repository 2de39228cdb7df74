//! Channels, members, the snapshot.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use madang_ids::{ChannelId, Seq, UserId};
use madang_proto::ChannelSettings;
use madang_proto::rest::{
    AddMembers, Added, ChannelChange, ChannelSettingsChange, ChannelView, ChannelsQuery, MemberCard,
    NewChannel, Page, PageQuery, Snapshot, SnapshotQuery,
};

use super::Api;
use super::extract::{Auth, IdempotencyKey, Ids, Json, Params};
use crate::refusal::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

pub(super) async fn create(
    State(api): State<Api>,
    Auth(caller): Auth,
    IdempotencyKey(key): IdempotencyKey,
    Json(request): Json<NewChannel>,
) -> Result<(StatusCode, Answer<ChannelView>)> {
    let view = api.operations().create_channel(caller, request, key.as_deref()).await?;
    Ok((StatusCode::CREATED, Answer(view)))
}

pub(super) async fn list(
    State(api): State<Api>,
    Auth(caller): Auth,
    Params(query): Params<ChannelsQuery>,
) -> Result<Answer<Page<ChannelView>>> {
    Ok(Answer(api.operations().channels(caller, query).await?))
}

pub(super) async fn view(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
) -> Result<Answer<ChannelView>> {
    Ok(Answer(api.operations().channel_view(caller, channel).await?))
}

pub(super) async fn members(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
    Params(query): Params<PageQuery>,
) -> Result<Answer<Page<MemberCard>>> {
    Ok(Answer(api.operations().members(caller, channel, query).await?))
}

pub(super) async fn add_members(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
    Json(request): Json<AddMembers>,
) -> Result<Answer<Added>> {
    Ok(Answer(api.operations().add_members(caller, channel, request).await?))
}

pub(super) async fn remove_member(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, user)): Ids<(ChannelId, UserId)>,
) -> Result<StatusCode> {
    api.operations().remove_member(caller, channel, user).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn snapshot(
    State(api): State<Api>,
    Auth(caller): Auth,
    Json(query): Json<SnapshotQuery>,
) -> Result<Answer<Snapshot>> {
    Ok(Answer(api.operations().snapshot(caller, query).await?))
}

pub(super) async fn change(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
    Json(change): Json<ChannelChange>,
) -> Result<Answer<ChannelView>> {
    Ok(Answer(api.operations().change_channel(caller, channel, change).await?))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
) -> Result<StatusCode> {
    api.operations().delete_channel(caller, channel).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn change_settings(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
    Json(change): Json<ChannelSettingsChange>,
) -> Result<Answer<ChannelSettings>> {
    Ok(Answer(api.operations().change_channel_settings(caller, channel, change).await?))
}

pub(super) async fn pin(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, seq)): Ids<(ChannelId, Seq)>,
) -> Result<StatusCode> {
    api.operations().pin(caller, channel, seq).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unpin(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, seq)): Ids<(ChannelId, Seq)>,
) -> Result<StatusCode> {
    api.operations().unpin(caller, channel, seq).await?;
    Ok(StatusCode::NO_CONTENT)
}
