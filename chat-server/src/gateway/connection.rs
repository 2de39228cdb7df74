//! The task of one socket: reads frames, drives the session, writes what waits.
//!
//! Two lives: before `hello` nobody knows who it is; afterwards it is in the registry, and live items come.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Error;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{FutureExt, SinkExt, StreamExt};
use madang_engine::session::{Identity, Opening, Session, Step};
use madang_ids::ConnectionId;
use madang_proto::{CloseReason, ErrorBody, ErrorCode, RequestId, Resume, ServerFrame, Welcome, limits};
use tokio::time::timeout;

use super::accept::Seat;
use super::encode::{self, Frame};
use super::outbound::Outbound;
use super::{Gateway, catch_up, requests};
use crate::operations::{Caller, SyncPage};

/// Written between two looks at whether the peer takes anything.
const FLUSH_BYTES: usize = 64 * 1024;
/// Frames taken before what they brought is written.
const FRAMES_AT_ONCE: usize = 32;
/// How long a close frame may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A socket and its session.
pub(super) struct Connection {
    pub(super) gateway: Arc<Gateway>,
    socket: WebSocket,
    session: Session,
    id: ConnectionId,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The peer has gone.
    Gone,
    /// We close it.
    Close(CloseReason),
}

/// A connection among those of its user; leaves them when dropped, however its task ends.
struct Registered {
    gateway: Arc<Gateway>,
    outbound: Arc<Outbound>,
}

impl Registered {
    fn new(gateway: &Arc<Gateway>, outbound: Arc<Outbound>) -> Self {
        gateway.operations.inbox.attach(outbound.user_id);
        gateway.registry.add(Arc::clone(&outbound));
        Self { gateway: Arc::clone(gateway), outbound }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.gateway.registry.remove(&self.outbound);
        self.gateway.operations.inbox.detach(self.outbound.user_id);
    }
}

/// Runs one socket until it ends. An `async fn` would keep what it is given twice, as arguments and as locals.
pub(super) fn run(gateway: Arc<Gateway>, socket: WebSocket, seat: Seat) -> impl Future<Output = ()> + Send {
    let number = gateway.next_connection.fetch_add(1, Ordering::Relaxed);
    let session = Session::new(&gateway.session, gateway.operations.clock.now_ms());
    let mut connection = Connection { gateway, socket, session, id: ConnectionId::from_raw(number) };
    async move {
        let end = match Box::pin(connection.greet()).await {
            Ok((registered, page)) => connection.live(&registered.outbound, page).await,
            Err(end) => end,
        };
        if let End::Close(reason) = end {
            Box::pin(connection.close(reason)).await;
        }
        drop(seat);
    }
}

impl Connection {
    /// Until `welcome`: at most ten seconds.
    async fn greet(&mut self) -> Result<(Registered, SyncPage), End> {
        let patience = Duration::from_secs(limits::HELLO_SECONDS);
        let gateway = Arc::clone(&self.gateway);
        tokio::select! {
            // The time begins before the first frame is read.
            biased;
            () = gateway.operations.clock.sleep(patience) => Err(End::Close(CloseReason::HelloTimeout)),
            () = gateway.tasks.drain().draining() => Err(End::Close(CloseReason::Draining)),
            greeted = self.hello() => greeted,
        }
    }

    async fn hello(&mut self) -> Result<(Registered, SyncPage), End> {
        loop {
            let message = self.socket.recv().await;
            match self.handle(message)? {
                Step::Wait => {}
                Step::Answer(frame) => self.write_now(encode::frame(&frame)).await?,
                Step::Close(reason) => return Err(End::Close(reason)),
                Step::Verify { token } => {
                    let verified = self.gateway.operations.identify(&token).await;
                    match verified {
                        Ok(identity) => match self.session.handle_verified(Some(identity)) {
                            Some(opening) => return self.open(opening).await,
                            None => return Err(End::Close(CloseReason::Internal)),
                        },
                        Err(error) => {
                            let retry = error.code != ErrorCode::Unauthorized;
                            let id = self.session.handle_refused();
                            self.write_now(encode::frame(&ServerFrame::Error { id, error })).await?;
                            let reason =
                                if retry { CloseReason::Internal } else { CloseReason::Unauthorized };
                            return Err(End::Close(reason));
                        }
                    }
                }
                // The session runs nothing before it is open.
                Step::Run { .. } => return Err(End::Close(CloseReason::ProtocolViolation)),
            }
        }
    }

