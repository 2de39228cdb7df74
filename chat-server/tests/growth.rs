//! Rows that grow with each call are deleted when no device can need them, and a device that comes later notices.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::time::Duration;

use madang_ids::{LogId, Seq, UserId};
use madang_proto::{Content, Entry, limits};
use madang_store::{Append, AppendOutcome, Head, Row};
use madang_testkit::{Config, PATIENCE, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

/// Appends rows to a user's own log.
async fn note(node: &TestNode, user: UserId, rows: u64) {
    let (store, log) = (&node.node.gateway.operations.store, LogId::User(user));
    let mut left = rows;
    while left > 0 {
        let expected = store.heads(&[log]).await.unwrap()[0];
        let count = left.min(250);
        let rows: Vec<Row> = (1..=count).map(|step| row(expected, step, user)).collect();
        let outcome = store.append(Append::of(log, expected, rows.into())).await.unwrap();
        assert_eq!(outcome, AppendOutcome::Appended);
        left -= count;
    }
}

fn row(head: Head, step: u64, user: UserId) -> Row {
    let content = Content::Unblocked { user_id: user };
    let entry = Entry { seq: head.seq.plus(step), at: head.at.plus(step), content };
    Row { entry, ordinal: head.ordinal, key: None }
}

async fn cursor(rest: &Rest, token: &str) -> String {
    let answer = rest.must("POST", "/v1/snapshot", Some(token), Some(&json!({}))).await;
    answer["cursor"].as_str().unwrap().to_owned()
}

async fn resume(node: &TestNode, token: &str, cursor: &str) -> (Socket, Value) {
    Socket::connect(node.addr, token, Some(cursor)).await.unwrap()
}

async fn test_over(storage: Storage) {
    let mut config = Config::default();
    (config.gateway.heartbeat_ms, config.gateway.silence_ms) = (3_600_000, 7_200_000);
    let (clock, manual) = manual_clock();
    let node = TestNode::start(config, &storage, clock).await.unwrap();
    let rest = Rest::new(&node.url());
    let ada = rest.sign_up("ada").await;
    let token = ada["access_token"].as_str().unwrap();
    let user = UserId::from_raw(ada["user"]["id"].as_str().unwrap().parse().unwrap());
    let first = cursor(&rest, token).await;
    note(&node, user, 500).await;
    let too_far = cursor(&rest, token).await;
    note(&node, user, 1).await;
    let just_in_reach = cursor(&rest, token).await;
    note(&node, user, limits::SYNC_ITEMS).await;
    let log = LogId::User(user);
    let store = &node.node.gateway.operations.store;
    let head = store.heads(&[log]).await.unwrap()[0].seq;
    let kept = async || {
        let rows = store.rows(log, Seq::new(1)..=head, usize::MAX).await.unwrap();
        (rows.first().unwrap().entry.seq, rows.len() as u64)
    };
    let forgotten = async {
        while kept().await.1 > limits::SYNC_ITEMS + 1 {
            manual.advance(Duration::from_secs(1));
            // waits for: the upkeep that the clock has woken
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.unwrap();
    assert_eq!(kept().await, (head.minus(limits::SYNC_ITEMS), limits::SYNC_ITEMS + 1));
    for cursor in [first, too_far] {
        let (_, welcome) = resume(&node, token, &cursor).await;
        assert_eq!(
            (&welcome["resume"], &welcome["reason"]),
            (&json!("snapshot_required"), &json!("too_far_behind"))
        );
    }
    let (mut socket, welcome) = resume(&node, token, &just_in_reach).await;
    assert_eq!(welcome["resume"], "resumed");
    let mut last = head.minus(limits::SYNC_ITEMS).get();
    while last < head.get() {
        let frame = socket.next().await.unwrap();
        for entry in frame["entries"].as_array().into_iter().flatten() {
            last += 1;
            assert_eq!(entry["seq"], last);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_log_keeps_what_a_device_may_need() {
    test_over(Storage::embedded()).await;
}
