//! The memory of a real server while a client holds half of something, and afterwards.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::time::Duration;

use madang_testkit::{PATIENCE, RawSocket, Server, TEXT};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

const BINARY: &str = env!("CARGO_BIN_EXE_madang");
const KIB: usize = 1024;
const MIB: u64 = 1024 * 1024;

async fn shrinks_to(server: &Server, bytes: u64) {
    let wait = async {
        while server.resident_bytes().unwrap() > bytes {
            // waits for: the sweep of each second
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let found = timeout(PATIENCE, wait).await;
    assert!(found.is_ok(), "{} MiB are resident", server.resident_bytes().unwrap() / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_frames_and_half_bodies_are_bounded_and_released() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(BINARY, &folder.path().join("data"), &[]).await.unwrap();
    let ada = server.rest.sign_up("ada").await;
    let token = ada["access_token"].as_str().unwrap();
    let before = server.resident_bytes().unwrap();
    // Before `welcome`: 100 sockets with half a frame each.
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut socket = RawSocket::open(server.addr).await.unwrap();
        socket.write_part(TEXT, 8 * KIB, &[b'x'; 8 * KIB - 1]).await.unwrap();
        silent.push(socket);
    }
    let grown = server.resident_bytes().unwrap().saturating_sub(before);
    assert!(grown < 8 * MIB, "grown by {} MiB", grown / MIB);
    drop(silent);
    // The first round leaves caches. The second one must leave nothing more.
    hold_half_bodies(&server, token, before).await;
    // waits for: two sweeps
    tokio::time::sleep(Duration::from_secs(2)).await;
    let settled = server.resident_bytes().unwrap();
    hold_half_bodies(&server, token, before).await;
    shrinks_to(&server, settled + 8 * MIB).await;
    serves_again(&server, token).await;
}

/// Waits until the server has released the bytes of the closed connections.
async fn serves_again(server: &Server, token: &str) {
    let ask = async {
        loop {
            let answer =
                server.rest.call("POST", "/v1/snapshot", Some(token), None, Some(&json!({}))).await.unwrap();
            if answer.status != 429 {
                return answer;
            }
            // waits for: the closed connections
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let answer = timeout(PATIENCE, ask).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Sends 200 half bodies of one user, of which the server accepts 16 MiB.
async fn hold_half_bodies(server: &Server, token: &str, before: u64) {
    let head = format!(
        "POST /v1/snapshot HTTP/1.1\r\nHost: madang\r\nAuthorization: Bearer {token}\r\nContent-Length: {MIB}\r\n\r\n"
    );
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&vec![b' '; 1_000 * KIB]).await;
        held.push(stream);
    }
    let grown = server.resident_bytes().unwrap().saturating_sub(before);
    assert!(grown < 48 * MIB, "grown by {} MiB", grown / MIB);
}
