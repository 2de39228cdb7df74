//! Keys that are wrong: one provider is off, and the rest of the server runs.

use madang_push_sandbox::{Face, Fault};

use super::{Stage, apns, fcm};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_whose_key_is_wrong_is_off_and_the_others_work() {
    let stage = Stage::with(|config, _| config.push.apns.key_id = "short".to_owned(), |_| {}).await;
    let info = stage.rest().must("GET", "/v1/push", Some(&stage.bob.token), None).await;
    assert_eq!(info["providers"], serde_json::json!(["fcm", "web_push", "unified_push", "webhook"]));
    let body = apns("b0b0", stage.sandbox());
    let refused =
        stage.rest().call("PUT", "/v1/push/subscription", Some(&stage.bob.token), None, Some(&body)).await;
    assert_eq!(refused.unwrap().body["code"], "unsupported");
    stage.subscribe(&stage.bob, fcm("token-b", stage.sandbox())).await;
    let seq = stage.say("hi").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["taken"]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_does_not_accept_the_key_is_left_alone_and_tried_again() {
    let stage = Stage::new().await;
    stage.subscribe_bob().await;
    stage.sandbox().set_all(Face::Apns, Fault::status(403, r#"{"reason":"InvalidProviderToken"}"#));
    let seq = stage.say("one").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["credential"]);
    let asked = stage.sandbox().counters(Face::Apns).requests;
    // What comes meanwhile waits with it, and calls nobody.
    let second = stage.say("two").await;
    for _ in 0..20 {
        stage.skip(std::time::Duration::from_secs(10)).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.sandbox().counters(Face::Apns).requests, asked);
    stage.sandbox().clear(Face::Apns);
    stage.skip(std::time::Duration::from_secs(1_000)).await;
    assert_eq!(stage.outcomes(second, 1).await, ["taken"]);
    assert_eq!(stage.outcomes(seq, 2).await, ["credential", "taken"]);
    assert_eq!(stage.alerts(1).await.last().unwrap(), "two (+1)");
    stage.end().await;
}
