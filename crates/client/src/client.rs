//! The handle of a client that stays connected.

use std::collections::HashMap;
use std::time::Duration;

use madang_ids::{ChannelId, ClientMsgId, LogId, SealedCursor, Seq};
use madang_proto::{Body, Mode, Send, SetPresence};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::connection::{Endpoint, SocketOptions};
use crate::driver::{Command, Driver};
use crate::error::ClientError;
use crate::event::Event;
use crate::rest::{Rest, Tokens};

/// Commands that wait for the driving task. Small: the queue that survives reconnects is the outbox.
const COMMANDS: usize = 16;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Where the server is, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// Whose device this is.
    pub tokens: Tokens,
    /// What an earlier run kept: its cursor …
    pub cursor: Option<SealedCursor>,
    /// … and the last entries that it had.
    pub heads: HashMap<LogId, Seq>,
    /// Unacked messages that are kept, at least one; [`Client::send`] waits when there are more. Default 1,000.
    pub outbox: usize,
    /// Messages in flight on the connection. The server stops reading at 256. Default 64.
    pub max_in_flight: usize,
    /// Events that wait for the program; the socket is not read while they do. Default 256.
    pub events: usize,
    /// Bound of the first wait before a reconnect. Default 500 ms.
    pub backoff_base: Duration,
    /// Bound of the longest wait before a reconnect, also of one that the server asks for. Default 30 s.
    pub backoff_cap: Duration,
    /// How to make sockets.
    pub socket: SocketOptions,
}

impl ClientOptions {
    /// A device with these tokens that has nothing yet.
    #[must_use]
    pub fn new(url: &str, tokens: Tokens) -> Self {
        Self {
            url: url.to_owned(),
            tokens,
            cursor: None,
            heads: HashMap::new(),
            outbox: 1_000,
            max_in_flight: 64,
            events: 256,
            backoff_base: Duration::from_millis(500),
            backoff_cap: Duration::from_secs(30),
            socket: SocketOptions::default(),
        }
    }
}

/// A client that stays connected until it is closed or dropped.
#[derive(Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _stop_on_drop: DropGuard,
}

impl Client {
    /// Starts a client. It connects in the background; what happens comes as events. They must be read: the client
    /// waits for its program and does not drop any.
    ///
    /// # Errors
    /// If the address is none.
    pub fn start(options: ClientOptions) -> Result<(Self, mpsc::Receiver<Event>), ClientError> {
        let endpoint = Endpoint::parse(&options.url)?;
        let rest = Rest::new(&options.url, Duration::from_secs(10))?;
        let (commands, inbound) = mpsc::channel(COMMANDS);
        let (events, outbound) = mpsc::channel(options.events.max(1));
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let driver = Driver::new(options, endpoint, rest, inbound, events);
        let stopped = stop.clone();
        tasks.spawn(async move { stopped.run_until_cancelled(driver.drive()).await });
        tasks.close();
        let guard = stop.clone().drop_guard();
        Ok((Self { commands, stop, tasks, _stop_on_drop: guard }, outbound))
    }

    /// Puts a message into the queue of unsent messages; waits while that is full. The answer comes as
    /// [`Event::Acked`] or [`Event::Refused`] with the key that is returned. Cancel safe: a cancelled call sent
    /// nothing.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn send(&self, channel_id: ChannelId, body: Body) -> Result<ClientMsgId, ClientError> {
        let client_msg_id = ClientMsgId::from_uuid(rand::random());
        self.send_as(channel_id, client_msg_id, body).await?;
        Ok(client_msg_id)
    }

    /// Like [`Self::send`] with a key of the caller's, such as one that outlived the program.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn send_as(
        &self,
        channel_id: ChannelId,
        key: ClientMsgId,
        body: Body,
    ) -> Result<(), ClientError> {
        self.command(Command::Send(Send { channel_id, client_msg_id: key, body })).await
    }

    /// Moves the user's read marker. Told once, and lost if there is no connection: markers only rise, and the next
    /// one heals it.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn mark_read(&self, channel_id: ChannelId, seq: Seq) -> Result<(), ClientError> {
        self.command(Command::Read(channel_id, seq)).await
    }

    /// Tells others that the user is writing; said every few seconds while she does. Lost without a connection.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn typing(&self, channel_id: ChannelId) -> Result<(), ClientError> {
        self.command(Command::Typing(channel_id)).await
    }

    /// Subscribes to an open channel of the user's, from the last entry that this client has of it on. The answer comes
    /// as [`Event::Heads`] or [`Event::SubscriptionRefused`]; the client subscribes again after each reconnect, until
    /// the user leaves.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn subscribe(&self, channel_id: ChannelId, mode: Mode) -> Result<(), ClientError> {
        self.command(Command::Subscribe(channel_id, mode)).await
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn unsubscribe(&self, channel_id: ChannelId) -> Result<(), ClientError> {
        self.command(Command::Unsubscribe(channel_id)).await
    }

    /// Says whether the user is there, and what she says of herself; what is left out stays as it is. Said once there is
    /// a connection, and `idle` again on each later one.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn set_presence(&self, presence: SetPresence) -> Result<(), ClientError> {
        self.command(Command::Presence(presence)).await
    }

    /// Ends the client and waits for its task. Unacked messages are lost with it.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    async fn command(&self, command: Command) -> Result<(), ClientError> {
        let ended = |_| ClientError::Protocol("the client has ended".into());
        self.commands.send(command).await.map_err(ended)
    }
}
