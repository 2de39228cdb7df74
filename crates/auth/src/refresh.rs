//! Refresh tokens: long-lived, random, kept by the store as a hash only; the first of a device is random, the others
//! follow from it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Length of the text, in bytes: 32 bytes in base64url without padding.
const TEXT_BYTES: usize = 43;
/// What is signed before the token, so that no signature for another purpose can ever be a refresh token.
const PURPOSE: &[u8] = b"madang refresh token\0";

/// The text is not 32 bytes in base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a refresh token")]
pub struct RefreshTokenError;

/// 32 bytes that nobody can guess and that stand for a device's login. `Display` writes the text for the client; `Debug` tells nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken([u8; 32]);

impl RefreshToken {
    /// Draws a new one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The one that takes its place: always the same, so that a rotation whose answer was lost may be repeated. Only
    /// who has the key can tell it.
    pub(crate) fn next(&self, key: &hmac::Key) -> Self {
        let mut context = hmac::Context::with_key(key);
        context.update(PURPOSE);
        context.update(&self.0);
        let mut next = [0; 32];
        next.copy_from_slice(context.sign().as_ref());
        Self(next)
    }

    /// Reads the text of a client.
    ///
    /// # Errors
    /// Anything but 43 characters of base64url is refused.
    pub fn parse(text: &str) -> Result<Self, RefreshTokenError> {
        if text.len() != TEXT_BYTES {
            return Err(RefreshTokenError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| RefreshTokenError)?;
        bytes.try_into().map(Self).map_err(|_| RefreshTokenError)
    }

    /// SHA-256 of the token: what the store keeps and looks it up by. With 256 random bits neither salt nor slowness
    /// would add anything.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl fmt::Display for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(..)")
    }
}

impl FromStr for RefreshToken {
    type Err = RefreshTokenError;

    fn from_str(text: &str) -> Result<Self, RefreshTokenError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text() {
        let token = RefreshToken::random();
        let read = RefreshToken::parse(&token.to_string()).unwrap();
        assert_eq!(read.hash(), token.hash());
        assert_ne!(RefreshToken::random().hash(), token.hash());
    }

    #[test]
    fn the_next_one_depends_on_token_and_key() {
        let key = |byte| hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]);
        let (one, other) = (RefreshToken([1; 32]), RefreshToken([2; 32]));
        assert_eq!(one.next(&key(7)), one.next(&key(7)));
        let all = [&one.next(&key(7)), &one.next(&key(8)), &other.next(&key(7)), &one, &other];
        let hashes: std::collections::BTreeSet<[u8; 32]> = all.iter().map(|token| token.hash()).collect();
        assert_eq!(hashes.len(), all.len());
    }

    #[test]
    fn the_hash_is_that_of_the_bytes() {
        let zero = RefreshToken([0; 32]);
        assert_eq!(zero.hash()[..4], [0x66, 0x68, 0x7a, 0xad]);
    }

    #[test]
    fn other_texts_are_refused() {
        let good = RefreshToken::random().to_string();
        let bad = [
            String::new(),
            good[1..].to_owned(),
            format!("{good}="),
            format!("!{}", &good[1..]),
            "A".repeat(1 << 16),
        ];
        assert!(bad.iter().all(|text| RefreshToken::parse(text).is_err()));
    }

    #[test]
    fn debug_does_not_show_it() {
        assert_eq!(format!("{:?}", RefreshToken::random()), "RefreshToken(..)");
    }
}
