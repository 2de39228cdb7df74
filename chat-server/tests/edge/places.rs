//! The places at the listener and those of sockets: an unfinished connection gives its place to another one.

use std::net::SocketAddr;

use madang_testkit::{PATIENCE, RawSocket, Rest, Socket, TestNode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ask::{ask_from, connect, start};

const HALF_HEAD: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: mad";
const HALF_BODY: &[u8] =
    b"POST /v1/sessions HTTP/1.1\r\nHost: madang\r\nContent-Length: 100\r\n\r\n{\"handle\"";

/// Eight addresses with 256 connections each take every place.
async fn crowd(addr: SocketAddr, said: &'static [u8]) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for last in 1..=8 {
        for _ in 0..256 {
            let mut stream = connect(&format!("127.0.1.{last}"), addr).await;
            stream.write_all(said).await.unwrap();
            crowd.push(stream);
        }
    }
    crowd
}

async fn asks(stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: madang\r\n\r\n").await;
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"\r\n\r\nok\n") {
            answer.push(stream.read_u8().await?);
        }
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    matches!(timeout(PATIENCE, read).await, Ok(Ok(true)))
}

async fn evicted(node: &TestNode, at_least: u64) {
    let metrics = &node.node.gateway.operations.metrics;
    let wait = async {
        while metrics.evicted.get() < at_least {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("places are given to others");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_heads_and_half_bodies_of_eight_addresses_do_not_lock_out_a_ninth() {
    let node = start(|config| config.limits.address_requests = 0).await;
    for said in [HALF_HEAD, HALF_BODY] {
        let before = node.node.gateway.operations.metrics.evicted.get();
        let mut early = connect("127.0.2.1", node.addr).await;
        assert!(asks(&mut early).await);
        let crowd = crowd(node.addr, said).await;
        // The eight addresses are served one after the other, so the last connection evicted the oldest.
        evicted(&node, before + 1).await;
        for _ in 0..20 {
            let answer = ask_from("127.0.2.2", node.addr, "GET /healthz", &[], "").await;
            assert_eq!(answer.status, 200);
        }
        assert!(asks(&mut early).await, "who has finished a request keeps the place");
        drop(crowd);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_never_say_hello_give_their_seats_to_others() {
    let node = start(|config| {
        config.gateway.connections = 10;
        config.limits.address_requests = 0;
    })
    .await;
    let ada = Rest::new(&node.url()).sign_up("ada").await;
    let token = ada["access_token"].as_str().unwrap();
    let (mut known, _) = Socket::connect(node.addr, token, None).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(RawSocket::open(node.addr).await.unwrap());
    }
    let (_second, _) = Socket::connect(node.addr, token, None).await.unwrap();
    assert_eq!(silent[0].read_close().await.unwrap(), 4001);
    let read = serde_json::json!({ "type": "read", "id": "1", "channel_id": "1", "seq": 1 });
    assert_eq!(known.pipeline(vec![read]).await.unwrap()[0]["code"], "not_found", "it is still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sockets_of_a_user_and_of_an_address_are_bounded() {
    let node = start(|config| {
        config.limits.user_sockets = 3;
        config.limits.address_sockets = 6;
        config.limits.address_requests = 0;
    })
    .await;
    let rest = Rest::new(&node.url());
    let ada = rest.sign_up("ada").await;
    let mut sockets = Vec::new();
    let token = ada["access_token"].as_str().unwrap();
    for _ in 0..3 {
        let mut socket = RawSocket::open(node.addr).await.unwrap();
        socket.write_text(&format!(r#"{{"type":"hello","id":"1","token":"{token}"}}"#)).await.unwrap();
        assert!(socket.read_text().await.unwrap().contains("welcome"));
        sockets.push(socket);
    }
    // On another device, so that the limit of a device does not apply.
    let body = serde_json::json!({ "device_name": "bot" });
    let bot = rest.must("POST", "/v1/devices", Some(token), Some(&body)).await;
    let (_fourth, _) = Socket::connect(node.addr, bot["access_token"].as_str().unwrap(), None).await.unwrap();
    assert_eq!(sockets[0].read_close().await.unwrap(), 4502);
    let mut waiting = Vec::new();
    let refused = loop {
        match RawSocket::open(node.addr).await {
            Ok(socket) => waiting.push(socket),
            Err(error) => break error.to_string(),
        }
        assert!(waiting.len() < 6);
    };
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("retry-after"), "{refused}");
    // Other addresses are not affected.
    let upgrade = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: madang.v1.json",
    ];
    let mut other = connect("127.0.0.2", node.addr).await;
    let request = format!("GET /v1/ws HTTP/1.1\r\nHost: madang\r\n{}\r\n\r\n", upgrade.join("\r\n"));
    other.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENCE, other.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
}
