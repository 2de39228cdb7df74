//! Two accounts try to take every socket of a node with 700 places.

use std::net::SocketAddr;

use madang_testkit::{PATIENCE, RawSocket, Rest, Socket, TestNode};
use serde_json::Value;
use tokio::time::timeout;

use crate::ask::{connect, start};

const PLACES: usize = 700;

async fn node(change: impl FnOnce(&mut madang_chat_server::config::Config)) -> TestNode {
    start(|config| {
        config.gateway.connections = PLACES;
        // The test is about the bounds by user and by address.
        config.gateway.connections_per_device = 1_000;
        config.limits.address_requests = 0;
        config.limits.address_logins = 0;
        change(config);
    })
    .await
}

fn token(account: &Value) -> &str {
    account["access_token"].as_str().unwrap()
}

/// Opens sockets until all are open or one is refused.
async fn crowd(addr: SocketAddr, accounts: &[&Value], count: usize) -> (Vec<RawSocket>, Option<String>) {
    let mut sockets = Vec::new();
    for account in accounts.iter().cycle().take(count) {
        let mut socket = match RawSocket::open(addr).await {
            Ok(socket) => socket,
            Err(error) => return (sockets, Some(error.to_string())),
        };
        let hello = serde_json::json!({ "type": "hello", "id": "1", "token": token(account) });
        socket.write_text(&hello.to_string()).await.unwrap();
        assert!(socket.read_text().await.unwrap().contains("welcome"));
        sockets.push(socket);
    }
    (sockets, None)
}

async fn holds(node: &TestNode, sockets: i64) {
    let metrics = &node.node.gateway.operations.metrics;
    let wait = async {
        while metrics.connections.get() != sockets {
            tokio::task::yield_now().await;
        }
    };
    let found = timeout(PATIENCE, wait).await;
    assert!(found.is_ok(), "{} sockets are open", metrics.connections.get());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_accounts_leave_room_for_a_third() {
    let node = node(|_| {}).await;
    let rest = Rest::new(&node.url());
    let (ada, bob, cy) = (rest.sign_up("ada").await, rest.sign_up("bob").await, rest.sign_up("cy").await);
    // As many sockets as there are places. The last hundred of each account stay.
    let (mut sockets, refused) = crowd(node.addr, &[&ada, &bob], PLACES).await;
    assert_eq!((sockets.len(), refused), (PLACES, None));
    holds(&node, 200).await;
    for socket in &mut sockets[..4] {
        assert_eq!(socket.read_close().await.unwrap(), 4502);
    }
    let (_third, welcome) = Socket::connect(node.addr, token(&cy), None).await.unwrap();
    assert_eq!(welcome["type"], "welcome");
    holds(&node, 201).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_accounts_of_one_address_leave_room_for_another_address() {
    let node = node(|config| config.limits.address_sockets = 300).await;
    let rest = Rest::new(&node.url());
    let mut accounts = Vec::new();
    for number in 0..9 {
        accounts.push(rest.sign_up(&format!("user{number}")).await);
    }
    let crowding: Vec<&Value> = accounts[..8].iter().collect();
    let (sockets, refused) = crowd(node.addr, &crowding, PLACES).await;
    assert_eq!(sockets.len(), 300);
    assert!(refused.is_some_and(|refused| refused.starts_with("HTTP/1.1 429")));
    let stream = Box::new(connect("127.0.0.2", node.addr).await);
    let other = Socket::over(stream, node.addr).await.unwrap();
    let (_other, welcome) = other.greet(token(&accounts[8]), None).await.unwrap();
    assert_eq!(welcome["type"], "welcome");
    holds(&node, 301).await;
}
