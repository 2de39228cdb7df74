//! A node, a proxy in front of it for the client under test, and users who call the node directly.

use std::time::Duration;

use madang_client::{Client, ClientOptions, Event, Rest, Tokens};
use madang_ids::{ChannelId, ClientMsgId, LogId, Seq, UserId};
use madang_proto::rest::{HistoryQuery, NewChannel, SendMessage, SignUp};
use madang_proto::{Body, ChannelKind, Entry};
use madang_testkit::{Config, ManualClock, PATIENCE, Proxy, Storage, TestNode, manual_clock};
use tokio::sync::mpsc;

/// Longer than any time that passes in a test.
const NEVER_MS: u64 = 24 * 60 * 60 * 1_000;

pub(crate) struct Harness {
    pub(crate) proxy: Proxy,
    pub(crate) clock: ManualClock,
    pub(crate) rest: Rest,
    _node: TestNode,
    _storage: Storage,
}

pub(crate) struct Person {
    pub(crate) id: UserId,
    pub(crate) tokens: Tokens,
}

impl Harness {
    pub(crate) async fn new() -> Self {
        let mut config = Config::default();
        config.limits.enabled = false;
        config.gateway.heartbeat_ms = NEVER_MS / 2;
        config.gateway.silence_ms = NEVER_MS;
        let (clock, manual) = manual_clock();
        let storage = Storage::model();
        let node = TestNode::start(config, &storage, clock).await.unwrap();
        let rest = Rest::new(&node.url(), PATIENCE).unwrap();
        let proxy = Proxy::start(node.addr).await.unwrap();
        Self { proxy, clock: manual, rest, _node: node, _storage: storage }
    }

    pub(crate) async fn person(&self, handle: &str) -> Person {
        let sign_up = SignUp {
            handle: handle.into(),
            display_name: handle.into(),
            password: "correct horse".into(),
            device_name: "phone".into(),
            invitation: None,
        };
        let signed_in = self.rest.sign_up(&sign_up, None).await.unwrap();
        Person { id: signed_in.user.id, tokens: signed_in.into() }
    }

    /// Two users and their channel.
    pub(crate) async fn pair(&self) -> (Person, Person, ChannelId) {
        let (ada, bob) = (self.person("ada").await, self.person("bob").await);
        let channel = self.channel(ChannelKind::Direct, &ada, &bob).await;
        (ada, bob, channel)
    }

    pub(crate) async fn channel(&self, kind: ChannelKind, owner: &Person, other: &Person) -> ChannelId {
        let name = (kind == ChannelKind::Group).then(|| "Tea".to_owned());
        let wish = NewChannel { kind, name, topic: None, members: vec![other.id] };
        self.rest.create_channel(&owner.tokens.access, &wish, None).await.unwrap().card.id
    }

    /// Sends a message and returns its place.
    pub(crate) async fn say(&self, who: &Person, channel: ChannelId, text: &str) -> Seq {
        let message = SendMessage { client_msg_id: ClientMsgId::from_uuid(rand::random()), body: body(text) };
        self.rest.send(&who.tokens.access, channel, &message).await.unwrap().seq
    }

    /// The texts of the whole log.
    pub(crate) async fn texts(&self, who: &Person, channel: ChannelId) -> Vec<String> {
        let query = HistoryQuery { limit: Some(200), ..HistoryQuery::default() };
        texts(&self.rest.history(&who.tokens.access, channel, &query).await.unwrap().entries)
    }

    /// Settings for a client of a new device. It connects through the proxy.
    pub(crate) fn options(&self, tokens: &Tokens) -> ClientOptions {
        let mut options = ClientOptions::new(&self.proxy.url(), tokens.clone());
        options.backoff_base = Duration::from_millis(1);
        options.backoff_cap = Duration::from_millis(8);
        options
    }

    /// A client that has taken its first snapshot.
    pub(crate) async fn connected(&self, who: &Person) -> (Client, Events) {
        let (client, mut events) = start(self.options(&who.tokens));
        while !matches!(events.next().await, Event::CursorMoved(_)) {}
        (client, events)
    }
}

pub(crate) fn start(options: ClientOptions) -> (Client, Events) {
    let (client, events) = Client::start(options).unwrap();
    (client, Events(events))
}

pub(crate) struct Events(mpsc::Receiver<Event>);

impl Events {
    pub(crate) async fn next(&mut self) -> Event {
        self.end_or_next().await.unwrap()
    }

    /// The next event; `None` at the end.
    pub(crate) async fn end_or_next(&mut self) -> Option<Event> {
        tokio::time::timeout(PATIENCE, self.0.recv()).await.unwrap()
    }

    /// The next event that is not about connections, cursors or presence.
    pub(crate) async fn content(&mut self) -> Event {
        loop {
            match self.next().await {
                Event::Connected { .. }
                | Event::Disconnected { .. }
                | Event::CursorMoved(_)
                | Event::Presence(_) => {}
                event => return event,
            }
        }
    }

    /// Texts of the channel until `count` of them were received. Fails on any other event.
    pub(crate) async fn texts(&mut self, channel: ChannelId, count: usize) -> Vec<String> {
        let mut said = Vec::new();
        while said.len() < count {
            match self.content().await {
                Event::Entries { log, entries } if log == LogId::Channel(channel) => {
                    said.extend(texts(&entries))
                }
                event => panic!("{event:?} after {said:?}"),
            }
        }
        said
    }
}

pub(crate) fn body(text: &str) -> Body {
    Body { text: text.to_owned(), ..Body::default() }
}

pub(crate) fn texts(entries: &[Entry]) -> Vec<String> {
    entries
        .iter()
        .filter_map(|entry| entry.content.message())
        .map(|message| message.body.text.clone())
        .collect()
}

/// `0`, `1`, … as texts.
pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
