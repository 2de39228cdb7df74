//! The form in which clients keep a cursor: a text that only this server can read, and only for the user to whom it was
//! given.
//!
//! It is sealed by AES-256-GCM-SIV (RFC 8452) with a key of its own and with the user as associated data. So a text
//! that was damaged, invented or given to another user does not open, and no client can read off it how much the whole
//! store has written. The nonce is fixed, so equal cursors have equal texts; this is all that a fixed nonce reveals
//! (RFC 8452, 9), and two devices of one user may know that they are at the same place.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use madang_ids::{Cursor, Epoch, Position, SealedCursor, UserId};

/// Separates this key from other keys that are derived from the secret.
const PURPOSE: &[u8] = b"madang cursor 1";
/// Size of epoch and position.
const OPEN_BYTES: usize = 16;
/// Size with the tag.
const SEALED_BYTES: usize = OPEN_BYTES + 16;
/// Length in base64 without padding. A longer text is not decoded.
const TEXT_BYTES: usize = SEALED_BYTES.div_ceil(3) * 4 - 1;

/// The library failed. This does not happen with a key of the right length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealing a cursor failed")]
pub struct SealError;

/// Seals and opens cursors. One per process; shared by reference.
#[derive(Debug)]
pub struct Cursors {
    key: LessSafeKey,
}

impl Cursors {
    /// Uses a key derived from `secret`. Cursors that were sealed under another secret do not open.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn new(secret: &[u8; 32]) -> Result<Self, SealError> {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), PURPOSE);
        let key = UnboundKey::new(&AES_256_GCM_SIV, derived.as_ref()).map_err(|_| SealError)?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// The text of `cursor` for `user`.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, user: UserId, cursor: Cursor) -> Result<SealedCursor, SealError> {
        let mut bytes = [0; SEALED_BYTES];
        let (open, tag_place) = bytes.split_at_mut(OPEN_BYTES);
        open[..8].copy_from_slice(&cursor.epoch.raw().to_be_bytes());
        open[8..].copy_from_slice(&cursor.position.get().to_be_bytes());
        let sealed = self.key.seal_in_place_separate_tag(nonce(), aad(user), open);
        let tag = sealed.map_err(|_| SealError)?;
        tag_place.copy_from_slice(tag.as_ref().get(..tag_place.len()).ok_or(SealError)?);
        Ok(URL_SAFE_NO_PAD.encode(bytes).into())
    }

    /// The cursor in `text`, if it was sealed for `user`.
    #[must_use]
    pub fn open(&self, user: UserId, text: &SealedCursor) -> Option<Cursor> {
        let text = Some(text.as_str()).filter(|text| text.len() == TEXT_BYTES)?;
        let mut sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let open = self.key.open_in_place(nonce(), aad(user), &mut sealed).ok()?;
        let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
        let (epoch, position) = open.split_at_checked(8)?;
        Some(Cursor { epoch: Epoch::from_raw(number(epoch)?), position: Position::new(number(position)?) })
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn aad(user: UserId) -> Aad<[u8; 8]> {
    Aad::from(user.raw().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: UserId = UserId::from_raw(1);
    const BOB: UserId = UserId::from_raw(2);

    fn cursors() -> Cursors {
        Cursors::new(&[7; 32]).unwrap()
    }

    fn cursor(position: u64) -> Cursor {
        Cursor { epoch: Epoch::from_raw(0xdead_beef), position: Position::new(position) }
    }

    #[test]
    fn a_cursor_opens_only_for_its_user_and_under_its_secret() {
        let sealed = cursors().seal(ADA, cursor(42)).unwrap();
        assert_eq!(sealed.as_str().len(), TEXT_BYTES);
        assert_eq!(cursors().open(ADA, &sealed), Some(cursor(42)));
        assert_eq!(cursors().open(BOB, &sealed), None);
        assert_eq!(Cursors::new(&[8; 32]).unwrap().open(ADA, &sealed), None);
        assert_eq!(cursors().seal(ADA, cursor(42)), Ok(sealed.clone()), "equal cursors have equal texts");
        assert_ne!(cursors().seal(BOB, cursor(42)), Ok(sealed));
    }

    #[test]
    fn a_changed_text_does_not_open() {
        let sealed = cursors().seal(ADA, cursor(42)).unwrap().to_string();
        for at in 0..sealed.len() {
            let other = if sealed.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut text = sealed.clone();
            text.replace_range(at..=at, other);
            assert_eq!(cursors().open(ADA, &text.into()), None, "at {at}");
            assert_eq!(cursors().open(ADA, &sealed[..at].to_owned().into()), None, "cut at {at}");
        }
        for text in ["", ":", "00000000deadbeef:42", "ü", &format!("{sealed}A"), &"A".repeat(1 << 20)] {
            assert_eq!(cursors().open(ADA, &text.to_owned().into()), None);
        }
    }

    #[test]
    fn texts_of_neighbouring_positions_differ_throughout() {
        let texts: Vec<String> =
            (0..200).map(|at| cursors().seal(ADA, cursor(at)).unwrap().to_string()).collect();
        let beginnings: std::collections::HashSet<&str> = texts.iter().map(|text| &text[..8]).collect();
        assert_eq!(beginnings.len(), texts.len());
    }
}
