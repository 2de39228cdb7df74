//! Refresh tokens: long-lived, and stored only as a hash. The first token of a device is random; each later one is
//! derived from the one before.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Length of the text, in bytes: 32 bytes in base64url without padding.
const TEXT_BYTES: usize = 43;
/// Prefix of the signed text, so that a signature made for another purpose can never be a refresh token.
const PURPOSE: &[u8] = b"madang refresh token\0";

/// The text is not 32 bytes in base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a refresh token")]
pub struct RefreshTokenError;

/// 32 bytes that cannot be guessed and that represent the login of a device. `Display` writes the text for the client;
/// `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken([u8; 32]);

impl RefreshToken {
    /// Draws a new token.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The token that replaces this one. It is always the same, so that a rotation whose answer was lost can be
    /// repeated. It cannot be computed without the key.
    pub(crate) fn next(&self, key: &hmac::Key) -> Self {
        let mut context = hmac::Context::with_key(key);
        context.update(PURPOSE);
        context.update(&self.0);
        let mut next = [0; 32];
        next.copy_from_slice(context.sign().as_ref());
        Self(next)
    }

    /// Parses the text of a client.
    ///
    /// # Errors
    /// Refuses everything except 43 characters of base64url.
    pub fn parse(text: &str) -> Result<Self, RefreshTokenError> {
        if text.len() != TEXT_BYTES {
            return Err(RefreshTokenError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| RefreshTokenError)?;
        bytes.try_into().map(Self).map_err(|_| RefreshTokenError)
    }

    /// SHA-256 of the token, which the store keeps and uses as a key. A token has 256 random bits, so a salt or a slow
    /// hash would add nothing.
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
    fn a_token_round_trips_through_its_text() {
        let token = RefreshToken::random();
        let read = RefreshToken::parse(&token.to_string()).unwrap();
        assert_eq!(read.hash(), token.hash());
        assert_ne!(RefreshToken::random().hash(), token.hash());
    }

    #[test]
    fn the_next_token_depends_on_token_and_key() {
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
