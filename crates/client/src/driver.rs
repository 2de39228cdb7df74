//! The task behind a [`crate::Client`]: drives the pure cores over one connection after the other.

mod live;
mod open;
mod presence;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use madang_ids::{ChannelId, Seq};
use madang_proto::{CloseReason, ErrorCode, Mode, Send, SetPresence};
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::client::ClientOptions;
use crate::connection::{Endpoint, SocketOptions};
use crate::error::ClientError;
use crate::event::Event;
use crate::outbox::Outbox;
use crate::received::Received;
use crate::rest::{Rest, Tokens};
use presence::Presence;

/// What the handle asks for.
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
    endpoint: Endpoint,
    socket: SocketOptions,
    rest: Rest,
    tokens: Tokens,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    outbox: Outbox<()>,
    received: Received,
    /// What the program wants of open channels, on each connection anew.
    subscriptions: BTreeMap<ChannelId, Mode>,
    presence: Presence,
    backoff: Backoff,
    access: Access,
}

/// What is known of the access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Nothing speaks against it.
    Good,
    /// The server refused it: a new one comes first.
    Refused,
    /// It was renewed just now: a refusal of this one is final.
    Fresh,
}

/// What to do after a connection.
enum Next {
    /// Come back after the usual wait.
    Again(String),
    /// Come back after the wait that the server named.
    After(Duration),
    /// Come back with a new token.
    Renew(String),
    /// The person must sign in again.
    SignIn(String),
    /// Do not come back.
    Stop { code: Option<u16>, reason: String },
}

impl Driver {
    pub(crate) fn new(
        options: ClientOptions,
        endpoint: Endpoint,
        rest: Rest,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            endpoint,
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

    /// Runs until the server forbids to come back or the program drops its events.
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

    /// Tells the program and draws the wait; nothing means the end.
    async fn plan(&mut self, next: Next) -> Option<Duration> {
        match next {
            Next::Again(cause) => Some(self.leave(cause, None).await),
            Next::After(wait) => {
                Some(self.leave("the server asked to come back later".into(), Some(wait)).await)
            }
            Next::Renew(cause) if self.access != Access::Fresh => {
                self.access = Access::Refused;
                Some(self.leave(cause, None).await)
            }
            Next::Renew(reason) | Next::SignIn(reason) => {
                self.tell(Event::SignInRequired { reason }).await;
                None
            }
            Next::Stop { code, reason } => {
                self.tell(Event::Closed { code, reason }).await;
                None
            }
        }
    }

    /// Says when this client comes back: after the wait that the server asked for, or one that grows with failures.
    async fn leave(&mut self, cause: String, asked: Option<Duration>) -> Duration {
        if self.access == Access::Fresh {
            // The token may have ended by the time that a server is there.
            self.access = Access::Good;
        }
        let back_in = match asked {
            Some(asked) => asked.min(self.backoff.cap()),
            None => self.backoff.next_wait(&mut rand::rng()),
        };
        self.tell(Event::Disconnected { cause, back_in }).await;
        back_in
    }

    /// Waits without a connection; messages of the program are still taken.
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
                // There is room: the caller asked first.
                let _ = self.outbox.enqueue(send, ());
            }
            Command::Subscribe(channel, mode) => drop(self.subscriptions.insert(channel, mode)),
            Command::Unsubscribe(channel) => drop(self.subscriptions.remove(&channel)),
            Command::Presence(set) => self.presence.put(set),
            // Markers only rise, and the next one heals it.
            Command::Read(..) | Command::Typing(_) => {}
        }
    }

    /// Gets new tokens over REST and tells the program, before they are used: the old refresh token is spent.
    async fn renew(&mut self) -> Result<(), Next> {
        match self.rest.refresh(&self.tokens.refresh).await {
            Ok(signed_in) => {
                self.tokens = Tokens::from(signed_in);
                self.access = Access::Fresh;
                self.tell(Event::TokensRenewed(self.tokens.clone())).await;
                Ok(())
            }
            Err(ClientError::Refused(body)) if !body.retryable => Err(Next::SignIn(body.message)),
            Err(error) => Err(after_error(error)),
        }
    }

    async fn tell(&self, event: Event) {
        // A program that dropped its events is noticed by `drive`.
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
        ClientError::Address(address) => Next::Stop { code: None, reason: address },
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
