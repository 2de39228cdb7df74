//! A server that a test scripts frame by frame. It also answers `POST /v1/connect`, as the test says.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use madang_client::{Client, ClientOptions, Event, Tokens};
use madang_ids::{ChannelId, ClientMsgId, Millis};
use madang_proto::{Body, ClientFrame, CloseReason, Request, SUBPROTOCOL_JSON};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request as Upgrade, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

pub(crate) const CHANNEL: ChannelId = ChannelId::from_raw(42);
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const CURSOR: &str = "00000000deadbeef:7";

/// A server that the test scripts frame by frame.
pub(crate) struct Fake {
    pub(crate) listener: TcpListener,
    /// What the next questions for a node are answered; without an entry they are answered like an unknown call.
    assignments: Mutex<VecDeque<Value>>,
    /// Bodies of the questions.
    asked: Mutex<Vec<Value>>,
    /// Paths of the sockets that were opened.
    opened: Mutex<Vec<String>>,
}

pub(crate) struct Peer(WebSocketStream<TcpStream>);

impl Fake {
    pub(crate) async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Self {
            listener,
            assignments: Mutex::default(),
            asked: Mutex::default(),
            opened: Mutex::default(),
        };
        (fake, url)
    }

    /// Answers one question for a node.
    pub(crate) fn assign(&self, answer: Value) {
        self.assignments.lock().unwrap().push_back(answer);
    }

    /// Assigns these addresses.
    pub(crate) fn assign_nodes(&self, urls: &[&str]) {
        let nodes: Vec<Value> = urls.iter().map(|url| json!({ "url": url, "expires_at": 30_000 })).collect();
        self.assign(json!({ "nodes": nodes }));
    }

    /// The bodies of all questions for a node so far.
    pub(crate) fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }

    /// The paths of all sockets that were opened so far.
    pub(crate) fn opened(&self) -> Vec<String> {
        self.opened.lock().unwrap().clone()
    }

    /// Accepts a socket. Answers questions for a node until one comes.
    pub(crate) async fn accept(&self) -> Peer {
        loop {
            let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
            let mut stream = accepted.unwrap().unwrap().0;
            let mut method = [0];
            if stream.peek(&mut method).await.unwrap() == 1 && &method == b"P" {
                self.answer(&mut stream).await;
                continue;
            }
            #[expect(clippy::result_large_err, reason = "the signature that tungstenite asks for")]
            let choose = |request: &Upgrade, mut response: Response| {
                self.opened.lock().unwrap().push(request.uri().to_string());
                response.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL_JSON.parse().unwrap());
                Ok(response)
            };
            return Peer(tokio_tungstenite::accept_hdr_async(stream, choose).await.unwrap());
        }
    }

    /// Answers one question for a node.
    pub(crate) async fn answer(&self, stream: &mut TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("post /v1/connect "), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        self.asked.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
        let unknown = json!({ "code": "not_found", "message": "no such path", "retryable": false });
        let (status, answer) = match self.assignments.lock().unwrap().pop_front() {
            Some(answer) => ("200 OK", answer.to_string()),
            None => ("404 Not Found", unknown.to_string()),
        };
        let length = answer.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        stream.write_all((head + &answer).as_bytes()).await.unwrap();
    }

    /// Accepts a connection, reads `hello` and sends `welcome`. Returns the cursor of `hello`.
    pub(crate) async fn welcome(&self) -> (Peer, Option<String>) {
        self.welcome_with_heartbeats(60_000).await
    }

    pub(crate) async fn welcome_with_heartbeats(&self, interval_ms: u64) -> (Peer, Option<String>) {
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
    pub(crate) async fn say(&mut self, frame: Value) {
        self.0.send(Message::Text(frame.to_string().into())).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Request {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap().unwrap().unwrap() {
                Message::Text(text) => return Request::parse(&text).unwrap(),
                other => assert!(!other.is_close(), "the client closed"),
            }
        }
    }

    /// The next `send`: the name of the request, the text and the key.
    pub(crate) async fn send(&mut self) -> (String, String, ClientMsgId) {
        let request = self.next().await;
        let ClientFrame::Send(send) = request.frame else { panic!("not a send") };
        (request.id.unwrap().0, send.body.text, send.client_msg_id)
    }

    pub(crate) async fn ack(&mut self, id: &str, seq: u64) {
        self.say(json!({
            "type": "ack", "id": id, "channel_id": CHANNEL, "message_id": (1_000 + seq).to_string(), "seq": seq, "at": 5,
        }))
        .await;
    }

    pub(crate) async fn entries(&mut self, seqs: &[u64]) {
        let entry = |seq: &u64| json!({ "seq": seq, "at": 1, "kind": "joined", "user_id": "1", "by": "1" });
        let entries: Vec<Value> = seqs.iter().map(entry).collect();
        self.say(json!({ "type": "entries", "log": "channel", "channel_id": CHANNEL, "entries": entries }))
            .await;
    }

    pub(crate) async fn close(mut self, reason: CloseReason) {
        let frame = CloseFrame { code: reason.code().into(), reason: reason.text().into() };
        self.0.close(Some(frame)).await.unwrap();
        while self.0.next().await.is_some() {}
    }
}

pub(crate) fn start(url: &str) -> (Client, mpsc::Receiver<Event>) {
    Client::start(options(url)).unwrap()
}

pub(crate) fn options(url: &str) -> ClientOptions {
    let tokens = Tokens { access: "a".into(), refresh: "r".into(), expires_at: Millis::new(3_600_000) };
    let mut options = ClientOptions::new(url, tokens);
    options.backoff_base = Duration::from_millis(5);
    options
}

pub(crate) async fn event(events: &mut mpsc::Receiver<Event>) -> Event {
    tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap()
}

/// The next event that is not about connections or cursors.
pub(crate) async fn content(events: &mut mpsc::Receiver<Event>) -> Event {
    loop {
        match event(events).await {
            Event::Connected { .. } | Event::Disconnected { .. } => {}
            other => return other,
        }
    }
}

pub(crate) fn text(text: &str) -> Body {
    Body { text: text.to_owned(), ..Body::default() }
}
