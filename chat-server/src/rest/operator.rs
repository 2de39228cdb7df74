//! Operators: hot channels, configuration at run time, what operators did.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use madang_ids::ChannelId;
use madang_proto::rest::{
    ActCard, ActQuery, AlertHistory, AlertTrace, Board, ChannelName, ConfigChange, DeadLetterCard,
    DeadLetterQuery, EndOverride, HotDetail, OperatorConfig, OperatorScope, OperatorSignIn, OperatorToken,
    OverrideAnswer, OverrideWish, Page, SendAgain, SentAgain, ShowName,
};
use madang_proto::{ErrorBody, ErrorCode};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Api;
use super::access::PATIENCE;
use super::extract::{Guest, Ids, Json, Params, bearer};
use crate::operators::{Operator, Who};
use crate::refusal::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

/// The WebSocket subprotocol of the live board.
const SUBPROTOCOL: &str = "madang.operator.v1.json";
/// The bytes of the frame with the token.
const HELLO_BYTES: usize = 8 * 1024;

/// The calls of operators are served on this listener: the request came by the operators' own one, or that of clients is allowed to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OperatorListener;

/// An operator who sees.
pub(super) struct Watching(Operator);

/// An operator who acts.
pub(super) struct Acting(Who);

/// Nobody in particular, on a listener that serves operators.
pub(super) struct Anybody;

/// The version in `If-Match`. It is judged after the body, whose errors come first.
pub(super) struct IfMatch(Option<u64>);

/// An answer with its version as `ETag`.
pub(super) struct Tagged<T>(u64, T);

impl FromRequestParts<Api> for Anybody {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let config = &api.operations().config;
        let is_open = config.operator.public || config.server.addr.ip().is_loopback();
        if !is_open && parts.extensions.get::<OperatorListener>().is_none() {
            return Err(ErrorBody::not_found("this path").into());
        }
        check_origin(&parts.headers)?;
        Guest::from_request_parts(parts, api).await?;
        Ok(Self)
    }
}

impl FromRequestParts<Api> for Watching {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        Anybody::from_request_parts(parts, api).await?;
        let Some(token) = bearer(&parts.headers) else {
            let message = "Authorization: Bearer with the token of an operator is missing";
            return Err(ErrorBody::field(ErrorCode::Unauthorized, "Authorization", message).into());
        };
        Ok(Self(api.operations().operators.identify(token)?))
    }
}

impl FromRequestParts<Api> for Acting {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let Watching(operator) = Watching::from_request_parts(parts, api).await?;
        if operator.scope < OperatorScope::Act {
            return Err(ErrorBody::forbidden("the scope of this operator is view").into());
        }
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let from = peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
        Ok(Self(Who { name: operator.name, from }))
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let mut values = parts.headers.get_all(header::IF_MATCH).iter();
        let value = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
        let version = value.and_then(|value| value.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
        Ok(Self(version))
    }
}

impl IfMatch {
    fn version(&self) -> Result<u64> {
        self.0.ok_or_else(|| {
            let message = "If-Match must occur once, with the ETag of the configuration that is replaced, such as \"7\"";
            ErrorBody::invalid("If-Match", message).into()
        })
    }
}

impl<T: serde::Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let Self(version, body) = self;
        let mut response = Answer(body).into_response();
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

/// On the operators' own listener: lets through what is theirs, and marks it.
pub(super) async fn only_operators(mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_theirs = path == "/operator"
        || ["/operator/", "/v1/operator/"].iter().any(|prefix| path.starts_with(prefix))
        || ["/healthz", "/readyz", "/metrics"].contains(&path);
    if !is_theirs {
        return Refusal(ErrorBody::not_found("this path")).into_response();
    }
    request.extensions_mut().insert(OperatorListener);
    next.run(request).await
}

/// Pages of other origins may not call: their visitors may be operators. Programs that are no browsers send no `Origin`.
fn check_origin(headers: &HeaderMap) -> Result<()> {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let mut origins = headers.get_all(header::ORIGIN).iter().map(HeaderValue::as_bytes);
    let is_own = |origin: &[u8]| {
        let authority = origin.strip_prefix(b"https://").or_else(|| origin.strip_prefix(b"http://"));
        authority.is_some() && authority == host
    };
    if origins.all(is_own) {
        return Ok(());
    }
    Err(ErrorBody::forbidden("pages of other origins may not make the calls of operators").into())
}

pub(super) async fn token(
    State(api): State<Api>,
    _: Anybody,
    Json(request): Json<OperatorSignIn>,
) -> Result<Answer<OperatorToken>> {
    Ok(Answer(api.operations().operators.sign_in(&request)?))
}

pub(super) async fn board(State(api): State<Api>, _: Watching) -> Result<Answer<Board>> {
    Ok(Answer(api.watched.board().await))
}

pub(super) async fn channel(
    State(api): State<Api>,
    _: Watching,
    Ids(channel): Ids<ChannelId>,
) -> Result<Answer<HotDetail>> {
    api.operations().channel(channel).await?;
    Ok(Answer(api.watched.channel(channel).await))
}

pub(super) async fn set_override(
    State(api): State<Api>,
    Acting(who): Acting,
    Ids(channel): Ids<ChannelId>,
    Json(wish): Json<OverrideWish>,
) -> Result<Answer<OverrideAnswer>> {
    api.operations().channel(channel).await?;
    // One that has left may be named as long as its override holds: it may come back.
    let kept = api.operations().heats.away_from(channel);
    if let Some(node) = wish.away_from.as_deref().filter(|node| kept.as_deref() != Some(*node)) {
        api.operations().homes.check_moves_from(node)?;
    }
    Ok(Answer(api.operations().operators.set_override(&who, channel, &wish).await?))
}

