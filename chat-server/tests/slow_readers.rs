//! Readers that stop, or stay away for long: their cost, and what they get.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use madang_testkit::{Server, Socket};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_madang");
const MIB: u64 = 1024 * 1024;

struct Stage {
    server: Server,
    ada: String,
    bob: String,
    channel: String,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The server uses the clock of the machine, and on a busy machine this test may take minutes.
        let config = folder.path().join("madang.toml");
        std::fs::write(
            &config,
            "[gateway]\nsilence_ms = 600000\nwrite_seconds = 600\nconnections_per_device = 50\n",
        )
        .unwrap();
        let (data, config) = (folder.path().join("data"), config.to_str().unwrap());
        let server = Server::start(BINARY, &data, &["--limits", "off", "--config", config]).await.unwrap();
        let (ada, bob) = (server.rest.sign_up("ada").await, server.rest.sign_up("bob").await);
        let token = |signed_in: &Value| signed_in["access_token"].as_str().unwrap().to_owned();
        let body = json!({ "kind": "direct", "members": [bob["user"]["id"]] });
        let view = server.rest.must("POST", "/v1/channels", Some(&token(&ada)), Some(&body)).await;
        let channel = view["id"].as_str().unwrap().to_owned();
        Self { ada: token(&ada), bob: token(&bob), channel, server, _folder: folder }
    }

    async fn connect(&self, token: &str, cursor: Option<&str>) -> (Socket, Value) {
        Socket::connect(self.server.addr, token, cursor).await.unwrap()
    }

    /// Sends one message for each number, as Ada.
    async fn say(&self, ada: &mut Socket, numbers: std::ops::Range<u64>, text: &str) {
        let send = |number: u64| {
            json!({
                "type": "send", "id": number.to_string(), "channel_id": self.channel,
                "client_msg_id": format!("01920000-0000-7000-8000-{number:012}"), "body": { "text": text },
            })
        };
        let answers = ada.pipeline(numbers.map(send).collect()).await.unwrap();
        assert!(answers.iter().all(|answer| answer["type"] == "ack"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stop_cost_bounded_memory_and_miss_nothing() {
    const READERS: usize = 4;
    const MESSAGES: u64 = 600;
    let stage = Stage::new().await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(stage.connect(&stage.bob, None).await.0);
    }
    let (mut ada, _) = stage.connect(&stage.ada, None).await;
    let text = "x".repeat(100_000);
    stage.say(&mut ada, 0..50, &text).await;
    let before = stage.server.resident_bytes().unwrap();
    stage.say(&mut ada, 50..MESSAGES, &text).await;
    let grown = stage.server.resident_bytes().unwrap().saturating_sub(before);
    // 55 MB were sent to each of four readers that took almost nothing.
    assert!(grown < 48 * MIB, "grown by {} MiB", grown / MIB);
    for mut reader in readers {
        let (mut next, mut resyncs) = (4, 0);
        while next < 4 + MESSAGES {
            let frame = reader.next().await.unwrap();
            resyncs += u64::from(frame["type"] == "resync");
            for entry in frame["entries"].as_array().into_iter().flatten() {
                assert_eq!(entry["seq"], next);
                next += 1;
            }
        }
        assert!(resyncs > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_missed_more_than_ten_thousand_items_takes_a_snapshot() {
    let stage = Stage::new().await;
    let (mut bob, _) = stage.connect(&stage.bob, None).await;
    let cursor = bob.next_of("cursor").await["cursor"].as_str().unwrap().to_owned();
    bob.close().await;
    let (mut ada, _) = stage.connect(&stage.ada, None).await;
    stage.say(&mut ada, 0..10_000, "x").await;
    let (bob, welcome) = stage.connect(&stage.bob, Some(&cursor)).await;
    assert_eq!(welcome["resume"], "resumed");
    bob.close().await;
    stage.say(&mut ada, 10_000..10_001, "x").await;
    let (_bob, welcome) = stage.connect(&stage.bob, Some(&cursor)).await;
    assert_eq!(
        (&welcome["resume"], &welcome["reason"]),
        (&json!("snapshot_required"), &json!("too_far_behind"))
    );
    let snapshot = stage.server.rest.must("POST", "/v1/snapshot", Some(&stage.bob), Some(&json!({}))).await;
    assert_eq!(snapshot["channels"][0]["unread"], 10_001);
    let (_bob, welcome) = stage.connect(&stage.bob, snapshot["cursor"].as_str()).await;
    assert_eq!(welcome["resume"], "resumed");
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_of_a_device_that_does_not_read_a_long_page_are_accepted() {
    let stage = Stage::new().await;
    let (mut bob, _) = stage.connect(&stage.bob, None).await;
    let cursor = bob.next_of("cursor").await["cursor"].as_str().unwrap().to_owned();
    bob.close().await;
    let (mut ada, _) = stage.connect(&stage.ada, None).await;
    stage.say(&mut ada, 0..300, &"x".repeat(100_000)).await;
    let (mut bob, welcome) = stage.connect(&stage.bob, Some(&cursor)).await;
    assert_eq!(welcome["resume"], "resumed");
    let send = json!({
        "type": "send", "id": "1", "channel_id": stage.channel,
        "client_msg_id": "01920000-0000-7000-8000-100000000000", "body": { "text": "here" },
    });
    bob.send(&send).await.unwrap();
    // The connection must first read 30 MB of Ada's own messages.
    while !ada.next_of("entries").await["entries"].to_string().contains("\"here\"") {}
    let mut next = 4;
    while next < 4 + 301 {
        for entry in bob.next().await.unwrap()["entries"].as_array().into_iter().flatten() {
            assert_eq!(entry["seq"], next);
            next += 1;
        }
    }
}

/// Reads of requests and reads of a catch-up wait in the same queue of the store.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_devices_that_catch_up_hold_nobody_up() {
    const DEVICES: usize = 40;
    const MESSAGES: u64 = 3_000;
    const QUESTIONS: usize = 200;
    let stage = Stage::new().await;
    let (mut bob, _) = stage.connect(&stage.bob, None).await;
    let cursor = bob.next_of("cursor").await["cursor"].as_str().unwrap().to_owned();
    bob.close().await;
    let (mut ada, _) = stage.connect(&stage.ada, None).await;
    stage.say(&mut ada, 0..MESSAGES, "x").await;
    let mut devices = tokio::task::JoinSet::new();
    for _ in 0..DEVICES {
        let (addr, bob, cursor) = (stage.server.addr, stage.bob.clone(), cursor.clone());
        let channel = stage.channel.clone();
        devices.spawn(async move {
            let (mut device, _) = Socket::connect(addr, &bob, Some(&cursor)).await.unwrap();
            let ask = |before: usize| {
                json!({ "type": "history", "id": "1", "channel_id": channel, "before": before + 4, "limit": 2 })
            };
            device.send(&ask(1)).await.unwrap();
            let (mut next, mut answers) = (4, 0);
            while next < 4 + MESSAGES || answers < QUESTIONS {
                let frame = device.next().await.unwrap();
                for entry in frame["entries"].as_array().into_iter().flatten() {
                    if frame["type"] == "entries" {
                        assert_eq!(entry["seq"], next);
                        next += 1;
                    }
                }
                answers += usize::from(frame["type"] == "history");
                if answers < QUESTIONS {
                    device.send(&ask(answers)).await.unwrap();
                }
            }
        });
    }
    while let Some(done) = devices.join_next().await {
        done.unwrap();
    }
}
