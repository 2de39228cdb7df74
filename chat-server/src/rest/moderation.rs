//! Roles, bans and mutes.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use madang_engine::home::RestrictionKind;
use madang_ids::{ChannelId, UserId};
use madang_proto::rest::{BanCard, MemberChange, Page, PageQuery, Restrict};

use super::Api;
use super::extract::{Auth, Ids, Json, Params};
use crate::refusal::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

pub(super) async fn change_member(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, user)): Ids<(ChannelId, UserId)>,
    Json(change): Json<MemberChange>,
) -> Result<StatusCode> {
    api.operations().give_role(caller, channel, user, change.role).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn bans(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
    Params(query): Params<PageQuery>,
) -> Result<Answer<Page<BanCard>>> {
    Ok(Answer(api.operations().bans(caller, channel, query).await?))
}

pub(super) async fn ban(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, user)): Ids<(ChannelId, UserId)>,
    Json(restrict): Json<Restrict>,
) -> Result<StatusCode> {
    api.operations().restrict(caller, channel, user, RestrictionKind::Ban, Some(restrict)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unban(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, user)): Ids<(ChannelId, UserId)>,
) -> Result<StatusCode> {
    api.operations().restrict(caller, channel, user, RestrictionKind::Ban, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn mute(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, user)): Ids<(ChannelId, UserId)>,
    Json(restrict): Json<Restrict>,
) -> Result<StatusCode> {
    api.operations().restrict(caller, channel, user, RestrictionKind::Mute, Some(restrict)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unmute(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids((channel, user)): Ids<(ChannelId, UserId)>,
) -> Result<StatusCode> {
    api.operations().restrict(caller, channel, user, RestrictionKind::Mute, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
