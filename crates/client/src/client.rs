//! The handle of a client that reconnects by itself.

use std::collections::HashMap;
use std::time::Duration;

use madang_ids::{ChannelId, ClientMsgId, LogId, SealedCursor, Seq};
use madang_proto::{Body, Mode, Send, SetPresence};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::connection::SocketOptions;
use crate::driver::{Command, Driver};
use crate::error::ClientError;
use crate::event::Event;
use crate::rest::{Rest, Tokens};

/// Most commands that wait for the driving task. The bound is small because messages that must survive a reconnect are
/// kept in the outbox.
const COMMANDS: usize = 16;

/// Time limit for each attempt of a REST call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for which an unused REST connection stays open. The pages of a snapshot share one; beyond that, a second
/// connection per client would only use up the server's connections.
const REST_IDLE: Duration = Duration::from_secs(1);

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Addresses of servers of one fleet, such as `https://chat.example`; one is enough. Before each connection one of
    /// them is asked which node accepts this client. If a server cannot be reached, the next one is asked.
    pub urls: Vec<String>,
    /// The region of the client: nodes of the same region are preferred. Default none.
    pub region: Option<String>,
    /// Tokens of the device.
    pub tokens: Tokens,
    /// The cursor that an earlier run stored; `None` for a new device.
    pub cursor: Option<SealedCursor>,
    /// The last entry of each log that an earlier run stored.
    pub heads: HashMap<LogId, Seq>,
    /// Most unacked messages in the queue, at least 1. [`Client::send`] waits while the queue is full. Default 1,000.
    pub outbox: usize,
    /// Most unanswered messages on the connection. The server stops reading at 256. Default 64.
    pub max_in_flight: usize,
    /// Most events that wait for the program. The socket is not read while this number is reached. Default 256.
    pub events: usize,
    /// Upper bound of the first wait before a reconnect. Default 500 ms.
    pub backoff_base: Duration,
    /// Upper bound of every wait before a reconnect, including waits that the server asks for. Default 30 s.
    pub backoff_cap: Duration,
    /// Options of the socket. Its `trust` also applies to REST calls.
    pub socket: SocketOptions,
}

impl ClientOptions {
    /// Settings of a new device with these tokens. More addresses can be added to `urls`.
    #[must_use]
    pub fn new(url: &str, tokens: Tokens) -> Self {
        Self {
            urls: vec![url.to_owned()],
            region: None,
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
    /// Starts a client, which connects in the background and reports what happens as events. The program must read the
    /// events: the client waits while their queue is full and never drops one.
    ///
    /// # Errors
    /// If there is no address, one is invalid, or the root certificates for `https://` cannot be read.
    pub fn start(options: ClientOptions) -> Result<(Self, mpsc::Receiver<Event>), ClientError> {
        let rest = Rest::build(&options.urls, CALL_TIMEOUT, &options.socket.trust, Some(REST_IDLE))?;
        let (commands, inbound) = mpsc::channel(COMMANDS);
        let (events, outbound) = mpsc::channel(options.events.max(1));
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let driver = Driver::new(options, rest, inbound, events);
        let stopped = stop.clone();
        tasks.spawn(async move { stopped.run_until_cancelled(driver.drive()).await });
        tasks.close();
        let guard = stop.clone().drop_guard();
        Ok((Self { commands, stop, tasks, _stop_on_drop: guard }, outbound))
    }

    /// Puts a message into the queue of unacked messages, and waits while the queue is full. The result is reported as
    /// [`Event::Acked`] or [`Event::Refused`] with the returned key. Cancel safe: a cancelled call has enqueued
    /// nothing.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn send(&self, channel_id: ChannelId, body: Body) -> Result<ClientMsgId, ClientError> {
        let client_msg_id = ClientMsgId::from_uuid(rand::random());
        self.send_as(channel_id, client_msg_id, body).await?;
        Ok(client_msg_id)
    }

    /// Like [`Self::send`], with a key that the caller chose, for instance one that it stored before a restart.
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

    /// Moves the user's read marker. Sent once, and lost if there is no connection. This is harmless: markers only
    /// rise, so the next one replaces it.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn mark_read(&self, channel_id: ChannelId, seq: Seq) -> Result<(), ClientError> {
        self.command(Command::Read(channel_id, seq)).await
    }

    /// Reports that the user is typing. Call it every few seconds while they do. Lost if there is no connection.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn typing(&self, channel_id: ChannelId) -> Result<(), ClientError> {
        self.command(Command::Typing(channel_id)).await
    }

    /// Subscribes to an open channel of which the user is a member, from the last entry that this client has. The
    /// answer is [`Event::Heads`] or [`Event::SubscriptionRefused`]. The client subscribes again after each reconnect,
    /// until the user leaves the channel.
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

    /// Sets the user's presence. Absent fields stay unchanged. Sent as soon as there is a connection; `idle` is sent
    /// again on each later connection.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn set_presence(&self, presence: SetPresence) -> Result<(), ClientError> {
        self.command(Command::Presence(presence)).await
    }

    /// Ends the client and waits for its task. Unacked messages are lost.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    async fn command(&self, command: Command) -> Result<(), ClientError> {
        let ended = |_| ClientError::Protocol("the client has stopped".into());
        self.commands.send(command).await.map_err(ended)
    }
}
