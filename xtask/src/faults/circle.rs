//! Two users in a group with slow mode who repeat after a step of the clock everything that depends on time: both react
//! to one message, the user whom slow mode limits sends twice, and both renew their tokens.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::http::{self, Answer};

const SLOW_MODE_SECONDS: u64 = 2;
/// Limit for two reactions. The second waits for one second; a slow machine may take a few more.
const REACTED_WITHIN: Duration = Duration::from_secs(6);

#[derive(Debug)]
struct User {
    id: String,
    token: String,
    refresh_token: String,
}

/// The owner, whom slow mode does not limit, and a member.
#[derive(Debug)]
pub(super) struct Circle {
    addr: SocketAddr,
    owner: User,
    member: User,
    channel: String,
    next_key: u64,
}

impl Circle {
    /// Signs both up; the owner creates the group.
    pub(super) fn meet(addr: SocketAddr) -> Result<Self> {
        let (owner, member) = (sign_up(addr, "circle-owner")?, sign_up(addr, "circle-member")?);
        let body = json!({ "kind": "group", "name": "circle", "members": [member.id] });
        let view = call(addr, &owner, "POST", "/v1/channels", Some(&body))?;
        let channel = text(&must(view)?, "id")?;
        let circle = Self { addr, owner, member, channel, next_key: 0 };
        let slow = json!({ "slow_mode_seconds": SLOW_MODE_SECONDS });
        must(call(addr, &circle.owner, "PATCH", &format!("/v1/channels/{}", circle.channel), Some(&slow))?)?;
        Ok(circle)
    }

    /// Does everything that depends on time.
    pub(super) fn go_on(&mut self) -> Result<()> {
        self.renew()?;
        self.react()?;
        self.speak_slowly()
    }

    fn renew(&mut self) -> Result<()> {
        for user in [&mut self.owner, &mut self.member] {
            let body = json!({ "refresh_token": user.refresh_token });
            let renewed = must(http::call(self.addr, "POST", "/v1/tokens", None, Some(&body))?);
            let renewed = renewed.context("a token could not be renewed")?;
            user.token = text(&renewed, "access_token")?;
            user.refresh_token = text(&renewed, "refresh_token")?;
        }
        Ok(())
    }

    /// The second reaction is held until a second has passed since the first.
    fn react(&mut self) -> Result<()> {
        let seq = must(self.say(true)?)?["seq"].as_u64().context("no seq")?;
        let path = format!("/v1/channels/{}/messages/{seq}/reactions/tea", self.channel);
        let begun = Instant::now();
        for user in [&self.owner, &self.member] {
            must(call(self.addr, user, "PUT", &path, None)?).context("a reaction")?;
        }
        let took = begun.elapsed();
        ensure!(took <= REACTED_WITHIN, "two reactions took {took:?}");
        Ok(())
    }

    /// The first message may have to wait for one from before the step. The second is refused, and accepted after the
    /// wait.
    fn speak_slowly(&mut self) -> Result<()> {
        self.say_in_time()?;
        let held = self.say(false)?;
        ensure!(held.code() == "limited", "slow mode did not refuse the second message: {}", held.body);
        let wait_ms = held.body["retry_after_ms"].as_u64().context("no retry_after_ms")?;
        ensure!(wait_ms <= 1_000 * SLOW_MODE_SECONDS, "slow mode asks for {wait_ms} ms");
        self.say_in_time()
    }

    fn say_in_time(&mut self) -> Result<()> {
        let limit = Duration::from_secs(2 * SLOW_MODE_SECONDS + 4);
        super::stage::until("slow mode lets a member send", limit, || Ok(self.say(false)?.is_success()))?;
        Ok(())
    }

    fn say(&mut self, is_owner: bool) -> Result<Answer> {
        self.next_key += 1;
        let key = format!("01920000-0000-7000-8000-{:012}", self.next_key);
        let body = json!({ "client_msg_id": key, "body": { "text": "tea?" } });
        let user = if is_owner { &self.owner } else { &self.member };
        call(self.addr, user, "POST", &format!("/v1/channels/{}/messages", self.channel), Some(&body))
    }
}

fn sign_up(addr: SocketAddr, handle: &str) -> Result<User> {
    let body = json!({ "handle": handle, "display_name": handle, "password": "correct horse" });
    let signed_in = must(http::call(addr, "POST", "/v1/accounts", None, Some(&body))?)?;
    Ok(User {
        id: text(&signed_in["user"], "id")?,
        token: text(&signed_in, "access_token")?,
        refresh_token: text(&signed_in, "refresh_token")?,
    })
}

fn call(addr: SocketAddr, user: &User, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
    http::call(addr, method, path, Some(&user.token), body)
}

fn must(answer: Answer) -> Result<Value> {
    ensure!(answer.is_success(), "{}: {}", answer.status, answer.body);
    Ok(answer.body)
}

fn text(body: &Value, name: &str) -> Result<String> {
    body[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"))
}
