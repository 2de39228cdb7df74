//! Fills what a node holds for its peers and its channels, part by part, and compares the resident memory with the sum that
//! ARCHITECTURE.md states. The server runs in a process of its own.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::time::Duration;

use madang_testkit::{Ended, PATIENCE, RawSocket, Server, Socket, TEXT};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const BINARY: &str = env!("CARGO_BIN_EXE_madang");
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The least that the configuration allows.
const NODE_BYTES: u64 = 16 * MIB;
/// The bound of rows between the writer and the sockets.
const FEED_BYTES: u64 = 32 * MIB;
/// Page caches of the writer and the readers.
const CACHE_BYTES: u64 = 20 * MIB;
/// A home, and the cached rows of its channel.
const CHANNEL_BYTES: u64 = 50_000 + 4 * KIB;
/// Memory that fragmentation keeps from the system, and what the debug profile needs more.
const SLACK: u64 = 12 * MIB;

const HEADS: u64 = 300;
const READERS: usize = 32;
const CHANNELS: u64 = 300;

struct Stage {
    server: Server,
    people: Vec<Value>,
    rested: u64,
    /// What the full parts may take together.
    allowed: u64,
    _folder: tempfile::TempDir,
}

fn token(person: &Value) -> &str {
    person["access_token"].as_str().unwrap()
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("madang.toml");
        let gateway = format!(
            "[gateway]\nconnections = 400\nconnections_per_device = 200\nsilence_ms = 600000\nnode_bytes = {NODE_BYTES}\n\
             outbound_bytes = 1048576\n[channels]\ngroup_members = 100\n"
        );
        std::fs::write(&config, gateway).unwrap();
        let (data, config) = (folder.path().join("data"), config.to_str().unwrap());
        let server = Server::start(BINARY, &data, &["--limits", "off", "--config", config]).await.unwrap();
        let mut people = Vec::new();
        for number in 0..8 {
            people.push(server.rest.sign_up(&format!("user{number}")).await);
        }
        let rested = server.resident_bytes().unwrap();
        Self { server, people, rested, allowed: SLACK, _folder: folder }
    }

    /// A part is full, which may take `bytes`.
    fn filled(&mut self, what: &str, bytes: u64) {
        let resident = self.server.resident_bytes().unwrap();
        self.filled_at(what, bytes, resident);
    }

    /// A part was full, which may take `bytes`, when `resident` bytes were in use.
    fn filled_at(&mut self, what: &str, bytes: u64, resident: u64) {
        self.allowed += bytes;
        let grown = resident.saturating_sub(self.rested);
        eprintln!("{what}: grown by {} MiB, {} MiB are stated", grown / MIB, self.allowed / MIB);
        assert!(grown <= self.allowed, "{what}: grown by {} MiB, {} stated", grown / MIB, self.allowed / MIB);
    }

    async fn group(&self, name: &str, members: &[&Value]) -> String {
        let ids: Vec<&Value> = members.iter().map(|person| &person["user"]["id"]).collect();
        let wish = json!({ "kind": "group", "name": name, "members": ids });
        let owner = token(&self.people[0]);
        let view = self.server.rest.must("POST", "/v1/channels", Some(owner), Some(&wish)).await;
        view["id"].as_str().unwrap().to_owned()
    }

    /// Sends a message, as often as necessary: a full node refuses large requests for a moment.
    async fn say(&self, channel: &str, number: u64, text: &str) {
        let key = format!("01920000-0000-7000-8000-{number:012}");
        let body = json!({ "client_msg_id": key, "body": { "text": text } });
        let path = format!("/v1/channels/{channel}/messages");
        let taken = async {
            loop {
                let answer = self
                    .server
                    .rest
                    .call("POST", &path, Some(token(&self.people[0])), None, Some(&body))
                    .await;
                if answer.is_ok_and(|answer| answer.status == 200) {
                    return;
                }
                // waits for: the sweep that closes connections that do not read
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(PATIENCE, taken).await.expect("a node that was full takes messages again");
    }

    /// Sends incomplete heads of requests.
    async fn fill_heads(&mut self) -> Vec<TcpStream> {
        let head = format!("GET /healthz HTTP/1.1\r\nHost: madang\r\nX: {}", "x".repeat(15 * 1024));
        let mut held = Vec::new();
        for _ in 0..HEADS {
            let mut stream = TcpStream::connect(self.server.addr).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            held.push(stream);
        }
        self.filled("heads", HEADS * (16 + 4) * KIB);
        held
    }

    /// Fills homes, and the caches of their channels.
    async fn fill_homes(&mut self) {
        for number in 0..CHANNELS {
            let group = self.group(&format!("group {number}"), &[&self.people[1]]).await;
            self.say(&group, number, "hello").await;
        }
        self.filled("homes and page caches", CHANNELS * CHANNEL_BYTES + CACHE_BYTES);
    }

    /// Uses up the bytes under way with halves of large frames.
    async fn fill_frames(&mut self) {
        let mut held = Vec::new();
        for number in 0..48 {
            let mut socket = RawSocket::open(self.server.addr).await.unwrap();
            let hello = json!({ "type": "hello", "id": "1", "token": token(&self.people[number % 8]) });
            socket.write_text(&hello.to_string()).await.unwrap();
            assert!(socket.read_text().await.unwrap().contains("welcome"));
            let _ = socket.write_part(TEXT, MIB as usize, &vec![b'x'; 900 * 1024]).await;
            held.push(socket);
        }
        for socket in &mut held[20..] {
            assert_eq!(socket.read_close().await.unwrap(), 4005, "the node has no room");
        }
        self.filled("half frames", NODE_BYTES + MIB + 48 * 4 * KIB);
    }

    /// Readers that stop are closed once the node is full. The writer continues, and the readers miss nothing.
    async fn fill_queues(&mut self) {
        let reader = self.people[2].clone();
        let group = self.group("loud", &[&reader]).await;
        let snapshot =
            self.server.rest.must("POST", "/v1/snapshot", Some(token(&reader)), Some(&json!({}))).await;
        let cursor = snapshot["cursor"].as_str().unwrap().to_owned();
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(Socket::connect(self.server.addr, token(&reader), Some(&cursor)).await.unwrap().0);
        }
        let text = "y".repeat(100_000);
        let (mut messages, mut peak) = (0, 0);
        let fewer = async {
            // An overflowing queue is emptied, and the kernel takes megabytes first. So messages are sent until one of the
            // checks, once a second, finds full queues and sockets that took nothing for 5 s.
            while self.sockets().await >= READERS {
                self.say(&group, 10_000 + messages, &text).await;
                messages += 1;
                peak = peak.max(self.server.resident_bytes().unwrap());
            }
        };
        timeout(2 * PATIENCE, fewer).await.expect("readers that stopped are closed");
        // The bytes under way were counted with the half frames, which are gone.
        self.filled_at("queues of readers that stopped", FEED_BYTES, peak);
        let mut reading: JoinSet<Ended> = readers.into_iter().map(read_to_the_end).collect();
        let ended = timeout(PATIENCE, reading.join_next()).await.unwrap().unwrap().unwrap();
        // If the kernel has no room for the close frame, the socket ends without one.
        assert!(matches!(ended, Ended::Closed(4005, _) | Ended::Gone(_)), "{ended:?}");
        drop(reading);
        self.read_all(&reader, &cursor, &group, messages).await;
    }

    /// The number of open sockets.
    async fn sockets(&self) -> usize {
        let metrics = self.server.rest.must("GET", "/metrics", None, None).await;
        let metrics = metrics.as_str().unwrap().to_owned();
        let open = metrics.lines().find_map(|line| line.strip_prefix("gateway_connections "));
        open.unwrap().parse().unwrap()
    }

    /// A reader that was closed comes back and gets everything.
    async fn read_all(&self, reader: &Value, cursor: &str, group: &str, messages: u64) {
        let (mut socket, welcome) =
            Socket::connect(self.server.addr, token(reader), Some(cursor)).await.unwrap();
        assert_eq!(welcome["resume"], "resumed");
        let mut next = 4;
        while next < 4 + messages {
            let frame = socket.next().await.unwrap();
            let entries = frame["entries"].as_array().filter(|_| frame["channel_id"] == group);
            for entry in entries.into_iter().flatten() {
                assert_eq!(entry["seq"], next);
                next += 1;
            }
        }
    }
}

/// Reads to the end of the socket. Returns how it ended.
async fn read_to_the_end(mut socket: Socket) -> Ended {
    loop {
        if let Err(ended) = socket.next().await {
            return ended;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_stays_within_the_stated_sum_and_continues() {
    let mut stage = Stage::new().await;
    let heads = stage.fill_heads().await;
    stage.fill_homes().await;
    stage.fill_frames().await;
    stage.fill_queues().await;
    drop(heads);
    let person = token(&stage.people[7]);
    stage.server.rest.must("GET", "/v1/me", Some(person), None).await;
}
