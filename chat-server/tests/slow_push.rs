//! Thousands of alerts while the server is killed again and again: nobody is alerted twice of a message, and nothing is stuck.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_push_sandbox::{Delivery, Face, Fault, Notice, Sandbox, Settings};
use madang_testkit::{PATIENCE, Server};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_madang");
/// Two groups of this size, and messages to each: 10,000 pairs of a user and a message.
const GROUP: usize = 50;
const MESSAGES: usize = 100;
const KILLS: usize = 5;
/// A record whose worker was killed in a call is looked at again after this time.
const LEASE: Duration = Duration::from_secs(60);

struct Person {
    id: String,
    token: String,
    device: String,
}

async fn start(folder: &Path) -> Server {
    let config = folder.join("madang.toml");
    Server::start(BINARY, &folder.join("data"), &["--config", config.to_str().unwrap()]).await.unwrap()
}

fn configure(folder: &Path, sandbox: &Sandbox) {
    sandbox.write_files(folder).unwrap();
    let text = format!(
        "[limits]\nenabled = false\n[passwords]\nmemory_kib = 8\npasses = 1\n[accounts]\nconsent = false\n{}",
        sandbox.config_text(folder).replace("[push]\n", "[push]\ndelay_ms = 0\n")
    );
    std::fs::write(folder.join("madang.toml"), text).unwrap();
}

async fn person(server: &Server, sandbox: &Sandbox, number: usize) -> Person {
    let signed_in = server.rest.sign_up(&format!("person{number}")).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (token, device) = (text(&signed_in["access_token"]), format!("{number:04x}"));
    let topic = sandbox.apns().topic();
    let body = json!({ "provider": "apns", "token": device, "topic": topic, "environment": "production" });
    server.rest.must("PUT", "/v1/push/subscription", Some(&token), Some(&body)).await;
    Person { id: text(&signed_in["user"]["id"]), token, device }
}

/// Sends a message, again and again until the server that is up then acknowledges it.
async fn say(server: &Server, token: &str, channel: &str) -> Option<u64> {
    let body = json!({ "client_msg_id": uuid::Uuid::new_v4(), "body": { "text": "hi" } });
    let path = format!("/v1/channels/{channel}/messages");
    let answer = server.rest.call("POST", &path, Some(token), None, Some(&body)).await.ok()?;
    answer.body["seq"].as_u64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_alerts_through_kills_reach_every_device_at_most_once() {
    let sandbox = Sandbox::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &sandbox);
    let mut server = start(folder.path()).await;
    let ada = server.rest.sign_up("ada").await["access_token"].as_str().unwrap().to_owned();
    let (mut channels, mut people) = (Vec::new(), Vec::new());
    for group in 0..2 {
        let mut members = Vec::new();
        for number in 0..GROUP {
            members.push(person(&server, &sandbox, group * GROUP + number).await);
        }
        let ids: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
        let wish = json!({ "kind": "group", "name": "Tea", "members": ids });
        let view = server.rest.must("POST", "/v1/channels", Some(&ada), Some(&wish)).await;
        channels.push(view["id"].as_str().unwrap().to_owned());
        people.push(members);
    }
    // Calls take a while, so that a kill finds some of them under way; and some are lost, or answered by nobody.
    sandbox.set_all(Face::Apns, Fault::Delay(Duration::from_millis(40)));
    let mut last = [0; 2];
    for number in 0..MESSAGES {
        for (group, channel) in channels.iter().enumerate() {
            last[group] = say(&server, &ada, channel).await.unwrap();
        }
        if number % 5 == 0 {
            sandbox.fail_next(Face::Apns, Fault::ResetAfterBody(Delivery::Delivered), 1);
            sandbox.fail_next(Face::Apns, Fault::RefusedStream, 1);
        }
        // Most devices are alerted before the next message: otherwise all of them fold into one. Some wait for a killed worker.
        let before = sandbox.notices().len();
        let _ = sandbox.wait_for(|notices| notices.len() >= before + GROUP, Duration::from_secs(1)).await;
        if number % (MESSAGES / KILLS) == MESSAGES / KILLS / 2 {
            server.kill().await.unwrap();
            server = start(folder.path()).await;
        }
    }
    sandbox.clear(Face::Apns);
    let due = Instant::now() + LEASE + PATIENCE;
    for (group, members) in people.iter().enumerate() {
        for member in members {
            settled(&server, member, &channels[group], last[group], due).await;
        }
    }
    let notices = sandbox.notices();
    let alerts = check_once(&notices);
    println!("{} pairs of a user and a message, {alerts} alerts, {KILLS} kills", 2 * GROUP * MESSAGES);
    assert!(alerts > 30 * GROUP, "{alerts}");
    assert_eq!(sandbox.wrong_requests().len(), 0, "{:?}", sandbox.wrong_requests().first());
}

/// Waits until the fate of the last message is known for a user.
async fn settled(server: &Server, member: &Person, channel: &str, last: u64, due: Instant) {
    let path = format!("/v1/push/why?channel_id={channel}&seq={last}");
    loop {
        let history = server.rest.must("GET", &path, Some(&member.token), None).await;
        let outcomes: BTreeSet<&str> =
            history["items"].as_array().unwrap().iter().filter_map(|item| item["outcome"].as_str()).collect();
        let is_over = outcomes.contains("taken") || outcomes.contains("unknown");
        if is_over && history["is_waiting"] == false {
            return;
        }
        assert!(Instant::now() < due, "{}: {history}", member.device);
        // waits for: the lease of the worker that was killed
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An alert is about a message and those before it: each alert of a device is about a later one than the alert before. Returns the
/// number of alerts.
fn check_once(notices: &[Arc<Notice>]) -> usize {
    let mut last: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let visible = notices.iter().filter(|notice| notice.is_visible);
    for notice in visible.clone() {
        let data = &notice.payload["madang"];
        let (channel, seq) = (data["channel_id"].as_str().unwrap(), data["seq"].as_u64().unwrap());
        let before = last.insert((&notice.target, channel), seq).unwrap_or_default();
        assert!(seq > before, "{} was alerted of {seq} after {before}", notice.target);
    }
    visible.count()
}
