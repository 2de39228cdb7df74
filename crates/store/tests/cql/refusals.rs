//! The schema, and clusters that are refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_store::scylla::schema::{ApplyOptions, apply, check};
use madang_store::scylla::{ConnectError, connect, schema};
use madang_store::{StoreConfig, StoreKind};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::{PATIENCE, config, replication};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn a_keyspace_is_made_once_by_two_at_once() {
    let config = config("madang_test_schema");
    schema::drop_keyspace(&config).await.unwrap();
    let refused = connect(&config, true, PATIENCE).await.unwrap_err();
    assert!(matches!(&refused, ConnectError::NoKeyspace(name) if *name == config.keyspace), "{refused}");
    assert!(refused.to_string().contains("madang schema apply"), "{refused}");
    assert!(matches!(check(&config, PATIENCE).await.unwrap().refusal, Some(ConnectError::NoKeyspace(_))));

    let options = ApplyOptions { replication: replication(&config) };
    let (one, other) = tokio::join!(apply(&config, options, PATIENCE), apply(&config, options, PATIENCE));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one.iter().chain(&other).any(|line| line.contains("tables: log")), "{one:?} {other:?}");
    assert_eq!(apply(&config, options, PATIENCE).await.unwrap(), Vec::<String>::new());

    let report = check(&config, PATIENCE).await.unwrap();
    assert_eq!(report.differences, Vec::<String>::new());
    connect(&config, true, PATIENCE).await.unwrap();

    schema::break_schema(&config, "DROP TABLE {keyspace}.blocks").await.unwrap();
    schema::break_schema(&config, "ALTER TABLE {keyspace}.users DROP avatar").await.unwrap();
    schema::break_schema(&config, "ALTER TABLE {keyspace}.users ADD later int").await.unwrap();
    let report = check(&config, PATIENCE).await.unwrap();
    assert_eq!(report.differences, ["the table blocks is missing", "the column users.avatar is missing"]);
    assert_eq!(apply(&config, options, PATIENCE).await.unwrap(), ["created 1 tables: blocks"]);

    let version = |version: i32| {
        let set =
            format!("UPDATE {{keyspace}}.schema_version SET version = {version} WHERE id = 0 IF EXISTS");
        let config = config.clone();
        async move { schema::break_schema(&config, &set).await.unwrap() }
    };
    version(99).await;
    let newer = connect(&config, true, PATIENCE).await.unwrap_err();
    assert!(matches!(newer, ConnectError::NewerSchema { found: 99, .. }), "{newer}");
    let newer = apply(&config, options, PATIENCE).await.unwrap_err();
    assert!(matches!(newer, ConnectError::NewerSchema { found: 99, .. }), "{newer}");
    version(0).await;
    let older = connect(&config, true, PATIENCE).await.unwrap_err();
    assert!(matches!(older, ConnectError::OlderSchema { found: 0, .. }), "{older}");
    apply(&config, options, PATIENCE).await.unwrap();
    connect(&config, true, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn weak_settings_are_named_and_can_be_accepted() {
    let config = config("madang_test_weak");
    schema::drop_keyspace(&config).await.unwrap();
    apply(&config, ApplyOptions { replication: 1 }, PATIENCE).await.unwrap();
    let refused = connect(&config, false, PATIENCE).await.unwrap_err();
    let text = refused.to_string();
    for part in [
        "the replication factor of the keyspace madang_test_weak in the data center datacenter1 is 1, needs 3 or more",
        "commitlog_sync is periodic, needs group or batch",
        "--accept-weak-store",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let ConnectError::Weak(weak) = &refused else { panic!("{refused}") };
    assert_eq!(weak.len(), 2, "{weak:?}");
    assert!(refused.is_lasting());
    connect(&config, true, PATIENCE).await.unwrap();

    let without_commit_log = "ALTER KEYSPACE {keyspace} WITH durable_writes = false";
    schema::break_schema(&config, without_commit_log).await.unwrap();
    let text = connect(&config, false, PATIENCE).await.unwrap_err().to_string();
    assert!(text.contains("durable_writes of the keyspace madang_test_weak is false, needs true"), "{text}");
    schema::drop_keyspace(&config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn a_data_center_that_is_not_there_is_named() {
    let mut config = config("madang_test_weak");
    config.data_center = "mars".to_owned();
    let text = connect(&config, true, PATIENCE).await.unwrap_err().to_string();
    assert!(text.contains("no data center mars") && text.contains("datacenter1"), "{text}");
}

/// A configuration with one node.
fn at(node: SocketAddr) -> StoreConfig {
    StoreConfig { kind: StoreKind::Scylla, nodes: vec![node.to_string()], ..StoreConfig::default() }
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_tried_for_a_bounded_time() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begin = Instant::now();
    let error = connect(&at(closed), true, Duration::from_secs(4)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(!error.is_lasting() && error.to_string().contains(&closed.to_string()), "{error}");
    let took = begin.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_password_file_that_is_missing_is_named() {
    let mut config = at(SocketAddr::from(([127, 0, 0, 1], 9)));
    (config.user, config.password_file) = ("chat".to_owned(), "/nonexistent/password".into());
    let error = connect(&config, true, PATIENCE).await.unwrap_err();
    assert!(error.is_lasting() && error.to_string().contains("/nonexistent/password"), "{error}");
}

#[tokio::test]
async fn a_cluster_that_refuses_the_login_is_not_tried_again() {
    let guard = Guard::start().await;
    let error = connect(&at(guard.addr), true, PATIENCE).await.unwrap_err();
    assert!(error.is_lasting(), "{error}");
    assert!(error.to_string().contains("refuses the login of nobody: it asks for a role"), "{error}");

    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "open sesame\n").unwrap();
    let mut config = at(guard.addr);
    (config.user, config.password_file) = ("chat".to_owned(), password.path().to_owned());
    let error = connect(&config, true, PATIENCE).await.unwrap_err();
    assert!(error.is_lasting(), "{error}");
    assert!(error.to_string().contains("refuses the login of the role chat: no such role"), "{error}");
    assert_eq!(*guard.said.lock(), b"\0chat\0open sesame", "without the line break of the file");
}

/// A server that lets nobody in.
struct Guard {
    addr: SocketAddr,
    /// The last credentials.
    said: Arc<Mutex<Vec<u8>>>,
    _tasks: JoinSet<()>,
}

impl Guard {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, said) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (mut tasks, heard) = (JoinSet::new(), Arc::clone(&said));
        tasks.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // The driver closes a connection that was refused.
                drop(refuse(client, &heard).await);
            }
        });
        Self { addr, said, _tasks: tasks }
    }
}

/// Answers the requests before a session (native protocol, version 4, §4.1): header of 9 bytes, body.
async fn refuse(mut client: TcpStream, said: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    const STARTUP: u8 = 0x01;
    const OPTIONS: u8 = 0x05;
    const AUTH_RESPONSE: u8 = 0x0f;
    loop {
        let mut head = [0; 9];
        client.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut body = vec![0; usize::try_from(length).unwrap()];
        client.read_exact(&mut body).await?;
        let (opcode, answer) = match head[4] {
            // SUPPORTED, without options.
            OPTIONS => (0x06, vec![0, 0]),
            // AUTHENTICATE with the name of a class.
            STARTUP => (0x03, [&[0, 1][..], b"P"].concat()),
            // ERROR 0x0100, bad credentials, with a text.
            AUTH_RESPONSE => {
                *said.lock() = body[4..].to_vec();
                (0x00, [&[0, 0, 1, 0, 0, 12][..], b"no such role"].concat())
            }
            _ => return Ok(()),
        };
        let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
        let answer = [&[0x84, 0, head[2], head[3], opcode][..], &length, &answer].concat();
        client.write_all(&answer).await?;
    }
}
