//! Provider tokens: "Establishing a token-based connection to APNs", Apple.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::ApnsKey;
use crate::answer::{Refused, Request};
use crate::jwt::Jwt;
use crate::ledger::Ledger;
use crate::notice::Face;

/// A token is valid for an hour.
const VALID_S: u64 = 3_600;
/// A token stays the same for 20 minutes at least.
const SAME_S: u64 = 1_200;
/// How far the clock of a provider may be ahead.
const AHEAD_S: u64 = 60;
/// Above this number, expired tokens are forgotten.
const KEPT: usize = 1_024;

/// What APNs remembers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Connection(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// Team id and key id of the first valid token.
    owner: Option<(String, String)>,
    /// A token had expired: every further request is refused (pushy, `ApnsClientHandler`).
    is_spoilt: bool,
}

impl Connection {
    /// Whether a request with a valid token has arrived.
    pub(crate) fn is_trusted(&self) -> bool {
        self.0.lock().owner.is_some()
    }
}

/// A token with a valid signature.
#[derive(Debug, Clone)]
struct Token {
    team_id: String,
    key_id: String,
    issued_s: u64,
    /// Whether it was accepted; a token that came too early after another was not.
    is_accepted: bool,
}

/// All provider tokens of the server.
#[derive(Debug)]
pub(super) struct ProviderTokens {
    keys: Mutex<Vec<ApnsKey>>,
    known: Mutex<Known>,
    ledger: Arc<Ledger>,
}

#[derive(Debug, Default)]
struct Known {
    /// By their exact text.
    tokens: HashMap<String, Token>,
    /// When the newest token of each key was first accepted, in seconds since 1970.
    newest_s: HashMap<String, u64>,
}

impl ProviderTokens {
    pub(super) fn new(key: ApnsKey, ledger: Arc<Ledger>) -> Self {
        Self { keys: Mutex::new(vec![key]), known: Mutex::default(), ledger }
    }

    pub(super) fn add_key(&self, key: ApnsKey) {
        self.keys.lock().push(key);
    }

    pub(super) fn forget(&self) {
        *self.known.lock() = Known::default();
    }

    /// Checks the token of a request.
    pub(super) fn check(
        &self,
        connection: &Connection,
        request: &Request,
        now_s: u64,
    ) -> Result<(), Refused> {
        if connection.0.lock().is_spoilt {
            return Err(expired("an earlier token of this connection had expired: open another connection"));
        }
        let text = bearer(request)?;
        let known = self.known.lock().tokens.get(text).cloned();
        let is_new = known.is_none();
        let token = match known {
            Some(token) => token,
            None => self.verify(text)?,
        };
        if token.issued_s > now_s + AHEAD_S {
            return Err(invalid("iat is in the future"));
        }
        if token.issued_s + VALID_S < now_s {
            connection.0.lock().is_spoilt = true;
            return Err(expired("iat is more than an hour ago"));
        }
        check_owner(connection, &token)?;
        if is_new {
            self.ledger.count_provider_token(Face::Apns);
        }
        if !token.is_accepted {
            self.known.lock().accept(text, token.clone(), now_s)?;
        }
        connection.0.lock().owner = Some((token.team_id, token.key_id));
        Ok(())
    }

    fn verify(&self, text: &str) -> Result<Token, Refused> {
        let jwt = Jwt::parse(text).ok_or_else(|| invalid("the token is not a JWT"))?;
        if jwt.header["alg"] != "ES256" {
            return Err(invalid("alg is not ES256"));
        }
        let key_id = Jwt::text(&jwt.header, "kid").ok_or_else(|| invalid("the header has no kid"))?;
        let team_id = Jwt::text(&jwt.claims, "iss").ok_or_else(|| invalid("the claims have no iss"))?;
        let issued_s = jwt.seconds("iat").ok_or_else(|| invalid("iat is not a number of seconds"))?;
        let keys = self.keys.lock();
        let key = keys.iter().find(|key| key.key_id == key_id);
        let key = key.ok_or_else(|| invalid("kid is not the id of a known key"))?;
        if key.team_id != team_id {
            return Err(invalid("iss is not the team of the key"));
        }
        if !jwt.is_es256_of(&key.public) {
            return Err(invalid("the signature is wrong"));
        }
        Ok(Token { team_id, key_id, issued_s, is_accepted: false })
    }
}

impl Known {
    fn accept(&mut self, text: &str, token: Token, now_s: u64) -> Result<(), Refused> {
        if self.tokens.len() >= KEPT {
            self.tokens.retain(|_, token| token.issued_s + VALID_S >= now_s);
        }
        let newest_s = self.newest_s.get(&token.key_id).copied();
        let is_early = newest_s.is_some_and(|newest_s| now_s < newest_s + SAME_S);
        if !is_early {
            self.newest_s.insert(token.key_id.clone(), now_s);
        }
        self.tokens.insert(text.to_owned(), Token { is_accepted: !is_early, ..token });
        if is_early {
            let detail = "another token of this key was new less than 20 minutes ago";
            return Err(Refused::request(429, "TooManyProviderTokenUpdates", detail));
        }
        Ok(())
    }
}

/// A connection belongs to one team, and to one key of it.
fn check_owner(connection: &Connection, token: &Token) -> Result<(), Refused> {
    let memory = connection.0.lock();
    let Some((team_id, key_id)) = &memory.owner else { return Ok(()) };
    if *team_id != token.team_id {
        return Err(invalid("the connection belongs to another team"));
    }
    if *key_id != token.key_id {
        let detail = "the connection belongs to another key of the team";
        return Err(Refused::request(403, "UnrelatedKeyIdInToken", detail));
    }
    Ok(())
}

fn bearer(request: &Request) -> Result<&str, Refused> {
    let missing = || Refused::request(403, "MissingProviderToken", "there is no header `authorization`");
    let header = request.headers.get("authorization").ok_or_else(missing)?;
    let parts = header.to_str().ok().and_then(|header| header.split_once(' '));
    let token = parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token);
    token.ok_or_else(|| invalid("authorization is not `bearer <token>`"))
}

fn invalid(detail: &str) -> Refused {
    Refused::request(403, "InvalidProviderToken", detail)
}

fn expired(detail: &str) -> Refused {
    Refused::request(403, "ExpiredProviderToken", detail)
}
