//! Endpoints that lie: a name that leads to this machine, a redirect to the metadata of a cloud, a browser that is gone.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use madang_push::LookUp;
use madang_push_sandbox::{Face, Fault, SubscriptionState};
use serde_json::json;

use super::{Stage, browser};

/// Resolves every name to a public address first, and to this machine afterwards.
struct Rebinding(AtomicUsize);

#[async_trait]
impl LookUp for Rebinding {
    async fn look_up(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        let is_first = self.0.fetch_add(1, Ordering::SeqCst) == 0;
        // Nobody answers at an address of documentation.
        let public = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));
        Ok(vec![if is_first { public } else { Ipv4Addr::LOCALHOST.into() }])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_to_this_machine_is_not_called() {
    let look_up = Arc::new(Rebinding(AtomicUsize::new(1)));
    let stage = Stage::with(|_, _| {}, |backends| backends.look_up = Arc::clone(&look_up) as _).await;
    let made = stage.sandbox().web_push().subscribe_at("push.example.test", None).unwrap();
    stage.subscribe(&stage.bob, browser(&made)).await;
    let seq = stage.say("hi").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["wrong_environment"]);
    let items = stage.why(seq, |items| !items.is_empty()).await;
    assert!(items[0]["detail"].as_str().unwrap().contains("not public"), "{items:?}");
    assert_eq!(stage.sandbox().counters(Face::WebPush).connections, 0);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_the_operator_allows_may_be_in_the_local_network() {
    let look_up = Arc::new(Rebinding(AtomicUsize::new(1)));
    let stage = Stage::with(
        |config, _| config.push.web_push.allowed_hosts.push("push.example.test".to_owned()),
        |backends| backends.look_up = Arc::clone(&look_up) as _,
    )
    .await;
    let made = stage.sandbox().web_push().subscribe_at("push.example.test", None).unwrap();
    stage.subscribe(&stage.bob, browser(&made)).await;
    let seq = stage.say("hi").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["taken"]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed() {
    let stage = Stage::new().await;
    let made = stage.sandbox().web_push().subscribe(None).unwrap();
    stage.subscribe(&stage.bob, browser(&made)).await;
    let to = "http://169.254.169.254/latest/meta-data".to_owned();
    stage.sandbox().web_push().set(&made.endpoint, SubscriptionState::Redirect { to });
    let seq = stage.say("hi").await;
    let items = stage.why(seq, |items| !items.is_empty()).await;
    assert_eq!(items[0]["outcome"], "refused");
    assert_eq!(stage.sandbox().counters(Face::WebPush).requests, 1);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_states_of_a_browser_have_their_consequences() {
    for (state, outcome, is_left) in [
        (SubscriptionState::Gone, "gone", false),
        (SubscriptionState::NotFound, "gone", false),
        (SubscriptionState::NoSubscriber, "not_taken", true),
        (SubscriptionState::Throttled { retry_after: Duration::from_secs(90) }, "not_taken", true),
        (SubscriptionState::TooLarge, "refused", true),
    ] {
        let stage = Stage::new().await;
        let made = stage.sandbox().web_push().subscribe(None).unwrap();
        stage.subscribe(&stage.bob, browser(&made)).await;
        stage.sandbox().web_push().set(&made.endpoint, state.clone());
        let seq = stage.say("hi").await;
        assert_eq!(stage.outcomes(seq, 1).await, [outcome], "{state:?}");
        let found = stage.rest().must("GET", "/v1/push/subscriptions", Some(&stage.bob.token), None).await;
        assert_eq!(found["items"].as_array().unwrap().len(), usize::from(is_left), "{state:?}");
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_shows_the_answer_of_the_service_verbatim() {
    let stage = Stage::new().await;
    stage.subscribe_bob().await;
    let path = format!("/v1/push/subscriptions/{}/test", stage.bob.device);
    let done = stage.rest().must("POST", &path, Some(&stage.bob.token), None).await;
    assert_eq!((&done["outcome"], &done["status"]), (&json!("taken"), &json!(200)));
    stage.sandbox().fail_next(Face::Apns, Fault::status(403, r#"{"reason":"InvalidProviderToken"}"#), 1);
    let done = stage.rest().must("POST", &path, Some(&stage.bob.token), None).await;
    assert_eq!(done["outcome"], "credential");
    assert_eq!(
        (&done["status"], &done["answer"]),
        (&json!(403), &json!(r#"{"reason":"InvalidProviderToken"}"#))
    );
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_refuses_the_key_of_the_server_stops_nobody_else() {
    let stage = Stage::new().await;
    let (bad, good) =
        (stage.sandbox().web_push().subscribe(None), stage.sandbox().web_push().subscribe(None));
    stage.subscribe(&stage.bob, browser(&bad.unwrap())).await;
    stage.sandbox().fail_next(Face::WebPush, Fault::status(401, "KeyMismatch"), 1);
    let seq = stage.say("one").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["wrong_environment"]);
    stage.subscribe(&stage.bob, browser(&good.unwrap())).await;
    let seq = stage.say("two").await;
    assert_eq!(stage.outcomes(seq, 1).await, ["taken"]);
    stage.end().await;
}
