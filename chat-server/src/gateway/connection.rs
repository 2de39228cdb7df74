//! The task of one socket: reads frames, drives the session, brings pages of the inbox.
//!
//! Two lives: before `hello` nobody knows who it is; afterwards it is in the registry, and live items come.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_engine::session::{Identity, Opening, Session, Step};
use madang_ids::{ConnectionId, UserId};
use madang_proto::{
    ClientFrame, CloseReason, ErrorBody, ErrorCode, RequestId, Resume, ServerFrame, Welcome, limits,
};
use tokio::time::{timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

use super::accept::Seat;
use super::encode;
use super::outbound::{Outbound, Written};
use super::pipe::Pipe;
use super::presence::departure;
use super::registered::Registered;
use super::retry::{Interrupted, Patience};
use super::socket::{End, Here, Socket};
use super::{Gateway, catch_up, echo, requests};
use crate::operations::{Caller, SyncPage};

/// Frames taken before what they brought is written.
const FRAMES_AT_ONCE: usize = 32;
/// How long a `hello` waits for a store that is unavailable. Clients give `welcome` ten seconds, as a rule.
const OPEN_PATIENCE: Duration = Duration::from_secs(8);
/// How long a close frame may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A socket and its session.
pub(super) struct Connection {
    pub(super) gateway: Arc<Gateway>,
    socket: Socket,
    session: Session,
    /// Of the inbox: what was read and not written.
    pub(super) page: Option<Box<SyncPage>>,
    /// The store failed while the inbox was read.
    pub(super) interrupted: Option<Interrupted>,
}

/// What the session lets through.
struct Request {
    caller: Caller,
    id: Option<RequestId>,
    frame: ClientFrame,
}

/// Frames that were here already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// All of them.
    All,
    /// There may be more.
    Some,
    /// There may be more, but requests or answers pile up.
    Stalled,
}

/// Runs one socket until it ends. An `async fn` would keep what it is given twice, as arguments and as locals.
pub(super) fn run(
    gateway: Arc<Gateway>,
    number: u64,
    pipe: Pipe,
    read_ahead: Bytes,
    seat: Seat,
) -> impl Future<Output = ()> + Send {
    let account = gateway.ledger.open(seat.address());
    let outbound = Arc::new(Outbound::new(number, pipe, Arc::clone(gateway.lanes.of(number)), account));
    let session = Session::new(&gateway.session, gateway.now());
    let socket = Socket::new(outbound, &read_ahead);
    let mut connection = Connection { gateway, socket, session, page: None, interrupted: None };
    async move {
        let (span, end) = if echo::IS_ON {
            (span(number), Box::pin(echo::run(&mut connection)).await)
        } else {
            match Box::pin(connection.greet(&seat).instrument(span(number))).await {
                Ok(registered) => connection.live(registered).await,
                Err(end) => (span(number), end),
            }
        };
        Box::pin(connection.end(end).instrument(span)).await;
        drop(seat);
    }
}

