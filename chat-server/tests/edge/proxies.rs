//! The client address of a request that came through a proxy.

use std::sync::atomic::{AtomicU32, Ordering};

use madang_chat_server::config::{Config, ProxyHeader};
use madang_testkit::{PATIENCE, TestNode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::ask::{ask, ask_from, connect, start};

/// A login that must be refused: because of its password, or before that by the limit of its address. Each uses another account,
/// because accounts have a limit of their own.
async fn log_in(node: &TestNode, from: &str, header: &str) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let handle = format!("nobody{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let body = json!({ "handle": handle, "password": "wrong horse" }).to_string();
    ask_from(from, node.addr, "POST /v1/sessions", &[header.to_owned()], &body).await.status
}

/// How many logins are tried until one is refused by the limit.
async fn logins_until_limited(node: &TestNode, from: &str, header: impl Fn(u32) -> String) -> u32 {
    for number in 0..100 {
        match log_in(node, from, &header(number)).await {
            401 => {}
            429 => return number,
            status => panic!("{status}"),
        }
    }
    100
}

pub(crate) fn behind_a_proxy(config: &mut Config) {
    config.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    config.limits.address_requests = 0;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_behind_a_proxy_have_limits_of_their_own() {
    let node = start(behind_a_proxy).await;
    let ada = |_| "X-Forwarded-For: 203.0.113.1".to_owned();
    assert_eq!(logins_until_limited(&node, "127.0.0.1", ada).await, 60);
    assert_eq!(log_in(&node, "127.0.0.1", "X-Forwarded-For: 203.0.113.2").await, 401);
    // A whole /64 is one caller, in whatever form the address is written.
    let eve = |number| format!("X-Forwarded-For: [2001:db8::{number:x}]:4711");
    assert_eq!(logins_until_limited(&node, "127.0.0.1", eve).await, 60);
    assert_eq!(log_in(&node, "127.0.0.1", "X-Forwarded-For: 2001:db8::ffff").await, 429);
    assert_eq!(log_in(&node, "127.0.0.1", "X-Forwarded-For: 2001:db8:0:1::1").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_cannot_be_forged() {
    let node = start(behind_a_proxy).await;
    // Behind the proxy, with an invented address before the one that the proxy writes.
    let forged = |number| format!("X-Forwarded-For: 198.51.100.{number}, 203.0.113.1");
    assert_eq!(logins_until_limited(&node, "127.0.0.1", forged).await, 60);
    // In the header that the proxy does not write.
    let other = |number| format!("X-Forwarded-For: 203.0.113.2\r\nForwarded: for=198.51.100.{number}");
    assert_eq!(logins_until_limited(&node, "127.0.0.1", other).await, 60);
    // Without the proxy.
    let past = |number| format!("X-Forwarded-For: 198.51.100.{number}");
    assert_eq!(logins_until_limited(&node, "127.0.0.2", past).await, 60);
    // A value that is not an address is counted for the proxy.
    let nonsense = |number| format!("X-Forwarded-For: {number} bottles");
    assert_eq!(logins_until_limited(&node, "127.0.0.1", nonsense).await, 60);
    assert_eq!(log_in(&node, "127.0.0.1", "X-Forwarded-For: 203.0.113.3").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_is_read_if_the_proxy_writes_it() {
    let node = start(|config| {
        behind_a_proxy(config);
        config.server.proxy_header = ProxyHeader::Forwarded;
    });
    let node = node.await;
    let ada = |number| format!("Forwarded: for=198.51.100.{number}, for=\"[2001:db8::1]:7\";proto=https");
    assert_eq!(logins_until_limited(&node, "127.0.0.1", ada).await, 60);
    assert_eq!(log_in(&node, "127.0.0.1", "Forwarded: for=203.0.113.2").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_open_many_connections_and_each_of_its_clients_few() {
    const LIMIT: u32 = 3;
    let node = start(|config| {
        behind_a_proxy(config);
        config.limits.address_connections = LIMIT;
    });
    let node = node.await;
    // Requests whose bodies never arrive.
    let mut held = Vec::new();
    for _ in 0..LIMIT {
        let mut stream = connect("127.0.0.1", node.addr).await;
        let request = "POST /v1/sessions HTTP/1.1\r\nHost: madang\r\nX-Forwarded-For: 203.0.113.1\r\n\
                       Content-Length: 10\r\nExpect: 100-continue\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        // The server has begun to read the body.
        assert_eq!(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap(), b'H');
        held.push(stream);
    }
    let from =
        async |client: &str| ask(&node, "GET /healthz", &[&format!("X-Forwarded-For: {client}")]).await;
    let refused = from("203.0.113.1").await;
    assert_eq!((refused.status, refused.header("retry-after").as_deref()), (429, Some("1")));
    assert_eq!(refused.json()["code"], "limited");
    assert_eq!(node.node.gateway.operations.metrics.crowded.get(), 1);
    assert_eq!(from("203.0.113.2").await.status, 200);
    drop(held);
    let back = async { while from("203.0.113.1").await.status != 200 {} };
    timeout(PATIENCE, back).await.expect("room");
}
