//! Custom data is served as it was sent, wherever it is read; and a message that cannot be read does not affect others.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::path::Path;

use madang_testkit::{Config, RawSocket, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

/// JSON as it is sent. A tree of values would change or lose each of these texts.
const DATA: [&str; 9] = [
    r#"{"a":1,"$serde_json::private::RawValue":"[1"}"#,
    r#"{"$serde_json::private::RawValue":"[1]","z":1}"#,
    r#"{"$serde_json::private::Number":"1e5"}"#,
    r#"{"z":18446744073709551617,"a":-9223372036854775809,"m":[1.0,1e2,-0,0.10000000000000000000001]}"#,
    r#"{"escapes":"\u00e9\/\u0000\ud83d\ude00","한":"글"}"#,
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    r#"{"data":{"data":[{"data":null}]},"kind":"message","seq":"x"}"#,
    "123456789012345678901234567890123456789012345678901234567890",
    r#""  two  spaces  ""#,
];

struct Talk {
    rest: Rest,
    url: String,
    ada: String,
    bob: String,
    channel: String,
}

async fn node(storage: &Storage) -> TestNode {
    let mut config = Config::default();
    config.limits.enabled = false;
    TestNode::start(config, storage, manual_clock().0).await.unwrap()
}

impl Talk {
    async fn begin(node: &TestNode) -> Self {
        let rest = Rest::new(&node.url());
        let (ada, bob) = (rest.sign_up("ada").await, rest.sign_up("bob").await);
        let token = |signed_in: &Value| signed_in["access_token"].as_str().unwrap().to_owned();
        let wish = json!({ "kind": "direct", "members": [bob["user"]["id"]] });
        let view = rest.must("POST", "/v1/channels", ada["access_token"].as_str(), Some(&wish)).await;
        let channel = view["id"].as_str().unwrap().to_owned();
        Self { rest, url: node.url(), ada: token(&ada), bob: token(&bob), channel }
    }

    /// A restarted node has another address.
    fn on(self, node: &TestNode) -> Self {
        Self { rest: Rest::new(&node.url()), url: node.url(), ..self }
    }

    fn messages(&self) -> String {
        format!("/v1/channels/{}/messages", self.channel)
    }

    fn entries(&self) -> String {
        format!("/v1/channels/{}/entries", self.channel)
    }

    async fn send(&self, key: usize, body: &str) -> Value {
        let text = format!(r#"{{"client_msg_id":"01920000-0000-7000-8000-{key:012}","body":{body}}}"#);
        let answer = self.rest.send_text("POST", &self.messages(), Some(&self.ada), &text).await;
        assert!(answer.status < 300, "{body}: {answer:?}");
        answer.body
    }

    /// An answer as text.
    async fn text(&self, method: &str, path: &str, body: &str) -> String {
        let request = reqwest::Client::new()
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .bearer_auth(&self.bob);
        let request = if body.is_empty() {
            request
        } else {
            request.header("Content-Type", "application/json").body(body.to_owned())
        };
        request.send().await.unwrap().text().await.unwrap()
    }

    /// Reads frames as text until all of `wanted` were found.
    async fn hear(&self, socket: &mut RawSocket, wanted: &[String]) {
        let mut missing: Vec<&String> = wanted.iter().collect();
        while !missing.is_empty() {
            let text = socket.read_text().await.unwrap();
            missing.retain(|one| !text.contains(one.as_str()));
        }
    }

    async fn connect(&self, node: &TestNode, cursor: Option<&str>) -> RawSocket {
        let mut socket = RawSocket::open(node.addr).await.unwrap();
        let hello = json!({ "type": "hello", "token": self.bob, "cursor": cursor });
        socket.write_text(&hello.to_string()).await.unwrap();
        let welcome = socket.read_text().await.unwrap();
        assert!(welcome.contains("welcome"), "{welcome}");
        socket
    }
}

fn members(data: &[&str]) -> Vec<String> {
    data.iter().map(|data| format!(r#""data":{data}"#)).collect()
}

fn spaced(data: &str) -> String {
    format!(" \n{data}\t")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_data_is_served_byte_for_byte_everywhere() {
    for storage in [Storage::model(), Storage::embedded()] {
        let first = node(&storage).await;
        let talk = Talk::begin(&first).await;
        let cursor: Value = serde_json::from_str(&talk.text("POST", "/v1/snapshot", "{}").await).unwrap();
        let cursor = cursor["cursor"].as_str().unwrap().to_owned();
        let mut live = talk.connect(&first, Some(&cursor)).await;
        let mut seqs = Vec::new();
        for (key, data) in DATA.iter().enumerate() {
            let ack = talk.send(key, &format!(r#"{{"data":{}}}"#, spaced(data))).await;
            // A retry is recognised, also with another spelling of the body.
            assert_eq!(talk.send(key, &format!(r#"{{"text":"","data":{data},"mentions":null}}"#)).await, ack);
            seqs.push(ack["seq"].clone());
        }
        let all = members(&DATA);
        talk.hear(&mut live, &all).await;
        let history = talk.text("GET", &talk.entries(), "").await;
        let snapshot = talk.text("POST", "/v1/snapshot", r#"{"recent":true}"#).await;
        for member in &all {
            assert!(history.contains(member), "history lacks {member}");
            assert!(snapshot.contains(member), "the snapshot lacks {member}");
        }
        talk.hear(&mut talk.connect(&first, Some(&cursor)).await, &all).await;
        // Each message is edited to have the data of the next one.
        for (index, seq) in seqs.iter().enumerate() {
            let body = format!(r#"{{"body":{{"data":{}}}}}"#, spaced(DATA[(index + 1) % DATA.len()]));
            let path = format!("{}/{seq}", talk.messages());
            let answer = talk.rest.send_text("PATCH", &path, Some(&talk.ada), &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        talk.hear(&mut live, &all).await;
        drop(live);
        first.stop().await.unwrap();
        let second = node(&storage).await;
        let talk = talk.on(&second);
        let history = talk.text("GET", &talk.entries(), "").await;
        for member in &all {
            assert_eq!(history.matches(member.as_str()).count() % 2, 0, "message and change carry {member}");
        }
        talk.hear(&mut talk.connect(&second, Some(&cursor)).await, &all).await;
        assert!(talk.send(99, r#"{"text":"and on"}"#).await["seq"].is_u64());
        second.stop().await.unwrap();
    }
}

#[tokio::test]
async fn json_that_readers_disagree_about_is_refused_by_name() {
    let node = node(&Storage::model()).await;
    let talk = Talk::begin(&node).await;
    for (body, field, code) in [
        (r#"{"data":{"a":1,"\u0061":2}}"#, "body.data", "invalid"),
        (r#"{"data":["\ud83d"]}"#, "body.data", "invalid"),
        (r#"{"data":1e999}"#, "body.data", "invalid"),
        (r#"{"text":"cut \ud83d"}"#, "body.text", "invalid"),
    ] {
        let text = format!(r#"{{"client_msg_id":"01920000-0000-7000-8000-000000000001","body":{body}}}"#);
        let answer = talk.rest.send_text("POST", &talk.messages(), Some(&talk.ada), &text).await;
        assert_eq!((&answer.body["field"], &answer.body["code"]), (&json!(field), &json!(code)), "{body}");
    }
    node.stop().await.unwrap();
}

/// Changes bytes of a stopped database, as a failing disk does.
fn rot(folder: &Path, text: &[u8], other: &[u8]) {
    let file = folder.join("madang.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - text.len()).filter(|&at| bytes[at..].starts_with(text)).collect();
    assert!(!places.is_empty(), "the text is in the file");
    for at in places {
        bytes[at..at + other.len()].copy_from_slice(other);
    }
    std::fs::write(&file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_message_does_not_affect_others() {
    let storage = Storage::embedded();
    let first = node(&storage).await;
    let talk = Talk::begin(&first).await;
    let cursor: Value = serde_json::from_str(&talk.text("POST", "/v1/snapshot", "{}").await).unwrap();
    let cursor = cursor["cursor"].as_str().unwrap().to_owned();
    let mut seqs = Vec::new();
    for (key, text) in ["before", "poisoned tea", "after"].iter().enumerate() {
        seqs.push(talk.send(key, &json!({ "text": text }).to_string()).await["seq"].as_u64().unwrap());
    }
    first.stop().await.unwrap();
    let Storage::Embedded(folder) = &storage else { panic!("an embedded store") };
    rot(folder.path(), b"poisoned tea", b"poisoned sea");
    let report = madang_store::embedded::check(folder.path(), &mut |_| {}).unwrap();
    let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let place = format!("seq {}: differs from its checksum", seqs[1]);
    assert!(found.iter().any(|finding| finding.contains(&place)), "{found:?}");

    let second = node(&storage).await;
    let talk = talk.on(&second);
    let kinds = |entries: &Value| -> Vec<(u64, String)> {
        let entries = entries.as_array().unwrap().iter();
        entries
            .map(|entry| (entry["seq"].as_u64().unwrap(), entry["kind"].as_str().unwrap().to_owned()))
            .collect()
    };
    let expected: Vec<(u64, String)> = seqs
        .iter()
        .zip(["message", "unreadable", "message"])
        .map(|(seq, kind)| (*seq, kind.to_owned()))
        .collect();
    let history: Value = serde_json::from_str(&talk.text("GET", &talk.entries(), "").await).unwrap();
    assert!(kinds(&history["entries"]).ends_with(&expected), "{history}");
    let snapshot = talk.text("POST", "/v1/snapshot", r#"{"recent":true}"#).await;
    let snapshot: Value = serde_json::from_str(&snapshot).unwrap();
    assert!(kinds(&snapshot["recent"][&talk.channel]).ends_with(&expected), "{snapshot}");
    assert_eq!(snapshot["channels"][0]["unread"], 3);
    // A device that was away gets all of it, and the channel can be used on.
    let (mut socket, welcome) = Socket::connect(second.addr, &talk.bob, Some(&cursor)).await.unwrap();
    assert_eq!(welcome["resume"], "resumed");
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let frame = socket.next_of("entries").await;
        if frame["log"] == "channel" {
            heard.extend(kinds(&frame["entries"]));
        }
    }
    assert_eq!(heard, expected);
    let next = talk.send(7, r#"{"text":"and on"}"#).await;
    assert_eq!(next["seq"].as_u64(), Some(seqs[2] + 1));
    let path = |seq: u64| format!("{}/{seq}", talk.messages());
    let edit = json!({ "body": { "text": "edited" } });
    talk.rest.must("PATCH", &path(seqs[2]), Some(&talk.ada), Some(&edit)).await;
    let refused = talk.rest.call("PATCH", &path(seqs[1]), Some(&talk.ada), None, Some(&edit)).await.unwrap();
    assert_eq!(refused.status, 404, "{refused:?}");
    let refused = talk.rest.call("DELETE", &path(seqs[1]), Some(&talk.bob), None, None).await.unwrap();
    assert_eq!(refused.status, 403, "{refused:?}");
    talk.rest.must("DELETE", &path(seqs[1]), Some(&talk.ada), None).await;
    let history: Value = serde_json::from_str(&talk.text("GET", &talk.entries(), "").await).unwrap();
    assert!(!history.to_string().contains("unreadable"), "{history}");
    drop(socket);
    second.stop().await.unwrap();
    let report = madang_store::embedded::check(folder.path(), &mut |_| {}).unwrap();
    assert_eq!(report.findings, [], "what was deleted is whole again");
}
