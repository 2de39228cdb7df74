//! HTTP and WebSocket as RFC 9110, 9112 and 6455 define them, byte by byte.

use std::net::SocketAddr;

use madang_testkit::{PATIENCE, RawSocket, Rest, TestNode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::ask::{Answer, ask, connect, start};

/// Writes a request unchanged, and reads until the server closes the connection or has answered an upgrade.
async fn talk(addr: SocketAddr, request: &str) -> Answer {
    let mut stream = connect("127.0.0.1", addr).await;
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        while !bytes.starts_with(b"HTTP/1.1 101") {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("no end of the answer to {request}"));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}\n{text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

async fn signed_in(node: &TestNode) -> String {
    let ada = Rest::new(&node.url()).sign_up("ada").await;
    ada["access_token"].as_str().unwrap().to_owned()
}

/// A request, its status, and what a header of the answer contains.
type Case<'a> = (&'a str, u16, &'a [(&'a str, &'a str)]);

async fn check(node: &TestNode, cases: &[Case<'_>], token: &str) {
    for (request, status, headers) in cases {
        let answer = talk(node.addr, &request.replace("TOKEN", token)).await;
        assert_eq!(answer.status, *status, "{request}\n{}\n{}", answer.head, answer.body);
        for (name, value) in *headers {
            let found = answer.header(name).unwrap_or_default();
            assert!(found.contains(value), "{request}\n{name}: {found:?} and not {value:?}");
        }
    }
}

const CLOSE: &str = "Connection: close\n";

/// A request, the status of its answer, and headers that the answer must have.
type Exchange = (String, u16, &'static [(&'static str, &'static str)]);

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_read_as_the_rfcs_define() {
    let node = start(|config| {
        config.limits.address_requests = 0;
        config.limits.address_logins = 0;
    })
    .await;
    let token = signed_in(&node).await;
    let with = |line: &str, headers: &str| format!("{line} HTTP/1.1\nHost: madang\n{CLOSE}{headers}\n");
    let post = |headers: &str, body: &str| {
        format!(
            "POST /v1/sessions HTTP/1.1\nHost: madang\n{CLOSE}{headers}Content-Length: {}\n\n{body}",
            body.len()
        )
    };
    let login = r#"{"handle":"ada","password":"wrong horse"}"#;
    let cases: Vec<Exchange> = vec![
        // Exactly one Host.
        (format!("GET /healthz HTTP/1.1\n{CLOSE}\n"), 400, &[]),
        (format!("GET /healthz HTTP/1.1\nHost: a\nHost: a\n{CLOSE}\n"), 400, &[]),
        (format!("GET /healthz HTTP/1.1\nHost: a, b\n{CLOSE}\n"), 400, &[]),
        (format!("GET /healthz HTTP/1.1\nHost: user@a\n{CLOSE}\n"), 400, &[]),
        (format!("GET /healthz HTTP/1.1\nHost: [::1]:8080\n{CLOSE}\n"), 200, &[]),
        ("GET /healthz HTTP/1.0\n\n".to_owned(), 200, &[]),
        // Targets.
        (with("GET http://madang/healthz", ""), 200, &[]),
        (with("GET /%68ealthz", ""), 200, &[]),
        (with("GET /healthz/", ""), 404, &[]),
        (with("GET /healthz?x=%zz", ""), 200, &[]),
        (with("GET /v1/users?handle=ada&handle=bob", "Authorization: Bearer TOKEN\n"), 400, &[]),
        (with("GET /v1/%75sers?handle=ada", "Authorization: Bearer TOKEN\n"), 200, &[]),
        // Methods.
        (with("HEAD /healthz", ""), 200, &[("content-length", "3")]),
        (with("HEAD /v1/me", "Authorization: Bearer TOKEN\n"), 200, &[("cache-control", "no-store")]),
        (with("POST /healthz", "Content-Length: 0\n"), 405, &[("allow", "GET")]),
        (with("PUT /v1/me", "Content-Length: 0\n"), 405, &[("allow", "PATCH")]),
        (with("POST /v1/ws", "Content-Length: 0\n"), 405, &[("allow", "GET")]),
        (with("OPTIONS /v1/me", ""), 204, &[("allow", "PATCH")]),
        (with("OPTIONS /nowhere", ""), 404, &[]),
        (
            with("OPTIONS /v1/me", "Origin: http://localhost\nAccess-Control-Request-Method: PATCH\n"),
            200,
            &[("access-control-allow-methods", "PATCH")],
        ),
        // Tokens.
        (with("GET /v1/me", "Authorization: bearer TOKEN\n"), 200, &[("cache-control", "no-store")]),
        (with("GET /v1/me", "Authorization: BEARER   TOKEN\n"), 200, &[]),
        (with("GET /v1/me", ""), 401, &[("www-authenticate", "Bearer realm"), ("cache-control", "no-store")]),
        (with("GET /v1/me", "Authorization: Bearer x\n"), 401, &[("www-authenticate", "invalid_token")]),
        (
            with("GET /v1/me", "Authorization: Bearer TOKEN\nAuthorization: Bearer TOKEN\n"),
            401,
            &[("www-authenticate", "Bearer")],
        ),
        (with("GET /v1/me", "Authorization: Basic YTpi\n"), 401, &[("www-authenticate", "Bearer")]),
        // Bodies.
        (post("", login), 401, &[("www-authenticate", "Bearer")]),
        (post("Content-Type: application/json; charset=UTF-8\n", login), 401, &[]),
        (post("Content-Type: application/x-www-form-urlencoded\n", login), 401, &[]),
        (post("Content-Type: application/json; charset=utf-16\n", login), 415, &[]),
        (post("Content-Encoding: gzip\n", login), 415, &[]),
        (post("Content-Encoding: identity\n", login), 401, &[]),
        (post("", ""), 400, &[]),
        (post("Expect: 100-continue\n", login), 100, &[]),
        (post("Expect: the-unexpected\n", login), 417, &[]),
        (post("Content-Length: 3\n", login), 400, &[]),
        (
            format!(
                "POST /v1/sessions HTTP/1.1\nHost: madang\n{CLOSE}Transfer-Encoding: chunked\n\n29\n{login}\n0\n\n"
            ),
            401,
            &[],
        ),
        (format!("POST /v1/sessions HTTP/1.1\nHost: madang\n{CLOSE}Transfer-Encoding: gzip\n\nx"), 400, &[]),
        (
            format!(
                "POST /v1/channels HTTP/1.1\nHost: madang\n{CLOSE}Authorization: Bearer TOKEN\nContent-Length: 2\n\
                 Idempotency-Key: 12345678\nIdempotency-Key: 12345679\n\n{{}}"
            ),
            400,
            &[],
        ),
    ];
    let cases: Vec<Case<'_>> =
        cases.iter().map(|(request, status, headers)| (&**request, *status, *headers)).collect();
    check(&node, &cases, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_read_as_rfc_6455_defines() {
    let node = start(|config| config.limits.address_requests = 0).await;
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";
    const VERSION: &str = "Sec-WebSocket-Version: 13\n";
    const OURS: &str = "Sec-WebSocket-Protocol: madang.v1.json\n";
    const UP: &str = "Connection: Upgrade\nUpgrade: websocket\n";
    let get = |headers: &[&str]| format!("GET /v1/ws HTTP/1.1\nHost: madang\n{}\n", headers.concat());
    let opened: &[(&str, &str)] = &[
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "madang.v1.json"),
    ];
    let version: &[(&str, &str)] = &[("sec-websocket-version", "13"), ("upgrade", "websocket")];
    let cases: Vec<Exchange> = vec![
        (get(&[UP, VERSION, KEY, OURS]), 101, opened),
        (get(&["Connection: keep-alive, Upgrade\nUpgrade: WebSocket\n", VERSION, KEY, OURS]), 101, opened),
        (
            get(&["Connection: keep-alive\nConnection: UPGRADE\nUpgrade: websocket\n", VERSION, KEY, OURS]),
            101,
            opened,
        ),
        (get(&["Connection: Upgrade\nUpgrade: h2c, websocket\n", VERSION, KEY, OURS]), 101, opened),
        (get(&["Connection: Upgrade\nUpgrade: h2c\nUpgrade: websocket\n", VERSION, KEY, OURS]), 101, opened),
        (
            get(&[
                UP,
                VERSION,
                KEY,
                "Sec-WebSocket-Protocol: chat\nSec-WebSocket-Protocol: x , madang.v1.json\n",
            ]),
            101,
            opened,
        ),
        (get(&[UP, VERSION, KEY, OURS, "Sec-WebSocket-Extensions: permessage-deflate\n"]), 101, opened),
        (get(&[UP, KEY, OURS, "Sec-WebSocket-Version: 8\nConnection: close\n"]), 426, version),
        (get(&[UP, KEY, OURS, "Connection: close\n"]), 426, version),
        (get(&[UP, VERSION, VERSION, KEY, OURS, "Connection: close\n"]), 426, version),
        (get(&[VERSION, KEY, OURS, "Connection: close\n"]), 426, version),
        (get(&["Upgrade: websocket\n", VERSION, KEY, OURS, "Connection: close\n"]), 426, version),
        (get(&[UP, VERSION, OURS, "Connection: close\n"]), 400, &[]),
        (get(&[UP, VERSION, KEY, KEY, OURS, "Connection: close\n"]), 400, &[]),
        (
            get(&[UP, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\n", OURS, "Connection: close\n"]),
            400,
            &[],
        ),
        (
            get(&[UP, VERSION, "Sec-WebSocket-Key: not base64 at all, no\n", OURS, "Connection: close\n"]),
            400,
            &[],
        ),
        (get(&[UP, VERSION, KEY, "Connection: close\n"]), 400, &[]),
        (get(&[UP, VERSION, KEY, "Sec-WebSocket-Protocol: MADANG.V1.JSON\nConnection: close\n"]), 400, &[]),
        (
            get(&[
                UP,
                VERSION,
                KEY,
                OURS,
                "Origin: http://localhost\nOrigin: https://evil.example\nConnection: close\n",
            ]),
            403,
            &[],
        ),
    ];
    let cases: Vec<Case<'_>> =
        cases.iter().map(|(request, status, headers)| (&**request, *status, *headers)).collect();
    check(&node, &cases, "").await;
}

/// A frame with a mask of zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    [&[first, 0x80 | length, 0, 0, 0, 0][..], payload].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_framing_is_closed_with_its_code() {
    let node = start(|config| config.limits.address_requests = 0).await;
    let token = signed_in(&node).await;
    let hello = format!(r#"{{"type":"hello","id":"1","token":"{token}"}}"#);
    let cases: &[(&str, Vec<u8>, u16)] = &[
        ("a frame without a mask", vec![0x81, 2, b'{', b'}'], 1002),
        ("a reserved bit", masked(0xc1, b"{}"), 1002),
        ("a reserved opcode of data", masked(0x83, b"{}"), 1002),
        ("a reserved opcode of control", masked(0x8b, b""), 1002),
        ("a ping in fragments", masked(0x09, b"x"), 1002),
        ("a ping of 126 bytes", [&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], &[b'x'; 126]].concat(), 1002),
        ("a continuation of nothing", masked(0x80, b"x"), 1002),
        ("a text within a text", [masked(0x01, b"{"), masked(0x81, b"{}")].concat(), 1002),
        ("a close with half a code", masked(0x88, b"x"), 1002),
        ("a close with a code that nobody may send", masked(0x88, &[0x03, 0xed]), 1002),
        ("text that is not UTF-8", masked(0x81, b"\xc3\x28"), 1007),
        ("half a character at the end", masked(0x81, b"\xc3"), 1007),
        ("a close whose reason is not UTF-8", masked(0x88, b"\x03\xe8\xc3\x28"), 1007),
        ("a length that no memory has", [&[0x81, 0xff][..], &[0x7f; 8], &[0; 4]].concat(), 1009),
        ("a polite close", masked(0x88, &[0x03, 0xe8]), 1000),
    ];
    for (what, bytes, code) in cases {
        for is_welcomed in [false, true] {
            let mut socket = RawSocket::open(node.addr).await.unwrap();
            if is_welcomed {
                socket.write_text(&hello).await.unwrap();
                assert!(socket.read_text().await.unwrap().contains("welcome"));
            }
            socket.write_bytes(bytes).await.unwrap();
            // Bytes behind the broken frame must not make the kernel discard the close frame.
            let _ = socket.write_bytes(&[0; 30_000]).await;
            let closed = socket.read_close().await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(closed, *code, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn public_pages_have_a_limit_of_their_own_and_a_validator() {
    let node = start(|config| config.limits.address_requests = 1).await;
    let pages = ["/docs", "/v1/openapi.json", "/v1/asyncapi.json", "/metrics", "/", "/healthz", "/nowhere"];
    for path in pages {
        let mut limited = 0;
        for _ in 0..12 {
            let answer = ask(&node, &format!("GET {path}"), &[]).await;
            limited += u32::from(answer.status == 429);
            if answer.status == 429 {
                assert!(answer.header("retry-after").is_some());
            }
        }
        assert!(limited > 0, "{path} has no limit");
    }
    // Sockets and logins of the address are not affected.
    RawSocket::open(node.addr).await.unwrap();
    let node = start(|config| config.limits.address_requests = 0).await;
    for path in ["/docs", "/docs/page.js", "/v1/openapi.json"] {
        let first = ask(&node, &format!("GET {path}"), &[]).await;
        let tag = first.header("etag").unwrap();
        let again = ask(&node, &format!("GET {path}"), &[&format!("If-None-Match: \"x\", {tag}")]).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        let other = ask(&node, &format!("GET {path}"), &["If-None-Match: \"x\""]).await;
        assert_eq!((other.status, other.body.len()), (200, first.body.len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_compressed_and_answers_with_tokens_are_not() {
    let node = start(|config| config.limits.address_requests = 0).await;
    let token = signed_in(&node).await;
    let encoding = async |line: &str, headers: &str, body: &str| {
        let length = body.len();
        let request =
            format!("{line} HTTP/1.1\nHost: madang\n{CLOSE}Content-Length: {length}\n{headers}\n{body}");
        let answer = talk(node.addr, &request).await;
        assert!(answer.status < 300, "{request}: {}", answer.status);
        answer.header("content-encoding")
    };
    let gzip = Some("gzip".to_owned());
    assert_eq!(encoding("GET /v1/openapi.json", "Accept-Encoding: br, gzip\n", "").await, gzip);
    assert_eq!(
        encoding("GET /v1/openapi.json", "Accept-Encoding: br\nAccept-Encoding: gzip\n", "").await,
        gzip
    );
    assert_eq!(encoding("GET /v1/openapi.json", "", "").await, None);
    assert_eq!(encoding("GET /v1/openapi.json", "Accept-Encoding: gzip;q=0\n", "").await, None);
    let auth = format!("Authorization: Bearer {token}\nAccept-Encoding: gzip\n");
    assert_eq!(encoding("GET /v1/me", &auth, "").await, None);
    let name = "x".repeat(60);
    for number in 0..20 {
        let body = format!(r#"{{"device_name":"{name}{number}"}}"#);
        assert_eq!(encoding("POST /v1/devices", &auth, &body).await, None);
    }
    assert_eq!(encoding("GET /v1/devices", &auth, "").await, None);
    let login = format!(r#"{{"handle":"ada","password":"{}"}}"#, "correct horse");
    assert_eq!(encoding("POST /v1/sessions", "Accept-Encoding: gzip\n", &login).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_empty_fragments_are_charged() {
    let node = start(|config| config.limits.address_requests = 0).await;
    let token = signed_in(&node).await;
    for (is_last, opcode) in [(true, madang_testkit::PING), (true, madang_testkit::PONG), (false, 0)] {
        let mut socket = RawSocket::open(node.addr).await.unwrap();
        socket.write_text(&format!(r#"{{"type":"hello","id":"1","token":"{token}"}}"#)).await.unwrap();
        assert!(socket.read_text().await.unwrap().contains("welcome"));
        if opcode == 0 {
            socket.write(false, madang_testkit::TEXT, b"{").await.unwrap();
        }
        // More than the kernel buffers on both sides: if the server does not read, the client cannot write.
        let flood = async { while socket.write_empty(is_last, opcode, 10_000).await.is_ok() {} };
        let stalled = timeout(PATIENCE / 10, flood).await;
        assert!(stalled.is_err(), "opcode {opcode} is read without end, or its socket was closed");
    }
}
