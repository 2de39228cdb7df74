//! Firebase Cloud Messaging, HTTP v1: "FCM REST API", Google.
//!
//! Checks come in this order: path and method, access token, media type, message, state of the registration token, quotas. A
//! registration token is good unless the test says otherwise.

mod grant;
mod message;
mod quota;
mod refusal;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use serde_json::json;
use uuid::Uuid;

use crate::answer::{Answer, Extra, Refused, Request};
use crate::clock::Now;
use crate::keys::Key;
use crate::ledger::Ledger;
use crate::notice::Face;
use crate::server::Service;
use grant::Grants;
use message::Message;
use quota::Quotas;

/// The state of a registration token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FcmToken {
    /// Its device takes messages. Unknown tokens have this state.
    Ok,
    /// The app was removed: 404 `UNREGISTERED`.
    Unregistered,
    /// It belongs to another project: 403 `SENDER_ID_MISMATCH`.
    OtherSender,
    /// It is not a token: 400 `INVALID_ARGUMENT` that names `message.token`.
    Malformed,
}

/// The face of FCM, and the endpoint that grants its access tokens.
#[derive(Debug)]
pub struct Fcm {
    url: String,
    project: String,
    grants: Grants,
    quotas: Quotas,
    devices: Mutex<HashMap<String, FcmToken>>,
    now: Now,
    ledger: Arc<Ledger>,
}

impl Fcm {
    /// Access tokens are valid for `valid`.
    pub(crate) fn new(
        url: String,
        project: String,
        key: Key,
        valid: Duration,
        (now, ledger): (Now, Arc<Ledger>),
    ) -> Self {
        let grants = Grants::new(&url, &project, key, valid);
        Self { url, project, grants, quotas: Quotas::default(), devices: Mutex::default(), now, ledger }
    }

    /// The base of requests, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The project of the service account.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The file of a service account, with a key that this process has made. Its `token_uri` is the sandbox.
    #[must_use]
    pub fn service_account_json(&self) -> String {
        self.grants.service_account_json()
    }

    /// Sets the state of a registration token.
    pub fn set_token(&self, token: &str, state: FcmToken) {
        self.devices.lock().insert(token.to_owned(), state);
    }

    /// Ends all access tokens: requests with them are answered 401.
    pub fn expire_access_tokens(&self) {
        self.grants.expire_all();
    }

    fn grant(&self, request: &Request) -> Answer {
        match self.grants.grant(request, self.now.seconds()) {
            Ok(body) => {
                self.ledger.count_provider_token(Face::Fcm);
                Answer::json(200, &body)
            }
            Err(refused) => {
                self.refuse(Face::FcmGrant, request, &refused);
                let body = json!({ "error": refused.reason, "error_description": refused.detail });
                Answer::json(refused.status, &body)
            }
        }
    }

    fn send(&self, request: &Request) -> Answer {
        match self.check(request) {
            Ok(message) => {
                if !message.is_dry_run {
                    self.ledger.take(message.notice());
                }
                let name = format!("projects/{}/messages/{}", self.project, Uuid::new_v4().simple());
                Answer::json(200, &json!({ "name": name }))
            }
            Err(refused) => {
                self.refuse(Face::Fcm, request, &refused);
                refusal::answer(&refused)
            }
        }
    }

    fn check(&self, request: &Request) -> Result<Message, Refused> {
        self.check_path(request)?;
        self.grants.check_bearer(request, self.now.seconds())?;
        if !request.has_media_type("application/json") {
            return Err(refusal::invalid("content-type is not application/json"));
        }
        let message = Message::read(&request.body)?;
        self.check_device(&message.token)?;
        if !message.is_dry_run {
            self.quotas.check(&message, self.now.ms())?;
        }
        Ok(message)
    }

    fn check_path(&self, request: &Request) -> Result<(), Refused> {
        let rest = request.path.strip_prefix("/v1/projects/");
        let project = rest.and_then(|rest| rest.strip_suffix("/messages:send"));
        match project {
            None => Err(Refused::request(404, "NOT_FOUND", "not /v1/projects/<project>/messages:send")),
            Some(_) if request.method != Method::POST => {
                Err(Refused::request(404, "NOT_FOUND", format!("{} is not POST", request.method)))
            }
            Some(project) if project != self.project => Err(Refused::request(
                403,
                "PERMISSION_DENIED",
                format!("the project is not {}", self.project),
            )),
            Some(_) => Ok(()),
        }
    }

    fn check_device(&self, token: &str) -> Result<(), Refused> {
        match self.devices.lock().get(token) {
            None | Some(FcmToken::Ok) => Ok(()),
            Some(FcmToken::Unregistered) => Err(Refused::state(404, "UNREGISTERED")),
            Some(FcmToken::OtherSender) => Err(Refused::state(403, "SENDER_ID_MISMATCH")),
            Some(FcmToken::Malformed) => {
                Err(Refused::state(400, "INVALID_ARGUMENT").with(Extra::Field("message.token")))
            }
        }
    }

    fn refuse(&self, face: Face, request: &Request, refused: &Refused) {
        let Refused { status, reason, ref detail, blame, .. } = *refused;
        self.ledger.refuse(face, &request.path, (status, reason), detail, blame);
    }
}

impl Service for Fcm {
    type Connection = ();

    fn face(&self, path: &str) -> Face {
        if path == grant::PATH { Face::FcmGrant } else { Face::Fcm }
    }

    fn answer(&self, _connection: &(), request: &Request) -> Answer {
        match self.face(&request.path) {
            Face::FcmGrant => self.grant(request),
            _ => self.send(request),
        }
    }
}
