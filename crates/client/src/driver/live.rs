//! One connection, from `hello` until it ends.

use std::time::Duration;

use madang_ids::{ChannelId, LogId, UserId};
use madang_proto::rest::HistoryQuery;
use madang_proto::{
    ClientFrame, Entry, ErrorBody, ErrorCode, LogKind, Request, RequestId, Resume, ServerFrame,
    SnapshotReason, Welcome, limits,
};
use tokio::time::Instant;

use super::arrive::{Arrival, Arrived};
use super::snapshot::due;
use super::{Access, Command, Driver, Next, after_close};
use crate::connection::{Connection, Incoming};
use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::event::Event;
use crate::outbox::Answer;
use crate::received::{Missing, Piece};

/// A connection on which nothing arrives for this many heartbeat intervals is considered dead.
const SILENT_HEARTBEATS: u32 = 2;
/// Share of a token's lifetime after which it is renewed.
const RENEW_AFTER_SHARE: f64 = 0.8;
/// Share of a token's lifetime after which a failed renewal is tried again.
const RENEW_AGAIN_SHARE: f64 = 0.05;

/// The name of the `auth` request.
const AUTH: &str = "auth";

/// State of one connection.
pub(super) struct Live {
    connection: Connection,
    node: Endpoint,
    user: UserId,
    beat: Duration,
    next_beat: Instant,
    last_heard: Instant,
    token_life: Duration,
    renew_at: Instant,
    come_back: Option<Duration>,
    /// A snapshot that is taken later, and when.
    pub(super) snapshot: Option<(Instant, SnapshotReason)>,
}

impl Driver {
    pub(super) async fn live(&mut self) -> Result<Next, ClientError> {
        let Arrived { connection, welcome, node } = match self.arrive().await? {
            Arrival::Welcome(arrived) => *arrived,
            Arrival::Full(waiting) => return Ok(Next::Wait(waiting)),
        };
        self.access = Access::Good;
        self.presence.handle_connected();
        let mut live = Live::new(connection, node, &welcome);
        self.emit_alive(&mut live, Event::Connected { resume: welcome.resume }).await?;
        if let Resume::SnapshotRequired { reason } = welcome.resume {
            self.take_snapshot(&mut live, reason).await?;
        }
        self.subscribe_again(&mut live).await?;
        loop {
            self.write_outbox(&mut live).await?;
            self.write_presence(&mut live).await?;
            if let Some(next) = self.step(&mut live).await? {
                return Ok(next);
            }
        }
    }

    /// Waits for the next event of the connection or the program, and handles it.
    async fn step(&mut self, live: &mut Live) -> Result<Option<Next>, ClientError> {
        let retry_at = self.outbox.next_deadline().map_or(live.next_beat, Instant::from_std);
        let snapshot = live.snapshot;
        tokio::select! {
            incoming = live.connection.next() => return self.handle_incoming(live, incoming?).await,
            Some(command) = self.commands.recv(), if self.outbox.has_room() => self.command(live, command).await?,
            () = tokio::time::sleep_until(live.next_beat) => return live.heartbeat().await,
            () = tokio::time::sleep_until(live.renew_at) => return self.renew_in_band(live).await,
            () = tokio::time::sleep_until(retry_at) => {}
            Some(reason) = due(snapshot) => self.take_snapshot(live, reason).await?,
            () = self.events.closed() => return Ok(Some(Next::Stop { code: None, reason: "the events were \
                 dropped".into() })),
        }
        Ok(None)
    }

    async fn write_outbox(&mut self, live: &mut Live) -> Result<(), ClientError> {
        let mut fed = false;
        while let Some(out) = self.outbox.poll_send(Self::now()) {
            let frame = ClientFrame::Send(Box::new(out.send.clone()));
            live.connection.feed(&Request { id: Some(out.request), frame }).await?;
            fed = true;
        }
        if fed { live.connection.flush().await } else { Ok(()) }
    }

    async fn write_presence(&mut self, live: &mut Live) -> Result<(), ClientError> {
        match self.presence.poll_say() {
            Some(request) => live.connection.send(&request).await,
            None => Ok(()),
        }
    }

    async fn command(&mut self, live: &mut Live, command: Command) -> Result<(), ClientError> {
        match command {
            Command::Send(send) => {
                // There is room: the caller checked before it took the command.
                let _ = self.outbox.enqueue(send, ());
                Ok(())
            }
            Command::Read(channel_id, seq) => {
                live.request("read", ClientFrame::Read { channel_id, seq }).await
            }
            Command::Typing(channel_id) => live.request("typing", ClientFrame::Typing { channel_id }).await,
            Command::Subscribe(channel, mode) => self.subscribe(live, channel, mode).await,
            Command::Unsubscribe(channel) => self.unsubscribe(live, channel).await,
            Command::Presence(set) => {
                self.presence.put(set);
                Ok(())
            }
        }
    }

