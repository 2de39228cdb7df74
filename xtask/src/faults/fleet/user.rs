//! A user whose calls to a node are repeated while it is not there.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::http::{self, Answer};

/// How long one call is repeated.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(50);
const PASSWORD: &str = "correct horse";

/// A user with a device, who calls one node.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) token: String,
    handle: String,
    addr: SocketAddr,
}

impl User {
    pub(super) fn sign_up(addr: SocketAddr, handle: &str) -> Result<Self> {
        let body = json!({ "handle": handle, "display_name": handle, "password": PASSWORD });
        let mut user = Self { id: String::new(), token: String::new(), handle: handle.to_owned(), addr };
        user.token = text(&user.call("POST", "/v1/accounts", Some(&body))?, "access_token")?;
        user.id = text(&user.call("GET", "/v1/me", None)?, "id")?;
        Ok(user)
    }

    /// Another device of the user, which calls another node.
    pub(super) fn sign_in(&self, addr: SocketAddr, device: &str) -> Result<Self> {
        let other = Self { token: String::new(), ..self.at(addr) };
        let body = json!({ "handle": self.handle, "password": PASSWORD, "device_name": device });
        let token = text(&other.call("POST", "/v1/sessions", Some(&body))?, "access_token")?;
        Ok(Self { token, ..other })
    }

    /// The same device at another node.
    pub(super) fn at(&self, addr: SocketAddr) -> Self {
        Self { addr, ..self.clone() }
    }

    /// Makes a channel, and returns its id.
    pub(super) fn make_channel(&self, body: &Value) -> Result<String> {
        text(&self.call("POST", "/v1/channels", Some(body))?, "id")
    }

    /// The answer to a call, which must succeed.
    pub(super) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let answer = self.call_or(method, path, body, "")?;
        ensure!(answer.is_success(), "{method} {path}: {}: {}", answer.status, answer.body);
        Ok(answer.body)
    }

    /// Repeats a call while it is not answered, or refused as unavailable. `code` is an answer too.
    pub(super) fn call_or(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        code: &str,
    ) -> Result<Answer> {
        let begun = Instant::now();
        let token = Some(self.token.as_str()).filter(|token| !token.is_empty());
        loop {
            let answer = http::call(self.addr, method, path, token, body);
            if let Ok(answer) = &answer
                && (answer.is_success() || answer.code() == code)
            {
                return Ok(answer.clone());
            }
            let is_final = answer.as_ref().is_ok_and(|answer| !matches!(answer.status, 429 | 503));
            if is_final || begun.elapsed() > PATIENCE {
                return answer.with_context(|| format!("{method} {path}"));
            }
            sleep(AGAIN);
        }
    }
}

fn text(body: &Value, name: &str) -> Result<String> {
    body[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {body}"))
}
