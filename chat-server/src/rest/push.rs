//! Alerts.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use madang_ids::DeviceId;
use madang_proto::AlertSettings;
use madang_proto::rest::{
    AlertHistory, AlertQuery, List, NewAlertSettings, PushInfo, PushRegistered, PushRegistration,
    PushSubscription, PushTest,
};

use super::Api;
use super::extract::{Auth, Ids, Json, Params};
use crate::refusal::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

pub(super) async fn info(State(api): State<Api>, Auth(_): Auth) -> Result<Answer<PushInfo>> {
    Ok(Answer(api.operations().push_info()))
}

pub(super) async fn subscribe(
    State(api): State<Api>,
    Auth(caller): Auth,
    Json(request): Json<PushRegistration>,
) -> Result<Answer<PushRegistered>> {
    Ok(Answer(api.operations().subscribe_device(caller, request).await?))
}

pub(super) async fn list(
    State(api): State<Api>,
    Auth(caller): Auth,
) -> Result<Answer<List<PushSubscription>>> {
    Ok(Answer(api.operations().push_subscriptions(caller).await?))
}

pub(super) async fn remove(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(device): Ids<DeviceId>,
) -> Result<StatusCode> {
    api.operations().unsubscribe_device(caller, device).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn test(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(device): Ids<DeviceId>,
) -> Result<Answer<PushTest>> {
    Ok(Answer(api.operations().test_push(caller, device).await?))
}

pub(super) async fn settings(State(api): State<Api>, Auth(caller): Auth) -> Result<Answer<AlertSettings>> {
    Ok(Answer(api.operations().alert_settings(caller).await?))
}

pub(super) async fn put_settings(
    State(api): State<Api>,
    Auth(caller): Auth,
    Json(settings): Json<NewAlertSettings>,
) -> Result<Answer<AlertSettings>> {
    Ok(Answer(api.operations().put_alert_settings(caller, settings.into()).await?))
}

pub(super) async fn why(
    State(api): State<Api>,
    Auth(caller): Auth,
    Params(query): Params<AlertQuery>,
) -> Result<Answer<AlertHistory>> {
    Ok(Answer(api.operations().why_alerted(caller, query).await?))
}
