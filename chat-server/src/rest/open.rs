//! Open channels: finding and joining.

use axum::Json;
use axum::extract::State;
use madang_ids::ChannelId;
use madang_proto::rest::{ChannelView, OpenChannel, OpenChannelQuery, Page};

use super::Api;
use super::extract::{Auth, Ids, Params, Signed};
use crate::refusal::Refusal;

pub(super) async fn find(
    State(api): State<Api>,
    Auth(caller): Auth,
    Params(query): Params<OpenChannelQuery>,
) -> Result<Json<Page<OpenChannel>>, Refusal> {
    Ok(Json(api.operations().find_open(caller, query).await?))
}

pub(super) async fn join(
    State(api): State<Api>,
    signed: Signed,
    Ids(channel): Ids<ChannelId>,
) -> Result<Json<ChannelView>, Refusal> {
    let operations = api.operations();
    operations.admit_join(signed.user(), channel)?;
    let caller = signed.caller(&api).await?;
    Ok(Json(operations.join(caller, channel).await?))
}
