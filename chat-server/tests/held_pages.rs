//! A connection that waits for a page from the store is closed as soon as any other.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::time::Duration;

use madang_bus::{Envelope, Loss};
use madang_chat_server::compose::Backends;
use madang_ids::LogId;
use madang_proto::Content;
use madang_testkit::{Config, Ended, Gates, Led, ManualClock, Rest, Socket, Storage, TestNode, manual_clock};
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
        let gates = Gates::default();
        let before = gates.clone();
        let lose = |envelope| match envelope {
            Envelope::Delivery(delivery) if matches!(delivery.log, LogId::Channel(_)) => {
                vec![Envelope::Lost(Loss::Node)]
            }
            other => vec![other],
        };
        let lead = |backends: &mut Backends| Led::gated(backends, before, lose);
        let node = TestNode::start_over(config, &Storage::model(), clock, lead).await.unwrap();
        let rest = Rest::new(&node.url());
        let ada = rest.sign_up("ada").await;
        let bob = rest.sign_up("bob").await;
        let token = ada["access_token"].as_str().unwrap();
        let (socket, _) = Socket::connect(node.addr, token, None).await.unwrap();
        gates.reads.hold();
        let wish = json!({ "kind": "direct", "members": [bob["user"]["id"]] });
        rest.must("POST", "/v1/channels", Some(token), Some(&wish)).await;
        gates.reads.wait_for_call().await;
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

/// The envelopes of the revocation are lost, and its row is read (G5).
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_whose_delivery_was_lost_closes_the_device() {
    let lose = |envelope| match envelope {
        Envelope::Delivery(delivery) if matches!(delivery.log, LogId::User(_)) => {
            let users = delivery.recipients.iter().map(|recipient| recipient.user_id);
            vec![Envelope::Lost(Loss::Users(users.collect()))]
        }
        other => vec![other],
    };
    let (clock, _hand) = manual_clock();
    let storage = Storage::model();
    let lead = |backends: &mut Backends| Led::over(backends, lose);
    let node = TestNode::start_over(Config::default(), &storage, clock, lead).await.unwrap();
    let rest = Rest::new(&node.url());
    let ada = rest.sign_up("ada").await;
    let device = ada["device_id"].as_str().unwrap();
    let snapshot = rest.must("POST", "/v1/snapshot", ada["access_token"].as_str(), Some(&json!({}))).await;
    let cursor = snapshot["cursor"].as_str();
    let (socket, _) =
        Socket::connect(node.addr, ada["access_token"].as_str().unwrap(), cursor).await.unwrap();
    // The registry closes its own sockets at once; this one belongs to another node, as far as the revocation knows.
    let operations = &node.node.gateway.operations;
    let user = ada["user"]["id"].as_str().unwrap().parse().unwrap();
    operations.store.revoke_device(user, device.parse().unwrap(), operations.clock.now_ms()).await.unwrap();
    let content = Content::DeviceRevoked { device_id: device.parse().unwrap() };
    operations.homes.note(user, content).await.unwrap();
    assert_eq!(end_of(socket).await, 4501);
}

/// With the inboxes of other nodes gone, messages are acknowledged all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_ack_does_not_wait_for_the_fan_out() {
    let (clock, _hand) = manual_clock();
    let gates = Gates::default();
    let before = gates.clone();
    let lead = |backends: &mut Backends| Led::gated(backends, before, |envelope| vec![envelope]);
    let node = TestNode::start_over(Config::default(), &Storage::model(), clock, lead).await.unwrap();
    let rest = Rest::new(&node.url());
    let (ada, bob) = (rest.sign_up("ada").await, rest.sign_up("bob").await);
    let token = ada["access_token"].as_str();
    let wish = json!({ "kind": "direct", "members": [bob["user"]["id"]] });
    let channel = rest.must("POST", "/v1/channels", token, Some(&wish)).await;
    gates.moves.hold();
    for number in 0..3 {
        let body = json!({
            "client_msg_id": format!("01920000-0000-7000-8000-{number:012}"), "body": { "text": "hello" },
        });
        let path = format!("/v1/channels/{}/messages", channel["id"].as_str().unwrap());
        rest.must("POST", &path, token, Some(&body)).await;
    }
    gates.moves.wait_for_call().await;
}
