//! The real binary: killed under load, drained, started where it must not start.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use madang_testkit::{Ended, Server, Socket};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_madang");

async fn start(data: &Path) -> Server {
    Server::start(BINARY, data, &["--limits", "off"]).await.unwrap()
}

/// Ada, Bob and their channel.
struct People {
    ada: String,
    bob: String,
    channel: String,
}

impl People {
    async fn sign_up(server: &Server) -> Self {
        let (ada, bob) = (server.rest.sign_up("ada").await, server.rest.sign_up("bob").await);
        let token = |signed_in: &Value| signed_in["access_token"].as_str().unwrap().to_owned();
        let (ada_token, bob_token) = (token(&ada), token(&bob));
        let body = json!({ "kind": "direct", "members": [bob["user"]["id"]] });
        let view = server.rest.must("POST", "/v1/channels", Some(&ada_token), Some(&body)).await;
        Self { ada: ada_token, bob: bob_token, channel: view["id"].as_str().unwrap().to_owned() }
    }

    fn send(&self, key: u64) -> Value {
        json!({
            "type": "send", "id": key.to_string(), "channel_id": self.channel,
            "client_msg_id": format!("01920000-0000-7000-8000-{key:012}"), "body": { "text": format!("message {key}") },
        })
    }

    /// The whole log, read page by page. Checks that it is dense and that ids rise.
    async fn log(&self, server: &Server) -> Vec<Value> {
        let mut entries: Vec<Value> = Vec::new();
        loop {
            let path = format!("/v1/channels/{}/entries?after={}&limit=200", self.channel, entries.len());
            let page = server.rest.must("GET", &path, Some(&self.ada), None).await;
            entries.extend(page["entries"].as_array().unwrap().iter().cloned());
            if page["more_after"] == false {
                break;
            }
        }
        assert!(entries.iter().zip(1..).all(|(entry, seq): (_, u64)| entry["seq"] == seq));
        entries
    }
}

