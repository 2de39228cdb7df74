//! The server memory that one peer can hold: half frames, half bodies, answers that nobody reads.

use madang_testkit::{PATIENCE, RawSocket, Rest, Socket, TEXT, TestNode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ask::{ask_from, connect, start};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The bounds of these tests.
const USER: usize = 2 * MIB;
const ADDRESS: usize = 4 * MIB;

async fn bounded() -> TestNode {
    let node = start(|config| {
        config.limits.user_bytes = USER;
        config.limits.address_bytes = ADDRESS;
        config.limits.address_requests = 0;
        config.limits.address_logins = 0;
        config.limits.user_requests = 0;
    });
    node.await
}

fn hello(token: &str) -> String {
    json!({ "type": "hello", "id": "1", "token": token }).to_string()
}

/// Writes the first half of a text of somewhat more than 1 MiB. Two of them use up the bytes of a user.
async fn write_half(socket: &mut RawSocket) {
    socket.write_part(TEXT, MIB + 8 * KIB, &vec![b'x'; MIB / 2]).await.unwrap();
}

async fn settles(node: &TestNode, holds: impl Fn(usize) -> bool) {
    let wait = async {
        while !holds(node.node.gateway.bytes_under_way()) {
            tokio::task::yield_now().await;
        }
    };
    if timeout(PATIENCE, wait).await.is_err() {
        panic!("{} bytes are under way", node.node.gateway.bytes_under_way());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_welcome_a_socket_accepts_at_most_8_kib() {
    let node = bounded().await;
    let token = "x".repeat(7 * KIB);
    let mut socket = RawSocket::open(node.addr).await.unwrap();
    socket.write_text(&hello(&token)).await.unwrap();
    assert!(socket.read_text().await.unwrap().contains("unauthorized"));
    // By the header alone, in fragments, and in a frame behind others.
    let mut announced = RawSocket::open(node.addr).await.unwrap();
    announced.write_part(TEXT, 8 * KIB + 1, b"").await.unwrap();
    assert_eq!(announced.read_close().await.unwrap(), 1009);
    let mut fragments = RawSocket::open(node.addr).await.unwrap();
    fragments.write(false, TEXT, &[b'x'; 8 * KIB]).await.unwrap();
    fragments.write(false, 0, b"x").await.unwrap();
    assert_eq!(fragments.read_close().await.unwrap(), 1009);
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut socket = RawSocket::open(node.addr).await.unwrap();
        socket.write_part(TEXT, 8 * KIB, &[b'x'; 4 * KIB]).await.unwrap();
        silent.push(socket);
    }
    settles(&node, |bytes| bytes == 200 * 4 * KIB).await;
    drop(silent);
    settles(&node, |bytes| bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_frames_are_counted_for_the_user_and_for_the_address() {
    let node = bounded().await;
    let rest = Rest::new(&node.url());
    let (ada, bob) = (rest.sign_up("ada").await, rest.sign_up("bob").await);
    let mut sockets = Vec::new();
    let mut closed = 0;
    for account in [&ada, &bob, &ada, &bob, &ada, &bob, &ada, &bob] {
        let mut socket = RawSocket::open(node.addr).await.unwrap();
        socket.write_text(&hello(account["access_token"].as_str().unwrap())).await.unwrap();
        assert!(socket.read_text().await.unwrap().contains("welcome"));
        write_half(&mut socket).await;
        sockets.push(socket);
    }
    // Two of each user fit. The others are closed with a code that allows them to come back.
    for socket in &mut sockets[4..] {
        assert_eq!(socket.read_close().await.unwrap(), 4005);
        closed += 1;
    }
    assert_eq!(closed, 4);
    assert!(node.node.gateway.bytes_under_way() <= ADDRESS + MIB);
    // Small frames of the same account still work.
    let token = ada["access_token"].as_str().unwrap();
    let (mut socket, _) = Socket::connect(node.addr, token, None).await.unwrap();
    let list = json!({ "type": "read", "id": "9", "channel_id": "1", "seq": 1 });
    assert_eq!(socket.pipeline(vec![list]).await.unwrap()[0]["code"], "not_found");
    drop((sockets, socket));
    settles(&node, |bytes| bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_bodies_are_counted_and_guests_may_send_small_ones_only() {
    let node = bounded().await;
    let ada = Rest::new(&node.url()).sign_up("ada").await;
    let large = "x".repeat(17 * KIB);
    let refused = ask_from("127.0.0.1", node.addr, "POST /v1/sessions", &[], &large).await;
    assert_eq!((refused.status, &refused.json()["code"]), (413, &json!("too_large")));
    let token = ada["access_token"].as_str().unwrap();
    let head = format!(
        "POST /v1/snapshot HTTP/1.1\r\nHost: madang\r\nAuthorization: Bearer {token}\r\nContent-Length: {MIB}\r\n\r\n"
    );
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = connect("127.0.0.1", node.addr).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.write_all(&vec![b' '; MIB - 1]).await;
        held.push(stream);
    }
    // A body is counted twice, because its parts are put together: one fits, and a part of another.
    let mut answers = 0;
    for stream in &mut held {
        let mut answer = [0; 12];
        if let Ok(Ok(_)) = timeout(PATIENCE / 50, stream.read_exact(&mut answer)).await {
            assert_eq!(&answer, b"HTTP/1.1 429");
            answers += 1;
        }
    }
    assert!(answers >= 5, "{answers} of eight were refused");
    assert!(node.node.gateway.bytes_under_way() <= USER + 2 * MIB + 256 * KIB);
    drop(held);
    settles(&node, |bytes| bytes == 0).await;
}

async fn say(rest: &Rest, token: &str, channel: &str, number: u64, text: &str) {
    let body =
        json!({ "client_msg_id": format!("01920000-0000-7000-8000-{number:012}"), "body": { "text": text } });
    rest.must("POST", &format!("/v1/channels/{channel}/messages"), Some(token), Some(&body)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_are_counted_and_a_snapshot_is_bounded() {
    let node = bounded().await;
    let rest = Rest::new(&node.url());
    let ada = rest.sign_up("ada").await;
    let token = ada["access_token"].as_str().unwrap();
    for number in 0..4 {
        let body = json!({ "kind": "group", "name": "g", "members": [] });
        let view = rest.must("POST", "/v1/channels", Some(token), Some(&body)).await;
        say(&rest, token, view["id"].as_str().unwrap(), number, &"\u{1F642}".repeat(90_000)).await;
    }
    let snapshot: Value =
        rest.must("POST", "/v1/snapshot", Some(token), Some(&json!({ "recent": true }))).await;
    let bytes = snapshot.to_string().len();
    assert!((500 * KIB..900 * KIB).contains(&bytes), "{bytes}");
    let body = r#"{"recent": true}"#;
    let request = format!(
        "POST /v1/snapshot HTTP/1.1\r\nHost: madang\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut held = Vec::new();
    for _ in 0..60 {
        // A small window, so that the kernel holds little.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream: TcpStream = socket.connect(node.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let mut refused = 0;
    for stream in &mut held {
        let mut answer = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        refused += u32::from(&answer == b"HTTP/1.1 429");
    }
    assert!(refused > 0, "all answers were made");
    let under_way = node.node.gateway.bytes_under_way();
    assert!(under_way <= USER + MIB, "{under_way}");
    drop(held);
    settles(&node, |bytes| bytes == 0).await;
    rest.must("GET", "/v1/me", Some(token), None).await;
}
