//! Contacts and presence.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use madang_ids::{ChannelId, UserId};
use madang_proto::rest::{Page, PageQuery};
use madang_proto::{ContactCard, PresenceCounts, PresenceList, PresenceQuery};

use super::Api;
use super::extract::{Auth, Ids, Params};
use crate::refusal::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

pub(super) async fn list(
    State(api): State<Api>,
    Auth(caller): Auth,
    Params(query): Params<PageQuery>,
) -> Result<Answer<Page<ContactCard>>> {
    Ok(Answer(api.operations().contacts(caller, query).await?))
}

pub(super) async fn put(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(user): Ids<UserId>,
) -> Result<Answer<ContactCard>> {
    Ok(Answer(api.operations().put_contact(caller, user).await?))
}

pub(super) async fn remove(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(user): Ids<UserId>,
) -> Result<StatusCode> {
    api.operations().remove_contact(caller, user).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn presence(
    State(api): State<Api>,
    Auth(caller): Auth,
    Params(query): Params<PresenceQuery>,
) -> Result<Answer<PresenceList>> {
    Ok(Answer(api.operations().presence_of(caller, &query.user_ids).await?))
}

pub(super) async fn of_channel(
    State(api): State<Api>,
    Auth(caller): Auth,
    Ids(channel): Ids<ChannelId>,
) -> Result<Answer<PresenceCounts>> {
    Ok(Answer(api.operations().channel_presence(caller, channel).await?))
}
