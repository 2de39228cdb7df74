//! Entries about reactions say what changed, and no device takes over the version of a body that it does not have.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::time::Duration;

use madang_service::ManualClock;
use madang_testkit::{Config, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

/// A group with a message at `target`.
struct Group {
    node: TestNode,
    clock: ManualClock,
    rest: Rest,
    people: Vec<Value>,
    group: String,
    target: u64,
}

fn token(person: &Value) -> &str {
    person["access_token"].as_str().unwrap()
}

impl Group {
    async fn new(people: usize, text: &str) -> Self {
        let mut config = Config::default();
        config.limits.enabled = false;
        // The clock is moved by minutes, and the clients here send no heartbeats.
        (config.gateway.heartbeat_ms, config.gateway.silence_ms) = (3_600_000, 7_200_000);
        let (clock, manual) = manual_clock();
        let node = TestNode::start(config, &Storage::model(), clock).await.unwrap();
        let rest = Rest::new(&node.url());
        let mut signed_up = Vec::new();
        for number in 0..people {
            signed_up.push(rest.sign_up(&format!("user{number}")).await);
        }
        let ids: Vec<&Value> = signed_up[1..].iter().map(|person| &person["user"]["id"]).collect();
        let wish = json!({ "kind": "group", "name": "Tea", "members": ids });
        let view = rest.must("POST", "/v1/channels", Some(token(&signed_up[0])), Some(&wish)).await;
        let group = format!("/v1/channels/{}", view["id"].as_str().unwrap());
        let body =
            json!({ "client_msg_id": "01920000-0000-7000-8000-000000000001", "body": { "text": text } });
        let path = format!("{group}/messages");
        let ack = rest.must("POST", &path, Some(token(&signed_up[0])), Some(&body)).await;
        let target = ack["seq"].as_u64().unwrap();
        Self { node, clock: manual, rest, people: signed_up, group, target }
    }

    async fn react(&self, person: usize, emoji: &str) -> u64 {
        self.clock.advance(Duration::from_secs(1));
        let path = format!("{}/messages/{}/reactions/{emoji}", self.group, self.target);
        let changed = self.rest.must("PUT", &path, Some(token(&self.people[person])), None).await;
        changed["seq"].as_u64().unwrap()
    }

    async fn edit(&self, text: &str) -> u64 {
        let path = format!("{}/messages/{}", self.group, self.target);
        let edit = json!({ "body": { "text": text } });
        let changed = self.rest.must("PATCH", &path, Some(token(&self.people[0])), Some(&edit)).await;
        changed["seq"].as_u64().unwrap()
    }

    /// Entries of history, as user 1 reads them.
    async fn history(&self, query: &str) -> Vec<Value> {
        let path = format!("{}/entries?{query}", self.group);
        let page = self.rest.must("GET", &path, Some(token(&self.people[1])), None).await;
        page["entries"].as_array().unwrap().clone()
    }

    async fn message(&self) -> Value {
        self.history(&format!("around={}&limit=1", self.target)).await.remove(0)
    }

    /// All entries behind the message, as they are served now.
    async fn changes(&self) -> Vec<Value> {
        self.history(&format!("after={}", self.target)).await
    }

    async fn cursor(&self, person: usize) -> String {
        let path = "/v1/snapshot";
        let answer = self.rest.must("POST", path, Some(token(&self.people[person])), Some(&json!({}))).await;
        answer["cursor"].as_str().unwrap().to_owned()
    }

    /// What a device that resumes gets of the group, up to and including `last`.
    async fn resumed(&self, person: usize, cursor: &str, last: u64) -> Vec<Value> {
        let token = token(&self.people[person]);
        let (mut socket, _) = Socket::connect(self.node.addr, token, Some(cursor)).await.unwrap();
        let mut got: Vec<Value> = Vec::new();
        while got.last().is_none_or(|entry| entry["seq"].as_u64() < Some(last)) {
            let frame = socket.next().await.unwrap();
            if frame["log"] == "channel" {
                got.extend(frame["entries"].as_array().unwrap().iter().cloned());
            }
        }
        got
    }
}

/// A device's copy of a message, kept as the protocol page says.
#[derive(Debug, Clone)]
struct Copy(Value);

fn version(message: &Value) -> u64 {
    message["version"].as_u64().unwrap_or(1)
}

fn body_version(message: &Value) -> u64 {
    message["edited"]["version"].as_u64().unwrap_or(1)
}

impl Copy {
    fn apply(&mut self, entry: &Value) {
        let (message, state) = (&entry["message"], &entry["state"]);
        if entry["kind"] == "message" && version(entry) > version(&self.0) {
            self.0 = entry.clone();
        } else if message.is_object() && version(message) > version(&self.0) {
            let (seq, at) = (self.0["seq"].take(), self.0["at"].take());
            self.0 = message.clone();
            (self.0["seq"], self.0["at"]) = (seq, at);
            self.0["kind"] = json!("message");
        } else if state.is_object()
            && version(state) > version(&self.0)
            && state["body_version"] == body_version(&self.0)
        {
            (self.0["version"], self.0["reactions"]) = (state["version"].clone(), state["reactions"].clone());
        }
    }
}

/// For each reader: the bytes of the entries about reactions, and their number.
async fn sent(people: usize, reactions: usize) -> Vec<(usize, usize)> {
    let group = Group::new(people, &"a".repeat(100_000)).await;
    let mut sockets = Vec::new();
    for person in &group.people {
        sockets.push(Socket::connect(group.node.addr, token(person), None).await.unwrap().0);
    }
    let mut last = 0;
    for number in 0..reactions {
        last = group.react(number % people, &format!("tea{}", number / people)).await;
    }
    let mut bytes = Vec::new();
    for socket in &mut sockets {
        let (mut sum, mut count, mut seq) = (0, 0, 0);
        while seq < last {
            let frame = socket.next().await.unwrap();
            let entries = frame["entries"].as_array().filter(|_| frame["log"] == "channel");
            for entry in entries.into_iter().flatten().filter(|entry| entry["kind"] == "reactions") {
                seq = entry["seq"].as_u64().unwrap();
                (sum, count) = (sum + entry.to_string().len(), count + 1);
            }
        }
        bytes.push((sum, count));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reactions_do_not_send_the_message_again() {
    for (bytes, count) in sent(3, 12).await {
        assert_eq!(count, 12);
        assert!(bytes / count < 1_000, "{bytes} bytes for {count} entries");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_missed_an_edit_never_keeps_the_old_text() {
    let group = Group::new(3, "tea?").await;
    let mut copies = vec![group.message().await];
    let mut cursors = vec![group.cursor(1).await];
    let mut last = 0;
    for step in 0..6 {
        last = match step % 3 {
            0 => group.edit(&format!("tea {step}")).await,
            _ => group.react(step % 3, &format!("cup{step}")).await,
        };
        copies.push(group.message().await);
        cursors.push(group.cursor(1).await);
    }
    let texts: Vec<(u64, Value)> =
        copies.iter().map(|copy| (body_version(copy), copy["text"].clone())).collect();
    let is_consistent = |copy: &Copy| texts.contains(&(body_version(&copy.0), copy.0["text"].clone()));
    let now = group.message().await;
    let changes = group.changes().await;
    assert_eq!((changes.len(), version(&now)), (6, 7));
    for (start, first) in copies.iter().enumerate() {
        // The device resumes from there.
        let mut copy = Copy(first.clone());
        if start < changes.len() {
            let entries = group.resumed(1, &cursors[start], last).await;
            assert_eq!(entries.len(), changes.len() - start);
            entries.iter().for_each(|entry| copy.apply(entry));
        }
        assert_eq!(copy.0, now, "resumed behind change {start}");
        // The device has holes and fills them later: any of the later entries first, in any window of history.
        for picked in 0_u32..1 << (changes.len() - start) {
            let mut copy = Copy(first.clone());
            let later = &changes[start..];
            let is_picked = |index: &usize| picked & 1 << index != 0;
            for index in (0..later.len()).filter(is_picked) {
                copy.apply(&later[index]);
                assert!(is_consistent(&copy), "{copy:?}");
            }
            for index in (0..later.len()).filter(|index| !is_picked(index)) {
                copy.apply(&later[index]);
                assert!(is_consistent(&copy), "{copy:?}");
            }
            assert_eq!(copy.0, now, "behind change {start}, first {picked:b}");
        }
    }
}

/// A page around one entry about reactions gives them to a device with the same text, and not to one that lacks an edit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_of_history_serves_reactions_with_the_body_that_they_belong_to() {
    let group = Group::new(3, "tea?").await;
    let before = group.message().await;
    group.edit("coffee?").await;
    let edited = group.message().await;
    let seq = group.react(1, "cup").await;
    let window = group.history(&format!("around={seq}&limit=1")).await;
    assert_eq!((window.len(), &window[0]["kind"]), (1, &json!("reactions")));
    assert_eq!(window[0]["message"], Value::Null);
    let mut copy = Copy(before.clone());
    copy.apply(&window[0]);
    assert_eq!(copy.0, before);
    let mut copy = Copy(edited);
    copy.apply(&window[0]);
    assert_eq!(copy.0, group.message().await);
}

/// Reactions are small, but the messages that are read for them are not: a page ends before it has read more than its share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_reactions_to_large_messages_is_cut_and_the_next_pages_have_the_rest() {
    const MESSAGES: u64 = 40;
    let mut group = Group::new(3, "tea?").await;
    let text = "a".repeat(100_000);
    let mut targets = Vec::new();
    for number in 2..2 + MESSAGES {
        let key = format!("01920000-0000-7000-8000-{number:012}");
        let body = json!({ "client_msg_id": key, "body": { "text": text } });
        let path = format!("{}/messages", group.group);
        let ack = group.rest.must("POST", &path, Some(token(&group.people[0])), Some(&body)).await;
        targets.push(ack["seq"].as_u64().unwrap());
    }
    let cursor = group.cursor(1).await;
    let before = *targets.last().unwrap();
    for target in &targets {
        group.target = *target;
        group.react(1, "cup").await;
    }
    let (mut after, mut pages, mut told) = (before, 0, Vec::new());
    while after < before + MESSAGES {
        let page = group.history(&format!("after={after}&limit=200")).await;
        assert!((5..30).contains(&page.len()) || after + 5 > before + MESSAGES, "{} entries", page.len());
        assert!(page.iter().all(|entry| entry["state"]["reactions"][0]["count"] == 1));
        told.extend(page.iter().map(|entry| entry["target"].as_u64().unwrap()));
        after += page.len() as u64;
        pages += 1;
    }
    assert_eq!(told, targets);
    assert!(pages > 1);
    let resumed = group.resumed(1, &cursor, before + MESSAGES).await;
    let told: Vec<u64> = resumed.iter().map(|entry| entry["target"].as_u64().unwrap()).collect();
    assert_eq!(told, targets);
}
