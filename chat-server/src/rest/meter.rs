//! Counts the memory that a request holds, body and answer, for its user, its address and the node, until the peer has taken the
//! answer. Also reports to the listener what the connection has not finished.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Extensions, HeaderMap, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use madang_ids::UserId;
use madang_proto::{ErrorBody, ErrorCode, limits};
use parking_lot::Mutex;

use super::Api;
use crate::gateway::ledger::{Account, FREE_BYTES};
use crate::gateway::listener::places::{Place, Unfinished};
use crate::refusal::Refusal;

/// Paths of answers whose size must not reveal their content: they hold tokens beside names that others can choose.
const SECRET: [&str; 4] = ["/v1/accounts", "/v1/sessions", "/v1/tokens", "/v1/devices"];
/// Paths of answers that say how the node is. They are counted and never refused: operators need them most when it is full.
const VITAL: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// The smallest answer that is compressed.
pub(super) const COMPRESSED_BYTES: u16 = 1_024;
/// The memory of an encoder while an answer is written.
const ENCODER_BYTES: usize = 300 * 1024;

/// Marks an answer that is made while it is read. It holds this number of bytes until its end.
#[derive(Clone, Copy)]
pub(super) struct Streamed(pub(super) usize);

/// Marks an answer that must not be compressed.
#[derive(Clone, Copy)]
struct Secret;

/// Whether an answer may be compressed.
pub(super) fn may_be_compressed(_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions) -> bool {
    extensions.get::<Secret>().is_none()
}

/// Bytes that a user's request reserves while its answer is made: by default a user can have 64 of them at the same time.
const RESERVED_BYTES: usize = 256 * 1024;
const NO_ROOM: &str =
    "the bytes in progress of this user, address or node are used up: read the waiting answers";
const NO_ROOM_RETRY_MS: u64 = 1_000;

/// The account of one request. Clones share it.
#[derive(Clone)]
pub(super) struct Meter(Arc<Inner>);

struct Inner {
    address: IpAddr,
    place: Option<Arc<Place>>,
    state: Mutex<Held>,
}

struct Held {
    account: Account,
    body_bytes: usize,
    /// Reserved for the answer while it is made.
    reserved_bytes: usize,
    /// The whole body has arrived.
    is_whole: bool,
    refusal: Option<ErrorBody>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.set(Some(Unfinished::Idle), self.address);
        }
    }
}

/// Counts one request.
pub(super) async fn meter(State(api): State<Api>, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let Some(&ConnectInfo(client)) = extensions.get::<ConnectInfo<SocketAddr>>() else {
        return next.run(request).await;
    };
    let meter = Meter::new(&api, client.ip(), extensions.get().cloned());
    let is_secret = SECRET.iter().any(|path| request.uri().path().starts_with(path));
    let is_vital = VITAL.contains(&request.uri().path());
    let is_encoded = !is_secret && request.headers().contains_key(header::ACCEPT_ENCODING);
    let mut request = request.map(|body| meter.read(body));
    request.extensions_mut().insert(meter.clone());
    let mut response = next.run(request).await;
    if is_secret {
        response.extensions_mut().insert(Secret);
    }
    meter.answer(response, is_encoded, is_vital)
}

impl Meter {
    fn new(api: &Api, address: IpAddr, place: Option<Arc<Place>>) -> Self {
        let account = api.gateway.ledger.open(address);
        let state =
            Mutex::new(Held { account, body_bytes: 0, reserved_bytes: 0, is_whole: false, refusal: None });
        Self(Arc::new(Inner { address, place, state }))
    }

    /// The caller has a valid token. Their requests keep their place, and may have bodies of the usual size.
    ///
    /// # Errors
    /// `limited` if answers that wait for the user have used up the user's bytes.
    pub(super) fn set_user(extensions: &Extensions, user: UserId) -> Result<(), ErrorBody> {
        let Some(meter) = extensions.get::<Self>() else { return Ok(()) };
        let mut held = meter.0.state.lock();
        held.account.set_user(user);
        if !held.account.try_set(RESERVED_BYTES) {
            return Err(no_room());
        }
        held.reserved_bytes = RESERVED_BYTES;
        let is_whole = held.is_whole;
        drop(held);
        if is_whole {
            meter.list(None);
        }
        Ok(())
    }

