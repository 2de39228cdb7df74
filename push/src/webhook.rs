//! Webhooks: signed requests to a program of the user (Standard Webhooks 1.0, <https://www.standardwebhooks.com>).
//!
//! Requests of one channel arrive in order: there is one at a time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use madang_ids::Millis;
use madang_proto::PushTarget;
use madang_proto::rest::AlertData;
use madang_store::Subscription;
use reqwest::Certificate;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;

use crate::core::Verdict;
use crate::http::{EndpointClients, LookUp, call};
use crate::notice::{Answer, Notice, Provider};
use crate::web_push::Endpoint;

/// How a secret begins.
const PREFIX: &str = "whsec_";

/// The adapter.
pub struct Webhook {
    allowed: Vec<String>,
    clients: EndpointClients,
}

/// The body of a request.
#[derive(Serialize)]
struct Payload<'a> {
    #[serde(flatten)]
    data: &'a AlertData,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
}

impl Webhook {
    /// Connects to public addresses, and to hosts in `allowed`.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(allowed: &[String], look_up: &Arc<dyn LookUp>, roots: &[Certificate]) -> Result<Self, String> {
        let clients = EndpointClients::new(roots, allowed, look_up);
        let clients = clients.map_err(|error| format!("push.webhook: {error}"))?;
        Ok(Self { allowed: allowed.to_vec(), clients })
    }
}

/// A new secret for the requests to one webhook. `None` if the machine has no random numbers.
#[must_use]
pub fn new_secret() -> Option<String> {
    let mut secret = [0; 24];
    rand::fill(&mut secret).ok()?;
    Some(format!("{PREFIX}{}", STANDARD.encode(secret)))
}

/// The header `webhook-signature`.
fn signature(secret: &str, id: &str, seconds: u64, body: &[u8]) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
    context.update(format!("{id}.{seconds}.").as_bytes());
    context.update(body);
    Some(format!("v1,{}", STANDARD.encode(context.sign())))
}

#[async_trait]
impl Provider for Webhook {
    async fn send(&self, to: &Subscription, notice: &Notice, now: Millis) -> Answer {
        let PushTarget::Webhook { url } = &to.target else {
            return Answer::without(Verdict::Ours, "not a webhook");
        };
        let endpoint = match Endpoint::parse(url, &self.allowed) {
            Ok(endpoint) => endpoint,
            Err(error) => return Answer::without(Verdict::WrongEnvironment, &error.to_string()),
        };
        let (title, body) = notice.words.as_ref().map(|words| (&*words.title, &*words.body)).unzip();
        let id = format!("msg_{}", URL_SAFE_NO_PAD.encode(notice.id(to.device_id)));
        let seconds = now.get() / 1_000;
        let body = serde_json::to_vec(&Payload { data: &notice.data, title, body }).unwrap_or_default();
        let secret = to.signing_secret.as_deref().unwrap_or_default();
        let Some(signature) = signature(secret, &id, seconds, &body) else {
            return Answer::without(Verdict::Ours, "the subscription has no secret");
        };
        let request = self
            .clients
            .of(endpoint.is_known(&self.allowed))
            .post(endpoint.url().clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature);
        match call(request.body(body)).await {
            Ok(received) => {
                let verdict = verdict(received.status, received.retry_after);
                Answer::of(verdict, received.status, &received.body)
            }
            Err(answer) => answer,
        }
    }
}

/// As Standard Webhooks wants it: 2xx is taken, 410 ends the subscription.
const fn verdict(status: u16, retry_after: Option<Duration>) -> Verdict {
    match status {
        200..=299 => Verdict::Delivered,
        410 => Verdict::Gone { at: None },
        429 | 503 => Verdict::NotTaken { after: retry_after },
        300..=499 => Verdict::Ours,
        _ => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn a_request_is_signed_as_the_specification_shows() {
        let (secret, id) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek");
        let signed = signature(secret, id, 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        assert_eq!(signature("secret", id, 1, b""), None);
    }

    #[test]
    fn secrets_are_new_each_time() {
        let (one, other) = (new_secret().unwrap(), new_secret().unwrap());
        assert!(one.starts_with(PREFIX) && one != other);
        assert!(signature(&one, "id", 1, b"").is_some());
    }
}
