//! The export of the caller's own data: its content, with many messages, for a slow reader, and next to a damaged row.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use madang_testkit::{Config, ManualClock, PATIENCE, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};
use tokio::time::timeout;

const EXPORT: &str = "/v1/me/export";

struct Person {
    id: String,
    token: String,
    device: String,
}

struct Stage {
    rest: Rest,
    node: TestNode,
    clock: ManualClock,
}

impl Stage {
    async fn new(storage: &Storage, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.limits.enabled = false;
        adjust(&mut config);
        let (clock, manual) = manual_clock();
        let node = TestNode::start(config, storage, clock).await.unwrap();
        Self { rest: Rest::new(&node.url()), node, clock: manual }
    }

    async fn person(&self, handle: &str) -> Person {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let signed_in = self.rest.sign_up(handle).await;
        let (id, token) = (text(&signed_in["user"]["id"]), text(&signed_in["access_token"]));
        Person { id, token, device: text(&signed_in["device_id"]) }
    }

    async fn must(&self, method: &str, path: &str, by: &Person, body: Option<Value>) -> Value {
        self.rest.must(method, path, Some(&by.token), body.as_ref()).await
    }

    async fn channel(&self, by: &Person, wish: Value) -> String {
        self.must("POST", "/v1/channels", by, Some(wish)).await["id"].as_str().unwrap().to_owned()
    }

    async fn say(&self, channel: &str, by: &Person, number: u64, body: Value) -> u64 {
        let path = format!("/v1/channels/{channel}/messages");
        let message = json!({ "client_msg_id": key(number), "body": body });
        self.must("POST", &path, by, Some(message)).await["seq"].as_u64().unwrap()
    }

    /// Sends many messages, in turn by the persons of `by`.
    async fn talk(&self, channel: &str, by: &[&Person], count: u64, text: &str) {
        let mut sockets = Vec::new();
        for person in by {
            sockets.push(Socket::connect(self.node.addr, &person.token, None).await.unwrap().0);
        }
        for round in 0..count.div_ceil(100) {
            for (index, socket) in sockets.iter_mut().enumerate() {
                let numbers = round * 100..((round + 1) * 100).min(count);
                let frames = numbers.map(|number| {
                    let body = json!({ "text": format!("{number} by {index} {text}") });
                    json!({ "type": "send", "id": number.to_string(), "channel_id": channel,
                            "client_msg_id": key(number), "body": body })
                });
                let answers = socket.pipeline(frames.collect()).await.unwrap();
                assert!(answers.iter().all(|answer| answer["type"] == "ack"), "{answers:?}");
            }
        }
    }

    async fn export(&self, by: &Person) -> Vec<Value> {
        let answer = self.rest.call("GET", EXPORT, Some(&by.token), None, None).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        lines(answer.body.as_str().unwrap())
    }

    /// Begins an export. Nothing of the body was read yet.
    async fn begin(&self, by: &Person) -> reqwest::Response {
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        client.get(format!("{}{EXPORT}", self.node.url())).bearer_auth(&by.token).send().await.unwrap()
    }

    async fn status(&self, by: &Person) -> (u16, Value) {
        let response = self.begin(by).await;
        let status = response.status().as_u16();
        let body = if status == 200 { Value::Null } else { response.json().await.unwrap() };
        (status, body["code"].clone())
    }
}

fn key(number: u64) -> String {
    format!("01920000-0000-7000-8000-{number:012}")
}

