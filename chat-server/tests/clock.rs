//! A machine whose clock was set while the server was down: no id is minted twice, and nothing expires early.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use madang_ids::Millis;
use madang_service::Clock;
use madang_testkit::{Config, Rest, Storage, TestNode};
use serde_json::{Value, json};

const NOON: Millis = Millis::new(1_800_000_000_000);
const HOUR_MS: u64 = 3_600_000;

async fn start(storage: &Storage, now: Millis) -> (TestNode, Rest) {
    let node = TestNode::start(Config::default(), storage, Clock::manual(now).0).await.unwrap();
    let rest = Rest::new(&node.url());
    (node, rest)
}

async fn sign_up_once(rest: &Rest, handle: &str) -> Value {
    let body = json!({ "handle": handle, "display_name": handle, "password": "correct horse" });
    let key = format!("sign-up-of-{handle}");
    let answer = rest.call("POST", "/v1/accounts", None, Some(&key), Some(&body)).await.unwrap();
    assert!(answer.status < 300, "{answer:?}");
    answer.body
}

async fn refresh(rest: &Rest, token: &Value) -> Value {
    rest.must("POST", "/v1/tokens", None, Some(&json!({ "refresh_token": token }))).await
}

async fn group(rest: &Rest, token: &str, name: &str) -> Value {
    let body = json!({ "kind": "group", "name": name, "members": [] });
    rest.must("POST", "/v1/channels", Some(token), Some(&body)).await
}

async fn say(rest: &Rest, token: &str, channel: &Value, key: u64) -> Value {
    let client_msg_id = format!("01920000-0000-7000-8000-{key:012}");
    let body = json!({ "client_msg_id": client_msg_id, "body": { "text": "a line" } });
    let path = format!("/v1/channels/{}/messages", channel["id"].as_str().unwrap());
    rest.must("POST", &path, Some(token), Some(&body)).await
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

async fn clock_stands_at_the_second_start(then: Millis) {
    let storage = Storage::embedded();
    let (node, rest) = start(&storage, NOON).await;
    let ada = sign_up_once(&rest, "ada").await;
    let token = ada["access_token"].as_str().unwrap().to_owned();
    let tea = group(&rest, &token, "Tea").await;
    let first = say(&rest, &token, &tea, 0).await;
    node.stop().await.unwrap();

    let (node, rest) = start(&storage, then).await;
    // New ids are greater than all ids from before.
    let bob = sign_up_once(&rest, "bob").await;
    assert!(number(&bob["user"]["id"]) > number(&ada["device_id"]), "{bob} after {ada}");
    // An access token may have expired. The refresh token is valid for 90 days.
    let token = refresh(&rest, &ada["refresh_token"]).await["access_token"].as_str().unwrap().to_owned();
    node.node.gateway.operations.forget_old_keys().await;
    assert_eq!(sign_up_once(&rest, "ada").await["user"], ada["user"]);
    assert_eq!(say(&rest, &token, &tea, 0).await, first);
    let chess = group(&rest, &token, "Chess").await;
    assert!(number(&chess["id"]) > number(&tea["id"]), "{chess} after {tea}");
    let second = say(&rest, &token, &tea, 1).await;
    assert!(number(&second["message_id"]) > number(&first["message_id"]));
    let path = format!("/v1/channels/{}/entries", tea["id"].as_str().unwrap());
    let entries = rest.must("GET", &path, Some(&token), None).await["entries"].clone();
    let times: Vec<u64> =
        entries.as_array().unwrap().iter().map(|entry| entry["at"].as_u64().unwrap()).collect();
    assert!(times.is_sorted() && times.len() >= 3, "{times:?}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_back() {
    clock_stands_at_the_second_start(NOON.minus(HOUR_MS)).await;
}

/// The clock shows the same milliseconds again in which ids were minted.
#[tokio::test(flavor = "multi_thread")]
async fn back_to_the_same_moment() {
    clock_stands_at_the_second_start(NOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_forward() {
    clock_stands_at_the_second_start(NOON.plus(HOUR_MS)).await;
}
