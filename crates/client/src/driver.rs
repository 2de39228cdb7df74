//! The task behind a [`crate::Client`]: drives the pure cores over one connection after another.

mod arrive;
mod live;
mod open;
mod presence;
mod route;
mod snapshot;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use madang_ids::{ChannelId, Seq};
use madang_proto::rest::Waiting;
use madang_proto::{CloseReason, ErrorCode, Mode, Send, SetPresence};
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::client::ClientOptions;
use crate::connection::SocketOptions;
use crate::error::ClientError;
use crate::event::Event;
use crate::outbox::Outbox;
use crate::received::Received;
use crate::rest::{Rest, Tokens};
use presence::Presence;
use route::Route;

/// Commands from the handle.
#[derive(Debug)]
pub(crate) enum Command {
    Send(Send),
    Read(ChannelId, Seq),
    Typing(ChannelId),
    Subscribe(ChannelId, Mode),
    Unsubscribe(ChannelId),
    Presence(SetPresence),
}

pub(crate) struct Driver {
    /// Nodes for the next connection.
    route: Route,
    region: Option<String>,
    socket: SocketOptions,
    rest: Rest,
    tokens: Tokens,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    outbox: Outbox<()>,
    received: Received,
    /// Open channels to which the program wants to be subscribed. Subscribed again on each connection.
    subscriptions: BTreeMap<ChannelId, Mode>,
    presence: Presence,
    backoff: Backoff,
    access: Access,
}

/// What is known about the access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// No sign that it is invalid.
    Good,
    /// The server refused it. It must be renewed before the next connection.
    Refused,
    /// It has just been renewed. If the server refuses it again, the user must sign in.
    Fresh,
}

/// What to do after a connection has ended.
enum Next {
    /// Reconnect after the usual wait.
    Again(String),
    /// Reconnect after the wait that the server asked for.
    After(Duration),
    /// All nodes are full: ask again when the answer said.
    Wait(Waiting),
    /// Renew the token, then reconnect.
    Renew(String),
    /// Stop: the user must sign in again.
    SignIn(String),
    /// Stop: the client does not reconnect.
    Stop { code: Option<u16>, reason: String },
}

impl Driver {
    pub(crate) fn new(
        options: ClientOptions,
        rest: Rest,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            route: Route::default(),
            region: options.region,
            socket: options.socket,
            rest,
            tokens: options.tokens,
            commands,
            events,
            outbox: Outbox::new(options.outbox.max(1), options.max_in_flight.max(1)),
            received: Received::resume(options.cursor, options.heads),
            subscriptions: BTreeMap::new(),
            presence: Presence::default(),
            backoff: Backoff::new(options.backoff_base, options.backoff_cap),
            access: Access::Good,
        }
    }

    /// Runs until the server forbids a reconnect or the program drops its receiver of events.
    pub(crate) async fn drive(mut self) {
        while !self.events.is_closed() {
            let next = match self.connect_and_live().await {
                Ok(next) => next,
                Err(error) => after_error(error),
            };
            self.outbox.handle_disconnected();
            let Some(wait) = self.plan(next).await else { return };
            self.rest_between(wait).await;
        }
    }

    async fn connect_and_live(&mut self) -> Result<Next, ClientError> {
        if self.access == Access::Refused
            && let Err(next) = self.renew().await
        {
            return Ok(next);
        }
        self.live().await
    }

    /// Reports the end of a connection to the program and draws the wait before the next one; `None` means the end.
    async fn plan(&mut self, next: Next) -> Option<Duration> {
        match next {
            Next::Again(cause) => Some(self.leave(cause, None).await),
            Next::After(wait) => {
                Some(self.leave("the server asked to reconnect later".into(), Some(wait)).await)
            }
            Next::Wait(waiting) => Some(self.wait_in_line(waiting).await),
            Next::Renew(cause) if self.access != Access::Fresh => {
                self.access = Access::Refused;
                Some(self.leave(cause, None).await)
            }
            Next::Renew(reason) | Next::SignIn(reason) => {
                self.emit(Event::SignInRequired { reason }).await;
                None
            }
            Next::Stop { code, reason } => {
                self.emit(Event::Closed { code, reason }).await;
                None
            }
        }
    }

    /// Reports when this client reconnects: after the wait that the server asked for, or after one that grows with
    /// failures.
    async fn leave(&mut self, cause: String, asked: Option<Duration>) -> Duration {
        if self.access == Access::Fresh {
            // The token may have expired when the server is reachable again, so it may be renewed once more.
            self.access = Access::Good;
        }
        let back_in = match asked {
            Some(asked) => asked.min(self.backoff.cap()),
            None => self.backoff.next_wait(&mut rand::rng()),
        };
        self.emit(Event::Disconnected { cause, back_in }).await;
        back_in
    }

    /// Waits without a connection. Commands of the program are still accepted.
    async fn rest_between(&mut self, wait: Duration) {
        let end = tokio::time::sleep(wait);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                Some(command) = self.commands.recv(), if self.outbox.has_room() => self.take_offline(command),
                () = self.events.closed() => return,
            }
        }
    }

    fn take_offline(&mut self, command: Command) {
        match command {
            Command::Send(send) => {
                // There is room: the caller checked before it took the command.
                let _ = self.outbox.enqueue(send, ());
            }
            Command::Subscribe(channel, mode) => drop(self.subscriptions.insert(channel, mode)),
            Command::Unsubscribe(channel) => drop(self.subscriptions.remove(&channel)),
            Command::Presence(set) => self.presence.put(set),
            // Read markers only rise, so the next one replaces a lost one. Typing is of no use later.
            Command::Read(..) | Command::Typing(_) => {}
        }
    }

    /// Renews the tokens over REST. The program receives them before they are used, because the old refresh token is
    /// now used up.
    async fn renew(&mut self) -> Result<(), Next> {
        match self.rest.refresh(&self.tokens.refresh).await {
            Ok(signed_in) => {
                self.tokens = Tokens::from(signed_in);
                self.access = Access::Fresh;
                self.emit(Event::TokensRenewed(self.tokens.clone())).await;
                Ok(())
            }
            Err(ClientError::Refused(body)) if !body.retryable => Err(Next::SignIn(body.message)),
            Err(error) => Err(after_error(error)),
        }
    }

    async fn emit(&self, event: Event) {
        // If the program has dropped its receiver, `drive` ends.
        let _ = self.events.send(event).await;
    }

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

fn after_error(error: ClientError) -> Next {
    match error {
        ClientError::Closed { code, reason } => after_close(code, reason),
        ClientError::Refused(body) if body.code == ErrorCode::Unauthorized => Next::Renew(body.message),
        ClientError::Refused(body) if body.retryable => match body.retry_after_ms {
            Some(wait_ms) => Next::After(Duration::from_millis(wait_ms)),
            None => Next::Again(body.message),
        },
        ClientError::Refused(body) => Next::Stop { code: None, reason: body.message },
        error @ (ClientError::Address(_) | ClientError::Trust(_)) => {
            Next::Stop { code: None, reason: error.to_string() }
        }
        other => Next::Again(other.to_string()),
    }
}

fn after_close(code: u16, reason: String) -> Next {
    if code == CloseReason::Unauthorized.code() || code == CloseReason::TokenExpired.code() {
        Next::Renew(reason)
    } else if CloseReason::may_reconnect(code) {
        Next::Again(format!("closed with {code}: {reason}"))
    } else {
        Next::Stop { code: Some(code), reason }
    }
}

#[cfg(test)]
mod tests;