fn lines(text: &str) -> Vec<Value> {
    assert!(text.ends_with('\n'), "the last line is whole");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn of<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

/// Checks that the last line counts the lines before it.
fn assert_whole(lines: &[Value]) {
    let (end, before) = lines.split_last().unwrap();
    assert_eq!(end["type"], "end");
    assert_eq!(end["lines"], before.len());
    let mut counts = BTreeMap::new();
    before.iter().for_each(|line| *counts.entry(line["type"].as_str().unwrap()).or_insert(0_u64) += 1);
    for kind in ["device", "contact", "block", "channel", "message", "reaction"] {
        assert_eq!(end[format!("{kind}s")], counts.get(kind).copied().unwrap_or_default(), "{kind}");
    }
    assert_eq!((before[0]["type"].as_str(), counts["profile"]), (Some("profile"), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_contains_what_the_user_has_and_sent_and_nothing_of_others() {
    let stage = Stage::new(&Storage::model(), |_| {}).await;
    let (ada, bob, cy) = (stage.person("ada").await, stage.person("bob").await, stage.person("cy").await);
    stage.must("PATCH", "/v1/me", &ada, Some(json!({ "avatar": "https://chat.example/ada.png" }))).await;
    stage.must("PUT", &format!("/v1/contacts/{}", bob.id), &ada, None).await;
    stage.must("PUT", &format!("/v1/blocks/{}", cy.id), &ada, None).await;
    let direct = stage.channel(&ada, json!({ "kind": "direct", "members": [bob.id] })).await;
    let left = stage.channel(&bob, json!({ "kind": "group", "name": "Tea", "members": [ada.id] })).await;
    let open = stage.channel(&ada, json!({ "kind": "open", "name": "Yard", "members": [] })).await;
    let gone = stage.channel(&ada, json!({ "kind": "group", "name": "Gone", "members": [bob.id] })).await;
    let data = json!({ "text": "with data", "data": { "n": [1.5, null], "s": "x" } });
    let plain = stage.say(&direct, &ada, 1, data).await;
    let edited = stage.say(&direct, &ada, 2, json!({ "text": "befor" })).await;
    let deleted = stage.say(&direct, &ada, 3, json!({ "text": "taken back" })).await;
    let others = stage.say(&direct, &bob, 4, json!({ "text": "of bob" })).await;
    stage.say(&gone, &ada, 5, json!({ "text": "erased" })).await;
    stage.say(&left, &ada, 6, json!({ "text": "farewell" })).await;
    stage.say(&open, &ada, 7, json!({ "text": "in the open" })).await;
    let messages = format!("/v1/channels/{direct}/messages");
    stage
        .must("PATCH", &format!("{messages}/{edited}"), &ada, Some(json!({ "body": { "text": "before" } })))
        .await;
    stage.must("DELETE", &format!("{messages}/{deleted}"), &ada, None).await;
    let react = format!("{messages}/{others}/reactions/tea");
    let react = stage.rest.call("PUT", &react, Some(&ada.token), None, None);
    let pass = async {
        loop {
            stage.clock.advance(Duration::from_secs(1));
            // waits for: the home that the clock has woken
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! { answer = react => assert_eq!(answer.unwrap().status, 200), () = pass => {} }
    for channel in [&left, &open] {
        stage.must("DELETE", &format!("/v1/channels/{channel}/members/{}", ada.id), &ada, None).await;
    }
    stage.say(&left, &bob, 8, json!({ "text": "behind ada" })).await;
    stage.must("DELETE", &format!("/v1/channels/{gone}"), &ada, None).await;

    let lines = stage.export(&ada).await;
    assert_whole(&lines);
    assert_eq!(
        (&lines[0]["handle"], &lines[0]["avatar"]),
        (&json!("ada"), &json!("https://chat.example/ada.png"))
    );
    assert_eq!(lines[0]["sends_receipts"], true);
    assert_eq!(of(&lines, "device")[0]["id"], ada.device);
    assert_eq!(
        (&of(&lines, "contact")[0]["id"], &of(&lines, "contact")[0]["state"]),
        (&json!(bob.id), &json!("requested"))
    );
    assert_eq!(of(&lines, "block")[0]["id"], cy.id);
    let channels: BTreeMap<&str, &Value> =
        of(&lines, "channel").into_iter().map(|line| (line["id"].as_str().unwrap(), line)).collect();
    assert_eq!(channels.keys().copied().collect::<Vec<_>>(), {
        let mut all = vec![direct.as_str(), &left, &open];
        all.sort_by_key(|id| id.parse::<u64>().unwrap());
        all
    });
    assert_eq!(channels[left.as_str()]["stays"][0]["until_seq"], channels[left.as_str()]["until_seq"]);
    let said: Vec<(&str, &str, u64)> = of(&lines, "message")
        .into_iter()
        .map(|line| {
            assert_eq!((&line["kind"], &line["sender_id"]), (&json!("message"), &json!(ada.id)));
            let (channel, text) = (line["channel_id"].as_str().unwrap(), line["text"].as_str().unwrap());
            (channel, text, line["seq"].as_u64().unwrap())
        })
        .collect();
    let texts = |channel: &str| -> Vec<&str> {
        said.iter().filter(|(of, _, _)| *of == channel).map(|(_, text, _)| *text).collect()
    };
    assert_eq!(texts(&direct), ["with data", "before", ""]);
    assert_eq!((texts(&left), texts(&open)), (vec!["farewell"], vec!["in the open"]));
    let first =
        of(&lines, "message").into_iter().find(|line| line["seq"] == plain && line["channel_id"] == direct);
    assert_eq!(first.unwrap()["data"], json!({ "n": [1.5, null], "s": "x" }));
    let reaction = json!({ "type": "reaction", "channel_id": direct, "target": others, "emoji": "tea" });
    assert_eq!(of(&lines, "reaction"), [&reaction]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_messages_are_exported_once_each_in_order() {
    let stage = Stage::new(&Storage::embedded(), |_| {}).await;
    let (ada, bob) = (stage.person("ada").await, stage.person("bob").await);
    let group = stage.channel(&ada, json!({ "kind": "group", "name": "Tea", "members": [bob.id] })).await;
    stage.talk(&group, &[&ada, &bob], 3_000, "").await;
    let lines = stage.export(&ada).await;
    assert_whole(&lines);
    let texts: Vec<&str> =
        of(&lines, "message").into_iter().map(|line| line["text"].as_str().unwrap().trim()).collect();
    let expected: Vec<String> = (0..3_000).map(|number| format!("{number} by 0")).collect();
    assert_eq!(texts, expected);
    let empty = stage.export(&bob).await;
    assert_eq!(of(&empty, "message").len(), 3_000, "those of bob");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_export_is_complete() {
    let stage = Stage::new(&Storage::model(), |_| {}).await;
    let ada = stage.person("ada").await;
    let client = reqwest::Client::new();
    let ask = client.get(format!("{}{EXPORT}", stage.node.url())).bearer_auth(&ada.token);
    let answer = ask.header("Accept-Encoding", "gzip").send().await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    // A body that is cut off is an error.
    assert!(answer.bytes().await.unwrap().starts_with(&[0x1f, 0x8b]));
}

/// Sends 20 MB. The kernel holds only a few MB between server and client.
async fn long_talk(stage: &Stage) -> (Person, String) {
    let ada = stage.person("ada").await;
    let group = stage.channel(&ada, json!({ "kind": "group", "name": "Tea", "members": [] })).await;
    stage.talk(&group, &[&ada], 400, &"x".repeat(50_000)).await;
    (ada, group)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_one_page_and_one_that_reads_nothing_is_closed() {
    let stage = Stage::new(&Storage::embedded(), |config| config.gateway.write_seconds = 2).await;
    let (ada, _) = long_talk(&stage).await;
    let mut slow = stage.begin(&ada).await;
    assert_eq!(slow.headers()["content-type"], "application/x-ndjson");
    let mut text = slow.chunk().await.unwrap().unwrap().to_vec();
    assert_eq!(stage.status(&ada).await, (429, json!("limited")), "one at a time");
    let under_way = stage.node.node.gateway.bytes_under_way();
    assert!((256 * 1024..=1024 * 1024).contains(&under_way), "{under_way} bytes");
    while let Some(chunk) = slow.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    let all = lines(std::str::from_utf8(&text).unwrap());
    assert_whole(&all);
    assert_eq!(of(&all, "message").len(), 400);

    let stalled = stage.begin(&ada).await;
    assert_eq!(stage.status(&ada).await.0, 429);
    let given_up = timeout(PATIENCE, async {
        while stage.status(&ada).await.0 != 200 {
            // waits for: the time within which a peer must take a byte
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    given_up.await.expect("its place is free again");
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_export_has_no_last_line() {
    let stage = Stage::new(&Storage::embedded(), |_| {}).await;
    let (ada, _) = long_talk(&stage).await;
    let mut cut = stage.begin(&ada).await;
    let mut text = cut.chunk().await.unwrap().unwrap().to_vec();
    stage.must("DELETE", "/v1/sessions", &ada, None).await;
    while let Ok(Some(chunk)) = cut.chunk().await {
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| serde_json::from_str::<Value>(line).is_ok()).unwrap();
    assert!(!last.contains("\"type\":\"end\""), "{} bytes", text.len());
    assert!(text.len() < 20_000_000, "it ends soon after its device");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_has_a_rate_of_its_own_and_does_not_slow_other_calls() {
    let stage = Stage::new(&Storage::embedded(), |config| {
        config.limits.enabled = true;
        (config.limits.user_sends, config.limits.user_write_kib) = (0, 0);
        config.limits.connection_sends = 0;
    })
    .await;
    let (ada, _) = long_talk(&stage).await;
    let mut export = stage.begin(&ada).await;
    let (mut bytes, mut waits) = (0, 0);
    loop {
        match timeout(Duration::from_millis(500), export.chunk()).await {
            Ok(chunk) => match chunk.unwrap() {
                Some(chunk) => bytes += chunk.len(),
                None => break,
            },
            // Nothing arrives before the clock moves on.
            Err(_) => {
                waits += 1;
                stage.must("GET", "/v1/me", &ada, None).await;
                stage.clock.advance(Duration::from_secs(1));
            }
        }
    }
    assert!(bytes > 20_000_000, "{bytes} bytes");
    assert!(waits > 0, "twenty megabytes are more than ten seconds' worth");
}

/// Changes a byte of a text in the data folder of a stopped server.
fn damage(folder: &Path, text: &str) {
    let file = folder.join("madang.db");
    let mut bytes = std::fs::read(&file).unwrap_or_else(|error| {
        let names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|one| one.unwrap().file_name()).collect();
        panic!("{error}: {names:?}")
    });
    let at =
        bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("the text is there");
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_row_affects_its_own_line_only() {
    let storage = Storage::embedded();
    let stage = Stage::new(&storage, |_| {}).await;
    let ada = stage.person("ada").await;
    let group = stage.channel(&ada, json!({ "kind": "group", "name": "Tea", "members": [] })).await;
    for (number, text) in [(1, "before"), (2, "spoiled-on-the-disk"), (3, "behind")] {
        stage.say(&group, &ada, number, json!({ "text": text })).await;
    }
    let Stage { node, .. } = stage;
    node.stop().await.unwrap();
    let Storage::Embedded(folder) = &storage else { panic!("a folder") };
    damage(folder.path(), "spoiled-on-the-disk");
    let stage = Stage::new(&storage, |_| {}).await;
    let lines = stage.export(&ada).await;
    assert_whole(&lines);
    let kinds: Vec<_> =
        of(&lines, "message").into_iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["message", "unreadable", "message"]);
}