    async fn handle_incoming(
        &mut self,
        live: &mut Live,
        incoming: Incoming,
    ) -> Result<Option<Next>, ClientError> {
        live.last_heard = Instant::now();
        let text = match incoming {
            Incoming::Text(text) => text,
            Incoming::Closed { code, reason } => {
                return Ok(Some(match (after_close(code, reason), live.come_back) {
                    (Next::Again(_), Some(wait)) => Next::After(wait),
                    (next, _) => next,
                }));
            }
        };
        // Only a connection on which a frame arrives after `welcome` counts as a success.
        self.backoff.reset();
        match Connection::decode(&text) {
            Ok(frame) => self.handle_frame(live, frame).await?,
            // Unknown frames are ignored, so that this client works with a newer server.
            Err(error) => tracing::debug!(%error, "ignored an unknown frame of the server"),
        }
        Ok(None)
    }

    async fn handle_frame(
        &mut self,
        live: &mut Live,
        frame: ServerFrame<'static>,
    ) -> Result<(), ClientError> {
        match frame {
            ServerFrame::Entries { log, channel_id, entries } => {
                let log = match (log, channel_id) {
                    (LogKind::Channel, Some(channel)) => LogId::Channel(channel),
                    _ => LogId::User(live.user),
                };
                self.handle_entries(live, log, entries.into_owned()).await
            }
            ServerFrame::Heads { heads, .. } => self.handle_heads(live, heads).await,
            ServerFrame::Cursor { .. } if live.snapshot.is_some() => Ok(()),
            ServerFrame::Cursor { cursor } => {
                self.received.apply_cursor(cursor.clone());
                self.emit_alive(live, Event::CursorMoved(cursor)).await
            }
            ServerFrame::Ack(ack) => {
                let answer = self.outbox.handle_ack(ack);
                self.handle_answer(live, answer).await
            }
            ServerFrame::Error { id, error } => self.handle_error(live, id, error).await,
            ServerFrame::Resync => self.emit_alive(live, Event::Resync).await,
            ServerFrame::SnapshotRequired { reason, wait_ms } => {
                self.owe_snapshot(live, reason, wait_ms.unwrap_or(0)).await
            }
            ServerFrame::Typing { channel_id, user_id } => {
                self.emit_alive(live, Event::Typing { channel_id, user_id }).await
            }
            ServerFrame::Receipt { channel_id, user_id, seq } => {
                self.emit_alive(live, Event::Receipt { channel_id, user_id, seq }).await
            }
            ServerFrame::Presence(list) => self.emit_alive(live, Event::Presence(list)).await,
            ServerFrame::Profile { user } => self.emit_alive(live, Event::Profile(user)).await,
            ServerFrame::Reconnect { after_ms, nodes } => {
                self.follow(&live.node, &nodes);
                live.come_back = Some(Duration::from_millis(after_ms));
                Ok(())
            }
            ServerFrame::Done { id, .. } => {
                if id.0 == AUTH {
                    self.access = Access::Good;
                }
                self.presence.handle_answer(&id);
                Ok(())
            }
            ServerFrame::Welcome(_)
            | ServerFrame::History { .. }
            | ServerFrame::Heartbeat { .. }
            | ServerFrame::Changed(_) => Ok(()),
        }
    }

    async fn handle_error(
        &mut self,
        live: &mut Live,
        id: Option<RequestId>,
        error: ErrorBody,
    ) -> Result<(), ClientError> {
        let Some(id) = id else {
            tracing::debug!(code = ?error.code, message = error.message, "the server could not parse a frame");
            return Ok(());
        };
        if id.0 == AUTH {
            return Err(ClientError::Refused(error));
        }
        if error.code == ErrorCode::Unauthorized && self.access == Access::Good {
            // The token expired before it was renewed.
            self.access = Access::Refused;
            live.renew_at = Instant::now();
        }
        if let Some(channel_id) = self.refused_subscription(&id) {
            return self.emit_alive(live, Event::SubscriptionRefused { channel_id, error }).await;
        }
        if self.presence.handle_answer(&id) {
            return self.emit_alive(live, Event::PresenceRefused(error)).await;
        }
        let answer = self.outbox.handle_error(&id, error, Self::now());
        self.handle_answer(live, answer).await
    }

    async fn handle_answer(&mut self, live: &mut Live, answer: Answer<()>) -> Result<(), ClientError> {
        let event = match answer {
            Answer::Acked(settled, ack) => Event::Acked { client_msg_id: settled.send.client_msg_id, ack },
            Answer::Refused(settled, error) => Event::Refused {
                channel_id: settled.send.channel_id,
                client_msg_id: settled.send.client_msg_id,
                error,
            },
            Answer::Again | Answer::Unknown => return Ok(()),
        };
        self.emit_alive(live, event).await
    }

    async fn handle_entries(
        &mut self,
        live: &mut Live,
        log: LogId,
        entries: Vec<Entry>,
    ) -> Result<(), ClientError> {
        self.forget_left(log, &entries);
        for piece in self.received.apply(log, entries) {
            match piece {
                Piece::Fresh(entries) => self.emit_alive(live, Event::Entries { log, entries }).await?,
                Piece::Missing(missing) => self.fill(live, log, missing).await?,
            }
        }
        Ok(())
    }

