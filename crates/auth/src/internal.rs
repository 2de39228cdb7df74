//! Mutual authentication of HTTP calls between processes of a fleet, by HMAC-SHA256 with a key derived from the secret that all
//! of them have.
//!
//! A call is signed over method, path, body, time and a nonce; its answer over the same nonce, the status and the body. So no call
//! can be changed, and no answer can be given to another call. The receiver must remember nonces: see [`SEEN_WINDOW_MS`].

use aws_lc_rs::hmac;
use madang_ids::Millis;
use sha2::{Digest, Sha256};

/// How far the time of a call may be from the receiver's clock.
pub const CALL_WINDOW_MS: u64 = 30_000;
/// How long a receiver remembers nonces: a call may be from the future by the window, and is in time until the window has passed.
pub const SEEN_WINDOW_MS: u64 = 2 * CALL_WINDOW_MS;
/// Random bytes of a nonce, written as twice as many hexadecimal digits.
pub const NONCE_BYTES: usize = 16;
/// Separates this key from other keys that are derived from the secret.
const PURPOSE: &[u8] = b"madang internal 1";

/// What is signed of a call.
#[derive(Debug, Clone, Copy)]
pub struct InternalCall<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The whole body.
    pub body: &'a [u8],
}

/// The credentials of a call: what its headers carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// When it was made, on the caller's clock.
    pub time: Millis,
    /// Distinguishes it from every other call.
    pub nonce: String,
    /// The signature, in hexadecimal digits.
    pub mac: String,
}

/// Why a call or an answer is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InternalError {
    /// It was not signed with the secret of this fleet, or was changed on the way.
    #[error("the signature is not valid: is tokens.secret_file the same on all processes?")]
    Invalid,
    /// The caller has the secret, and its clock differs too much.
    #[error("the clocks differ by {off_ms} ms, more than {CALL_WINDOW_MS} ms")]
    Clock {
        /// The difference.
        off_ms: u64,
    },
}

/// Signs and verifies calls. One per process; shared by reference.
#[derive(Debug)]
pub struct InternalCalls {
    key: hmac::Key,
}

impl InternalCalls {
    /// Uses a key derived from `secret`.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), PURPOSE);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) }
    }

    /// Credentials for a call, to be used once.
    #[must_use]
    pub fn sign(&self, call: InternalCall<'_>, now: Millis) -> Stamp {
        let nonce = hex(&rand::random::<[u8; NONCE_BYTES]>());
        let mac = hex(self.tag(&of_call(call, now, &nonce)).as_ref());
        Stamp { time: now, nonce, mac }
    }

    /// Checks the credentials of a call. The caller checks that the nonce is new.
    ///
    /// # Errors
    /// [`InternalError`]. A caller without the secret does not learn that its clock is off.
    pub fn verify(&self, call: InternalCall<'_>, stamp: &Stamp, now: Millis) -> Result<(), InternalError> {
        if stamp.nonce.len() != 2 * NONCE_BYTES {
            return Err(InternalError::Invalid);
        }
        self.check(&of_call(call, stamp.time, &stamp.nonce), &stamp.mac)?;
        let off_ms = now.get().abs_diff(stamp.time.get());
        if off_ms > CALL_WINDOW_MS { Err(InternalError::Clock { off_ms }) } else { Ok(()) }
    }

    /// The signature of the answer to the call with this nonce.
    #[must_use]
    pub fn sign_answer(&self, nonce: &str, status: u16, body: &[u8]) -> String {
        hex(self.tag(&of_answer(nonce, status, body)).as_ref())
    }

    /// Checks the signature of the answer to the call with this nonce.
    ///
    /// # Errors
    /// [`InternalError::Invalid`].
    pub fn verify_answer(
        &self,
        nonce: &str,
        status: u16,
        body: &[u8],
        mac: &str,
    ) -> Result<(), InternalError> {
        self.check(&of_answer(nonce, status, body), mac)
    }

    fn tag(&self, text: &str) -> hmac::Tag {
        hmac::sign(&self.key, text.as_bytes())
    }

    fn check(&self, text: &str, mac: &str) -> Result<(), InternalError> {
        let expected = hex(self.tag(text).as_ref());
        aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), mac.as_bytes())
            .map_err(|_| InternalError::Invalid)
    }
}