    /// Registers first, reads the inbox next: what comes in between is dropped by its position.
    async fn open(&mut self, opening: Opening) -> Result<(Registered, SyncPage), End> {
        let Opening { id, identity, cursor } = opening;
        let (user_id, device_id) = (identity.user_id, identity.device_id);
        let outbound = Arc::new(Outbound::new(user_id, device_id, self.id.raw(), cursor));
        let registered = Registered::new(&self.gateway, outbound);
        let operations = &self.gateway.operations;
        if let Err(error) = operations.check_device(user_id, device_id).await {
            let reason = match error.code {
                ErrorCode::Unauthorized => CloseReason::DeviceRevoked,
                _ => CloseReason::Internal,
            };
            self.write_now(encode::frame(&ServerFrame::Error { id, error })).await?;
            return Err(End::Close(reason));
        }
        match operations.sync_page(user_id, cursor).await {
            Ok(page) => {
                let resume = match &page {
                    SyncPage::Items { .. } => Resume::Resumed,
                    SyncPage::SnapshotRequired { reason, .. } => Resume::SnapshotRequired { reason: *reason },
                };
                if resume == Resume::Resumed {
                    operations.metrics.resumed.inc();
                }
                let welcome = Welcome {
                    id,
                    user_id,
                    device_id,
                    heartbeat_interval_ms: operations.config.gateway.heartbeat_ms,
                    token_expires_at: identity.expires_at,
                    at: operations.clock.now_ms(),
                    resume,
                };
                let frame = encode::frame(&ServerFrame::Welcome(Box::new(welcome)));
                self.write_now(frame).await.map(|()| (registered, page))
            }
            Err(error) => {
                let frame = encode::frame(&ServerFrame::Error { id, error });
                self.write_now(frame).await.and(Err(End::Close(CloseReason::Internal)))
            }
        }
    }

