//! The task of one socket: reads frames, drives the session, writes pages of the inbox.
//!
//! It has two phases. Before `hello` is answered the user is unknown; afterwards the connection is in the registry and receives
//! live items.

pub(super) mod catch_up;
mod hello;
pub(super) mod outbound;
pub(super) mod page_reads;
pub(super) mod registration;
pub(super) mod registry;
pub(super) mod requests;
pub(super) mod retry;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_engine::session::{Identity, Opening, Session, Step};
use madang_ids::{ConnectionId, DeviceId, NodeRun, Origin, UserId};
use madang_proto::{
    ClientFrame, CloseReason, ErrorBody, ErrorCode, RequestId, Resume, ServerFrame, Welcome, limits,
};
use tokio::time::{timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

use self::outbound::{Outbound, Written};
use self::registration::Registered;
use self::retry::{Interrupted, Patience};
use super::Gateway;
use super::delivery::encode;
use super::delivery::presence::departure;
use super::socket::accept::SocketPlace;
use super::socket::echo;
use super::socket::pipe::Pipe;
use super::socket::{ConnectionEnd, Received, Socket};
use crate::operations::{Caller, Standing, SyncPage};

/// Frames that are handled in a row before their answers are written and other tasks get their turn.
const FRAMES_AT_ONCE: usize = 32;
/// How long the exchange of close frames may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A socket and its session.
pub(super) struct Connection {
    pub(super) gateway: Arc<Gateway>,
    socket: Socket,
    session: Session,
    /// A page of the inbox that was read and is not wholly written.
    pub(super) page: Option<Box<SyncPage>>,
    /// Set while the catch-up waits to retry after a failure of the store.
    pub(super) interrupted: Option<Interrupted>,
    /// The cursor of `hello`.
    pub(super) standing: Standing,
}

/// A request that the session has let through.
struct Request {
    caller: Caller,
    id: Option<RequestId>,
    frame: ClientFrame,
}

/// How many of the frames that had already arrived were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// All of them.
    All,
    /// There may be more.
    Some,
    /// There may be more, but too many requests or answers wait.
    Stalled,
}

/// Runs one socket until it ends. Not an `async fn`, because its future would hold the arguments twice: as arguments and as
/// locals.
pub(super) fn run(
    gateway: Arc<Gateway>,
    number: u64,
    pipe: Pipe,
    read_ahead: Bytes,
    mut seat: SocketPlace,
) -> impl Future<Output = ()> + Send {
    let account = gateway.ledger.open(seat.address());
    let outbound = Arc::new(Outbound::new(number, pipe, Arc::clone(gateway.lanes.of(number)), account));
    let session = Session::new(&gateway.session, gateway.now());
    let socket = Socket::new(outbound, &read_ahead);
    let mut connection =
        Connection { gateway, socket, session, page: None, interrupted: None, standing: Standing::New };
    let ticket = seat.take_ticket();
    async move {
        let (span, end) = if echo::IS_ON {
            (span(number), Box::pin(echo::run(&mut connection)).await)
        } else {
            match Box::pin(connection.open_session(&seat, ticket).instrument(span(number))).await {
                Ok(registered) => connection.live(registered).await,
                Err(end) => (span(number), end),
            }
        };
        Box::pin(connection.end(end).instrument(span)).await;
        drop(seat);
    }
}

/// The span with the log fields of a connection. It is made for each piece of work and not kept, because most connections only
/// wait and a span takes some hundred bytes.
fn span(number: u64) -> Span {
    tracing::error_span!("connection", connection.id = number, user.id = Empty)
}

impl Connection {
    pub(super) fn outbound(&self) -> &Arc<Outbound> {
        self.socket.outbound()
    }

    fn span_of(&self, user: UserId) -> Span {
        tracing::error_span!("connection", connection.id = self.outbound().number, user.id = %user)
    }

    /// The device of the session, once it is open.
    pub(super) fn device(&self) -> Result<DeviceId, ConnectionEnd> {
        let identity = self.session.identity();
        identity.map(|identity| identity.device_id).ok_or(ConnectionEnd::Close(CloseReason::Internal))
    }

    pub(super) async fn recv(&mut self) -> Result<Message, ConnectionEnd> {
        self.socket.recv().await
    }

