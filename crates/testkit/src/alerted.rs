//! Groups whose members are alerted of everything, while the processes that do it are killed: nobody may be alerted twice of a message,
//! and nothing may be stuck.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_push_sandbox::{Delivery, Face, Fault, Notice, Sandbox};
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::rest::Rest;

/// Members of each of the two groups: 10,000 pairs of a user and a message with [`MESSAGES`].
pub const GROUP: usize = 50;
/// Messages to each of the groups.
pub const MESSAGES: usize = 100;
/// A record whose worker was killed in a call is looked at again after this time.
const LEASE: Duration = Duration::from_secs(60);

struct Person {
    id: String,
    token: String,
    device: String,
}

/// Two groups, and the user who writes to both.
pub struct AlertedGroups {
    writer: String,
    groups: Vec<(String, Vec<Person>)>,
    last: Vec<u64>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn person(rest: &Rest, topic: &str, number: usize) -> Person {
    let signed_in = rest.sign_up(&format!("person{number}")).await;
    let (token, device) = (text(&signed_in["access_token"]), format!("{number:04x}"));
    let body = json!({ "provider": "apns", "token": device, "topic": topic, "environment": "production" });
    rest.must("PUT", "/v1/push/subscription", Some(&token), Some(&body)).await;
    Person { id: text(&signed_in["user"]["id"]), token, device }
}

impl AlertedGroups {
    /// Signs everybody up. Calls to providers take a while from then on, so that a kill finds some of them under way.
    pub async fn make(rest: &Rest, sandbox: &Sandbox) -> Self {
        let writer = text(&rest.sign_up("ada").await["access_token"]);
        let topic = sandbox.apns().topic().to_owned();
        let mut groups = Vec::new();
        for group in 0..2 {
            let mut members = Vec::new();
            for number in 0..GROUP {
                members.push(person(rest, &topic, group * GROUP + number).await);
            }
            let ids: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
            let wish = json!({ "kind": "group", "name": "Tea", "members": ids });
            let view = rest.must("POST", "/v1/channels", Some(&writer), Some(&wish)).await;
            groups.push((text(&view["id"]), members));
        }
        sandbox.set_all(Face::Apns, Fault::Delay(Duration::from_millis(40)));
        Self { writer, groups, last: vec![0; 2] }
    }

    /// Sends the message with this number to both groups, over any of the servers that takes it. Some of the alerts are lost on the
    /// way back, or are refused. Most devices are alerted before it returns: otherwise all messages would fold into one alert.
    pub async fn say(&mut self, servers: &[&Rest], sandbox: &Sandbox, number: usize) {
        if number.is_multiple_of(5) {
            sandbox.fail_next(Face::Apns, Fault::ResetAfterBody(Delivery::Delivered), 1);
            sandbox.fail_next(Face::Apns, Fault::RefusedStream, 1);
        }
        let before = sandbox.notices().len();
        for (group, (channel, _)) in self.groups.iter().enumerate() {
            let id = format!("018f0000-0000-7000-8000-{:012x}", 2 * number + group);
            let body = json!({ "client_msg_id": id, "body": { "text": "hi" } });
            self.last[group] = said(servers, &self.writer, channel, &body).await;
        }
        let _ = sandbox.wait_for(|notices| notices.len() >= before + GROUP, Duration::from_secs(1)).await;
    }

    /// Waits until the fate of the last message is known for each user, and returns the number of alerts.
    ///
    /// # Panics
    /// If a device was alerted twice of a message, an alert is stuck, or a request was wrong.
    pub async fn check(&self, rest: &Rest, sandbox: &Sandbox) -> usize {
        sandbox.clear(Face::Apns);
        let due = Instant::now() + LEASE + PATIENCE;
        for ((channel, members), last) in self.groups.iter().zip(&self.last) {
            for member in members {
                settled(rest, member, channel, *last, due).await;
            }
        }
        assert_eq!(sandbox.wrong_requests().len(), 0, "{:?}", sandbox.wrong_requests().first());
        check_once(&sandbox.notices())
    }
}

/// Sends until one of the servers acknowledges.
async fn said(servers: &[&Rest], token: &str, channel: &str, body: &Value) -> u64 {
    let (due, path) = (Instant::now() + PATIENCE, format!("/v1/channels/{channel}/messages"));
    loop {
        for rest in servers {
            let answer = rest.call("POST", &path, Some(token), None, Some(body)).await;
            if let Some(seq) = answer.ok().and_then(|answer| answer.body["seq"].as_u64()) {
                return seq;
            }
        }
        assert!(Instant::now() < due, "no server takes a message");
        // waits for: a server that was started again
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn settled(rest: &Rest, member: &Person, channel: &str, last: u64, due: Instant) {
    let path = format!("/v1/push/why?channel_id={channel}&seq={last}");
    loop {
        let history = rest.must("GET", &path, Some(&member.token), None).await;
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
