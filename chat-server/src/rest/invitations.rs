//! Invitations to groups.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use madang_ids::ChannelId;
use madang_proto::InvitationCard;
use madang_proto::rest::{ChannelView, Page, PageQuery};

use super::Api;
use super::extract::{Auth, Ids, Params};
use crate::refusal::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

pub(super) async fn list(
    State(api): State<Api>,
    Auth(caller): Auth,
    Params(query): Params<PageQuery>,
) -> Result<Answer<Page<InvitationCard>>> {
    Ok(Answer(api.operations().group_invitations(caller, query).await?))
}

pub(super) async fn accept(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
) -> Result<Answer<ChannelView>> {
    Ok(Answer(api.operations().accept_invitation(caller, channel).await?))
}

pub(super) async fn decline(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
) -> Result<StatusCode> {
    api.operations().decline_invitation(caller, channel).await?;
    Ok(StatusCode::NO_CONTENT)
}