/// Sends without waiting until the server is gone. Returns what was acknowledged, by key.
async fn talk_until_the_end(
    socket: &mut Socket,
    people: &People,
    keys: std::ops::Range<u64>,
) -> (BTreeMap<u64, Value>, Vec<Value>, Ended) {
    let (mut acks, mut others) = (BTreeMap::new(), Vec::new());
    for key in keys {
        if socket.feed(&people.send(key)).await.is_err() {
            break;
        }
    }
    let _ = socket.flush().await;
    loop {
        match socket.next().await {
            Ok(frame) if frame["type"] == "ack" => {
                acks.insert(frame["id"].as_str().unwrap().parse().unwrap(), frame);
            }
            Ok(frame) => others.push(frame),
            Err(ended) => return (acks, others, ended),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acked_messages_survive_a_kill() {
    const A_ROUND: u64 = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path()).await;
    let people = People::sign_up(&server).await;
    let (mut bob, _) = Socket::connect(server.addr, &people.bob, None).await.unwrap();
    let cursor = bob.next_of("cursor").await["cursor"].as_str().unwrap().to_owned();
    let mut acked: BTreeMap<u64, Value> = BTreeMap::new();
    for round in 0..3 {
        let (mut ada, _) = Socket::connect(server.addr, &people.ada, None).await.unwrap();
        let (mut watcher, _) = Socket::connect(server.addr, &people.bob, None).await.unwrap();
        let kill = async {
            // Some messages are acknowledged and more are in flight. A frame has at most 256 of them.
            for _ in 0..3 {
                watcher.next_of("entries").await;
            }
            server.kill().await.unwrap();
        };
        let keys = round * A_ROUND..(round + 1) * A_ROUND;
        let ((acks, _, _), ()) = tokio::join!(talk_until_the_end(&mut ada, &people, keys), kill);
        assert!(!acks.is_empty() && (acks.len() as u64) < A_ROUND, "{} were acked", acks.len());
        acked.extend(acks);
        server = start(folder.path()).await;
    }
    // The log contains each acknowledged message at its place.
    let log = people.log(&server).await;
    for ack in acked.values() {
        let entry = &log[ack["seq"].as_u64().unwrap() as usize - 1];
        assert_eq!(entry["message_id"], ack["message_id"]);
    }
    // The same key returns the original ack.
    let (mut ada, _) = Socket::connect(server.addr, &people.ada, None).await.unwrap();
    let again = ada.pipeline(acked.keys().map(|key| people.send(*key)).collect()).await.unwrap();
    assert_eq!(again.len(), acked.len());
    for answer in again {
        let key: u64 = answer["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(answer, acked[&key]);
    }
    assert_eq!(people.log(&server).await.len(), log.len());
    // A cursor from before all kills can be used, and brings the log without a hole.
    let (mut bob, welcome) = Socket::connect(server.addr, &people.bob, Some(&cursor)).await.unwrap();
    assert_eq!(welcome["resume"], "resumed");
    let mut seen: Vec<Value> = Vec::new();
    while seen.last().is_none_or(|entry| entry["seq"] != log.len()) {
        let frame = bob.next_of("entries").await;
        seen.extend(frame["entries"].as_array().unwrap().iter().cloned());
    }
    assert_eq!(seen, log[log.len() - seen.len()..]);
    assert_eq!(seen.first(), log.iter().find(|entry| entry["kind"] == "message"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_whose_answer_was_lost_with_the_server_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let ada = server.rest.sign_up("ada").await;
    let refresh = async |server: &Server, token: &Value| {
        let body = json!({ "refresh_token": token });
        server.rest.must("POST", "/v1/tokens", None, Some(&body)).await["refresh_token"].clone()
    };
    let lost = refresh(&server, &ada["refresh_token"]).await;
    server.kill().await.unwrap();
    let server = start(folder.path()).await;
    let repeated = refresh(&server, &ada["refresh_token"]).await;
    assert_eq!(repeated, lost);
    assert_ne!(refresh(&server, &repeated).await, repeated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_acks_what_is_in_flight_asks_everybody_to_reconnect_and_exits_with_success() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path()).await;
    let people = People::sign_up(&server).await;
    let (mut ada, _) = Socket::connect(server.addr, &people.ada, None).await.unwrap();
    let (mut bob, _) = Socket::connect(server.addr, &people.bob, None).await.unwrap();
    let terminate = async {
        bob.next_of("entries").await;
        server.terminate().unwrap();
        loop {
            match bob.next().await {
                Ok(_) => {}
                Err(ended) => return ended,
            }
        }
    };
    let ((acks, others, ended), bob_ended) =
        tokio::join!(talk_until_the_end(&mut ada, &people, 0..2_000), terminate);
    for ended in [ended, bob_ended] {
        assert!(matches!(ended, Ended::Closed(4000, _)), "{ended:?}");
    }
    let reconnect = others.iter().find(|frame| frame["type"] == "reconnect").unwrap();
    assert!(reconnect["after_ms"].as_u64() >= Some(1000) && reconnect["nodes"] == json!([]));
    assert_eq!(server.wait().await.unwrap().code(), Some(0));
    // Nothing became durable without an ack.
    let server = start(folder.path()).await;
    let messages = people.log(&server).await.into_iter().filter(|entry| entry["kind"] == "message");
    let acked: BTreeSet<&str> = acks.values().filter_map(|ack| ack["message_id"].as_str()).collect();
    let is_unacked = |entry: &Value| !acked.contains(entry["message_id"].as_str().unwrap());
    assert_eq!(messages.filter(is_unacked).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_a_folder_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let refusal = Server::start(BINARY, folder.path(), &[]).await.err().unwrap().to_string();
    assert!(refusal.contains("is in use by another process"), "{refusal}");
    assert!(refusal.contains(&server.id().to_string()), "{refusal}");
    assert_eq!(refusal.lines().count(), 1);
    server.rest.must("GET", "/readyz", None, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_secret_that_others_could_read_is_made_private() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("token.secret");
    let mode = || std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777;
    let mut server = start(folder.path()).await;
    assert_eq!(mode(), 0o600);
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().success());
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let server = start(folder.path()).await;
    assert_eq!(mode(), 0o600);
    server.rest.must("GET", "/readyz", None, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_file_of_the_configuration_is_used_and_never_created() {
    let folder = tempfile::tempdir().unwrap();
    let (data, secret) = (folder.path().join("data"), folder.path().join("shared.secret"));
    let variables = [("MADANG_TOKENS__SECRET_FILE", secret.to_str().unwrap())];
    let start = async || Server::start_with(BINARY, &data, &[], &variables).await;
    let refusal = start().await.err().unwrap().to_string();
    assert!(refusal.contains("tokens.secret_file") && !secret.exists(), "{refusal}");
    std::fs::write(&secret, "short").unwrap();
    let refusal = start().await.err().unwrap().to_string();
    assert!(refusal.contains("32 bytes"), "{refusal}");
    std::fs::write(&secret, [7; 32]).unwrap();
    let mut server = start().await.unwrap();
    let ada = server.rest.sign_up("ada").await;
    let token = ada["access_token"].as_str();
    assert!(!data.join("token.secret").exists());
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().success());
    let server = start().await.unwrap();
    server.rest.must("GET", "/v1/devices", token, None).await;
    drop(server);
    std::fs::write(&secret, [8; 32]).unwrap();
    let server = start().await.unwrap();
    let answer = server.rest.call("GET", "/v1/devices", token, None, None).await.unwrap();
    assert_eq!(answer.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_instead_of_the_folder_is_refused_with_the_name_of_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "x").unwrap();
    let refusal = Server::start(BINARY, &file, &[]).await.err().unwrap().to_string();
    assert!(refusal.contains("server.data") && refusal.contains("must name a folder"), "{refusal}");
    assert!(refusal.contains("78"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_a_newer_version_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path()).await;
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().success());
    // SQLite keeps `user_version` at byte 60 of the file, unless the write-ahead log has a newer one.
    for log in ["madang.db-wal", "madang.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(log));
    }
    let file = folder.path().join("madang.db");
    let mut file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(60)).unwrap();
    file.write_all(&99_u32.to_be_bytes()).unwrap();
    let refusal = Server::start(BINARY, folder.path(), &[]).await.err().unwrap().to_string();
    assert!(refusal.contains("has version 99"), "{refusal}");
    assert_eq!(refusal.lines().count(), 1);
}