    /// Runs until `welcome` is sent: `hello` has ten seconds to arrive, and the answer waits for the store for a bounded time.
    async fn open_session(
        &mut self,
        seat: &SocketPlace,
        ticket: Option<Box<str>>,
    ) -> Result<Registered, ConnectionEnd> {
        let patience = Duration::from_secs(limits::HELLO_SECONDS);
        let gateway = Arc::clone(&self.gateway);
        let token = tokio::select! {
            // The order of the branches: the timer must start before the first frame is read.
            biased;
            () = gateway.operations.clock.sleep(patience) => Err(ConnectionEnd::Close(CloseReason::HelloTimeout)),
            () = gateway.tasks.drain().draining() => Err(ConnectionEnd::Close(CloseReason::Draining)),
            () = seat.evicted() => Err(ConnectionEnd::Close(CloseReason::HelloTimeout)),
            token = self.hello() => token,
        }?;
        tokio::select! {
            biased;
            () = gateway.tasks.drain().draining() => Err(ConnectionEnd::Close(CloseReason::Draining)),
            () = seat.evicted() => Err(ConnectionEnd::Close(CloseReason::HelloTimeout)),
            greeted = self.answer_hello(&token, ticket.as_deref()) => greeted.inspect(|_| seat.keep()),
        }
    }

    /// Frames beyond the rate limit are not read. The timeout of `hello` then ends the connection.
    async fn next_before_hello(&mut self) -> Result<Message, ConnectionEnd> {
        loop {
            tokio::task::yield_now().await;
            let here = self.socket.try_recv();
            self.charge_others(&here);
            if self.session.is_paused(self.gateway.now()) {
                std::future::pending::<()>().await;
            }
            match here? {
                Received::Message(message) => return Ok(message),
                Received::More => {}
                Received::Nothing => self.socket.readable().await?,
            }
        }
    }

    /// Counts frames that are not messages of their own, such as fragments and pings, against the rate of frames.
    fn charge_others(&mut self, here: &Result<Received, ConnectionEnd>) {
        let is_charged = matches!(here, Ok(Received::Message(Message::Text(_) | Message::Binary(_))));
        let others = self.socket.take_frames().saturating_sub(u32::from(is_charged));
        let now = self.gateway.now();
        self.session.handle_other_frames(&self.gateway.session, others, now);
    }

    /// Registers the connection first and reads the inbox next, so that no row falls between. Rows that come by both ways are
    /// dropped by their position.
    async fn open(&mut self, opening: Opening, mut patience: Patience) -> Result<Registered, ConnectionEnd> {
        let Opening { id, identity, cursor } = opening;
        let (user_id, device_id) = (identity.user_id, identity.device_id);
        Span::current().record("user.id", display(user_id));
        let operations = Arc::clone(&self.gateway.operations);
        let standing = operations.standing(user_id, cursor.as_ref());
        self.standing = standing;
        self.outbound().open(user_id, standing.position());
        self.outbound().set_user(user_id);
        let registered = Registered::new(&self.gateway, self.outbound(), identity).await;
        // After the registration: a revocation that this check does not see yet finds the connection in the registry and closes
        // it.
        while let Err(error) = operations.check_device(user_id, device_id).await {
            if !patience.waits_after(&error).await {
                return self.refuse(id, error.into()).await;
            }
        }
        // Also after the registration: rows committed before it are in this page, later ones arrive as live items.
        let page = loop {
            match operations.sync_page(user_id, standing).await {
                Ok(page) => break page,
                Err(error) if patience.waits_after(&error).await => {}
                Err(error) => return self.refuse(id, error.into()).await,
            }
        };
        self.welcome(id, identity, page.resume()).await?;
        match page {
            // Everything but live delivery works. The catch-up begins when the inbox answers.
            SyncPage::Unavailable => {
                operations.metrics.degraded.inc();
                let now = operations.clock.elapsed();
                self.interrupted = Some(Interrupted::new(None, now, self.outbound().number));
            }
            page => self.page = Some(Box::new(page)),
        }
        Ok(registered)
    }

    async fn welcome(
        &mut self,
        id: Option<RequestId>,
        identity: Identity,
        resume: Resume,
    ) -> Result<(), ConnectionEnd> {
        let operations = &self.gateway.operations;
        if resume == Resume::Resumed {
            operations.metrics.resumed.inc();
        }
        let welcome = Welcome {
            id,
            user_id: identity.user_id,
            device_id: identity.device_id,
            heartbeat_interval_ms: operations.config.gateway.heartbeat_ms,
            token_expires_at: identity.expires_at,
            at: operations.clock.now_ms(),
            resume,
        };
        self.write_now(&ServerFrame::Welcome(Box::new(welcome))).await?;
        self.socket.welcome();
        Ok(())
    }

