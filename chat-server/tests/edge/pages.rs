//! Which pages may make requests, and what they may read of the answer.

use madang_testkit::RawSocket;

use crate::ask::{Answer, ask, start};

const PAGE: &str = "https://chat.example";

fn has(answer: &Answer, name: &str, value: &str) -> bool {
    let header = answer.header(name).unwrap_or_default();
    header.split(',').any(|part| part.trim().eq_ignore_ascii_case(value))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_says_what_a_page_may_do() {
    let node = start(|config| config.server.allowed_origins = vec![PAGE.to_owned()]).await;
    let ask_first = async |origin: &str, path: &str| {
        let origin = format!("Origin: {origin}");
        let method = "Access-Control-Request-Method: PUT";
        let headers = "Access-Control-Request-Headers: authorization,content-type";
        ask(&node, &format!("OPTIONS {path}"), &[&origin, method, headers]).await
    };
    for path in ["/v1/me", "/v1/channels/1/members", "/v1/nowhere"] {
        let answer = ask_first(PAGE, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
        assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some(PAGE));
        assert_eq!(answer.header("access-control-max-age").as_deref(), Some("3600"));
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            assert!(has(&answer, "access-control-allow-methods", method), "{method}");
        }
        for header in ["authorization", "content-type", "idempotency-key", "x-request-id"] {
            assert!(has(&answer, "access-control-allow-headers", header), "{header}");
        }
        assert!(has(&answer, "vary", "origin"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    let foreign = ask_first("https://evil.example", "/v1/me").await;
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    assert!(has(&foreign, "vary", "origin"), "a cache must not give this answer to another page");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_can_read_answers_and_refusals_and_their_retry_time() {
    let node = start(|config| {
        config.server.allowed_origins = vec![PAGE.to_owned()];
        config.limits.address_requests = 1;
    });
    let node = node.await;
    let origin = format!("Origin: {PAGE}");
    let check = |answer: &Answer| {
        assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some(PAGE));
        assert!(has(answer, "access-control-expose-headers", "retry-after"));
        assert!(has(answer, "access-control-expose-headers", "x-request-id"));
        assert!(has(answer, "vary", "origin"));
        assert!(answer.header("x-request-id").is_some());
    };
    let answer = ask(&node, "GET /", &[&origin]).await;
    assert_eq!(answer.status, 200);
    check(&answer);
    let mut statuses = Vec::new();
    for _ in 0..=10 {
        let answer = ask(&node, "GET /v1/me", &[&origin]).await;
        check(&answer);
        if answer.status == 429 {
            let wait_ms = answer.json()["retry_after_ms"].as_u64().unwrap();
            assert_eq!(answer.header("retry-after"), Some(wait_ms.div_ceil(1_000).to_string()));
        }
        statuses.push(answer.status);
    }
    assert_eq!((statuses[0], statuses[10]), (401, 429));
    let foreign = ask(&node, "GET /", &["Origin: https://evil.example"]).await;
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    assert!(has(&foreign, "vary", "origin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_origin_may_be_allowed() {
    let node = start(|config| config.server.allowed_origins = vec!["*".to_owned()]).await;
    let answer = ask(&node, "GET /", &["Origin: https://anything.example"]).await;
    assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let headers = [("Sec-WebSocket-Protocol", "madang.v1.json"), ("Origin", "https://anything.example")];
    RawSocket::upgrade(node.addr, &headers).await.unwrap();
}
