//! A connection that waits for a page from the store is closed as soon as any other.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::time::Duration;

use madang_bus::Envelope;
use madang_ids::LogId;
use madang_testkit::{
    Config, Ended, Led, ManualClock, ReadGate, Rest, Socket, Storage, TestNode, manual_clock,
};
use serde_json::{Value, json};

struct Stage {
    node: TestNode,
    rest: Rest,
    clock: ManualClock,
    ada: Value,
}

impl Stage {
    /// Connects a device, and makes it read its inbox from a store that does not answer.
    async fn with_a_device_that_waits() -> (Self, Socket) {
        let mut config = Config::default();
        config.gateway.silence_ms = 3_600_000;
        let (clock, hand) = manual_clock();
        let gate = ReadGate::default();
        let before = gate.clone();
        let lose = |envelope| match envelope {
            Envelope::Delivery(delivery) if matches!(delivery.log, LogId::Channel(_)) => vec![Envelope::Lost],
            other => vec![other],
        };
        let lead = |inbox| Led::gated(inbox, before, lose);
        let node = TestNode::start_over(config, &Storage::model(), clock, lead).await.unwrap();
        let rest = Rest::new(&node.url());
        let ada = rest.sign_up("ada").await;
        let bob = rest.sign_up("bob").await;
        let token = ada["access_token"].as_str().unwrap();
        let (socket, _) = Socket::connect(node.addr, token, None).await.unwrap();
        gate.hold();
        let wish = json!({ "kind": "direct", "members": [bob["user"]["id"]] });
        rest.must("POST", "/v1/channels", Some(token), Some(&wish)).await;
        gate.wait_for_read().await;
        (Self { node, rest, clock: hand, ada }, socket)
    }
}

async fn end_of(mut socket: Socket) -> u16 {
    loop {
        match socket.next().await {
            Ok(_) => {}
            Err(Ended::Closed(code, _)) => return code,
            Err(ended) => panic!("{ended:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_closed_while_it_waits_for_a_page() {
    let (stage, socket) = Stage::with_a_device_that_waits().await;
    let (token, device) = (stage.ada["access_token"].as_str(), stage.ada["device_id"].as_str().unwrap());
    stage.rest.must("DELETE", &format!("/v1/devices/{device}"), token, None).await;
    assert_eq!(end_of(socket).await, 4501);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_token_ends_is_closed_while_it_waits_for_a_page() {
    let (stage, socket) = Stage::with_a_device_that_waits().await;
    // A session may outlive its token by a minute.
    stage.clock.advance(Duration::from_secs(900 + 61));
    assert_eq!(end_of(socket).await, 4003);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_closes_a_device_that_waits_for_a_page() {
    let (stage, socket) = Stage::with_a_device_that_waits().await;
    stage.node.drain.begin();
    assert_eq!(end_of(socket).await, 4000);
}
