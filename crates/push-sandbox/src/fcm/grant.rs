//! Access tokens: "Using OAuth 2.0 for Server to Server Applications", Google; RFC 7523.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use crate::answer::{Refused, Request};
use crate::jwt::Jwt;
use crate::keys::Key;

/// The path of the endpoint.
pub(super) const PATH: &str = "/token";
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// The longest life of an assertion.
const ASSERTION_S: u64 = 3_600;
/// How far the clock of a sender may be ahead.
const AHEAD_S: u64 = 60;
/// Access tokens that are kept; above this number, expired ones are forgotten.
const KEPT: usize = 1_024;

/// The service account, and the tokens that it was granted.
#[derive(Debug)]
pub(super) struct Grants {
    token_uri: String,
    project: String,
    email: String,
    key_id: String,
    key: Key,
    valid_s: u64,
    /// When each access token ends, in seconds since 1970.
    tokens: Mutex<HashMap<String, u64>>,
}

impl Grants {
    pub(super) fn new(url: &str, project: &str, key: Key, valid: Duration) -> Self {
        Self {
            token_uri: format!("{url}{PATH}"),
            project: project.to_owned(),
            email: format!("sandbox@{project}.iam.gserviceaccount.example.test"),
            key_id: Uuid::new_v4().simple().to_string(),
            key,
            valid_s: valid.as_secs(),
            tokens: Mutex::default(),
        }
    }

    pub(super) fn service_account_json(&self) -> String {
        let account = json!({
            "type": "service_account",
            "project_id": self.project,
            "private_key_id": self.key_id,
            "private_key": self.key.private_pem,
            "client_email": self.email,
            "client_id": "100000000000000000000",
            "auth_uri": format!("{}/auth", self.token_uri),
            "token_uri": self.token_uri,
            "comment": "A key for tests, made by madang-push-sandbox. It gives access to nothing.",
        });
        format!("{account:#}\n")
    }

    pub(super) fn expire_all(&self) {
        self.tokens.lock().values_mut().for_each(|end_s| *end_s = 0);
    }

    /// Answers a request for an access token.
    pub(super) fn grant(&self, request: &Request, now_s: u64) -> Result<Value, Refused> {
        if request.method != http::Method::POST {
            return Err(Refused::request(405, "invalid_request", "the method is not POST"));
        }
        if !request.has_media_type("application/x-www-form-urlencoded") {
            return Err(bad("invalid_request", "content-type is not application/x-www-form-urlencoded"));
        }
        let assertion = assertion(&request.body)?;
        self.check_assertion(&assertion, now_s)?;
        let token = format!("ya29.sandbox-{}", Uuid::new_v4().simple());
        let mut tokens = self.tokens.lock();
        if tokens.len() >= KEPT {
            tokens.retain(|_, end_s| *end_s > now_s);
        }
        tokens.insert(token.clone(), now_s + self.valid_s);
        Ok(json!({ "access_token": token, "expires_in": self.valid_s, "token_type": "Bearer" }))
    }

    fn check_assertion(&self, text: &str, now_s: u64) -> Result<(), Refused> {
        let grant = |detail: &str| bad("invalid_grant", detail);
        let jwt = Jwt::parse(text).ok_or_else(|| grant("the assertion is not a JWT"))?;
        let (Some(issued_s), Some(end_s)) = (jwt.seconds("iat"), jwt.seconds("exp")) else {
            return Err(grant("iat or exp is not a number of seconds"));
        };
        let problems = [
            (jwt.header["alg"] != "RS256", "alg is not RS256"),
            (jwt.header["kid"] != self.key_id.as_str(), "kid is not private_key_id"),
            (jwt.claims["iss"] != self.email.as_str(), "iss is not client_email"),
            (jwt.claims["aud"] != self.token_uri.as_str(), "aud is not token_uri"),
            (end_s.saturating_sub(issued_s) > ASSERTION_S, "exp is more than an hour after iat"),
            (issued_s > now_s + AHEAD_S, "iat is in the future"),
            (end_s <= now_s, "exp has passed"),
        ];
        if let Some((_, detail)) = problems.into_iter().find(|(is_wrong, _)| *is_wrong) {
            return Err(grant(detail));
        }
        if !jwt.is_rs256_of(&self.key.public) {
            return Err(grant("Invalid JWT Signature."));
        }
        let scopes = jwt.claims["scope"].as_str().unwrap_or_default();
        if !scopes.split(' ').any(|scope| scope == SCOPE) {
            return Err(bad("invalid_scope", "scope does not contain firebase.messaging"));
        }
        Ok(())
    }

    /// Checks the access token of a request.
    pub(super) fn check_bearer(&self, request: &Request, now_s: u64) -> Result<(), Refused> {
        let refused = |detail: &str| Refused::request(401, "UNAUTHENTICATED", detail);
        if request.headers.get_all("authorization").iter().count() > 1 {
            return Err(refused("authorization is there more than once"));
        }
        let header = request.header("authorization").ok_or_else(|| refused("there is no access token"))?;
        let token =
            header.strip_prefix("Bearer ").ok_or_else(|| refused("authorization is not `Bearer <token>`"))?;
        match self.tokens.lock().get(token) {
            None => Err(refused("the access token is unknown")),
            Some(end_s) if *end_s <= now_s => Err(refused("the access token has expired")),
            Some(_) => Ok(()),
        }
    }
}

fn bad(reason: &'static str, detail: &str) -> Refused {
    Refused::request(400, reason, detail)
}

fn assertion(body: &[u8]) -> Result<String, Refused> {
    let fields: HashMap<_, _> = form_urlencoded::parse(body).into_owned().collect();
    match fields.get("grant_type").map(String::as_str) {
        Some(GRANT_TYPE) => {}
        Some(_) => return Err(bad("unsupported_grant_type", "grant_type is not that of RFC 7523")),
        None => return Err(bad("invalid_request", "there is no grant_type")),
    }
    fields.get("assertion").cloned().ok_or_else(|| bad("invalid_request", "there is no assertion"))
}
