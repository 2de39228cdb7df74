//! The id of a request, and the time after which a refused client may come back.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::ask::{ask, connect, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_id_is_kept_and_any_other_is_replaced() {
    let node = start(|_| {}).await;
    let id_for = async |headers: &[&str]| {
        let answer = ask(&node, "GET /v1/nowhere", headers).await;
        assert_eq!(answer.status, 404);
        let id = answer.header("x-request-id").unwrap();
        assert!(!answer.body.contains(&id), "the id is in the header only");
        id
    };
    let longest = "x".repeat(64);
    for id in ["12345678", "a-b_c/d=e;f\"~!", &longest] {
        assert_eq!(id_for(&[&format!("X-Request-Id: {id}")]).await, id);
    }
    let too_long = "x".repeat(65);
    for id in ["1234567", &too_long, "two words", "b\u{e9}b\u{e9}b\u{e9}b\u{e9}", ""] {
        let made = id_for(&[&format!("X-Request-Id: {id}")]).await;
        assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
    }
    assert_ne!(id_for(&[]).await, id_for(&[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_answered_with_its_id() {
    let node = start(|_| {}).await;
    let mut stream = connect("127.0.0.1", node.addr).await;
    let request = "GET /v1/ws HTTP/1.1\r\nHost: madang\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: madang.v1.json\r\nX-Request-Id: socket-of-ada\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = String::new();
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.is_empty()) {
        head += &format!("{}\n", line.to_ascii_lowercase());
    }
    assert!(head.starts_with("http/1.1 101") && head.contains("x-request-id: socket-of-ada\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_gets_the_time_to_come_back() {
    let node = start(|_| {}).await;
    node.drain.begin();
    for path in ["/readyz", "/v1/ws"] {
        let answer = ask(&node, &format!("GET {path}"), &[]).await;
        assert_eq!((answer.status, answer.header("retry-after").as_deref()), (503, Some("1")), "{path}");
    }
}
