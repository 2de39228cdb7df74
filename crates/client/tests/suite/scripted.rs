//! The client against a server that follows a script: reconnects, retries, order, gaps and final closes.
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use madang_client::{Client, ClientOptions, Event, Tokens};
use madang_ids::{ChannelId, ClientMsgId, LogId, Millis, Seq};
use madang_proto::{Body, ClientFrame, CloseReason, Request, SUBPROTOCOL_JSON};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request as Upgrade, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

const CHANNEL: ChannelId = ChannelId::from_raw(42);
const PATIENCE: Duration = Duration::from_secs(10);
const CURSOR: &str = "00000000deadbeef:7";

/// A server that the test scripts frame by frame.
struct Fake {
    listener: TcpListener,
}

struct Peer(WebSocketStream<TcpStream>);

impl Fake {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (Self { listener }, url)
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = tokio::time::timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        #[expect(clippy::result_large_err, reason = "the signature that tungstenite asks for")]
        let choose = |_: &Upgrade, mut response: Response| {
            response.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL_JSON.parse().unwrap());
            Ok(response)
        };
        Peer(tokio_tungstenite::accept_hdr_async(stream, choose).await.unwrap())
    }

    /// Accepts a connection, reads `hello` and sends `welcome`. Returns the cursor of `hello`.
    async fn welcome(&self) -> (Peer, Option<String>) {
        self.welcome_with_heartbeats(60_000).await
    }

    async fn welcome_with_heartbeats(&self, interval_ms: u64) -> (Peer, Option<String>) {
        let mut peer = self.accept().await;
        let hello = peer.next().await;
        let ClientFrame::Hello(hello) = hello.frame else { panic!("not a hello") };
        peer.say(json!({
            "type": "welcome", "id": "hello", "user_id": "1", "device_id": "2", "heartbeat_interval_ms": interval_ms,
            "token_expires_at": 3_600_000, "at": 0, "resume": "resumed",
        }))
        .await;
        (peer, hello.cursor.map(|cursor| cursor.to_string()))
    }
}

impl Peer {
    async fn say(&mut self, frame: Value) {
        self.0.send(Message::Text(frame.to_string().into())).await.unwrap();
    }

    async fn next(&mut self) -> Request {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap().unwrap().unwrap() {
                Message::Text(text) => return Request::parse(&text).unwrap(),
                other => assert!(!other.is_close(), "the client closed"),
            }
        }
    }

    /// The next `send`: the name of the request, the text and the key.
    async fn send(&mut self) -> (String, String, ClientMsgId) {
        let request = self.next().await;
        let ClientFrame::Send(send) = request.frame else { panic!("not a send") };
        (request.id.unwrap().0, send.body.text, send.client_msg_id)
    }

    async fn ack(&mut self, id: &str, seq: u64) {
        self.say(json!({
            "type": "ack", "id": id, "channel_id": CHANNEL, "message_id": (1_000 + seq).to_string(), "seq": seq, "at": 5,
        }))
        .await;
    }

    async fn entries(&mut self, seqs: &[u64]) {
        let entry = |seq: &u64| json!({ "seq": seq, "at": 1, "kind": "joined", "user_id": "1", "by": "1" });
        let entries: Vec<Value> = seqs.iter().map(entry).collect();
        self.say(json!({ "type": "entries", "log": "channel", "channel_id": CHANNEL, "entries": entries }))
            .await;
    }

    async fn close(mut self, reason: CloseReason) {
        let frame = CloseFrame { code: reason.code().into(), reason: reason.text().into() };
        self.0.close(Some(frame)).await.unwrap();
        while self.0.next().await.is_some() {}
    }
}

fn start(url: &str) -> (Client, mpsc::Receiver<Event>) {
    Client::start(options(url)).unwrap()
}

fn options(url: &str) -> ClientOptions {
    let tokens = Tokens { access: "a".into(), refresh: "r".into(), expires_at: Millis::new(3_600_000) };
    let mut options = ClientOptions::new(url, tokens);
    options.backoff_base = Duration::from_millis(5);
    options
}

async fn event(events: &mut mpsc::Receiver<Event>) -> Event {
    tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap()
}

/// The next event that is not about connections or cursors.
async fn content(events: &mut mpsc::Receiver<Event>) -> Event {
    loop {
        match event(events).await {
            Event::Connected { .. } | Event::Disconnected { .. } => {}
            other => return other,
        }
    }
}

fn text(text: &str) -> Body {
    Body { text: text.to_owned(), ..Body::default() }
}

