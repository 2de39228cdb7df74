//! TLS of the server itself: the same conversations as on a plain socket, and what is special about certificates.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use madang_chat_server::config::Config;
use madang_chat_server::tls::Tls;
use madang_testkit::{Certificate, ManualClock, Socket, Storage, Stream, TestNode, manual_clock};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Plain,
    Tls13,
    Tls12,
}

/// A node on one of the wires, and two users with a direct channel.
struct Stage {
    node: TestNode,
    hand: ManualClock,
    wire: Wire,
    certificate: Certificate,
    folder: tempfile::TempDir,
    ada: String,
    bob: String,
    channel: String,
    _storage: Storage,
}

impl Stage {
    async fn new(wire: Wire) -> Self {
        let (folder, certificate) = (tempfile::tempdir().unwrap(), Certificate::new());
        let mut config = Config::default();
        config.limits.enabled = false;
        if wire != Wire::Plain {
            config.tls = certificate.write(folder.path());
        }
        let storage = Storage::embedded();
        let (clock, hand) = manual_clock();
        let node = TestNode::start(config, &storage, clock).await.unwrap();
        let (ada, bob, channel) = (String::new(), String::new(), String::new());
        let mut stage = Self { node, hand, wire, certificate, folder, ada, bob, channel, _storage: storage };
        stage.ada = stage.sign_up("ada").await;
        stage.bob = stage.sign_up("bob").await;
        let bob = stage.must("GET", "/v1/me", &stage.bob, None).await;
        let body = json!({ "kind": "direct", "members": [bob["id"]] });
        let view = stage.must("POST", "/v1/channels", &stage.ada, Some(&body)).await;
        stage.channel = view["id"].as_str().unwrap().to_owned();
        stage
    }

    /// A stream, through TLS if that is the wire.
    async fn stream(&self) -> Stream {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that a reader that stops is noticed soon.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        let tcp = socket.connect(self.node.addr).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let version: &'static SupportedProtocolVersion = match self.wire {
            Wire::Plain => return Box::new(tcp),
            Wire::Tls13 => &TLS13,
            Wire::Tls12 => &TLS12,
        };
        Box::new(self.certificate.connect(tcp, &[version], &["http/1.1"]).await.unwrap())
    }

    /// A REST call. Returns the body of the answer.
    async fn must(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Value {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: madang\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = self.stream().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{method} {path} → {answer}");
        serde_json::from_str(body).unwrap()
    }

    async fn sign_up(&self, handle: &str) -> String {
        let body = json!({ "handle": handle, "display_name": handle, "password": "correct horse" });
        let signed_in = self.must("POST", "/v1/accounts", "", Some(&body)).await;
        signed_in["access_token"].as_str().unwrap().to_owned()
    }

    async fn connect(&self, token: &str) -> Socket {
        let socket = Socket::over(self.stream().await, self.node.addr).await.unwrap();
        socket.greet(token, None).await.unwrap().0
    }

    fn send(&self, number: u64, text: &str) -> Value {
        json!({
            "type": "send", "id": number.to_string(), "channel_id": self.channel,
            "client_msg_id": format!("01920000-0000-7000-8000-{number:012}"), "body": { "text": text },
        })
    }
}

/// Makes one test for each wire from each function.
macro_rules! on_every_wire {
    ($($name:ident),* $(,)?) => {
        mod plain {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Wire::Plain).await; })*
        }
        mod tls13 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Wire::Tls13).await; })*
        }
        mod tls12 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Wire::Tls12).await; })*
        }
    };
}

on_every_wire! {
    a_message_reaches_the_other_user,
    bytes_right_behind_the_upgrade_are_read,
    large_messages_go_both_ways,
    a_reader_that_stops_misses_nothing,
    a_drain_closes_with_its_code,
}

