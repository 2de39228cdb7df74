//! What one member learns about another, by their relation and by the kind of the channel. The table below holds the expected
//! results; `docs/protocol.md` says the same in words.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use madang_service::Clock;
use madang_testkit::{Config, Rest, Socket, Storage, TestNode};
use serde_json::{Value, json};

/// Mal's relation to Bob or to the channel; the kind of the channel; what Bob learns of Mal's actions there.
const TABLE: &[(&str, &str, &str)] = &[
    ("plain", "direct", "typing receipt read_seq count"),
    ("plain", "group", "typing receipt read_seq count"),
    ("plain", "open", "typing read_seq count note"),
    // Nothing shows that an invisible user is online, except what the user says.
    ("invisible", "direct", "count"),
    ("invisible", "group", "count"),
    ("invisible", "open", "count note"),
    // Bob blocks Mal: nothing passes except the log, and Mal's messages do not notify users who block Mal.
    ("blocked", "direct", ""),
    ("blocked", "group", ""),
    ("blocked", "open", ""),
    // Mal blocks Bob: nothing shows that Mal is online. What Mal says to Bob is meant for Bob.
    ("blocks", "direct", ""),
    ("blocks", "group", "count"),
    ("blocks", "open", "count note"),
    // A muted member may read, and that is shown.
    ("muted", "group", "receipt read_seq"),
    ("muted", "open", "read_seq"),
    ("left", "group", ""),
    ("left", "open", ""),
    ("banned", "group", ""),
    ("banned", "open", ""),
    // The device is revoked: its token does nothing any more. What it has read before is known.
    ("revoked", "group", "read_seq"),
    ("revoked", "open", "read_seq"),
];

struct Person {
    id: String,
    device: String,
    token: String,
}

struct Stage {
    node: TestNode,
    rest: Rest,
    people: u32,
}

impl Stage {
    async fn person(&mut self) -> Person {
        self.people += 1;
        let signed_in = self.rest.sign_up(&format!("person{}", self.people)).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (id, device) = (text(&signed_in["user"]["id"]), text(&signed_in["device_id"]));
        Person { id, device, token: text(&signed_in["access_token"]) }
    }

    async fn must(&self, who: &Person, method: &str, path: &str, body: Option<Value>) -> Value {
        self.rest.must(method, path, Some(&who.token), body.as_ref()).await
    }

    /// As [`Self::must`], but the call may be refused.
    async fn may(&self, who: &Person, method: &str, path: &str, body: Option<Value>) {
        drop(self.rest.call(method, path, Some(&who.token), None, body.as_ref()).await.unwrap());
    }

    async fn say(&self, who: &Person, path: &str, number: u32, mentions: &[&str]) {
        let key = format!("00000000-0000-7000-8000-{number:012}");
        let body = json!({ "client_msg_id": key, "body": { "text": "x", "mentions": mentions } });
        self.may(who, "POST", &format!("{path}/messages"), Some(body)).await;
    }

    /// A channel of Ada, Bob and Mal; a direct one of Bob and Mal.
    async fn channel(&self, kind: &str, [ada, bob, mal]: [&Person; 3]) -> String {
        let (by, members) = match kind {
            "direct" => (mal, vec![&bob.id]),
            "group" => (ada, vec![&bob.id, &mal.id]),
            _ => (ada, Vec::new()),
        };
        let name = (kind != "direct").then_some("Tea");
        let wish = json!({ "kind": kind, "name": name, "members": members });
        let view = self.must(by, "POST", "/v1/channels", Some(wish)).await;
        let path = format!("/v1/channels/{}", view["id"].as_str().unwrap());
        if kind == "open" {
            for who in [bob, mal] {
                self.must(who, "PUT", &format!("{path}/membership"), None).await;
            }
        }
        path
    }

    async fn put(&self, state: &str, path: &str, [ada, bob, mal]: [&Person; 3]) {
        let (who, method, at, body) = match state {
            "invisible" => {
                let (mut socket, _) = Socket::connect(self.node.addr, &mal.token, None).await.unwrap();
                let frame = json!({ "type": "presence", "id": "1", "invisible": true });
                socket.send(&frame).await.unwrap();
                socket.next_of("done").await;
                return;
            }
            "blocked" => (bob, "PUT", format!("/v1/blocks/{}", mal.id), None),
            "blocks" => (mal, "PUT", format!("/v1/blocks/{}", bob.id), None),
            "muted" => (ada, "PUT", format!("{path}/mutes/{}", mal.id), Some(json!({}))),
            "left" => (mal, "DELETE", format!("{path}/members/{}", mal.id), None),
            "banned" => (ada, "PUT", format!("{path}/bans/{}", mal.id), Some(json!({}))),
            "revoked" => (mal, "DELETE", format!("/v1/devices/{}", mal.device), None),
            _ => return,
        };
        self.must(who, method, &at, body).await;
    }