    /// Runs from `welcome` to the end. Returns a span that names the user, for the last log line.
    async fn live(&mut self, mut registered: Registered) -> (Span, ConnectionEnd) {
        let user = registered.user_id;
        if let Some(identity) = self.session.identity() {
            registered.go_up(identity.device_id);
        }
        let end = match self.live_until_end(user).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        registered.departure = Some(departure(end));
        (self.span_of(user), end)
    }

    async fn live_until_end(&mut self, user: UserId) -> Result<Infallible, ConnectionEnd> {
        loop {
            let taken = self.take_waiting().await?;
            let written = self.write_and_look(taken == Taken::All)?;
            let now = self.gateway.now();
            let retry_at =
                self.interrupted.as_ref().map_or(Duration::MAX, |interrupted| interrupted.retry_at);
            // The sweep wakes the connection at `look_at`: there is no timer for each connection.
            let paused_until = self.session.paused_until(now).unwrap_or(Duration::MAX);
            let look_at = self.session.look_at(&self.gateway.session, now).min(retry_at).min(paused_until);
            self.outbound().set_look_at(look_at);
            let is_reading =
                self.outbound().is_reading() && (self.interrupted.is_none() || retry_at <= now.elapsed);
            if is_reading && !self.outbound().may_page() {
                // No room for a page now. The next sweep wakes the connection to try again.
                self.outbound().set_look_at(now.elapsed);
            }
            // A page is read only when everything before it was written, so at most one page waits for a slow peer.
            if is_reading && written == Written::All && self.outbound().may_page() {
                {
                    let span = self.span_of(user);
                    Box::pin(catch_up::step(self, user).instrument(span))
                }
                .await?;
            } else if taken == Taken::Some || (taken == Taken::Stalled && self.may_read()) {
                // The next turn writes what has piled up.
                tokio::task::yield_now().await;
            } else if written == Written::Blocked {
                Box::pin(self.wait_for_room(taken == Taken::All)).await?;
            } else {
                // A wake that came since the last `woken` is kept by `Notify`: none is lost between the checks above and this
                // wait.
                let outbound = self.outbound();
                tokio::select! {
                    biased;
                    () = outbound.woken() => {}
                    // If the socket has failed, the next read reports the error.
                    _ = outbound.tcp().readable(), if taken == Taken::All => {}
                }
            }
        }
    }

    /// Writes as much as the kernel takes, then checks the deadlines of the session. `is_heard` says that no unread frame is
    /// here.
    pub(super) fn write_and_look(&mut self, is_heard: bool) -> Result<Written, ConnectionEnd> {
        let written = self.write()?;
        // A heartbeat may be among the unread frames, so silence is judged only when all were read.
        let due = self.session.handle_tick(&self.gateway.session, self.gateway.now());
        match due.filter(|reason| is_heard || *reason != CloseReason::Silent) {
            Some(reason) => Err(ConnectionEnd::Close(reason)),
            None => Ok(written),
        }
    }

    /// Takes up to [`FRAMES_AT_ONCE`] frames that have already arrived. Also called during a long catch-up.
    pub(super) async fn take_waiting(&mut self) -> Result<Taken, ConnectionEnd> {
        for _ in 0..FRAMES_AT_ONCE {
            if !self.may_read() {
                return Ok(Taken::Stalled);
            }
            let here = self.socket.try_recv();
            self.charge_others(&here);
            let message = match here? {
                Received::Message(message) => message,
                Received::Nothing => return Ok(Taken::All),
                Received::More => return Ok(Taken::Some),
            };
            if let Some(request) = self.decide(&message)? {
                drop(message);
                let span = self.span_of(request.caller.user_id);
                Box::pin(self.carry_out(*request).instrument(span)).await;
            }
        }
        Ok(Taken::Some)
    }

    pub(super) fn may_read(&self) -> bool {
        let config = &self.gateway.operations.config.gateway;
        !self.session.is_paused(self.gateway.now())
            && self.outbound().may_read(config.requests_in_flight, config.outbound_bytes)
    }

    /// Gives a message to the session. Returns the request that the session lets through, if any, in a box: most of the time a
    /// connection has none, and its task should not reserve space for one.
    fn decide(&mut self, message: &Message) -> Result<Option<Box<Request>>, ConnectionEnd> {
        match self.handle(message) {
            Step::Wait => {}
            Step::Answer(frame) => {
                if matches!(&*frame, ServerFrame::Error { error, .. } if error.code == ErrorCode::Limited) {
                    self.gateway.operations.metrics.limited.inc();
                }
                self.outbound().push(encode::frame(&frame));
            }
            Step::Close(reason) => return Err(ConnectionEnd::Close(reason)),
            Step::Verify { .. } => return Err(ConnectionEnd::Close(CloseReason::ProtocolViolation)),
            Step::Run { identity, id, frame } => {
                let NodeRun { node, epoch } = self.gateway.operations.node;
                let connection = ConnectionId::from_raw(self.outbound().number);
                let origin = Some(Origin { node, epoch, connection });
                let caller = Caller { user_id: identity.user_id, device_id: identity.device_id, origin };
                return Ok(Some(Box::new(Request { caller, id, frame })));
            }
        }
        Ok(None)
    }

