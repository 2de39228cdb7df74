//! A node that asks for consent, and the users who try.

use madang_service::Clock;
use madang_testkit::{Config, PATIENCE, Rest, Socket, Storage, TestNode};
use serde_json::{Value, json};

pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) token: String,
}

pub(crate) struct Stage {
    pub(crate) node: TestNode,
    pub(crate) rest: Rest,
    pub(crate) people: u32,
}

pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.limits.enabled = false;
    config
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::over(&Storage::embedded()).await
    }

    pub(crate) async fn over(storage: &Storage) -> Self {
        let node = TestNode::start_asking(config(), storage, Clock::system()).await.unwrap();
        Self { rest: Rest::new(&node.url()), node, people: 0 }
    }

    pub(crate) async fn person(&mut self) -> Person {
        self.people += 1;
        let signed_in = self.rest.sign_up(&format!("person{}", self.people)).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Person { id: text(&signed_in["user"]["id"]), token: text(&signed_in["access_token"]) }
    }

    pub(crate) async fn must(&self, who: &Person, method: &str, path: &str, body: Value) -> Value {
        self.rest.must(method, path, Some(&who.token), Some(&body).filter(|body| !body.is_null())).await
    }

    /// The code of a refusal, or `ok`.
    pub(crate) async fn outcome(&self, who: &Person, method: &str, path: &str, body: Value) -> String {
        let body = Some(&body).filter(|body| !body.is_null());
        let answer = self.rest.call(method, path, Some(&who.token), None, body).await.unwrap();
        answer.body["code"].as_str().unwrap_or("ok").to_owned()
    }

    pub(crate) async fn group(&self, by: &Person, members: &[&Person]) -> Value {
        let members: Vec<&String> = members.iter().map(|member| &member.id).collect();
        let wish = json!({ "kind": "group", "name": "Tea", "members": members });
        self.must(by, "POST", "/v1/channels", wish).await
    }

    pub(crate) async fn befriend(&self, one: &Person, other: &Person) {
        self.must(one, "PUT", &format!("/v1/contacts/{}", other.id), Value::Null).await;
        self.must(other, "PUT", &format!("/v1/contacts/{}", one.id), Value::Null).await;
    }

    pub(crate) async fn set(&self, who: &Person, settings: Value) -> Value {
        self.must(who, "PATCH", "/v1/me", settings).await
    }

    pub(crate) async fn waiting(&self, who: &Person) -> Vec<String> {
        let page = self.must(who, "GET", "/v1/invitations", Value::Null).await;
        let rows = page["items"].as_array().unwrap();
        rows.iter().map(|row| row["channel_id"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn accept(&self, who: &Person, channel: &str) -> String {
        self.outcome(who, "PUT", &format!("/v1/invitations/{channel}"), Value::Null).await
    }

    pub(crate) async fn decline(&self, who: &Person, channel: &str) {
        self.must(who, "DELETE", &format!("/v1/invitations/{channel}"), Value::Null).await;
    }

    pub(crate) async fn add(&self, by: &Person, channel: &str, who: &Person) -> Value {
        let body = json!({ "user_ids": [who.id] });
        self.must(by, "PUT", &format!("/v1/channels/{channel}/members"), body).await
    }

    pub(crate) async fn add_outcome(&self, by: &Person, channel: &str, who: &Person) -> String {
        let body = json!({ "user_ids": [who.id] });
        self.outcome(by, "PUT", &format!("/v1/channels/{channel}/members"), body).await
    }

    pub(crate) async fn say(&self, who: &Person, channel: &str, number: u32) -> String {
        let key = format!("00000000-0000-7000-8000-{number:012}");
        let body = json!({ "client_msg_id": key, "body": { "text": "x" } });
        self.outcome(who, "POST", &format!("/v1/channels/{channel}/messages"), body).await
    }

    pub(crate) async fn direct(&self, by: &Person, with: &Person) -> Result<String, String> {
        let wish = json!({ "kind": "direct", "members": [with.id] });
        let answer =
            self.rest.call("POST", "/v1/channels", Some(&by.token), None, Some(&wish)).await.unwrap();
        answer.body["id"].as_str().map(str::to_owned).ok_or_else(|| answer.body["code"].to_string())
    }

    pub(crate) async fn socket(&self, who: &Person) -> Socket {
        Socket::connect(self.node.addr, &who.token, None).await.unwrap().0
    }

    /// Whether `who` sees `other` as online at the moment. An expected state may need time to arrive. A state that must not be
    /// seen has had time to arrive when a later question is answered.
    pub(crate) async fn sees(&self, who: &Person, other: &Person) -> bool {
        let path = format!("/v1/presence?user_ids={}", other.id);
        let list = self.must(who, "GET", &path, Value::Null).await;
        list["users"][0]["state"] == "online"
    }

    pub(crate) async fn comes_to_see(&self, who: &Person, other: &Person) {
        let seen = async {
            while !self.sees(who, other).await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("presence is shown");
    }
}

pub(crate) fn id(view: &Value) -> String {
    view["id"].as_str().unwrap().to_owned()
}

/// The next entry of the user's own log.
pub(crate) async fn noted(socket: &mut Socket) -> Value {
    loop {
        let frame = socket.next_of("entries").await;
        if frame["log"] == "user" {
            return frame["entries"][0].clone();
        }
    }
}
