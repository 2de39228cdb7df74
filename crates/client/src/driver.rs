//! The task behind a [`crate::Client`]: drives the pure cores over one connection after the other.

mod live;

use std::time::{Duration, Instant};

use madang_ids::{ChannelId, Seq};
use madang_proto::{CloseReason, ErrorCode, Send};
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::client::ClientOptions;
use crate::connection::{Endpoint, SocketOptions};
use crate::error::ClientError;
use crate::event::Event;
use crate::outbox::Outbox;
use crate::received::Received;
use crate::rest::{Rest, Tokens};

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Send(Send),
    Read(ChannelId, Seq),
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
    backoff: Backoff,
    /// The server refused the access token; a second refusal of a fresh one is final.
    renew_first: bool,
}

/// What to do after a connection.
enum Next {
    /// Come back after the usual wait.
    Again(String),
    /// Come back after the wait that the server named.
    After(Duration),
    /// Come back with a new token.
    Renew(String),
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
            outbox: Outbox::new(options.outbox, options.max_in_flight),
            received: Received::resume(options.cursor, options.heads),
            backoff: Backoff::new(options.backoff_base, options.backoff_cap),
            renew_first: false,
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
        if self.renew_first {
            self.renew().await?;
        }
        self.live().await
    }

    /// Tells the program and draws the wait; nothing means the end.
    async fn plan(&mut self, next: Next) -> Option<Duration> {
        match next {
            Next::Again(cause) => {
                self.renew_first = false;
                self.tell(Event::Disconnected { cause }).await;
                Some(self.backoff.next_wait(&mut rand::rng()))
            }
            Next::After(wait) => {
                self.tell(Event::Disconnected { cause: "the server asked to come back later".into() }).await;
                Some(wait)
            }
            Next::Renew(reason) if self.renew_first => {
                self.tell(Event::Closed { code: None, reason }).await;
                None
            }
            Next::Renew(cause) => {
                self.renew_first = true;
                self.tell(Event::Disconnected { cause }).await;
                Some(self.backoff.next_wait(&mut rand::rng()))
            }
            Next::Stop { code, reason } => {
                self.tell(Event::Closed { code, reason }).await;
                None
            }
        }
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
        if let Command::Send(send) = command {
            // There is room: the caller asked first.
            let _ = self.outbox.enqueue(send, ());
        }
    }

    /// Gets new tokens over REST and tells the program, before they are used: the old refresh token is spent.
    async fn renew(&mut self) -> Result<(), ClientError> {
        let tokens = Tokens::from(self.rest.refresh(&self.tokens.refresh).await?);
        self.tokens = tokens.clone();
        self.tell(Event::TokensRenewed(tokens)).await;
        Ok(())
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
