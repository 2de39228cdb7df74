//! Devices.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use madang_ids::DeviceId;
use madang_proto::rest::{DeviceCard, DeviceChange, List, NewDevice, RevokeAll, SignedIn};

use super::Api;
use super::extract::{Auth, IdempotencyKey, Ids, Json, Params};
use crate::refusal::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

pub(super) async fn list(State(api): State<Api>, Auth(caller): Auth) -> Result<Answer<List<DeviceCard>>> {
    Ok(Answer(api.operations().devices(caller).await?))
}

pub(super) async fn add(
    State(api): State<Api>,
    Auth(caller): Auth,
    IdempotencyKey(key): IdempotencyKey,
    Json(request): Json<NewDevice>,
) -> Result<(StatusCode, Answer<SignedIn>)> {
    let signed_in = api.operations().add_device(caller, request, key.as_deref()).await?;
    Ok((StatusCode::CREATED, Answer(signed_in)))
}

pub(super) async fn rename(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(device): Ids<DeviceId>,
    Json(change): Json<DeviceChange>,
) -> Result<StatusCode> {
    api.operations().rename_device(caller, device, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn revoke_all(
    State(api): State<Api>,
    Auth(caller): Auth,
    Params(query): Params<RevokeAll>,
) -> Result<StatusCode> {
    api.operations().log_out_everywhere(caller, query.keep_this).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(device): Ids<DeviceId>,
) -> Result<StatusCode> {
    api.operations().revoke_device(caller, device).await?;
    Ok(StatusCode::NO_CONTENT)
}
