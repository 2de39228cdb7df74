//! Extractors of handlers: the caller, a JSON body whose errors name the field, ids in paths, queries.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use madang_engine::session::Identity;
use madang_ids::UserId;
use madang_proto::rest::parse_body;
use madang_proto::{ErrorBody, ErrorCode, json, limits};
use serde::de::DeserializeOwned;
use serde::de::value::Error as QueryError;

use super::meter::Meter;
use super::{Api, access};
use crate::operations::{Caller, Operations};
use crate::refusal::{OperationError, Refusal};

impl Api {
    pub(super) fn operations(&self) -> &Arc<Operations> {
        &self.gateway.operations
    }
}

/// The caller, from `Authorization: Bearer`. Counted against the rate of the user.
pub(super) struct Auth(pub(super) Caller);

impl FromRequestParts<Api> for Auth {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        let identity = verify(parts, api).await?;
        let checked = api.operations().check_signed_in(identity.user_id, identity.device_id).await;
        count(parts, api, checked, identity.user_id).await?;
        Ok(Self(caller(identity)))
    }
}

/// The user of a genuine token, before the store is asked whether the device was revoked since: for calls that are refused in crowds for
/// other reasons. Counted against the rate of the user.
pub(super) struct Signed(Identity);

impl FromRequestParts<Api> for Signed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        let identity = verify(parts, api).await?;
        let checked = api.operations().check_known(identity.device_id).await;
        count(parts, api, checked, identity.user_id).await?;
        Ok(Self(identity))
    }
}

impl Signed {
    /// The user of the token.
    pub(super) const fn user(&self) -> UserId {
        self.0.user_id
    }

    /// The caller, if the device was not revoked.
    ///
    /// # Errors
    /// `revoked`; `unauthorized` for an unknown device.
    pub(super) async fn caller(self, api: &Api) -> Result<Caller, Refusal> {
        api.operations().check_signed_in(self.0.user_id, self.0.device_id).await?;
        Ok(caller(self.0))
    }
}

/// What a genuine token says.
async fn verify(parts: &mut Parts, api: &Api) -> Result<Identity, Refusal> {
    let refusal = match bearer(&parts.headers).map(|token| api.operations().verify_token(token)) {
        Some(Ok(identity)) => return Ok(identity),
        Some(Err(error)) => error.into(),
        None => {
            let message = "Authorization: Bearer with an access token is missing";
            ErrorBody::field(ErrorCode::Unauthorized, "Authorization", message)
        }
    };
    Err(refuse(parts, api, refusal).await)
}

/// Counts a call against the rate of its user, or refuses it.
async fn count(
    parts: &mut Parts,
    api: &Api,
    checked: Result<(), OperationError>,
    user: UserId,
) -> Result<(), Refusal> {
    if let Err(error) = checked {
        return Err(refuse(parts, api, error.into()).await);
    }
    access::name_user(user);
    Meter::set_user(&parts.extensions, user)?;
    Ok(api.operations().callers.take_request(user)?)
}

/// The refusal of a call without a valid token. It is counted against the rate of its address, and may be refused for that.
async fn refuse(parts: &mut Parts, api: &Api, why: ErrorBody) -> Refusal {
    match Guest::from_request_parts(parts, api).await {
        Ok(_) => Refusal(why),
        Err(limited) => limited,
    }
}

const fn caller(identity: Identity) -> Caller {
    Caller { user_id: identity.user_id, device_id: identity.device_id, origin: None }
}

/// The token of the only `Authorization` header. The name of a scheme is case-insensitive (RFC 9110 §11.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// A request for a public page, or for a path that does not exist. Counted against a rate of its address.
pub(super) struct Visitor;

impl FromRequestParts<Api> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        // A request that a test has made by hand has no peer.
        if let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() {
            api.operations().callers.take_page(peer.ip())?;
        }
        Ok(Self)
    }
}

/// A caller without a token. Counted against the rate of its address.
pub(super) struct Guest(pub(super) SocketAddr);

impl FromRequestParts<Api> for Guest {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        let peer = ConnectInfo::<SocketAddr>::from_request_parts(parts, api).await;
        let ConnectInfo(peer) =
            peer.map_err(|_| ErrorBody::new(ErrorCode::Internal, "internal server error"))?;
        api.operations().callers.take_address(peer.ip())?;
        Ok(Self(peer))
    }
}

/// The `Idempotency-Key`, if there is one.
pub(super) struct IdempotencyKey(pub(super) Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let max = limits::IDEMPOTENCY_KEY_BYTES;
        match value.to_str() {
            Ok(key) if values.next().is_none() && (8..=max).contains(&key.len()) => {
                Ok(Self(Some(key.to_owned())))
            }
            _ => {
                let message = format!(
                    "Idempotency-Key must occur once, with 8 to {max} visible ASCII characters, such as a UUID"
                );
                Err(Refusal(ErrorBody::invalid("Idempotency-Key", message)))
            }
        }
    }
}

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let meter = Meter::of(request.extensions());
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let refusal = meter.as_ref().and_then(Meter::take_refusal);
            refusal.unwrap_or_else(|| body_refusal(&rejection))
        })?;
        Ok(Self(parse_body(&bytes)?))
    }
}

fn body_refusal(rejection: &BytesRejection) -> ErrorBody {
    if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!("the body is too large, the limit is {} bytes", limits::FRAME_BYTES_IN);
        return ErrorBody::field(ErrorCode::TooLarge, "body", message);
    }
    ErrorBody::invalid("body", "reading the body failed")
}

/// A query string, with errors in our own words.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        refuse_unknown_alone::<T>(parts.uri.query().unwrap_or_default())?;
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|rejection| Refusal(query_refusal(&rejection)))
    }
}

/// A query with only unknown parameters was meant for something else, as a body with only unknown fields is.
fn refuse_unknown_alone<T: DeserializeOwned>(query: &str) -> Result<(), ErrorBody> {
    let Some(fields) = json::fields_of::<T>() else { return Ok(()) };
    let mut names = query
        .split('&')
        .map(|pair| pair.split('=').next().unwrap_or_default())
        .filter(|name| !name.is_empty());
    let Some(first) = names.clone().next() else { return Ok(()) };
    if names.any(|name| fields.contains(&name)) {
        return Ok(());
    }
    let known = fields.join(", ");
    Err(ErrorBody::invalid(
        first,
        format!("{first}: is unknown, and no other field is given; known are {known}"),
    ))
}

fn query_refusal(rejection: &QueryRejection) -> ErrorBody {
    let causes = std::iter::successors(rejection.source(), |cause| (*cause).source());
    let mut errors =
        causes.filter_map(|cause| cause.downcast_ref::<serde_path_to_error::Error<QueryError>>());
    match errors.next() {
        // The error of a missing parameter has no path, but its message has the name.
        Some(error) if error.path().iter().next().is_some() => {
            let name = error.path().to_string();
            let message = format!("{name}: {}", error.inner());
            ErrorBody::invalid(&name, message)
        }
        _ => ErrorBody::invalid("query", format!("query: {}", rejection.body_text())),
    }
}

/// Ids in the path.
pub(super) struct Ids<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Ids<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        let refusal = |rejection: axum::extract::rejection::PathRejection| {
            ErrorBody::invalid("path", format!("path: {}", rejection.body_text()))
        };
        path.map(|Path(path)| Self(path)).map_err(|rejection| Refusal(refusal(rejection)))
    }
}