pub(super) async fn end_override(
    State(api): State<Api>,
    Acting(who): Acting,
    Ids(channel): Ids<ChannelId>,
    Json(end): Json<EndOverride>,
) -> Result<StatusCode> {
    api.operations().operators.end_override(&who, channel, &end.why).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn show_name(
    State(api): State<Api>,
    Acting(who): Acting,
    Ids(channel): Ids<ChannelId>,
    Json(ask): Json<ShowName>,
) -> Result<Answer<ChannelName>> {
    Ok(Answer(api.operations().operators.show_name(&who, channel, &ask.why).await?))
}

pub(super) async fn alerts(
    State(api): State<Api>,
    _: Watching,
    Params(AlertTrace { handle, channel_id, seq }): Params<AlertTrace>,
) -> Result<Answer<AlertHistory>> {
    Ok(Answer(api.operations().why_alerted_of(&handle, channel_id, seq).await?))
}

pub(super) async fn dead_letters(
    State(api): State<Api>,
    _: Watching,
    Params(DeadLetterQuery { after }): Params<DeadLetterQuery>,
) -> Result<Answer<Page<DeadLetterCard>>> {
    Ok(Answer(api.operations().dead_letters(after.unwrap_or(0)).await?))
}

pub(super) async fn send_again(
    State(api): State<Api>,
    Acting(who): Acting,
    Json(ask): Json<SendAgain>,
) -> Result<Answer<SentAgain>> {
    let (operations, (answer, sent)) = (Arc::clone(api.operations()), oneshot::channel());
    // A task: an alert is out of the store before it is in the queue, and a caller who goes away must not end it in between.
    api.gateway.tasks.spawn("send_again", async move {
        // The caller may have gone.
        let _ = answer.send(operations.send_again(&who, &ask).await);
    });
    let sent = sent.await.map_err(|_| ErrorBody::unavailable("the server is ending", 1_000))?;
    Ok(Answer(sent?))
}

pub(super) async fn config(State(api): State<Api>, _: Watching) -> Result<Tagged<OperatorConfig>> {
    let config = api.operations().operators.config();
    Ok(Tagged(config.version, config))
}

pub(super) async fn put_config(
    State(api): State<Api>,
    Acting(who): Acting,
    tag: IfMatch,
    Json(change): Json<ConfigChange>,
) -> Result<Tagged<OperatorConfig>> {
    let config = api.operations().operators.change_config(&who, tag.version()?, &change).await?;
    Ok(Tagged(config.version, config))
}

pub(super) async fn acts(
    State(api): State<Api>,
    _: Watching,
    Params(query): Params<ActQuery>,
) -> Result<Answer<Page<ActCard>>> {
    Ok(Answer(api.operations().operators.acts(query).await?))
}

/// `GET /v1/operator/live`: the board once a second. A browser cannot send a header with a WebSocket, so the token comes in the first
/// frame; an address with a token would stand in logs.
pub(super) async fn live(
    State(api): State<Api>,
    _: Anybody,
    upgrade: std::result::Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => upgrade
            .protocols([SUBPROTOCOL])
            .max_message_size(HELLO_BYTES)
            .max_frame_size(HELLO_BYTES)
            .on_upgrade(move |socket| show(api, socket)),
        Err(rejection) => Refusal(ErrorBody::invalid("Upgrade", rejection.to_string())).into_response(),
    }
}

#[derive(Deserialize)]
struct LiveHello {
    token: String,
}

async fn show(api: Api, mut socket: WebSocket) {
    let drain = api.gateway.tasks.drain().clone();
    let end = tokio::select! {
        end = watch(&api, &mut socket) => end,
        () = drain.draining() => End::Away,
    };
    let (code, reason) = end.code();
    let frame = CloseFrame { code, reason: reason.into() };
    // The peer may have gone.
    let _ = timeout(PATIENCE, socket.send(Message::Close(Some(frame)))).await;
}

/// Why an operator does not watch any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// There is no valid token: none came, it has ended, or the operator was removed.
    Token,
    Crowded,
    /// The node is draining, or the peer has gone or does not read. A browser comes again with the same token.
    Away,
}

impl End {
    /// The close code and reason (RFC 6455 §7.4). A page asks for the secret again after 4401 only.
    const fn code(self) -> (u16, &'static str) {
        match self {
            Self::Token => (4401, "sign in again"),
            Self::Crowded => (4429, "too many operators watch this node"),
            Self::Away => (1001, "come again"),
        }
    }
}

/// Sends each new state as long as the token is valid and the peer reads.
async fn watch(api: &Api, socket: &mut WebSocket) -> End {
    let Some(token) = hello(socket).await else { return End::Token };
    let is_valid = || api.operations().operators.identify(&token).is_ok();
    if !is_valid() {
        return End::Token;
    }
    let Some(mut viewer) = api.watched.watch() else { return End::Crowded };
    loop {
        tokio::select! {
            frame = viewer.next() => {
                let Some(frame) = frame else { return End::Away };
                if !is_valid() {
                    return End::Token;
                }
                let sent = socket.send(Message::Text((*frame).into()));
                if !matches!(timeout(PATIENCE, sent).await, Ok(Ok(()))) {
                    return End::Away;
                }
            }
            received = socket.recv() => {
                if !matches!(received, Some(Ok(_))) {
                    return End::Away;
                }
            }
        }
    }
}

/// The token in the first frame.
async fn hello(socket: &mut WebSocket) -> Option<String> {
    let Ok(Some(Ok(Message::Text(text)))) = timeout(PATIENCE, socket.recv()).await else { return None };
    let hello: LiveHello = serde_json::from_str(&text).ok()?;
    Some(hello.token)
}
