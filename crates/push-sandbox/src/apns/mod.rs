//! APNs: "Sending notification requests to APNs" and "Handling notification responses from APNs", Apple.
//!
//! Checks come in this order: path and method, duplicate headers, provider token, headers, body, state of the device token. A
//! device token is good unless the test says otherwise. Where Apple accepts a request and then shows nothing, the sandbox refuses
//! it: `payload` says where.

mod headers;
mod payload;
mod provider_token;

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;
use serde_json::json;

use crate::answer::{Answer, Extra, Refused, Request};
use crate::clock::Now;
use crate::keys::Key;
use crate::ledger::Ledger;
use crate::notice::{Face, Notice};
use crate::server::Service;
use headers::Headers;
pub(crate) use provider_token::Connection;
use provider_token::ProviderTokens;

const PATH: &str = "/3/device/";

/// The state of a device token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApnsToken {
    /// Its phone takes notices. Unknown tokens have this state.
    Ok,
    /// It belongs to the other environment, production or development: 400 `BadDeviceToken`.
    OtherEnvironment,
    /// It belongs to another app: 400 `DeviceTokenNotForTopic`.
    WrongTopic,
    /// The app was removed: 410 `Unregistered`.
    Unregistered {
        /// When, in ms since 1970.
        at_ms: u64,
    },
    /// It got too much: 429 `TooManyRequests`.
    Throttled,
}

/// The key with which a provider signs its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApnsKey {
    /// The `iss` of a token: ten characters.
    pub team_id: String,
    /// The `kid` of a token: ten characters.
    pub key_id: String,
    /// The public key: an uncompressed point of P-256, 65 bytes.
    pub public: Vec<u8>,
}

/// The face of APNs.
#[derive(Debug)]
pub struct Apns {
    url: String,
    topic: String,
    key: ApnsKey,
    private_pem: String,
    provider_tokens: ProviderTokens,
    devices: Mutex<HashMap<String, ApnsToken>>,
    now: Now,
    ledger: Arc<Ledger>,
}

impl Apns {
    /// `key` is the signing key of the team that `ids` names: team id and key id.
    pub(crate) fn new(
        url: String,
        topic: String,
        key: Key,
        ids: (String, String),
        (now, ledger): (Now, Arc<Ledger>),
    ) -> Self {
        let (team_id, key_id) = ids;
        let Key { private_pem, public } = key;
        let key = ApnsKey { team_id, key_id, public };
        let provider_tokens = ProviderTokens::new(key.clone(), Arc::clone(&ledger));
        Self { url, topic, key, private_pem, provider_tokens, devices: Mutex::default(), now, ledger }
    }

    /// The base of requests, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The only topic that is allowed.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The key that was made at the start.
    #[must_use]
    pub const fn key(&self) -> &ApnsKey {
        &self.key
    }

    /// Its private half, in PEM: the content of the file that Apple names `AuthKey_<key id>.p8`.
    #[must_use]
    pub fn private_pem(&self) -> &str {
        &self.private_pem
    }

    /// Accepts tokens of another key too, of the same team or of another.
    pub fn add_key(&self, key: ApnsKey) {
        self.provider_tokens.add_key(key);
    }

    /// Sets the state of a device token.
    pub fn set_token(&self, token: &str, state: ApnsToken) {
        self.devices.lock().insert(token.to_owned(), state);
    }

    /// Forgets all provider tokens, so that the next one counts as the first. For tests that restart their server within
    /// 20 minutes.
    pub fn forget_provider_tokens(&self) {
        self.provider_tokens.forget();
    }

    fn check(&self, connection: &Connection, request: &Request) -> Result<Notice, Refused> {
        let token = device_token(request)?;
        headers::check_duplicates(&request.headers)?;
        self.provider_tokens.check(connection, request, self.now.seconds())?;
        let headers = Headers::read(request, &self.topic)?;
        let payload = payload::read(&request.body, &headers.push_type)?;
        self.check_device(token)?;
        Ok(headers.notice(token, payload))
    }

    fn check_device(&self, token: &str) -> Result<(), Refused> {
        match self.devices.lock().get(token) {
            None | Some(ApnsToken::Ok) => Ok(()),
            Some(ApnsToken::OtherEnvironment) => Err(Refused::state(400, "BadDeviceToken")),
            Some(ApnsToken::WrongTopic) => Err(Refused::state(400, "DeviceTokenNotForTopic")),
            Some(ApnsToken::Unregistered { at_ms }) => {
                Err(Refused::state(410, "Unregistered").with(Extra::EndedAt(*at_ms)))
            }
            Some(ApnsToken::Throttled) => Err(Refused::state(429, "TooManyRequests")),
        }
    }
}

/// The device token of the path. Its length may change, says Apple.
fn device_token(request: &Request) -> Result<&str, Refused> {
    let token = request.path.strip_prefix(PATH);
    let token = token.ok_or_else(|| Refused::request(404, "BadPath", format!("not {PATH}<token>")))?;
    if request.method != Method::POST {
        return Err(Refused::request(405, "MethodNotAllowed", format!("{} is not POST", request.method)));
    }
    if token.is_empty() {
        return Err(Refused::request(400, "MissingDeviceToken", "the path ends before the token"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Refused::request(400, "BadDeviceToken", "the token is not hexadecimal"));
    }
    Ok(token)
}

impl Service for Apns {
    type Connection = Connection;

    fn face(&self, _path: &str) -> Face {
        Face::Apns
    }

    fn answer(&self, connection: &Connection, request: &Request) -> Answer {
        let id = headers::id_of(request);
        let answer = match self.check(connection, request) {
            Ok(notice) => {
                self.ledger.take(Notice { id: Some(id.clone()), ..notice });
                Answer::new(200)
            }
            Err(refused) => {
                let Refused { status, reason, ref detail, blame, .. } = refused;
                self.ledger.refuse(Face::Apns, &request.path, (status, reason), detail, blame);
                refusal(&refused)
            }
        };
        // Only the environment of developers sends apns-unique-id.
        answer.with("apns-id", id).with("apns-unique-id", uuid::Uuid::new_v4())
    }

    fn is_limited(&self, connection: &Connection) -> bool {
        !connection.is_trusted()
    }
}

fn refusal(refused: &Refused) -> Answer {
    let body = match refused.extra {
        Extra::EndedAt(at_ms) => json!({ "reason": refused.reason, "timestamp": at_ms }),
        _ => json!({ "reason": refused.reason }),
    };
    Answer::json(refused.status, &body)
}
