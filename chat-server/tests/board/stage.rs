//! A node with an open channel, and operators.

use std::time::Duration;

use madang_engine::heat::Level;
use madang_ids::ChannelId;
use madang_proto::rest::OperatorScope;
use madang_testkit::{Answer, Config, ManualClock, PATIENCE, Rest, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

pub(crate) struct Stage {
    pub(crate) node: TestNode,
    pub(crate) rest: Rest,
    pub(crate) hand: ManualClock,
    pub(crate) channel: String,
    pub(crate) storage: Storage,
    pub(crate) config: Config,
    pub(crate) clock: madang_service::Clock,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.limits.enabled = false;
        change(&mut config);
        config.tokens.access_seconds = 86_400;
        let (clock, hand) = manual_clock();
        let storage = Storage::embedded();
        let node = TestNode::start(config.clone(), &storage, clock.clone()).await.unwrap();
        let rest = Rest::new(&node.url());
        let owner = rest.sign_up("owner").await;
        let wish = json!({ "kind": "open", "name": "Concert" });
        let view = rest.must("POST", "/v1/channels", owner["access_token"].as_str(), Some(&wish)).await;
        let channel = view["id"].as_str().unwrap().to_owned();
        Self { node, rest, hand, channel, storage, config, clock }
    }

    /// Adds an operator, who signs in. Returns the token.
    pub(crate) async fn operator(&self, name: &str, scope: OperatorScope) -> String {
        let secret = self.node.node.gateway.operations.operators.add(name, scope).await.unwrap();
        let body = json!({ "name": name, "secret": secret.reveal() });
        let signed_in = self.rest.must("POST", "/v1/operator/token", None, Some(&body)).await;
        signed_in["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn call(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Answer {
        let path = format!("/v1/operator{path}");
        self.rest.call(method, &path, Some(token), None, body).await.unwrap()
    }

    pub(crate) async fn put_config(&self, token: &str, tag: &str, body: &Value) -> (u16, Value) {
        let answer = self.rest.put_if_match("/v1/operator/config", token, tag, body).await;
        (answer.status, answer.body)
    }

    pub(crate) fn override_path(&self) -> String {
        format!("/channels/{}/override", self.channel)
    }

    pub(crate) fn level(&self) -> Level {
        let id: ChannelId = self.channel.parse().unwrap();
        self.node.node.gateway.operations.heats.level(id)
    }

    /// Lets a second pass, and waits until it was decided about.
    pub(crate) async fn second(&self, deliveries: u64) {
        let heats = &self.node.node.gateway.operations.heats;
        heats.delivered(self.channel.parse().unwrap(), 1, deliveries, 0);
        let decided = heats.decided();
        let waited = async {
            while heats.decided() == decided {
                self.hand.advance(Duration::from_millis(100));
                // waits for: the task that decides once a second
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.unwrap();
    }
}

pub(crate) fn refused(answer: &Answer) -> (u16, &str, &str) {
    let text = |name: &str| answer.body[name].as_str().unwrap_or_default();
    (answer.status, text("code"), text("field"))
}
