//! The verifier of access tokens: it accepts no unsigned token, and of signed ones only those with valid claims.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use madang_auth::{Claims, TokenError, Tokens};
use madang_ids::Millis;
use serde_json::Value;

const SECRET: [u8; 32] = [7; 32];
const NOW: Millis = Millis::new(1_800_000_000_250);

/// The first line is the header, the rest the claims. Joined to a token they have no valid signature.
pub(crate) fn check(data: &[u8]) {
    let tokens = Tokens::new(&SECRET, Duration::from_secs(900));
    if let Ok(text) = std::str::from_utf8(data) {
        assert_eq!(tokens.verify(text, NOW), Err(TokenError::Invalid), "{text}");
    }
    let mut parts = data.splitn(2, |&byte| byte == b'\n');
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
    let other = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]), signed.as_bytes());
    let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(other));
    assert_eq!(tokens.verify(&forged, NOW), Err(TokenError::Invalid));
    match tokens.verify(&token, NOW) {
        Ok(verified) => check_claims(header, claims, verified),
        Err(TokenError::Expired) => {
            assert_eq!((field(header, "typ"), field(claims, "iss")), ("at+jwt".into(), "madang".into()));
        }
        Err(TokenError::Invalid) => {}
    }
}

fn check_claims(header: &[u8], claims: &[u8], verified: Claims) {
    assert_eq!((field(header, "alg"), field(header, "typ")), ("HS256".into(), "at+jwt".into()));
    let id = |name| field(claims, name).as_str().and_then(|text| text.parse::<u64>().ok());
    assert_eq!(id("sub"), Some(verified.user_id.raw()));
    assert_eq!(id("device_id"), Some(verified.device_id.raw()));
    assert!(verified.expires_at > NOW);
}

fn field(json: &[u8], name: &str) -> Value {
    let json: Value = serde_json::from_slice(json).expect("what was verified is JSON");
    json[name].clone()
}