/// The fields of every line that is logged for a connection. It lives while something is done and not with the
/// connection: most of them only wait, and it takes some hundred bytes.
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

    pub(super) async fn recv(&mut self) -> Result<Message, End> {
        self.socket.recv().await
    }

    /// Until `welcome`: at most ten seconds for `hello`, and [`OPEN_PATIENCE`] for its answer.
    async fn greet(&mut self, seat: &Seat) -> Result<Registered, End> {
        let patience = Duration::from_secs(limits::HELLO_SECONDS);
        let gateway = Arc::clone(&self.gateway);
        let token = tokio::select! {
            // The time begins before the first frame is read.
            biased;
            () = gateway.operations.clock.sleep(patience) => Err(End::Close(CloseReason::HelloTimeout)),
            () = gateway.tasks.drain().draining() => Err(End::Close(CloseReason::Draining)),
            () = seat.evicted() => Err(End::Close(CloseReason::HelloTimeout)),
            token = self.hello() => token,
        }?;
        tokio::select! {
            biased;
            () = gateway.tasks.drain().draining() => Err(End::Close(CloseReason::Draining)),
            () = seat.evicted() => Err(End::Close(CloseReason::HelloTimeout)),
            greeted = self.answer_hello(&token) => greeted.inspect(|_| seat.keep()),
        }
    }

    /// The token of the `hello`.
    async fn hello(&mut self) -> Result<String, End> {
        loop {
            let message = self.next_before_hello().await?;
            match self.handle(&message) {
                // What the library has to say to a ping.
                Step::Wait => self.write_all().await?,
                Step::Answer(frame) => self.write_now(&frame).await?,
                Step::Close(reason) => return Err(End::Close(reason)),
                Step::Verify { token } => return Ok(token),
                // The session runs nothing before it is open.
                Step::Run { .. } => return Err(End::Close(CloseReason::ProtocolViolation)),
            }
        }
    }

    async fn answer_hello(&mut self, token: &str) -> Result<Registered, End> {
        let operations = Arc::clone(&self.gateway.operations);
        let mut patience = Patience::new(&operations.clock, OPEN_PATIENCE, self.outbound().number);
        let identified = loop {
            match operations.identify(token).await {
                Err(error) if patience.waits_after(&error).await => {}
                answer => break answer,
            }
        };
        match identified {
            Ok(identity) => match self.session.handle_verified(Some(identity)) {
                Some(opening) => self.open(opening, patience).await,
                None => Err(End::Close(CloseReason::Unauthorized)),
            },
            Err(error) => {
                let id = self.session.handle_refused();
                self.refuse(id, error).await
            }
        }
    }

    /// Frames beyond the limit are not read: the time for `hello` ends the connection then.
    async fn next_before_hello(&mut self) -> Result<Message, End> {
        loop {
            tokio::task::yield_now().await;
            let here = self.socket.try_recv();
            self.charge_others(&here);
            if self.session.is_paused(self.gateway.now()) {
                std::future::pending::<()>().await;
            }
            match here? {
                Here::Message(message) => return Ok(message),
                Here::More => {}
                Here::Nothing => self.socket.readable().await?,
            }
        }
    }

    /// Answers `hello` by an error and ends, for the reason that the error is.
    async fn refuse<T>(&mut self, id: Option<RequestId>, error: ErrorBody) -> Result<T, End> {
        let reason = match error.code {
            ErrorCode::Unauthorized => CloseReason::Unauthorized,
            ErrorCode::Revoked => CloseReason::DeviceRevoked,
            _ => CloseReason::Internal,
        };
        self.write_now(&ServerFrame::Error { id, error }).await?;
        Err(End::Close(reason))
    }

    /// Frames that are no messages of their own count as frames too.
    fn charge_others(&mut self, here: &Result<Here, End>) {
        let is_charged = matches!(here, Ok(Here::Message(Message::Text(_) | Message::Binary(_))));
        let others = self.socket.take_frames().saturating_sub(u32::from(is_charged));
        let now = self.gateway.now();
        self.session.handle_other_frames(&self.gateway.session, others, now);
    }

    /// Registers first, reads the inbox next: what comes in between is dropped by its position.
    async fn open(&mut self, opening: Opening, mut patience: Patience) -> Result<Registered, End> {
        let Opening { id, identity, cursor } = opening;
        let (user_id, device_id) = (identity.user_id, identity.device_id);
        Span::current().record("user.id", display(user_id));
        let operations = Arc::clone(&self.gateway.operations);
        let standing = operations.standing(user_id, cursor.as_ref());
        self.outbound().open(user_id, standing.position());
        self.outbound().set_user(user_id);
        let registered = Registered::new(&self.gateway, self.outbound(), identity);
        while let Err(error) = operations.check_device(user_id, device_id).await {
            if !patience.waits_after(&error).await {
                return self.refuse(id, error).await;
            }
        }
        let page = loop {
            match operations.sync_page(user_id, standing).await {
                Ok(page) => break page,
                Err(error) if patience.waits_after(&error).await => {}
                Err(error) => return self.refuse(id, error).await,
            }
        };
        self.welcome(id, identity, page.resume()).await?;
        self.page = Some(Box::new(page));
        Ok(registered)
    }

    async fn welcome(
        &mut self,
        id: Option<RequestId>,
        identity: Identity,
        resume: Resume,
    ) -> Result<(), End> {
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

    /// From `welcome` to the end, which is told under the user's name.
    async fn live(&mut self, mut registered: Registered) -> (Span, End) {
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

    async fn live_until_end(&mut self, user: UserId) -> Result<Infallible, End> {
        loop {
            let taken = self.take_waiting().await?;
            let written = self.write_and_look(taken == Taken::All)?;
            let now = self.gateway.now();
            let retry_at =
                self.interrupted.as_ref().map_or(Duration::MAX, |interrupted| interrupted.retry_at);
            let paused_until = self.session.paused_until(now).unwrap_or(Duration::MAX);
            let look_at = self.session.look_at(&self.gateway.session, now).min(retry_at).min(paused_until);
            self.outbound().set_look_at(look_at);
            let is_reading =
                self.outbound().is_reading() && (self.interrupted.is_none() || retry_at <= now.elapsed);
            if is_reading && !self.outbound().may_page() {
                // The next sweep wakes it.
                self.outbound().set_look_at(now.elapsed);
            }
            if is_reading && written == Written::All && self.outbound().may_page() {
                {
                    let span = self.span_of(user);
                    Box::pin(catch_up::step(self, user).instrument(span))
                }
                .await?;
            } else if taken == Taken::Some || (taken == Taken::Stalled && self.may_read()) {
                // What piled up is written now.
                tokio::task::yield_now().await;
            } else if written == Written::Blocked {
                Box::pin(self.wait_for_room(taken == Taken::All)).await?;
            } else {
                let outbound = self.outbound();
                tokio::select! {
                    biased;
                    () = outbound.woken() => {}
                    // What is wrong with it, the next read tells.
                    _ = outbound.tcp().readable(), if taken == Taken::All => {}
                }
            }
        }
    }

    /// Writes what may be written, and looks at the time.
    pub(super) fn write_and_look(&mut self, is_heard: bool) -> Result<Written, End> {
        let written = self.write()?;
        // Only who has nothing unread here can be silent.
        let due = self.session.handle_tick(&self.gateway.session, self.gateway.now());
        match due.filter(|reason| is_heard || *reason != CloseReason::Silent) {
            Some(reason) => Err(End::Close(reason)),
            None => Ok(written),
        }
    }

    /// Takes the frames that are here already, a few of them; also during a long catch-up.
    pub(super) async fn take_waiting(&mut self) -> Result<Taken, End> {
        for _ in 0..FRAMES_AT_ONCE {
            if !self.may_read() {
                return Ok(Taken::Stalled);
            }
            let here = self.socket.try_recv();
            self.charge_others(&here);
            let message = match here? {
                Here::Message(message) => message,
                Here::Nothing => return Ok(Taken::All),
                Here::More => return Ok(Taken::Some),
            };
            if let Some(request) = self.decide(&message)? {
                drop(message);
                {
                    let span = self.span_of(request.caller.user_id);
                    Box::pin(self.carry_out(*request).instrument(span))
                }
                .await;
            }
        }
        Ok(Taken::Some)
    }

    pub(super) fn may_read(&self) -> bool {
        let config = &self.gateway.operations.config.gateway;
        !self.session.is_paused(self.gateway.now())
            && self.outbound().may_read(config.requests_in_flight, config.outbound_bytes)
    }

    /// A message came: the session decides. A request is left to be carried out; in a box, since a connection waits for
    /// one far more often than it has one.
    fn decide(&mut self, message: &Message) -> Result<Option<Box<Request>>, End> {
        match self.handle(message) {
            Step::Wait => {}
            Step::Answer(frame) => {
                if matches!(&*frame, ServerFrame::Error { error, .. } if error.code == ErrorCode::Limited) {
                    self.gateway.operations.metrics.limited.inc();
                }
                self.outbound().push(encode::frame(&frame));
            }
            Step::Close(reason) => return Err(End::Close(reason)),
            Step::Verify { .. } => return Err(End::Close(CloseReason::ProtocolViolation)),
            Step::Run { identity, id, frame } => {
                let origin = Some(ConnectionId::from_raw(self.outbound().number));
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

    /// `auth` brought a valid token: it must name the same user and device.
    fn renew(&mut self, id: Option<RequestId>, identity: Identity) {
        let is_taken = self.session.handle_renewed(identity);
        let renewed = match self.session.identity().filter(|_| is_taken) {
            Some(identity) => Ok(requests::Answer::Renewed(identity.expires_at)),
            None => Err(ErrorBody::invalid("token", "token names another user or device")),
        };
        requests::answer(self.outbound(), id, renewed);
    }

    fn handle(&mut self, message: &Message) -> Step {
        let now = self.gateway.now();
        match message {
            Message::Text(text) => self.session.handle_text(&self.gateway.session, text.as_str(), now),
            Message::Binary(_) => self.session.handle_binary(&self.gateway.session, now),
            // The library answers pings by itself.
            _ => Step::Wait,
        }
    }

    /// Writes what waits as far as the kernel takes it; what somebody else decided about the connection comes after
    /// that.
    fn write(&self) -> Result<Written, End> {
        let written = self.outbound().write(&self.gateway.operations.metrics);
        match self.outbound().close_due() {
            _ if written == Written::Gone => Err(End::Gone),
            Some(reason) => Err(End::Close(reason)),
            None => Ok(written),
        }
    }

    /// Writes everything that waits.
    pub(super) async fn write_all(&mut self) -> Result<(), End> {
        while self.write()? == Written::Blocked {
            self.wait_for_room(false).await?;
            // Heartbeats are not read meanwhile, so silence is no reason here.
            let due = self.session.handle_tick(&self.gateway.session, self.gateway.now());
            if due == Some(CloseReason::TokenExpired) {
                return Err(End::Close(CloseReason::TokenExpired));
            }
        }
        Ok(())
    }

    async fn write_now(&mut self, frame: &ServerFrame<'_>) -> Result<(), End> {
        self.outbound().push(encode::frame(frame));
        self.write_all().await
    }

    /// Until the kernel takes more, somebody wakes the connection, or a frame comes that may be read.
    async fn wait_for_room(&self, may_read: bool) -> Result<(), End> {
        let Some(blocked) = self.outbound().blocked() else { return Ok(()) };
        let outbound = self.outbound();
        // Who is to be closed is not waited for long.
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
                Err(_) => Err(End::Close(CloseReason::Silent)),
            },
        }
    }

    /// Says why, lets the peer answer, and closes the socket.
    async fn end(&mut self, end: End) {
        tracing::info!(reason = ?end, "a socket ends");
        if let End::Close(reason) = end {
            self.outbound().push_close(reason);
            if timeout(CLOSE_PATIENCE, self.close()).await.is_err() {
                tracing::debug!("the peer did not answer the close");
            }
        } else {
            // The answer to the peer's own close, if that is why.
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
        // Until the peer has answered: a socket that is closed with unread bytes loses what was written.
        self.socket.finish().await;
    }
}
