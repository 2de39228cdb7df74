//! Changes carry the messages that they are about: how large a page of them may become.

use madang_proto::limits;
use madang_testkit::{Config, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_returns_gets_changes_in_frames_of_a_bounded_size() {
    const EDITS: u64 = 900;
    let storage = Storage::model();
    let mut config = Config::default();
    config.limits.enabled = false;
    let (clock, _manual) = manual_clock();
    let node = TestNode::start(config, &storage, clock).await.unwrap();
    let rest = Rest::new(&node.url());
    let (ada, bob) = (rest.sign_up("ada").await, rest.sign_up("bob").await);
    let token = ada["access_token"].as_str();
    let wish = json!({ "kind": "direct", "members": [bob["user"]["id"]] });
    let view = rest.must("POST", "/v1/channels", token, Some(&wish)).await;
    let messages = format!("/v1/channels/{}/messages", view["id"].as_str().unwrap());
    let body = json!({ "client_msg_id": "01920000-0000-7000-8000-000000000001", "body": { "text": "0" } });
    let ack = rest.must("POST", &messages, token, Some(&body)).await;
    let bobs = bob["access_token"].as_str().unwrap();
    let snapshot = rest.must("POST", "/v1/snapshot", Some(bobs), Some(&json!({}))).await;
    let path = format!("{messages}/{}", ack["seq"]);
    for number in 1..=EDITS {
        let edit = json!({ "body": { "text": number.to_string() } });
        rest.must("PATCH", &path, token, Some(&edit)).await;
    }
    let (mut socket, _) = Socket::connect(node.addr, bobs, snapshot["cursor"].as_str()).await.unwrap();
    let mut next = ack["seq"].as_u64().unwrap() + 1;
    let last = next + EDITS;
    while next < last {
        let frame = socket.next().await.unwrap();
        if frame["log"] != "channel" {
            continue;
        }
        let size = frame.to_string().len();
        assert!(size <= limits::BATCH_BYTES_OUT, "a frame of {size} bytes");
        for entry in frame["entries"].as_array().unwrap() {
            assert_eq!(
                (entry["seq"].as_u64(), &entry["message"]["text"]),
                (Some(next), &json!(EDITS.to_string()))
            );
            next += 1;
        }
    }
}