    async fn carry_out(&mut self, request: Request) {
        let Request { caller, id, frame } = request;
        let carried_out = requests::carry_out(&self.gateway, self.outbound(), caller, id.clone(), frame);
        if let Some(token) = carried_out.await {
            self.renew(id, token);
        }
    }

    /// Takes over the token of a valid `auth`, which must name the same user and device.
    fn renew(&mut self, id: Option<RequestId>, identity: Identity) {
        let is_taken = self.session.handle_renewed(identity);
        let renewed = match self.session.identity().filter(|_| is_taken) {
            Some(identity) => Ok(requests::Answer::Renewed(identity.expires_at)),
            None => Err(ErrorBody::invalid("token", "token belongs to another user or device").into()),
        };
        requests::answer(self.outbound(), id, renewed);
    }

    fn handle(&mut self, message: &Message) -> Step {
        let now = self.gateway.now();
        match message {
            Message::Text(text) => self.session.handle_text(&self.gateway.session, text.as_str(), now),
            Message::Binary(_) => self.session.handle_binary(&self.gateway.session, now),
            // The library answers pings.
            _ => Step::Wait,
        }
    }

    /// Writes what waits as far as the kernel takes it. Then ends the connection if another task has asked for that.
    fn write(&self) -> Result<Written, ConnectionEnd> {
        let written = self.outbound().write(&self.gateway.operations.metrics);
        match self.outbound().close_due() {
            _ if written == Written::Gone => Err(ConnectionEnd::Gone),
            Some(reason) => Err(ConnectionEnd::Close(reason)),
            None => Ok(written),
        }
    }

    /// Writes everything that waits.
    pub(super) async fn write_all(&mut self) -> Result<(), ConnectionEnd> {
        while self.write()? == Written::Blocked {
            self.wait_for_room(false).await?;
            // Heartbeats are not read during this loop, so silence is not a reason to close.
            let due = self.session.handle_tick(&self.gateway.session, self.gateway.now());
            if due == Some(CloseReason::TokenExpired) {
                return Err(ConnectionEnd::Close(CloseReason::TokenExpired));
            }
        }
        Ok(())
    }

    async fn write_now(&mut self, frame: &ServerFrame<'_>) -> Result<(), ConnectionEnd> {
        self.outbound().push(encode::frame(frame));
        self.write_all().await
    }

    /// Waits until the kernel takes more, another task wakes the connection, or, if `may_read`, bytes arrive.
    async fn wait_for_room(&self, may_read: bool) -> Result<(), ConnectionEnd> {
        let Some(blocked) = self.outbound().blocked() else { return Ok(()) };
        let outbound = self.outbound();
        // A connection that is being closed gets less time.
        let patience = match outbound.is_closing() {
            true => CLOSE_PATIENCE,
            false => Duration::from_secs(self.gateway.operations.config.gateway.write_seconds),
        };
        tokio::select! {
            biased;
            () = outbound.woken() => Ok(()),
            _ = outbound.tcp().readable(), if may_read => Ok(()),
            room = timeout_at(blocked + patience, outbound.tcp().writable()) => match room {
                Ok(_) => Ok(()),
                Err(_) => Err(ConnectionEnd::Close(CloseReason::Silent)),
            },
        }
    }

    /// Sends the close frame, waits for the peer's answer, and closes the socket.
    async fn end(&mut self, end: ConnectionEnd) {
        tracing::info!(reason = ?end, "connection closed");
        if let ConnectionEnd::Close(reason) = end {
            self.outbound().push_close(reason);
            if timeout(CLOSE_PATIENCE, self.close()).await.is_err() {
                tracing::debug!("the peer did not answer the close");
            }
        } else {
            // The answer to the peer's own close frame may wait here.
            self.outbound().write(&self.gateway.operations.metrics);
        }
        self.outbound().shut_down();
    }

    async fn close(&mut self) {
        let metrics = &self.gateway.operations.metrics;
        while self.outbound().write(metrics) == Written::Blocked {
            if self.outbound().tcp().writable().await.is_err() {
                return;
            }
        }
        // The kernel discards written bytes when a socket is closed with unread input, so read until the peer has answered.
        self.socket.finish().await;
    }
}
