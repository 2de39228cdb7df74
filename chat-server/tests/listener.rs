//! The listener of the real server: the connections that one address may have.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::net::SocketAddr;
use std::sync::Arc;

use madang_chat_server::config::Config;
use madang_chat_server::gateway::listener::listen;
use madang_chat_server::rest;
use madang_testkit::{PATIENCE, Rest, Socket, Storage, TestNode, manual_clock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

const LIMIT: u32 = 4;

async fn start(enabled: bool) -> (TestNode, SocketAddr) {
    let mut config = Config::default();
    config.limits.enabled = enabled;
    config.limits.address_connections = LIMIT;
    let node = TestNode::start(config, &Storage::model(), manual_clock().0).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = rest::router(node.node.api.clone());
    node.node.tasks.spawn("listen", listen::run(listener, router, Arc::clone(&node.node.gateway)));
    (node, addr)
}

/// A connection from an address of this machine that stays open after one request. Returns whether the request was answered.
async fn ask(from: &str, to: SocketAddr) -> (TcpStream, bool) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    // A refused connection may be reset.
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: madang\r\n\r\n").await;
    let mut first = [0];
    let read = timeout(PATIENCE, stream.read(&mut first)).await.expect("an answer or an end");
    (stream, matches!(read, Ok(1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_too_many_connections_gets_no_more_and_others_do() {
    let (node, addr) = start(true).await;
    let mut open = Vec::new();
    for _ in 0..LIMIT {
        let (stream, is_served) = ask("127.0.0.1", addr).await;
        assert!(is_served);
        open.push(stream);
    }
    assert!(!ask("127.0.0.1", addr).await.1);
    assert_eq!(node.node.gateway.operations.metrics.crowded.get(), 1);
    assert!(ask("127.0.0.2", addr).await.1);
    // There is room again as soon as the server has noticed the end of one connection.
    drop(open.pop());
    let back = async { while !ask("127.0.0.1", addr).await.1 {} };
    timeout(PATIENCE, back).await.expect("room");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_not_counted_among_the_connections_of_their_address() {
    let (node, addr) = start(true).await;
    let ada = Rest::new(&node.url()).sign_up("ada").await;
    let token = ada["access_token"].as_str().unwrap();
    let mut sockets = Vec::new();
    for _ in 0..LIMIT + 1 {
        sockets.push(Socket::connect(addr, token, None).await.unwrap());
    }
    assert!(ask("127.0.0.1", addr).await.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_limits_an_address_may_open_any_number_of_connections() {
    let (_node, addr) = start(false).await;
    let mut open = Vec::new();
    for _ in 0..=LIMIT {
        let (stream, is_served) = ask("127.0.0.1", addr).await;
        assert!(is_served);
        open.push(stream);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_sends_requests_but_does_not_read_is_closed() {
    let mut config = Config::default();
    config.gateway.write_seconds = 1;
    let node = TestNode::start(config, &Storage::model(), manual_clock().0).await.unwrap();
    let (mut client, addr) = (TcpStream::connect(node.addr).await.unwrap(), node.addr);
    let question = b"GET /v1/openapi.json HTTP/1.1\r\nHost: madang\r\n\r\n";
    // Until the answers fill the buffers of the kernel on both sides and the server reads no further request.
    let asked = async {
        loop {
            if client.write_all(question).await.is_err() {
                break;
            }
        }
    };
    timeout(PATIENCE, asked).await.expect("the server closes the connection");
    assert!(ask("127.0.0.1", addr).await.1, "others are served");
}
