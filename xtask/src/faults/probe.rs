//! A user whose view is checked during a fault: sends one message at a time and reads history.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::http::{self, Answer};
use super::stage::until;

const PASSWORD: &str = "correct horse";

/// One user, alone in a group.
pub(super) struct Probe {
    addr: SocketAddr,
    handle: String,
    token: String,
    channel: String,
    next_key: u64,
    /// Acks so far, in order.
    acked: Vec<Value>,
}

impl Probe {
    pub(super) fn sign_up(addr: SocketAddr) -> Result<Self> {
        Self::sign_up_as(addr, "probe")
    }

    pub(super) fn sign_up_as(addr: SocketAddr, handle: &str) -> Result<Self> {
        let body = json!({ "handle": handle, "display_name": "Probe", "password": PASSWORD });
        let signed_in = must(http::call(addr, "POST", "/v1/accounts", None, Some(&body))?)?;
        let token = text(&signed_in, "access_token")?;
        let body = json!({ "kind": "group", "name": "probe", "members": [] });
        let view = must(http::call(addr, "POST", "/v1/channels", Some(&token), Some(&body))?)?;
        let (handle, channel) = (handle.to_owned(), text(&view, "id")?);
        Ok(Self { addr, handle, token, channel, next_key: 0, acked: Vec::new() })
    }

    /// Signs in again after the token has expired.
    pub(super) fn log_in(&mut self) -> Result<()> {
        let body = json!({ "handle": self.handle, "password": PASSWORD, "device_name": "another" });
        let signed_in = must(http::call(self.addr, "POST", "/v1/sessions", None, Some(&body))?)?;
        self.token = text(&signed_in, "access_token")?;
        Ok(())
    }

    /// Tries to send the next message. An ack is recorded; a refused message is sent again by the next call.
    pub(super) fn try_say(&mut self) -> Result<Answer> {
        let key = format!("01920000-0000-7000-8000-{:012}", self.next_key);
        let said = "long ".repeat(500);
        let body = json!({ "client_msg_id": key, "body": { "text": said } });
        let path = format!("/v1/channels/{}/messages", self.channel);
        let answer = http::call(self.addr, "POST", &path, Some(&self.token), Some(&body))?;
        if answer.is_success() {
            self.next_key += 1;
            self.acked.push(answer.body.clone());
        }
        Ok(answer)
    }

    /// Sends the next message until it is acked.
    pub(super) fn say(&mut self, limit: Duration) -> Result<Duration> {
        until("a message of the probe is acked", limit, || {
            Ok(self.try_say().is_ok_and(|answer| answer.is_success()))
        })
    }

    /// Compares history with the acks: every acked message is there, once and in order, and the times and ids rise.
    pub(super) fn check(&self) -> Result<()> {
        let mut messages: Vec<Value> = Vec::new();
        let (mut after, mut at) = (0, 0);
        loop {
            let path = format!("/v1/channels/{}/entries?limit=200&after={after}", self.channel);
            let page = must(http::call(self.addr, "GET", &path, Some(&self.token), None)?)?;
            let entries = page["entries"].as_array().context("no entries")?;
            let Some(last) = entries.last() else { break };
            after = last["seq"].as_u64().context("no seq")?;
            for entry in entries {
                let entry_at = entry["at"].as_u64().context("no time")?;
                ensure!(entry_at >= at, "the time of seq {} falls", entry["seq"]);
                at = entry_at;
                messages.extend((entry["kind"] == "message").then(|| entry.clone()));
            }
        }
        let id = |message: &Value| message["message_id"].as_str().and_then(|id| id.parse::<u64>().ok());
        ensure!(messages.iter().map(id).all(|id| id.is_some()), "a message has no id");
        ensure!(messages.is_sorted_by_key(id), "the ids of messages fall");
        let place = |value: &Value| (value["seq"].clone(), value["message_id"].clone());
        ensure!(
            messages.iter().map(place).eq(self.acked.iter().map(place)),
            "{} messages were acked, and history has {}, or different ones",
            self.acked.len(),
            messages.len()
        );
        Ok(())
    }

    /// The time of the last ack, by the server's clock.
    pub(super) fn last_at(&self) -> u64 {
        self.acked.last().and_then(|ack| ack["at"].as_u64()).unwrap_or_default()
    }
}

fn must(answer: Answer) -> Result<Value> {
    ensure!(answer.is_success(), "{}: {}", answer.status, answer.body);
    Ok(answer.body)
}

fn text(body: &Value, name: &str) -> Result<String> {
    body.pointer(&format!("/{name}"))
        .and_then(Value::as_str)
        .map(str::to_owned)
        .with_context(|| format!("no {name}"))
}