    /// Reads missing entries from history and reports the gap, so that no gap stays unnoticed. The user's own log has
    /// no history: there the gap is only reported, and the program may take a snapshot.
    async fn fill(&mut self, live: &mut Live, log: LogId, missing: Missing) -> Result<(), ClientError> {
        let found = match log {
            LogId::Channel(channel) => live.beating(self.read_hole(channel, missing)).await?.ok(),
            LogId::User(_) => None,
        };
        let Missing { after, before } = missing;
        self.emit_alive(live, Event::Gap { log, after, before, filled: found.is_some() }).await?;
        match found {
            Some(entries) if !entries.is_empty() => {
                self.emit_alive(live, Event::Entries { log, entries }).await
            }
            _ => Ok(()),
        }
    }

    /// All missing entries that the user may read. Entries of a time in which the user was not a member are not among
    /// them.
    async fn read_hole(&self, channel: ChannelId, missing: Missing) -> Result<Vec<Entry>, ClientError> {
        let mut found: Vec<Entry> = Vec::new();
        let mut after = missing.after;
        while after.next() < missing.before {
            let limit = Some(limits::HISTORY_PAGE);
            let query = HistoryQuery { after: Some(after), limit, ..HistoryQuery::default() };
            let page = self.rest.history(&self.tokens.access, channel, &query).await?;
            let inside = page.entries.into_iter().take_while(|entry| entry.seq < missing.before);
            let before = found.len();
            found.extend(inside);
            match found.last() {
                Some(last) if found.len() > before => after = last.seq,
                _ if self.rest.channel(&self.tokens.access, channel).await?.from_seq == missing.before => {
                    break;
                }
                _ => return Err(ClientError::Protocol("history has the same hole".into())),
            }
        }
        Ok(found)
    }

    /// Renews the token on the open connection. If that fails for a temporary reason, the connection stays open and the
    /// renewal is repeated later.
    async fn renew_in_band(&mut self, live: &mut Live) -> Result<Option<Next>, ClientError> {
        match live.beating(self.renew()).await? {
            Ok(()) => {
                // The new token is assumed to live as long as the first one; `token_expires_at` of the answer is not
                // used. The next `welcome` corrects the lifetime.
                live.renew_in(RENEW_AFTER_SHARE);
                live.request(AUTH, ClientFrame::Auth { token: self.tokens.access.clone() }).await?;
                Ok(None)
            }
            Err(Next::SignIn(reason)) => Ok(Some(Next::SignIn(reason))),
            Err(_) => {
                live.renew_in(RENEW_AGAIN_SHARE);
                Ok(None)
            }
        }
    }

    /// Delivers an event to the program, while heartbeats continue. Waits as long as the program needs to take it.
    pub(super) async fn emit_alive(&self, live: &mut Live, event: Event) -> Result<(), ClientError> {
        live.beating(self.emit(event)).await
    }
}

impl Live {
    fn new(connection: Connection, node: Endpoint, welcome: &Welcome) -> Self {
        let now = Instant::now();
        let beat = Duration::from_millis(welcome.heartbeat_interval_ms.max(100));
        let token_life =
            Duration::from_millis(welcome.token_expires_at.get().saturating_sub(welcome.at.get()));
        let mut live = Self {
            connection,
            node,
            user: welcome.user_id,
            beat,
            next_beat: now + beat,
            last_heard: now,
            token_life,
            renew_at: now,
            come_back: None,
            snapshot: None,
        };
        live.renew_in(RENEW_AFTER_SHARE);
        live
    }

    fn renew_in(&mut self, share: f64) {
        self.renew_at = Instant::now() + self.token_life.mul_f64(share).max(Duration::from_secs(1));
    }

    /// Awaits `work` while heartbeats continue, so that the server does not consider this client dead because the
    /// program or a call is slow.
    pub(super) async fn beating<T>(&mut self, work: impl Future<Output = T>) -> Result<T, ClientError> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep_until(self.next_beat) => self.beat().await?,
            }
        }
    }

    pub(super) async fn request(&mut self, name: &str, frame: ClientFrame) -> Result<(), ClientError> {
        self.connection.send(&Request { id: Some(RequestId(name.into())), frame }).await
    }

    /// Sends a heartbeat, and ends the connection if the server has been silent for too long.
    async fn heartbeat(&mut self) -> Result<Option<Next>, ClientError> {
        if self.last_heard.elapsed() > self.beat * SILENT_HEARTBEATS {
            return Ok(Some(Next::Again("no frame for two heartbeat intervals".into())));
        }
        self.beat().await?;
        Ok(None)
    }

    async fn beat(&mut self) -> Result<(), ClientError> {
        self.next_beat = Instant::now() + self.beat;
        self.connection.send(&Request { id: None, frame: ClientFrame::Heartbeat }).await
    }
}