#[tokio::test]
async fn unsent_messages_survive_a_reconnect_in_order_and_under_their_keys() {
    let (fake, url) = Fake::start().await;
    let (client, mut events) = start(&url);
    let mut keys = Vec::new();
    for word in ["one", "two", "three"] {
        keys.push(client.send(CHANNEL, text(word)).await.unwrap());
    }
    let (mut peer, _) = fake.welcome().await;
    let (id, word, _) = peer.send().await;
    assert_eq!(word, "one");
    peer.ack(&id, 1).await;
    assert!(
        matches!(content(&mut events).await, Event::Acked { client_msg_id, .. } if client_msg_id == keys[0])
    );
    drop(peer);
    let (mut peer, _) = fake.welcome().await;
    for (index, expected) in ["two", "three"].into_iter().enumerate() {
        let (id, word, key) = peer.send().await;
        assert_eq!((word.as_str(), key), (expected, keys[index + 1]));
        peer.ack(&id, 2 + index as u64).await;
        assert!(
            matches!(content(&mut events).await, Event::Acked { client_msg_id, .. } if client_msg_id == key)
        );
    }
    client.close().await;
}

#[tokio::test]
async fn a_message_is_sent_again_after_a_retryable_error_and_refused_after_a_final_one() {
    let (fake, url) = Fake::start().await;
    let (client, mut events) = start(&url);
    let key = client.send(CHANNEL, text("hi")).await.unwrap();
    let (mut peer, _) = fake.welcome().await;
    let (id, ..) = peer.send().await;
    peer.say(json!({
        "type": "error", "id": id, "code": "unavailable", "message": "busy", "retryable": true, "retry_after_ms": 1,
    }))
    .await;
    let (id, _, again) = peer.send().await;
    assert_eq!(again, key);
    peer.say(json!({ "type": "error", "id": id, "code": "forbidden", "message": "no", "retryable": false }))
        .await;
    assert!(
        matches!(content(&mut events).await, Event::Refused { client_msg_id, .. } if client_msg_id == key)
    );
    client.close().await;
}

#[tokio::test]
async fn it_resumes_from_its_cursor_and_delivers_nothing_twice() {
    let (fake, url) = Fake::start().await;
    let (client, mut events) = start(&url);
    let (mut peer, cursor) = fake.welcome().await;
    assert_eq!(cursor, None);
    peer.entries(&[1, 2]).await;
    peer.say(json!({ "type": "cursor", "cursor": CURSOR })).await;
    peer.entries(&[3]).await;
    for expected in [2, 1] {
        match content(&mut events).await {
            Event::Entries { log, entries } => {
                assert_eq!((log, entries.len()), (LogId::Channel(CHANNEL), expected))
            }
            other => panic!("{other:?}"),
        }
        if expected == 2 {
            assert!(
                matches!(content(&mut events).await, Event::CursorMoved(cursor) if cursor.to_string() == CURSOR)
            );
        }
    }
    drop(peer);
    let (mut peer, cursor) = fake.welcome().await;
    assert_eq!(cursor.as_deref(), Some(CURSOR));
    peer.entries(&[3, 4]).await;
    match content(&mut events).await {
        Event::Entries { entries, .. } => assert_eq!(entries[0].seq, Seq::new(4)),
        other => panic!("{other:?}"),
    }
    client.close().await;
}

#[tokio::test]
async fn a_gap_is_reported_even_if_history_cannot_fill_it() {
    let (fake, url) = Fake::start().await;
    let (client, mut events) = start(&url);
    let (mut peer, _) = fake.welcome().await;
    peer.entries(&[1]).await;
    peer.entries(&[4]).await;
    assert!(matches!(content(&mut events).await, Event::Entries { .. }));
    // The server closes the connection of the call for history.
    drop(tokio::time::timeout(PATIENCE, fake.listener.accept()).await.unwrap().unwrap());
    match content(&mut events).await {
        Event::Gap { after, before, filled, .. } => {
            assert_eq!((after, before, filled), (Seq::new(1), Seq::new(4), false));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(content(&mut events).await, Event::Entries { .. }));
    client.close().await;
}

#[tokio::test]
async fn it_reconnects_or_stops_as_the_server_asks() {
    let (fake, url) = Fake::start().await;
    let (client, mut events) = start(&url);
    let (mut peer, _) = fake.welcome().await;
    peer.say(json!({ "type": "reconnect", "after_ms": 1, "nodes": [] })).await;
    peer.close(CloseReason::Draining).await;
    let (peer, _) = fake.welcome().await;
    peer.close(CloseReason::Replaced).await;
    assert!(matches!(content(&mut events).await, Event::Closed { code: Some(4502), .. }));
    assert!(events.recv().await.is_none());
    client.close().await;
}

#[tokio::test]
async fn heartbeats_continue_while_the_program_is_slow() {
    let (fake, url) = Fake::start().await;
    let options = ClientOptions { events: 1, ..options(&url) };
    let (client, events) = Client::start(options).unwrap();
    let (mut peer, _) = fake.welcome_with_heartbeats(100).await;
    // The program does not take the first event, so this one waits for room.
    peer.entries(&[1]).await;
    for _ in 0..5 {
        assert!(matches!(peer.next().await.frame, ClientFrame::Heartbeat));
    }
    assert_eq!(events.len(), 1);
    client.close().await;
}
