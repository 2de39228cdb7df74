//! Accounts, sessions, tokens, profiles, blocks.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use madang_ids::UserId;
use madang_proto::UserCard;
use madang_proto::rest::{
    Deletion, List, Login, Me, Page, PageQuery, PasswordChange, ProfileChange, Refresh, ServerInfo, SignUp,
    SignedIn, UserIds, UserSearch,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Api;
use super::extract::{Auth, Guest, IdempotencyKey, Ids, Json, Params};
use crate::refusal::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

pub(super) async fn sign_up(
    State(api): State<Api>,
    Guest(peer): Guest,
    IdempotencyKey(key): IdempotencyKey,
    Json(request): Json<SignUp>,
) -> Result<(StatusCode, Answer<SignedIn>)> {
    let _seat = api.operations().callers.take_login(peer.ip(), None)?;
    let signed_in = api.operations().sign_up(request, key.as_deref()).await?;
    Ok((StatusCode::CREATED, Answer(signed_in)))
}

pub(super) async fn log_in(
    State(api): State<Api>,
    Guest(peer): Guest,
    IdempotencyKey(key): IdempotencyKey,
    Json(request): Json<Login>,
) -> Result<Answer<SignedIn>> {
    Ok(Answer(api.operations().log_in(request, key.as_deref(), peer.ip()).await?))
}

pub(super) async fn log_out(State(api): State<Api>, Auth(caller): Auth) -> Result<StatusCode> {
    api.operations().revoke_device(caller, caller.device_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn refresh(
    State(api): State<Api>,
    Guest(peer): Guest,
    Json(request): Json<Refresh>,
) -> Result<Answer<SignedIn>> {
    Ok(Answer(api.operations().refresh(request, peer.ip()).await?))
}

pub(super) async fn me(State(api): State<Api>, Auth(caller): Auth) -> Result<Answer<Me>> {
    Ok(Answer(api.operations().me(caller).await?))
}

pub(super) async fn change_password(
    State(api): State<Api>,
    Auth(caller): Auth,
    Json(change): Json<PasswordChange>,
) -> Result<StatusCode> {
    api.operations().change_password(caller, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn delete_account(
    State(api): State<Api>,
    Auth(caller): Auth,
    Json(request): Json<Deletion>,
) -> Result<StatusCode> {
    api.operations().delete_account(caller, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn server(State(api): State<Api>, _: Guest) -> Result<Answer<ServerInfo>> {
    Ok(Answer(api.operations().server_info()))
}

pub(super) async fn change_me(
    State(api): State<Api>,
    Auth(caller): Auth,
    Json(change): Json<ProfileChange>,
) -> Result<Answer<Me>> {
    Ok(Answer(api.operations().change_profile(caller, change).await?))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ByHandle {
    handle: String,
}

pub(super) async fn find_user(
    State(api): State<Api>,
    Auth(_): Auth,
    Params(query): Params<ByHandle>,
) -> Result<Answer<UserCard>> {
    Ok(Answer(api.operations().user_by_handle(&query.handle).await?))
}

pub(super) async fn look_up(
    State(api): State<Api>,
    Auth(_): Auth,
    Params(query): Params<UserIds>,
) -> Result<Answer<List<UserCard>>> {
    Ok(Answer(api.operations().users(&query).await?))
}

pub(super) async fn search(
    State(api): State<Api>,
    Auth(caller): Auth,
    Params(query): Params<UserSearch>,
) -> Result<Answer<List<UserCard>>> {
    Ok(Answer(api.operations().search_people(caller, &query).await?))
}

pub(super) async fn user(
    State(api): State<Api>,
    Auth(_): Auth,
    Ids(user): Ids<UserId>,
) -> Result<Answer<UserCard>> {
    Ok(Answer(api.operations().user(user).await?))
}

pub(super) async fn blocks(
    State(api): State<Api>,
    Auth(caller): Auth,
    Params(query): Params<PageQuery>,
) -> Result<Answer<Page<UserCard>>> {
    Ok(Answer(api.operations().blocks(caller, query).await?))
}

pub(super) async fn block(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(user): Ids<UserId>,
) -> Result<StatusCode> {
    api.operations().block(caller, user).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unblock(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(user): Ids<UserId>,
) -> Result<StatusCode> {
    api.operations().unblock(caller, user).await?;
    Ok(StatusCode::NO_CONTENT)
}
