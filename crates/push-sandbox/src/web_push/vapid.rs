//! Credentials of a server that pushes: RFC 8292.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use super::subscription::Subscriber;
use crate::answer::{Refused, Request};
use crate::jwt::{Jwt, Verified};
use crate::ledger::Ledger;
use crate::notice::Face;

/// The longest time until a token ends: RFC 8292, section 2.
const VALID_S: u64 = 86_400;
const POINT_BYTES: usize = 65;

/// The claims of a token whose signature is valid.
#[derive(Debug, Clone)]
struct Claims {
    audience: String,
    end_s: u64,
}

/// Verifies credentials.
#[derive(Debug)]
pub(super) struct Vapid {
    /// By the whole header, which contains the token and its key.
    verified: Verified<Claims>,
    ledger: Arc<Ledger>,
}

impl Vapid {
    pub(super) fn new(ledger: Arc<Ledger>) -> Self {
        Self { verified: Verified::new(), ledger }
    }

    /// Checks the header `Authorization`. Only a subscription without a key may be pushed to without credentials.
    pub(super) fn check(
        &self,
        request: &Request,
        subscriber: &Subscriber,
        now_s: u64,
    ) -> Result<(), Refused> {
        let mut values = request.headers.get_all("authorization").iter();
        let Some(header) = values.next() else {
            return match subscriber.vapid_public {
                None => Ok(()),
                Some(_) => Err(unauthorized("there is no header `authorization`")),
            };
        };
        if values.next().is_some() {
            return Err(unauthorized("authorization is there more than once"));
        }
        let header = header.to_str().unwrap_or_default();
        let (token, key) = parameters(header)?;
        let claims = match self.verified.get(header) {
            Some(claims) => claims,
            None => self.verify(header, token, key)?,
        };
        check_claims(&claims, &subscriber.origin, now_s)?;
        match &subscriber.vapid_public {
            Some(bound) if bound != key => {
                let detail = "the subscription belongs to another key";
                Err(Refused::request(403, "VapidPkHashMismatch", detail))
            }
            _ => Ok(()),
        }
    }

    fn verify(&self, header: &str, token: &str, key: &str) -> Result<Claims, Refused> {
        let point = URL_SAFE_NO_PAD.decode(key).ok().filter(|point| point.len() == POINT_BYTES);
        let point = point.ok_or_else(|| unauthorized("k is not an uncompressed point in base64url"))?;
        let jwt = Jwt::parse(token).ok_or_else(|| bad_token("t is not a JWT"))?;
        if jwt.header["alg"] != "ES256" {
            return Err(bad_token("alg is not ES256"));
        }
        if !jwt.is_es256_of(&point) {
            return Err(bad_token("the signature is not that of k"));
        }
        check_subject(jwt.claims["sub"].as_str().unwrap_or_default())?;
        let audience = Jwt::text(&jwt.claims, "aud").ok_or_else(|| bad_token("aud is not a string"))?;
        let end_s = jwt.seconds("exp").ok_or_else(|| bad_token("exp is not a number of seconds"))?;
        let claims = Claims { audience, end_s };
        self.verified.insert(header, claims.clone());
        self.ledger.count_provider_token(Face::WebPush);
        Ok(claims)
    }
}

/// RFC 8292, section 3: `vapid t=<token>, k=<key>`, in any order.
fn parameters(header: &str) -> Result<(&str, &str), Refused> {
    let wrong = || unauthorized("authorization is not `vapid t=<token>, k=<key>`");
    let (scheme, rest) = header.split_once(' ').ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("vapid") {
        return Err(wrong());
    }
    let value = |name: &str| {
        let mut parts = rest.split(',').filter_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        parts.next()
    };
    Ok((value("t").ok_or_else(wrong)?, value("k").ok_or_else(wrong)?))
}

fn check_claims(claims: &Claims, origin: &str, now_s: u64) -> Result<(), Refused> {
    if claims.audience != origin {
        return Err(bad_token(&format!("aud is {}, not {origin}", claims.audience)));
    }
    if claims.end_s <= now_s {
        return Err(Refused::request(403, "ExpiredJwtToken", "exp has passed"));
    }
    if claims.end_s > now_s + VALID_S {
        return Err(bad_token("exp is more than 24 hours ahead"));
    }
    Ok(())
}

/// RFC 8292, section 2.1: a way to reach the operator. Apple refuses `localhost`.
fn check_subject(subject: &str) -> Result<(), Refused> {
    let host = match subject.strip_prefix("mailto:") {
        Some(address) => address.split_once('@').map(|(_, host)| host.to_owned()),
        None => Url::parse(subject)
            .ok()
            .filter(|url| url.scheme() == "https")
            .and_then(|url| url.host_str().map(str::to_owned)),
    };
    match host.as_deref() {
        None | Some("") => Err(bad_token("sub is not a mailto: or https: URL")),
        Some("localhost") => Err(bad_token("sub is at localhost")),
        Some(_) => Ok(()),
    }
}

fn unauthorized(detail: &str) -> Refused {
    Refused::request(401, "BadAuthorizationHeader", detail)
}

fn bad_token(detail: &str) -> Refused {
    Refused::request(403, "BadJwtToken", detail)
}