async fn a_message_reaches_the_other_user(wire: Wire) {
    let stage = Stage::new(wire).await;
    let (mut ada, mut bob) = (stage.connect(&stage.ada).await, stage.connect(&stage.bob).await);
    let acks = ada.pipeline(vec![stage.send(1, "hello bob")]).await.unwrap();
    assert_eq!(acks[0]["type"], "ack");
    let entries = bob.next_of("entries").await;
    assert_eq!(entries["entries"][0]["text"], "hello bob");
    bob.next_of("cursor").await;
    let history =
        stage.must("GET", &format!("/v1/channels/{}/entries", stage.channel), &stage.bob, None).await;
    let last = history["entries"].as_array().unwrap().last().unwrap();
    assert_eq!(last["text"], "hello bob");
}

/// Without waiting for the answer to the upgrade, and in as few TLS records as possible.
async fn bytes_right_behind_the_upgrade_are_read(wire: Wire) {
    let stage = Stage::new(wire).await;
    let hello = json!({ "type": "hello", "id": "hello", "token": stage.ada }).to_string();
    let mut bytes = b"GET /v1/ws HTTP/1.1\r\nHost: madang\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: madang.v1.json\r\n\r\n"
        .to_vec();
    // Masked with zeros, which leave the payload unchanged.
    bytes.extend([0x81, 0x80 | 126]);
    bytes.extend(u16::try_from(hello.len()).unwrap().to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(hello.as_bytes());
    let mut stream = stage.stream().await;
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(r#""type":"welcome""#) {
        let read = tokio::time::timeout(madang_testkit::PATIENCE, stream.read_buf(&mut seen)).await;
        assert!(read.expect("a welcome").unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
    }
}

async fn large_messages_go_both_ways(wire: Wire) {
    let stage = Stage::new(wire).await;
    let (mut ada, mut bob) = (stage.connect(&stage.ada).await, stage.connect(&stage.bob).await);
    // Larger than a record and than the buffer of rustls, and of odd lengths.
    let texts: Vec<String> =
        [15_999, 16_384, 40_001, 99_999].iter().map(|&length| "마".repeat(length / 3)).collect();
    let sends = texts.iter().zip(1..).map(|(text, number)| stage.send(number, text)).collect();
    let acks = ada.pipeline(sends).await.unwrap();
    assert!(acks.iter().all(|ack| ack["type"] == "ack"));
    let mut got = Vec::new();
    while got.len() < texts.len() {
        let frame = bob.next_of("entries").await;
        let entries = frame["entries"].as_array().unwrap().clone();
        got.extend(entries.iter().map(|entry| entry["text"].as_str().unwrap().to_owned()));
    }
    assert_eq!(got, texts);
    let page =
        json!({ "type": "history", "id": "page", "channel_id": stage.channel, "limit": 4, "before": 100 });
    let answers = bob.pipeline(vec![page]).await.unwrap();
    assert_eq!(answers[0]["entries"].as_array().unwrap().len(), 4);
}

async fn a_reader_that_stops_misses_nothing(wire: Wire) {
    const MESSAGES: u64 = 80;
    let stage = Stage::new(wire).await;
    let (mut ada, mut bob) = (stage.connect(&stage.ada).await, stage.connect(&stage.bob).await);
    let text = "x".repeat(100_000);
    for number in 0..MESSAGES {
        let answers = ada.pipeline(vec![stage.send(number, &text)]).await.unwrap();
        assert_eq!(answers[0]["type"], "ack");
    }
    let (mut next, mut resyncs) = (4, 0);
    while next < 4 + MESSAGES {
        let frame = bob.next().await.unwrap();
        resyncs += u64::from(frame["type"] == "resync");
        for entry in frame["entries"].as_array().into_iter().flatten() {
            assert_eq!(entry["seq"], next);
            next += 1;
        }
    }
    assert!(resyncs > 0, "8 MB were not kept for it");
    // As quick as before.
    ada.pipeline(vec![stage.send(MESSAGES, "small")]).await.unwrap();
    assert_eq!(bob.next_of("entries").await["entries"][0]["text"], "small");
}

async fn a_drain_closes_with_its_code(wire: Wire) {
    let stage = Stage::new(wire).await;
    let mut bob = stage.connect(&stage.bob).await;
    bob.next_of("cursor").await;
    stage.node.drain.begin();
    let ended = loop {
        stage.hand.advance(Duration::from_secs(1));
        match bob.next().await {
            Ok(_) => {}
            Err(ended) => break ended,
        }
    };
    assert!(matches!(ended, madang_testkit::Ended::Closed(4000, _)), "{ended:?}");
}

async fn handshake(stage: &Stage, certificate: &Certificate) -> std::io::Result<()> {
    let tcp = TcpStream::connect(stage.node.addr).await?;
    certificate.connect(tcp, BOTH, &[]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_while_connections_live() {
    let stage = Stage::new(Wire::Tls13).await;
    let (mut ada, mut bob) = (stage.connect(&stage.ada).await, stage.connect(&stage.bob).await);
    let new = Certificate::new();
    assert!(handshake(&stage, &new).await.is_err());
    let _ = new.write(stage.folder.path());
    let taken = async {
        while handshake(&stage, &new).await.is_err() {
            stage.hand.advance(Duration::from_secs(5));
        }
    };
    tokio::time::timeout(madang_testkit::PATIENCE, taken).await.expect("the new certificate");
    assert!(handshake(&stage, &stage.certificate).await.is_err());
    ada.pipeline(vec![stage.send(1, "still here")]).await.unwrap();
    assert_eq!(bob.next_of("entries").await["entries"][0]["text"], "still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn hsts_is_sent_over_tls_only() {
    for (wire, expected) in [(Wire::Tls13, true), (Wire::Tls12, true), (Wire::Plain, false)] {
        let stage = Stage::new(wire).await;
        for path in ["/healthz", "/v1/me", "/nowhere"] {
            let mut stream = stage.stream().await;
            let request = format!("GET {path} HTTP/1.1\r\nHost: madang\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let is_asked = answer.contains("strict-transport-security: max-age=31536000\r\n");
            assert_eq!(is_asked, expected, "{path}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mismatched_pair_is_refused_and_the_earlier_one_stays() {
    let stage = Stage::new(Wire::Tls13).await;
    let tls = stage.node.node.gateway.tls.as_ref().unwrap();
    let other = Certificate::new();
    std::fs::write(stage.folder.path().join("key.pem"), &other.key_pem).unwrap();
    let refusal = tls.reload().unwrap_err().to_string();
    let folder = stage.folder.path().display();
    let expected = format!(
        "tls.cert {folder}/cert.pem and tls.key {folder}/key.pem cannot be used: \
         the key does not match the first certificate"
    );
    assert_eq!(refusal, expected);
    handshake(&stage, &stage.certificate).await.unwrap();
    for (text, reason) in
        [("", "contains no private key"), ("-----BEGIN PRIVATE KEY-----", "contains no private key")]
    {
        std::fs::write(stage.folder.path().join("key.pem"), text).unwrap();
        let refusal = tls.reload().unwrap_err().to_string();
        assert!(refusal.contains(reason), "{refusal}");
    }
    std::fs::remove_file(stage.folder.path().join("cert.pem")).unwrap();
    let refusal = tls.reload().unwrap_err().to_string();
    assert!(refusal.contains("cert.pem: No such file"), "{refusal}");
    handshake(&stage, &stage.certificate).await.unwrap();
}

#[tokio::test]
async fn a_node_without_a_usable_pair_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Certificate::new(), Certificate::new());
    let mut config = Config { tls: one.write(folder.path()), ..Config::default() };
    std::fs::write(&config.tls.key, &other.key_pem).unwrap();
    let refusal = TestNode::start(config.clone(), &Storage::model(), manual_clock().0).await.err().unwrap();
    assert!(refusal.to_string().contains("the key does not match the first certificate"), "{refusal}");
    std::fs::write(&config.tls.cert, &one.key_pem).unwrap();
    std::fs::write(&config.tls.key, &one.cert_pem).unwrap();
    let refusal = TestNode::start(config.clone(), &Storage::model(), manual_clock().0).await.err().unwrap();
    assert!(refusal.to_string().contains("swap the two"), "{refusal}");
    let _ = one.write(folder.path());
    config.tls.key = "/nonexistent/key.pem".into();
    let refusal = TestNode::start(config, &Storage::model(), manual_clock().0).await.err().unwrap();
    assert!(refusal.to_string().contains("/nonexistent/key.pem: No such file"), "{refusal}");
}

/// The content of the last field of a PKCS#8 key: the same key in the older form of its kind.
fn inner(der: &[u8]) -> &[u8] {
    fn field(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, at) = match der[1] {
            short @ 0..=0x7f => (usize::from(short), 2),
            long => {
                let size = usize::from(long & 0x7f);
                let length = der[2..2 + size].iter().fold(0, |sum, &byte| (sum << 8) | usize::from(byte));
                (length, 2 + size)
            }
        };
        (&der[at..at + length], &der[at + length..])
    }
    let (fields, _) = field(der);
    let (_version, fields) = field(fields);
    let (_algorithm, fields) = field(fields);
    field(fields).0
}

#[test]
fn a_key_may_have_any_form() {
    let folder = tempfile::tempdir().unwrap();
    let open = |certificate: &Certificate, label: &str, der: &[u8]| {
        let config = certificate.write(folder.path());
        let base64 = STANDARD.encode(der);
        let pem = format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n");
        std::fs::write(&config.key, pem).unwrap();
        Tls::open(&config).unwrap().is_some()
    };
    let (curve, rsa) = (Certificate::new(), Certificate::with_rsa());
    assert!(open(&curve, "PRIVATE KEY", &curve.key_der));
    assert!(open(&curve, "EC PRIVATE KEY", inner(&curve.key_der)));
    assert!(open(&rsa, "PRIVATE KEY", &rsa.key_der));
    assert!(open(&rsa, "RSA PRIVATE KEY", inner(&rsa.key_der)));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_http_1_1_is_spoken() {
    let stage = Stage::new(Wire::Tls13).await;
    let offer = async |alpn: &[&str]| {
        let tcp = TcpStream::connect(stage.node.addr).await.unwrap();
        let stream = stage.certificate.connect(tcp, BOTH, alpn).await?;
        Ok::<_, std::io::Error>(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(offer(&["h2", "http/1.1"]).await.unwrap(), Some(b"http/1.1".to_vec()));
    assert_eq!(offer(&[]).await.unwrap(), None);
    assert!(offer(&["h2"]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_finish_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { tls: Certificate::new().write(folder.path()), ..Config::default() };
    let node = TestNode::start(config, &Storage::model(), manual_clock().0).await.unwrap();
    let mut silent = TcpStream::connect(node.addr).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    let took = begun.elapsed();
    assert!((9..=12).contains(&took.as_secs()), "{took:?}");
    // A peer that does not speak TLS is not waited for.
    let mut plain = TcpStream::connect(node.addr).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_counted_among_the_connections_of_their_address() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { tls: Certificate::new().write(folder.path()), ..Config::default() };
    config.limits.address_connections = 2;
    let node = TestNode::start(config, &Storage::model(), manual_clock().0).await.unwrap();
    let _silent =
        [TcpStream::connect(node.addr).await.unwrap(), TcpStream::connect(node.addr).await.unwrap()];
    let mut third = TcpStream::connect(node.addr).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(5), third.read(&mut [0])).await;
    assert_eq!(read.expect("it is not waited for").unwrap_or(0), 0);
    assert_eq!(node.node.gateway.operations.metrics.crowded.get(), 1);
}