    /// What Bob learns in this state and kind of channel.
    async fn learned(&mut self, state: &str, kind: &str) -> String {
        let [ada, bob, mal] = [self.person().await, self.person().await, self.person().await];
        let all = [&ada, &bob, &mal];
        let path = self.channel(kind, all).await;
        let channel = path.rsplit('/').next().unwrap().to_owned();
        let (mut to_bob, _) = Socket::connect(self.node.addr, &bob.token, None).await.unwrap();
        if kind == "open" {
            to_bob.send(&json!({ "type": "subscribe", "id": "1", "channel_id": channel })).await.unwrap();
            to_bob.next_of("heads").await;
        }
        let other = if kind == "direct" { &bob } else { &ada };
        self.say(other, &path, 1, &[]).await;
        let head = self.must(other, "GET", &path, None).await["head_seq"].clone();
        // Read before the state changes, so that the marker is not the one of the join.
        let mut from_mal = Socket::connect(self.node.addr, &mal.token, None).await.unwrap().0;
        self.put(state, &path, all).await;
        if state == "revoked" {
            // The socket is closed behind the answer to the revocation.
            while from_mal.next().await.is_ok() {}
        }
        act(from_mal, &channel, &head).await;
        self.say(&mal, &path, 2, &[&bob.id]).await;
        let view = self.must(&bob, "GET", &path, None).await;
        // These calls come last, and notes, events and entries keep their order. So everything before them has arrived when they
        // do.
        if kind == "direct" {
            self.must(&bob, "PUT", &format!("/v1/blocks/{}", ada.id), None).await;
        } else {
            self.say(&ada, &path, 3, &[&bob.id]).await;
        }
        let mut learned = frames_until(&mut to_bob, kind, &ada, &mal).await;
        learned.extend(view["mentions"].as_u64().filter(|count| *count > 0).map(|_| "count"));
        let members = self.must(&bob, "GET", &format!("{path}/members"), None).await;
        let marker = members["items"].as_array().unwrap().iter().find(|card| card["id"] == json!(mal.id));
        learned.extend(marker.filter(|card| card["read_seq"].is_u64()).map(|_| "read_seq"));
        ["typing", "receipt", "read_seq", "count", "note"]
            .into_iter()
            .filter(|it| learned.contains(it))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Types and reads, as far as the server allows it.
async fn act(mut socket: Socket, channel: &str, head: &Value) {
    let typing = json!({ "type": "typing", "id": "t", "channel_id": channel });
    let read = json!({ "type": "read", "id": "r", "channel_id": channel, "seq": head });
    if socket.send(&typing).await.is_err() || socket.send(&read).await.is_err() {
        return;
    }
    // A revoked device is closed instead.
    while let Ok(frame) = socket.next().await {
        if frame["id"] == "r" {
            return;
        }
    }
}

/// What Bob receives about Mal before the last action of Ada or Bob.
async fn frames_until(to_bob: &mut Socket, kind: &str, ada: &Person, mal: &Person) -> Vec<&'static str> {
    let mut learned = Vec::new();
    let (mut is_said, mut is_noted) = (false, kind == "group");
    while !(is_said && is_noted) {
        let frame = to_bob.next().await.unwrap();
        let is_mal = frame["user_id"] == json!(mal.id);
        match frame["type"].as_str().unwrap() {
            "typing" if is_mal => learned.push("typing"),
            "receipt" if is_mal => learned.push("receipt"),
            "entries" => {
                for entry in frame["entries"].as_array().unwrap() {
                    let is_note = entry["kind"] == "mentioned";
                    learned.extend((is_note && entry["by"] == json!(mal.id)).then_some("note"));
                    is_noted |= is_note && entry["by"] == json!(ada.id);
                    is_said |= entry["sender_id"] == json!(ada.id) && entry["mentions"].is_array();
                    let is_end = entry["kind"] == "blocked" && entry["user_id"] == json!(ada.id);
                    (is_said, is_noted) = (is_said || is_end, is_noted || is_end);
                }
            }
            _ => {}
        }
    }
    learned
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_learns_about_another_what_the_table_says() {
    let storage = Storage::embedded();
    let mut config = Config::default();
    config.limits.enabled = false;
    let node = TestNode::start(config, &storage, Clock::system()).await.unwrap();
    let mut stage = Stage { rest: Rest::new(&node.url()), node, people: 0 };
    let mut wrong = Vec::new();
    for (state, kind, expected) in TABLE {
        let learned = stage.learned(state, kind).await;
        if learned != *expected {
            wrong.push(format!("{state}, {kind}: {learned:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
