//! Alerts through stand-ins for the push services, which misbehave on demand.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod endpoints;
mod faults;
mod keys;
mod many;
mod stale;

use std::sync::Arc;
use std::time::Duration;

use madang_chat_server::compose::Backends;
use madang_push_sandbox::{Face, Notice, Sandbox};
use madang_testkit::{Config, ManualClock, PATIENCE, PushServices, Rest, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

struct Person {
    id: String,
    device: String,
    token: String,
}

/// A node with push services, and Ada, who writes to Bob.
struct Stage {
    node: Option<TestNode>,
    services: PushServices,
    storage: Storage,
    config: Config,
    clock: madang_service::Clock,
    hand: ManualClock,
    ada: Person,
    bob: Person,
    channel: String,
}

impl Stage {
    async fn new() -> Self {
        Self::with(|_, _| {}, |_| {}).await
    }

    async fn with(configure: impl FnOnce(&mut Config, &Sandbox), lead: impl FnOnce(&mut Backends)) -> Self {
        let (clock, hand) = manual_clock();
        let mut config = Config::default();
        config.limits.enabled = false;
        // Some tests let hours pass.
        config.tokens.access_seconds = 86_400;
        let services = PushServices::start(&mut config, clock.clone()).await.unwrap();
        configure(&mut config, &services.sandbox);
        let storage = Storage::embedded();
        let node = TestNode::start_over(config.clone(), &storage, clock.clone(), lead).await.unwrap();
        let rest = Rest::new(&node.url());
        let (ada, bob) = (person(&rest, "ada").await, person(&rest, "bob").await);
        let wish = json!({ "kind": "direct", "members": [bob.id] });
        let view = rest.must("POST", "/v1/channels", Some(&ada.token), Some(&wish)).await;
        let channel = view["id"].as_str().unwrap().to_owned();
        Self { node: Some(node), services, storage, config, clock, hand, ada, bob, channel }
    }

    fn node(&self) -> &TestNode {
        self.node.as_ref().unwrap()
    }

    fn rest(&self) -> Rest {
        Rest::new(&self.node().url())
    }

    const fn sandbox(&self) -> &Sandbox {
        &self.services.sandbox
    }

    /// Ends the node abruptly and starts another one over the same store.
    async fn restart(&mut self) {
        self.node.take().unwrap().stop().await.unwrap();
        let node = TestNode::start(self.config.clone(), &self.storage, self.clock.clone()).await;
        self.node = Some(node.unwrap());
    }

    async fn subscribe(&self, person: &Person, body: Value) -> Value {
        self.rest().must("PUT", "/v1/push/subscription", Some(&person.token), Some(&body)).await
    }

    /// Lets time pass at once, when nothing is being sent: a call that is under way for a minute would count as one of a dead worker.
    async fn skip(&self, time: Duration) {
        let rest = self.rest();
        let is_idle = async || {
            let metrics = rest.must("GET", "/metrics", None, None).await;
            metrics.as_str().unwrap().contains("push_working 0\n")
        };
        let idle = tokio::time::timeout(PATIENCE, async {
            while !is_idle().await {
                // waits for: the worker of push, which writes the end of a call behind its note
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        idle.await.expect("the worker of push ends what it does");
        self.hand.advance(time);
    }

    /// Lets time pass while the worker looks at its queue every half second of it.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.hand.advance(Duration::from_secs(1));
            // waits for: the worker, which may not have begun to wait for this second
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Bob's phone registers at APNs.
    async fn subscribe_bob(&self) {
        self.subscribe(&self.bob, apns("b0b0", self.sandbox())).await;
    }

    async fn say(&self, text: &str) -> u64 {
        let body = json!({ "client_msg_id": uuid::Uuid::new_v4(), "body": { "text": text } });
        let path = format!("/v1/channels/{}/messages", self.channel);
        let ack = self.rest().must("POST", &path, Some(&self.ada.token), Some(&body)).await;
        ack["seq"].as_u64().unwrap()
    }

    /// What became of a message for Bob, once that is decided by `is_enough` lines.
    async fn why(&self, seq: u64, is_enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let rest = self.rest();
        let path = format!("/v1/push/why?channel_id={}&seq={seq}", self.channel);
        let asked = tokio::time::timeout(PATIENCE, async {
            loop {
                let history = rest.must("GET", &path, Some(&self.bob.token), None).await;
                let items = history["items"].as_array().unwrap().clone();
                if is_enough(&items) {
                    return items;
                }
                // waits for: the worker of push, which notes what became of an alert behind the call
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        asked.await.unwrap_or_else(|_| panic!("nothing became of {seq}"))
    }

    /// The outcomes of a message, once there are `count`.
    async fn outcomes(&self, seq: u64, count: usize) -> Vec<String> {
        let items = self.why(seq, |items| items.len() >= count).await;
        items.iter().map(|item| item["outcome"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits for this number of visible alerts, and returns their texts.
    async fn alerts(&self, count: usize) -> Vec<String> {
        let visible = |notices: &[Arc<Notice>]| notices.iter().filter(|it| it.is_visible).count();
        let notices = self.sandbox().wait_for(|all| visible(all) >= count, PATIENCE).await.unwrap();
        notices.iter().filter(|it| it.is_visible).map(|it| text_of(it)).collect()
    }

    async fn end(self) {
        assert_eq!(self.sandbox().wrong_requests().len(), 0, "{:?}", self.sandbox().wrong_requests());
        self.stop().await;
    }

    /// Ends, although a service has refused requests.
    async fn stop(mut self) {
        self.node.take().unwrap().stop().await.unwrap();
    }
}

async fn person(rest: &Rest, handle: &str) -> Person {
    let signed_in = rest.sign_up(handle).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Person {
        id: text(&signed_in["user"]["id"]),
        device: text(&signed_in["device_id"]),
        token: text(&signed_in["access_token"]),
    }
}

fn apns(token: &str, sandbox: &Sandbox) -> Value {
    json!({ "provider": "apns", "token": token, "topic": sandbox.apns().topic(), "environment": "production" })
}

fn fcm(token: &str, sandbox: &Sandbox) -> Value {
    json!({ "provider": "fcm", "token": token, "project": sandbox.fcm().project() })
}

fn browser(subscription: &madang_push_sandbox::Subscription) -> Value {
    let keys = json!({ "p256dh": subscription.p256dh, "auth": subscription.auth });
    json!({ "provider": "web_push", "endpoint": subscription.endpoint, "keys": keys })
}

fn text_of(notice: &Notice) -> String {
    let body = match notice.face {
        Face::Apns => &notice.payload["aps"]["alert"]["body"],
        Face::Fcm | Face::FcmGrant => &notice.payload["data"]["body"],
        Face::WebPush => &notice.payload["notification"]["body"],
        Face::Webhook => &notice.payload["body"],
    };
    body.as_str().unwrap_or_default().to_owned()
}
