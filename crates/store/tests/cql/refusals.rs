//! The schema, and clusters that are refused.

use std::time::{Duration, Instant};

use madang_store::scylla::schema::{ApplyOptions, apply, check};
use madang_store::scylla::{ConnectError, connect, schema};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "belongs to the tests with a CQL server"]
async fn a_cluster_that_does_not_answer_is_tried_for_a_bounded_time() {
    let mut config = config("madang_test_weak");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.nodes = vec![closed.to_string()];
    let begin = Instant::now();
    let error = connect(&config, true, Duration::from_secs(4)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(!error.is_lasting() && error.to_string().contains(&closed.to_string()), "{error}");
    let took = begin.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "belongs to the tests with a CQL server"]
async fn a_password_file_that_is_missing_is_named() {
    let mut config = config("madang_test_weak");
    (config.user, config.password_file) = ("chat".to_owned(), "/nonexistent/password".into());
    let error = connect(&config, true, PATIENCE).await.unwrap_err();
    assert!(error.is_lasting() && error.to_string().contains("/nonexistent/password"), "{error}");
}