    /// The meter of a request.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Self>().cloned()
    }

    /// The reason why the meter has stopped reading the body, if it has.
    pub(super) fn take_refusal(&self) -> Option<ErrorBody> {
        self.0.state.lock().refusal.take()
    }

    fn list(&self, unfinished: Option<Unfinished>) {
        if let Some(place) = &self.0.place {
            place.set(unfinished, self.0.address);
        }
    }

    /// The whole request has arrived.
    fn finish_request(&self) {
        let mut held = self.0.state.lock();
        // The lock is released before `list`, which takes the lock of the listener's places.
        held.is_whole = true;
        let is_guest = !held.account.has_user();
        drop(held);
        self.list(is_guest.then_some(Unfinished::Guest));
    }

    fn read(&self, body: Body) -> Body {
        if body.is_end_stream() {
            self.finish_request();
            return body;
        }
        self.list(Some(Unfinished::Request));
        Body::new(Counted { body, meter: self.clone() })
    }

    /// Counts more of the body. It is held twice while its parts are put together.
    fn hold_body(&self, bytes: usize) -> Result<(), ErrorBody> {
        let mut held = self.0.state.lock();
        held.body_bytes += bytes;
        let limit = if held.account.has_user() { limits::FRAME_BYTES_IN } else { limits::GUEST_BODY_BYTES };
        if held.body_bytes > limit {
            let message = format!("the body is too large, the limit is {limit} bytes");
            return Err(ErrorBody::field(ErrorCode::TooLarge, "body", message));
        }
        let bytes = (held.body_bytes * 2).max(held.reserved_bytes);
        if held.account.try_set(bytes) { Ok(()) } else { Err(no_room()) }
    }

    /// Counts the answer until its last byte was taken.
    fn answer(self, response: Response, is_encoded: bool, is_vital: bool) -> Response {
        let bytes = match response.extensions().get::<Streamed>() {
            Some(Streamed(held)) => *held,
            None => usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX),
        };
        let has_encoder = is_encoded && bytes >= usize::from(COMPRESSED_BYTES);
        let bytes = bytes.saturating_add(if has_encoder { ENCODER_BYTES } else { 0 });
        {
            let mut held = self.0.state.lock();
            held.account.set(0);
            held.reserved_bytes = 0;
            if is_vital {
                held.account.set(bytes);
            } else if !held.account.try_set(bytes) {
                drop(held);
                return Refusal(no_room()).into_response();
            }
        }
        self.finish_request();
        response.map(|body| Body::new(Answer { body, meter: self }))
    }
}

fn no_room() -> ErrorBody {
    ErrorBody::limited(NO_ROOM, NO_ROOM_RETRY_MS)
}

/// A request body that is counted while it arrives.
struct Counted {
    body: Body,
    meter: Meter,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(Ok(frame)) = frame else {
            self.meter.finish_request();
            return Poll::Ready(frame);
        };
        let held = self.meter.hold_body(frame.data_ref().map_or(0, Bytes::len));
        if let Err(refusal) = held {
            let error = axum::Error::new(std::io::Error::other(refusal.message.clone()));
            self.meter.0.state.lock().refusal = Some(refusal);
            return Poll::Ready(Some(Err(error)));
        }
        if self.body.is_end_stream() {
            self.meter.finish_request();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body that is counted until the peer has taken it.
struct Answer {
    body: Body,
    meter: Meter,
}

/// Bytes that are counted until the connection's queue drops the last slice of them.
struct Waiting {
    bytes: Bytes,
    _meter: Meter,
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| {
                    if bytes.len() <= FREE_BYTES {
                        return bytes;
                    }
                    Bytes::from_owner(Waiting { bytes, _meter: self.meter.clone() })
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
