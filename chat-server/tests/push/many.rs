//! Many devices, many subscriptions that end at once, and a service that hangs beside one that works.

use std::time::Duration;

use madang_push_sandbox::{ApnsToken, Delivery, Face, Fault};
use serde_json::json;

use super::{Stage, apns, fcm, person};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_devices_are_alerted_once_each() {
    let stage = Stage::new().await;
    stage.subscribe_bob().await;
    for number in 1..50 {
        let body = json!({ "device_name": format!("device {number}") });
        let added = stage.rest().must("POST", "/v1/devices", Some(&stage.bob.token), Some(&body)).await;
        let token = added["access_token"].as_str().unwrap();
        let body = apns(&format!("{number:04x}"), stage.sandbox());
        stage.rest().must("PUT", "/v1/push/subscription", Some(token), Some(&body)).await;
    }
    let seq = stage.say("hi").await;
    assert_eq!(stage.outcomes(seq, 50).await, vec!["taken"; 50]);
    assert_eq!(stage.alerts(50).await, vec!["hi"; 50]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_does_not_remove_the_subscriptions_of_everybody() {
    const PEOPLE: usize = 120;
    let stage = Stage::new().await;
    let rest = stage.rest();
    let mut ids = vec![stage.bob.id.clone()];
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        let one = person(&rest, &format!("person{number}")).await;
        stage
            .sandbox()
            .apns()
            .set_token(&format!("{number:04x}"), ApnsToken::Unregistered { at_ms: u64::MAX >> 12 });
        stage.subscribe(&one, apns(&format!("{number:04x}"), stage.sandbox())).await;
        ids.push(one.id.clone());
        people.push(one);
    }
    // Answers that are good before: a tenth of them may end.
    let mut seqs = Vec::new();
    for chunk in ids[1..].chunks(60) {
        let wish = json!({ "kind": "group", "name": "Tea", "members": chunk });
        let view = rest.must("POST", "/v1/channels", Some(&stage.ada.token), Some(&wish)).await;
        let path = format!("/v1/channels/{}/messages", view["id"].as_str().unwrap());
        let body = json!({ "client_msg_id": uuid::Uuid::new_v4(), "body": { "text": "hi" } });
        seqs.push(rest.must("POST", &path, Some(&stage.ada.token), Some(&body)).await);
    }
    let refused = |count: usize| stage.sandbox().refusals().len() >= count;
    tokio::time::timeout(madang_testkit::PATIENCE, async {
        while !refused(PEOPLE) {
            // waits for: the calls to the service
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    let mut left = 0;
    for one in &people {
        let found = rest.must("GET", "/v1/push/subscriptions", Some(&one.token), None).await;
        left += found["items"].as_array().unwrap().len();
    }
    assert!((1..=PEOPLE).contains(&left), "the guard kept {left} of {PEOPLE}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_hangs_does_not_hold_up_another() {
    const PEOPLE: usize = 100;
    let stage = Stage::new().await;
    let rest = stage.rest();
    stage.sandbox().set_all(Face::Apns, Fault::Silence(Delivery::Lost));
    let mut ids = Vec::new();
    for number in 0..PEOPLE {
        let one = person(&rest, &format!("person{number}")).await;
        stage.subscribe(&one, apns(&format!("{number:04x}"), stage.sandbox())).await;
        ids.push(one.id);
    }
    let wish = json!({ "kind": "group", "name": "Tea", "members": ids[..99] });
    let view = rest.must("POST", "/v1/channels", Some(&stage.ada.token), Some(&wish)).await;
    let path = format!("/v1/channels/{}/messages", view["id"].as_str().unwrap());
    let body = json!({ "client_msg_id": uuid::Uuid::new_v4(), "body": { "text": "hi all" } });
    rest.must("POST", &path, Some(&stage.ada.token), Some(&body)).await;
    stage.subscribe(&stage.bob, fcm("token-b", stage.sandbox())).await;
    let began = std::time::Instant::now();
    let seq = stage.say("hi bob").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["taken"]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_of_a_hot_channel_wait_so_that_more_messages_fold_into_one() {
    let stage = Stage::new().await;
    stage.subscribe_bob().await;
    let heats = &stage.node().node.gateway.operations.heats;
    // In one second far above the bar: blazing.
    heats.delivered(stage.channel.parse().unwrap(), 1, 2_000_000, 0);
    let decided = heats.decided();
    while heats.decided() == decided {
        stage.pass(1).await;
    }
    stage.say("one").await;
    stage.pass(40).await;
    let last = stage.say("two").await;
    assert_eq!(stage.sandbox().notices().len(), 0, "they wait for a minute");
    stage.pass(30).await;
    assert_eq!(stage.outcomes(last, 1).await, ["taken"]);
    assert_eq!(stage.alerts(1).await, ["two (+1)"]);
    stage.end().await;
}
