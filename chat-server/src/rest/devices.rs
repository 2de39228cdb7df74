//! Devices.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use madang_ids::DeviceId;
use madang_proto::rest::{DeviceCard, List, NewDevice, SignedIn};

use super::Api;
use super::extract::{Auth, Ids, Json};
use crate::refusal::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

pub(super) async fn list(State(api): State<Api>, Auth(caller): Auth) -> Result<Answer<List<DeviceCard>>> {
    Ok(Answer(api.operations().devices(caller).await?))
}

pub(super) async fn add(
    State(api): State<Api>,
    Auth(caller): Auth,
    Json(request): Json<NewDevice>,
) -> Result<(StatusCode, Answer<SignedIn>)> {
    Ok((StatusCode::CREATED, Answer(api.operations().add_device(caller, request).await?)))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(device): Ids<DeviceId>,
) -> Result<StatusCode> {
    api.operations().revoke_device(caller, device).await?;
    Ok(StatusCode::NO_CONTENT)
}
