//! The cases over a real Redis server, and what only such a server can do: restart empty, hang, lose connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_bus::registry::{ProcessState, RedisRegistry, Registry, RegistryError, Renewal, Role};
use tokio::net::TcpListener;

use crate::cases::{self, LONG, card, run};

/// The number of the database of these tests. Other tests may use the same server.
const DATABASE: u8 = 9;

fn server() -> String {
    std::env::var("MADANG_TEST_REDIS").unwrap()
}

fn registry() -> Arc<dyn Registry> {
    Arc::new(RedisRegistry::open(&format!("redis://{}/{DATABASE}", server()), None).unwrap())
}

/// One command in the database of these tests, such as an operator would type. Returns the answer as it came.
fn command(words: &[&str]) -> String {
    let mut stream = TcpStream::connect(server()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut send = |line: String| {
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..count]).into_owned()
    };
    assert_eq!(send(format!("SELECT {DATABASE}\r\n")), "+OK\r\n");
    send(format!("{}\r\n", words.join(" ")))
}

/// One after another, because they share a database.
#[tokio::test]
#[ignore = "needs the address of a Redis server in MADANG_TEST_REDIS"]
async fn the_registry_over_redis_passes_all_cases() {
    for (name, case) in cases::all() {
        println!("{name}");
        command(&["FLUSHDB"]);
        case(registry()).await;
    }
    command(&["FLUSHDB"]);
    an_emptied_redis_asks_everybody_to_register_again().await;
    command(&["FLUSHDB"]);
    processes_that_left_long_ago_are_forgotten().await;
    command(&["FLUSHDB"]);
    a_lost_connection_is_opened_again().await;
    command(&["FLUSHDB"]);
}

async fn an_emptied_redis_asks_everybody_to_register_again() {
    let registry = registry();
    let (state, chat) = (ProcessState::default(), run(Role::Chat, 1, 1));
    registry.register(&card("a", 1, 1), state, LONG).await.unwrap();
    assert_eq!(registry.renew(chat, state, LONG).await, Ok(Renewal::Kept));
    let before = registry.view().await.unwrap().incarnation;
    registry.register(&card("b", 2, 1), state, LONG).await.unwrap();
    assert_eq!(registry.view().await.unwrap().incarnation, before);
    command(&["FLUSHDB"]);
    command(&["SCRIPT", "FLUSH"]);
    assert_eq!(registry.renew(chat, state, LONG).await, Ok(Renewal::Unknown));
    let empty = registry.view().await.unwrap();
    assert_eq!(empty.processes, []);
    registry.register(&card("a", 1, 1), state, LONG).await.unwrap();
    assert_eq!(registry.renew(chat, state, LONG).await, Ok(Renewal::Kept));
    let after = registry.view().await.unwrap().incarnation;
    assert!(before != 0 && before != empty.incarnation && before != after, "{before} {empty:?} {after}");
}

async fn processes_that_left_long_ago_are_forgotten() {
    let registry = registry();
    let state = ProcessState::default();
    registry.register(&card("old", 1, 7), state, LONG).await.unwrap();
    registry.register(&card("recent", 2, 7), state, LONG).await.unwrap();
    registry.leave(run(Role::Chat, 2, 7)).await.unwrap();
    // As if its lease had ended long ago.
    command(&["ZADD", "{madang}:live", "1", "chat:1"]);
    registry.register(&card("new", 3, 1), state, LONG).await.unwrap();
    for (key, field) in [("cards", "chat:1"), ("states", "chat:1"), ("names", "chat:old")] {
        assert_eq!(command(&["HEXISTS", &format!("{{madang}}:{key}"), field]), ":0\r\n", "{key}");
        assert_eq!(command(&["HLEN", &format!("{{madang}}:{key}")]), ":2\r\n", "{key}");
    }
    registry.register(&card("old", 1, 1), state, LONG).await.unwrap();
    let older = registry.register(&card("recent", 2, 1), state, LONG).await;
    assert!(matches!(older, Err(RegistryError::OlderEpoch { .. })), "{older:?}");
}

async fn a_lost_connection_is_opened_again() {
    let registry = registry();
    registry.register(&card("a", 1, 1), ProcessState::default(), LONG).await.unwrap();
    command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    // The first call may find the connection lost.
    let mut views = Vec::new();
    for _ in 0..3 {
        views.push(registry.view().await.map(|view| view.processes.len()));
    }
    assert_eq!(views.last(), Some(&Ok(1)), "{views:?}");
}

/// A peer that accepts connections and never answers is as bad as a network that swallows packets.
#[tokio::test]
async fn a_server_that_does_not_answer_holds_no_call_longer_than_two_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let registry = RedisRegistry::open(&url, None).unwrap();
    let began = Instant::now();
    let answer = registry.use_ticket("x", LONG).await;
    assert!(matches!(answer, Err(RegistryError::Unavailable(_))), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_at_once() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let registry = RedisRegistry::open(&format!("redis://{gone}"), Some("secret-word")).unwrap();
    let error = registry.view().await.unwrap_err().to_string();
    assert!(!error.contains("secret-word"), "{error}");
    let error = RedisRegistry::open("redis://:secret-word@/:x:", None).unwrap_err().to_string();
    assert!(!error.contains("secret-word"), "{error}");
}
