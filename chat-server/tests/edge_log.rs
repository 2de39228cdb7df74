//! The log of requests and sockets, as an operator reads it.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

#[path = "edge/ask.rs"]
mod ask;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use madang_chat_server::config::Config;
use madang_service::{LogFormat, TelemetryConfig, telemetry};
use madang_testkit::{Certificate, PATIENCE, Socket, Storage, TestNode, manual_clock};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use ask::{ask, ask_from, connect, start};

async fn sign_up(node: &TestNode, handle: &str) -> Value {
    let body = json!({ "handle": handle, "display_name": handle, "password": "correct horse" }).to_string();
    let answer = ask_from("127.0.0.1", node.addr, "POST /v1/accounts", &[], &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()
}

/// One test at a time, because the noise limit of the log is remembered for the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// The log of this thread, for as long as this value lives.
struct Log {
    lines: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::dispatcher::DefaultGuard,
}

fn in_turn(test: impl Future<Output = ()>) {
    let _turn = TURN.lock();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

impl Log {
    fn read(format: LogFormat, filter: &str) -> Self {
        let lines = Arc::<Mutex<Vec<u8>>>::default();
        let sink = Arc::clone(&lines);
        let config = TelemetryConfig { format, filter: filter.to_owned() };
        let dispatch = telemetry::lines_to(&config, move || Sink(Arc::clone(&sink))).unwrap();
        Self { lines, _guard: tracing::dispatcher::set_default(&dispatch) }
    }

    fn text(&self) -> String {
        String::from_utf8(self.lines.lock().clone()).unwrap()
    }

    async fn wait_for(&self, words: &str) {
        let here = async {
            while !self.text().contains(words) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, here).await.expect(words);
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn line(&self, message: &str) -> Value {
        let lines = self.lines();
        let mut found = lines.iter().filter(|line| line["message"] == message);
        let line = found.next().unwrap_or_else(|| panic!("no {message:?} in {lines:#?}"));
        assert!(found.next().is_none(), "{message:?} twice");
        line.clone()
    }
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_request_has_one_line_with_its_id() {
    in_turn(async {
        let node =
            start(|config| config.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()]).await;
        let ada = sign_up(&node, "ada").await;
        let (id, token) = (ada["user"]["id"].as_str().unwrap(), ada["access_token"].as_str().unwrap());
        let log = Log::read(LogFormat::Json, "info");
        let (line, auth) = (format!("GET /v1/users/{id}?secret=1"), format!("Authorization: Bearer {token}"));
        let headers = [auth.as_str(), "X-Request-Id: request-of-ada", "X-Forwarded-For: 203.0.113.1"];
        let answer = ask(&node, &line, &headers).await;
        assert_eq!(answer.status, 200);
        let line = log.line("answered");
        assert_eq!((&line["level"], &line["method"]), (&json!("INFO"), &json!("GET")));
        assert_eq!(line["route"], "/v1/users/{user_id}");
        assert_eq!((&line["status"], &line["bytes"]), (&json!(200), &json!(answer.body.len())));
        assert!(line["duration_ms"].is_f64());
        assert_eq!(line["client.address"], "203.0.113.1");
        assert_eq!(line["span"]["request.id"], "request-of-ada");
        assert_eq!(line["span"]["user.id"], *id);
        for secret in [token, "secret=1", "correct horse"] {
            assert!(!log.text().contains(secret));
        }
    });
}

#[test]
fn a_line_contains_what_is_known_and_nothing_else() {
    in_turn(async {
        let node = start(|_| {}).await;
        let log = Log::read(LogFormat::Json, "info");
        for line in ["GET /healthz", "GET /metrics", "GET /readyz"] {
            assert_eq!(ask(&node, line, &[]).await.status, 200);
        }
        assert_eq!(log.text(), "", "who looks every few seconds fills no log");
        let method = "X".repeat(100);
        let answer = ask(&node, &format!("{method} /v1/my-secret"), &[]).await;
        let line = log.line("answered");
        assert_eq!((&line["method"], &line["route"]), (&json!("other"), &json!("none")));
        assert_eq!(line["span"]["request.id"], answer.header("x-request-id").unwrap());
        assert!(line["span"].get("user.id").is_none());
        assert!(!log.text().contains("my-secret"));
    });
}

#[test]
fn a_socket_can_be_followed_from_its_request_to_its_end() {
    in_turn(async {
        let node = start(|_| {}).await;
        let ada = sign_up(&node, "ada").await;
        let (id, token) = (ada["user"]["id"].as_str().unwrap(), ada["access_token"].as_str().unwrap());
        let log = Log::read(LogFormat::Json, "info");
        let (socket, _) = Socket::connect(node.addr, token, None).await.unwrap();
        socket.close().await;
        log.wait_for("connection closed").await;
        let (answered, opened, end) =
            (log.line("answered"), log.line("connection opened"), log.line("connection closed"));
        assert_eq!((&answered["route"], &answered["status"]), (&json!("/v1/ws"), &json!(101)));
        assert!(answered["span"]["request.id"].is_string());
        assert_eq!(opened["span"]["request.id"], answered["span"]["request.id"]);
        assert!(opened["connection.id"].is_number());
        assert_eq!(end["span"]["connection.id"], opened["connection.id"]);
        assert_eq!(end["span"]["user.id"], *id);
        assert!(!log.text().contains(token));
    });
}

#[test]
fn lines_in_text_format_have_the_id_as_well() {
    in_turn(async {
        let node = start(|_| {}).await;
        let log = Log::read(LogFormat::Text, "info");
        assert_eq!(ask(&node, "GET /v1/me", &["X-Request-Id: request-of-bob"]).await.status, 401);
        let text = log.text();
        assert!(
            text.contains("request.id=\"request-of-bob\"") && text.contains("route=\"/v1/me\""),
            "{text}"
        );
    });
}

#[test]
fn a_request_whose_client_hangs_up_has_a_line() {
    in_turn(async {
        let node = start(|_| {}).await;
        let log = Log::read(LogFormat::Json, "info");
        let mut stream = connect("127.0.0.1", node.addr).await;
        let request = "POST /v1/sessions HTTP/1.1\r\nHost: madang\r\nX-Request-Id: request-of-eve\r\n\
                       Content-Length: 10\r\nExpect: 100-continue\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap(), b'H');
        drop(stream);
        log.wait_for("answered").await;
        let line = log.lines().pop().unwrap();
        assert_eq!(line["span"]["request.id"], "request-of-eve");
        assert_eq!(line["route"], "/v1/sessions");
    });
}

#[test]
fn a_mismatched_certificate_pair_is_logged_once() {
    in_turn(async {
        let (folder, other) = (tempfile::tempdir().unwrap(), Certificate::new());
        let config = Config { tls: Certificate::new().write(folder.path()), ..Config::default() };
        let (clock, hand) = manual_clock();
        let _node = TestNode::start(config, &Storage::model(), clock).await.unwrap();
        let log = Log::read(LogFormat::Json, "warn");
        let key = folder.path().join("key.pem");
        std::fs::write(&key, &other.key_pem).unwrap();
        let look = async || {
            for _ in 0..100 {
                hand.advance(Duration::from_secs(5));
                tokio::task::yield_now().await;
            }
        };
        look().await;
        let line = log.line("reloading the certificate failed: the previous one stays in use");
        let error = line["error"].as_str().unwrap();
        assert!(error.contains("/cert.pem") && error.contains("/key.pem"), "{error}");
        assert!(!log.text().contains("BEGIN"));
        // The next change makes the next line.
        std::fs::remove_file(key).unwrap();
        look().await;
        assert_eq!(log.lines().len(), 2);
    });
}