    /// From `welcome` to the end.
    async fn live(&mut self, outbound: &Arc<Outbound>, first: SyncPage) -> End {
        match self.live_until_end(outbound, first).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn live_until_end(
        &mut self,
        outbound: &Arc<Outbound>,
        first: SyncPage,
    ) -> Result<std::convert::Infallible, End> {
        let config = self.gateway.operations.config.gateway;
        self.look_again(outbound);
        Box::pin(catch_up::take_page(self, outbound, first)).await?;
        loop {
            self.write_waiting(outbound).await?;
            // Only who has nothing unread here can be silent.
            let has_all = self.take_waiting(outbound).await?;
            let now = self.gateway.operations.clock.now_ms();
            let due = self.session.handle_tick(&self.gateway.session, now);
            if let Some(reason) = due.filter(|reason| has_all || *reason != CloseReason::Silent) {
                return Err(End::Close(reason));
            }
            if outbound.is_reading() {
                Box::pin(catch_up::read_page(self, outbound)).await?;
                continue;
            }
            let may_read = outbound.may_read(config.requests_in_flight, config.outbound_bytes);
            tokio::select! {
                biased;
                () = outbound.woken() => {}
                message = self.socket.recv(), if may_read => self.take(outbound, message).await?,
            }
        }
    }

    /// Takes the frames that are here already, a few of them; also between the pages of a long catch-up. `true` if
    /// there are no more.
    async fn take_waiting(&mut self, outbound: &Arc<Outbound>) -> Result<bool, End> {
        let config = self.gateway.operations.config.gateway;
        for _ in 0..FRAMES_AT_ONCE {
            if !outbound.may_read(config.requests_in_flight, config.outbound_bytes) {
                return Ok(false);
            }
            match self.socket.recv().now_or_never() {
                Some(message) => self.take(outbound, message).await?,
                None => return Ok(true),
            }
        }
        outbound.wake();
        Ok(false)
    }

    /// A message came: the session decides, and what it decides is carried out.
    async fn take(
        &mut self,
        outbound: &Arc<Outbound>,
        message: Option<Result<Message, Error>>,
    ) -> Result<(), End> {
        let step = self.handle(message)?;
        match step {
            Step::Wait => {}
            Step::Answer(frame) => {
                if matches!(&*frame, ServerFrame::Error { error, .. } if error.code == ErrorCode::Limited) {
                    self.gateway.operations.metrics.limited.inc();
                }
                outbound.push(encode::frame(&frame));
            }
            Step::Close(reason) => return Err(End::Close(reason)),
            Step::Verify { .. } => return Err(End::Close(CloseReason::ProtocolViolation)),
            Step::Run { identity, id, frame } => {
                let origin = Some(self.id);
                let caller = Caller { user_id: identity.user_id, device_id: identity.device_id, origin };
                let gateway = Arc::clone(&self.gateway);
                if let Some(token) =
                    Box::pin(requests::carry_out(&gateway, outbound, caller, id.clone(), frame)).await
                {
                    self.renew(outbound, id, token);
                }
            }
        }
        self.look_again(outbound);
        Ok(())
    }

    fn look_again(&self, outbound: &Outbound) {
        outbound.set_look_at(self.session.look_at(&self.gateway.session));
    }

    /// `auth` brought a valid token: it must name the same user and device.
    fn renew(&mut self, outbound: &Outbound, id: Option<RequestId>, identity: Identity) {
        let renewed = if self.session.handle_renewed(identity) {
            Ok(requests::Answer::Done)
        } else {
            Err(ErrorBody::invalid("token", "token names another user or device"))
        };
        requests::answer(outbound, id, renewed);
    }

    fn handle(&mut self, message: Option<Result<Message, Error>>) -> Result<Step, End> {
        let now = self.gateway.operations.clock.now_ms();
        match message {
            Some(Ok(Message::Text(text))) => {
                Ok(self.session.handle_text(&self.gateway.session, text.as_str(), now))
            }
            Some(Ok(Message::Binary(_))) => Ok(self.session.handle_binary(&self.gateway.session, now)),
            // The library answers pings by itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Step::Wait),
            Some(Ok(Message::Close(_))) | None => Err(End::Gone),
            Some(Err(error)) => Err(fault(&error)),
        }
    }

    /// Writes what waits, then one cursor for all of it, and flushes.
    pub(super) async fn write_waiting(&mut self, outbound: &Outbound) -> Result<(), End> {
        let batch = outbound.take();
        if batch.frames.is_empty() && batch.cursor.is_none() {
            return batch.close.map_or(Ok(()), |reason| Err(End::Close(reason)));
        }
        let mut bytes = 0;
        for frame in batch.frames {
            bytes += frame.as_str().len();
            self.feed(frame).await?;
            if bytes >= FLUSH_BYTES {
                self.gateway.operations.metrics.writes.inc();
                self.flush().await?;
                bytes = 0;
            }
        }
        if let Some(cursor) = batch.cursor {
            self.feed(encode::cursor(cursor)).await?;
        }
        self.gateway.operations.metrics.writes.inc();
        self.flush().await?;
        batch.close.map_or(Ok(()), |reason| Err(End::Close(reason)))
    }

    async fn write_now(&mut self, frame: Frame) -> Result<(), End> {
        self.feed(frame).await?;
        self.flush().await
    }

    async fn feed(&mut self, frame: Frame) -> Result<(), End> {
        let patience = Duration::from_secs(self.gateway.operations.config.gateway.write_seconds);
        written(timeout(patience, self.socket.feed(Message::Text(frame))).await)
    }

    async fn flush(&mut self) -> Result<(), End> {
        let patience = Duration::from_secs(self.gateway.operations.config.gateway.write_seconds);
        written(timeout(patience, self.socket.flush()).await)
    }

    async fn close(&mut self, reason: CloseReason) {
        let frame = CloseFrame { code: reason.code(), reason: reason.text().into() };
        let closing = async {
            if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                // Until the peer has answered: a socket that is closed with unread bytes loses what was written.
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        if timeout(CLOSE_PATIENCE, closing).await.is_err() {
            tracing::debug!(connection.id = %self.id, "the peer did not answer the close");
        }
    }
}

fn written(result: Result<Result<(), Error>, tokio::time::error::Elapsed>) -> Result<(), End> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Close(CloseReason::Silent)),
    }
}

/// What the library refuses is closed with the code of RFC 6455; the session can be resumed.
fn fault(error: &Error) -> End {
    let text = error.to_string();
    if text.contains("UTF-8") || text.contains("utf-8") {
        End::Close(CloseReason::InvalidUtf8)
    } else if text.contains("too long") || text.contains("too big") || text.contains("Space limit") {
        End::Close(CloseReason::TooBig)
    } else {
        End::Gone
    }
}