/// No part can contain a line break, except the last one, which has a fixed length.
fn of_call(call: InternalCall<'_>, time: Millis, nonce: &str) -> String {
    let InternalCall { method, target, body } = call;
    format!("call\n{method}\n{target}\n{time}\n{nonce}\n{}", hex(&Sha256::digest(body)))
}

fn of_answer(nonce: &str, status: u16, body: &[u8]) -> String {
    format!("answer\n{nonce}\n{status}\n{}", hex(&Sha256::digest(body)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Millis = Millis::new(1_800_000_000_000);
    const CALL: InternalCall<'_> =
        InternalCall { method: "POST", target: "/internal/v1/renew", body: b"{\"load\":1}" };

    fn calls() -> InternalCalls {
        InternalCalls::new(&[7; 32])
    }

    #[test]
    fn a_signed_call_and_its_answer_are_accepted() {
        let stamp = calls().sign(CALL, NOON);
        assert_eq!(calls().verify(CALL, &stamp, NOON.plus(CALL_WINDOW_MS)), Ok(()));
        assert_eq!(calls().verify(CALL, &stamp, NOON.minus(CALL_WINDOW_MS)), Ok(()));
        let mac = calls().sign_answer(&stamp.nonce, 200, b"{}");
        assert_eq!(calls().verify_answer(&stamp.nonce, 200, b"{}", &mac), Ok(()));
        assert_ne!(calls().sign(CALL, NOON).nonce, stamp.nonce);
    }

    #[test]
    fn a_changed_call_is_refused() {
        let stamp = calls().sign(CALL, NOON);
        for call in [
            InternalCall { method: "GET", ..CALL },
            InternalCall { target: "/internal/v1/leave", ..CALL },
            InternalCall { target: "/internal/v1/renew?x", ..CALL },
            InternalCall { body: b"{\"load\":2}", ..CALL },
        ] {
            assert_eq!(calls().verify(call, &stamp, NOON), Err(InternalError::Invalid), "{call:?}");
        }
        for stamp in [
            Stamp { time: NOON.plus(1), ..stamp.clone() },
            Stamp { nonce: "0".repeat(32), ..stamp.clone() },
            Stamp { nonce: String::new(), ..stamp.clone() },
            Stamp { mac: String::new(), ..stamp.clone() },
            Stamp { mac: stamp.mac.to_uppercase(), ..stamp.clone() },
        ] {
            assert_eq!(calls().verify(CALL, &stamp, NOON), Err(InternalError::Invalid), "{stamp:?}");
        }
        assert_eq!(InternalCalls::new(&[8; 32]).verify(CALL, &stamp, NOON), Err(InternalError::Invalid));
    }

    #[test]
    fn a_clock_that_is_off_is_reported_only_to_callers_with_the_secret() {
        let stamp = calls().sign(CALL, NOON);
        for now in [NOON.plus(30_001), NOON.minus(30_001)] {
            assert_eq!(calls().verify(CALL, &stamp, now), Err(InternalError::Clock { off_ms: 30_001 }));
            assert_eq!(InternalCalls::new(&[8; 32]).verify(CALL, &stamp, now), Err(InternalError::Invalid));
        }
    }

    #[test]
    fn an_answer_belongs_to_one_call_and_is_no_call() {
        let stamp = calls().sign(CALL, NOON);
        let mac = calls().sign_answer(&stamp.nonce, 200, b"{}");
        let other = calls().sign(CALL, NOON);
        for (nonce, status, body) in
            [(&other.nonce, 200, b"{}"), (&stamp.nonce, 503, b"{}"), (&stamp.nonce, 200, b"[]")]
        {
            assert_eq!(calls().verify_answer(nonce, status, body, &mac), Err(InternalError::Invalid));
        }
        assert_eq!(
            calls().verify_answer(&stamp.nonce, 200, CALL.body, &stamp.mac),
            Err(InternalError::Invalid)
        );
    }
}
