//! A receiver of webhooks that are signed as Standard Webhooks says (standardwebhooks.com, "Webhook signature scheme").

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::answer::{Answer, Refused, Request};
use crate::clock::Now;
use crate::ledger::Ledger;
use crate::notice::{Face, Notice};
use crate::server::Service;

const PATH: &str = "/hook/";
/// How far the time of a request may be from ours, in seconds.
const AWAY_S: u64 = 300;
const SECRET_BYTES: usize = 24;
const BODY_BYTES: usize = 20 * 1_024;

/// Where a webhook is sent, and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The address.
    pub url: String,
    /// `whsec_` and the key in base64.
    pub secret: String,
}

/// The face of a receiver of webhooks.
#[derive(Debug)]
pub struct Webhook {
    url: String,
    /// The keys by name.
    keys: Mutex<HashMap<String, Vec<u8>>>,
    now: Now,
    ledger: Arc<Ledger>,
}

impl Webhook {
    pub(crate) fn new(url: String, (now, ledger): (Now, Arc<Ledger>)) -> Self {
        Self { url, keys: Mutex::default(), now, ledger }
    }

    /// The hook with this name. It is made at the first call.
    ///
    /// # Errors
    /// If the machine has no random numbers.
    pub fn hook(&self, name: &str) -> Result<Hook, Unspecified> {
        let mut new = [0; SECRET_BYTES];
        rand::fill(&mut new)?;
        let mut keys = self.keys.lock();
        let key = keys.entry(name.to_owned()).or_insert_with(|| new.to_vec());
        let secret = format!("whsec_{}", STANDARD.encode(key));
        Ok(Hook { url: format!("{}{PATH}{name}", self.url), secret })
    }

    /// Replaces the secret of a hook by one that the sender has made.
    ///
    /// # Errors
    /// If it is not `whsec_` and base64.
    pub fn set_secret(&self, name: &str, secret: &str) -> Result<(), Unspecified> {
        let key = secret.strip_prefix("whsec_").ok_or(Unspecified)?;
        let key = STANDARD.decode(key).map_err(|_| Unspecified)?;
        self.keys.lock().insert(name.to_owned(), key);
        Ok(())
    }

    fn check(&self, request: &Request) -> Result<Notice, Refused> {
        if request.method != Method::POST {
            return Err(Refused::request(405, "MethodNotAllowed", format!("{} is not POST", request.method)));
        }
        let name = request.path.strip_prefix(PATH).unwrap_or_default();
        let key = self.keys.lock().get(name).cloned();
        let key = key.ok_or_else(|| Refused::request(404, "NotFound", "there is no hook of this name"))?;
        if request.body.len() > BODY_BYTES {
            return Err(Refused::request(413, "PayloadTooLarge", "the body has more than 20 KiB"));
        }
        let id = self.check_signature(request, &key)?;
        if !request.has_media_type("application/json") {
            return Err(bad("BadContentType", "content-type is not application/json"));
        }
        let payload: Value =
            serde_json::from_slice(&request.body).map_err(|_| bad("BadBody", "the body is not JSON"))?;
        let is_visible = payload["kind"] == "alert";
        Ok(Notice { is_visible, id: Some(id), ..Notice::new(Face::Webhook, name, payload) })
    }

    /// Returns the id of the message.
    fn check_signature(&self, request: &Request, key: &[u8]) -> Result<String, Refused> {
        let header = |name: &str| {
            let mut values = request.headers.get_all(name).iter();
            let value = values.next().and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
            let value = value.filter(|_| values.next().is_none());
            value.ok_or_else(|| bad("BadHeader", format!("{name} is not there exactly once")))
        };
        let (id, time) = (header("webhook-id")?, header("webhook-timestamp")?);
        let seconds: u64 = time.parse().map_err(|_| bad("BadTimestamp", "not a number of seconds"))?;
        if seconds.abs_diff(self.now.seconds()) > AWAY_S {
            return Err(bad("BadTimestamp", "more than five minutes from the time of the receiver"));
        }
        let signed = [id.as_bytes(), b".", time.as_bytes(), b".", &request.body].concat();
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let is_right = |signature: &str| {
            let tag = signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
            tag.is_some_and(|tag| hmac::verify(&key, &signed, &tag).is_ok())
        };
        // Several signatures stand for several keys, while one is replaced by another.
        if !header("webhook-signature")?.split(' ').any(is_right) {
            return Err(Refused::request(401, "BadSignature", "no signature is that of this hook"));
        }
        Ok(id.to_owned())
    }
}

fn bad(reason: &'static str, detail: impl Into<String>) -> Refused {
    Refused::request(400, reason, detail)
}

impl Service for Webhook {
    type Connection = ();

    fn face(&self, _path: &str) -> Face {
        Face::Webhook
    }

    fn answer(&self, _connection: &(), request: &Request) -> Answer {
        match self.check(request) {
            Ok(notice) => {
                self.ledger.take(notice);
                Answer::new(204)
            }
            Err(refused) => {
                let Refused { status, reason, detail, blame, .. } = refused;
                self.ledger.refuse(Face::Webhook, &request.path, (status, reason), &detail, blame);
                Answer::json(status, &json!({ "error": reason, "message": detail }))
            }
        }
    }
}
