//! The receiver of an encrypted push: RFC 8291, with the content coding of RFC 8188.
//!
//! Written from the RFCs, and not from our sender: the same mistake in both would hide it.

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac::{self, HMAC_SHA256};

pub(super) const AUTH_BYTES: usize = 16;
const POINT_BYTES: usize = 65;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// Salt, record size, length of the key id, and the key id, which is a point: RFC 8291, section 4.
const HEADER_BYTES: usize = SALT_BYTES + 4 + 1 + POINT_BYTES;
/// What remains of 4,096 bytes after the header, the delimiter and the tag: RFC 8291, section 4.
const TEXT_BYTES: usize = 3_993;
/// The delimiter of the last record: RFC 8188, section 2.
const LAST: u8 = 2;

/// Why a body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the body is shorter than its header")]
    Short,
    #[error("the key id has {0} bytes, not the 65 of an uncompressed point")]
    KeyId(u8),
    #[error("the key id is not a point of P-256")]
    Point,
    #[error("the record size {0} is not greater than the only record, which has {1} bytes")]
    RecordSize(u32, usize),
    #[error("the body was not encrypted for this subscription")]
    Tag,
    #[error("the text does not end with the delimiter 2 and zeros")]
    Delimiter,
    #[error("the text has {0} bytes, the limit is {TEXT_BYTES}")]
    Long(usize),
}

/// The keys of a browser.
pub(super) struct Receiver {
    key: PrivateKey,
    public: Vec<u8>,
    auth: [u8; AUTH_BYTES],
}

/// The parts of a body.
struct Body<'a> {
    salt: &'a [u8],
    sender: &'a [u8],
    record: &'a [u8],
}

impl<'a> Body<'a> {
    /// RFC 8188, section 2.1.
    fn read(body: &'a [u8]) -> Result<Self, OpenError> {
        let (salt, rest) = body.split_at_checked(SALT_BYTES).ok_or(OpenError::Short)?;
        let (size, rest) = rest.split_first_chunk::<4>().ok_or(OpenError::Short)?;
        let (id_bytes, rest) = rest.split_first().ok_or(OpenError::Short)?;
        if usize::from(*id_bytes) != POINT_BYTES {
            return Err(OpenError::KeyId(*id_bytes));
        }
        let (sender, record) = rest.split_at_checked(POINT_BYTES).ok_or(OpenError::Short)?;
        debug_assert_eq!(body.len() - record.len(), HEADER_BYTES, "a header has a fixed length");
        if record.len() <= TAG_BYTES {
            return Err(OpenError::Short);
        }
        let record_size = u32::from_be_bytes(*size);
        // RFC 8291, section 4: one record, and a size greater than text, delimiter, padding and tag.
        if usize::try_from(record_size).is_ok_and(|size| size <= record.len()) {
            return Err(OpenError::RecordSize(record_size, record.len()));
        }
        Ok(Self { salt, sender, record })
    }
}

impl Receiver {
    pub(super) fn new(key: PrivateKey, auth: [u8; AUTH_BYTES]) -> Result<Self, Unspecified> {
        let public = key.compute_public_key()?.as_ref().to_vec();
        Ok(Self { key, public, auth })
    }

    /// An uncompressed point.
    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    /// Decrypts a body and removes the padding.
    pub(super) fn open(&self, body: &[u8]) -> Result<Vec<u8>, OpenError> {
        let body = Body::read(body)?;
        let secret = self.shared_secret(body.sender)?;
        // RFC 8188, sections 2.2 and 2.3; the only record has the number 0, which leaves the nonce as it is.
        let prk = hmac(body.salt, &[&secret]);
        let key = hmac(prk.as_ref(), &[b"Content-Encoding: aes128gcm\0", &[1]]);
        let nonce = hmac(prk.as_ref(), &[b"Content-Encoding: nonce\0", &[1]]);
        let mut record = body.record.to_vec();
        let text = decrypt(&key.as_ref()[..16], &nonce.as_ref()[..12], &mut record);
        let text = without_padding(text.map_err(|_| OpenError::Tag)?)?;
        if text.len() > TEXT_BYTES {
            return Err(OpenError::Long(text.len()));
        }
        Ok(text.to_vec())
    }

    /// RFC 8291, section 3.4: `IKM`.
    fn shared_secret(&self, sender: &[u8]) -> Result<Vec<u8>, OpenError> {
        let peer = UnparsedPublicKey::new(&ECDH_P256, sender);
        agree(&self.key, peer, OpenError::Point, |shared| {
            let prk = hmac(&self.auth, &[shared]);
            let ikm = hmac(prk.as_ref(), &[b"WebPush: info\0", &self.public, sender, &[1]]);
            Ok(ikm.as_ref().to_vec())
        })
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// HMAC-SHA-256 over the parts: both steps of HKDF (RFC 5869) are one of these here, because no output is longer than 32 bytes.
fn hmac(key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, key));
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

fn decrypt<'a>(key: &[u8], nonce: &[u8], record: &'a mut [u8]) -> Result<&'a [u8], Unspecified> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key)?);
    let nonce = Nonce::try_assume_unique_for_key(nonce)?;
    Ok(key.open_in_place(nonce, Aad::empty(), record)?)
}

/// RFC 8188, section 2: text, delimiter, any number of zeros.
fn without_padding(padded: &[u8]) -> Result<&[u8], OpenError> {
    let end = padded.iter().rposition(|byte| *byte != 0).ok_or(OpenError::Delimiter)?;
    if padded[end] == LAST { Ok(&padded[..end]) } else { Err(OpenError::Delimiter) }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    /// RFC 8291, section 5 and appendix A.
    const BODY: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_\
                        yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    fn receiver() -> Receiver {
        let key = bytes("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94");
        let key = PrivateKey::from_private_key(&ECDH_P256, &key).unwrap();
        Receiver::new(key, bytes("BTBZMqHH6r4Tts7J_aSIgg").try_into().unwrap()).unwrap()
    }

    #[test]
    fn the_example_of_the_rfc_is_decrypted() {
        let public =
            "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
        assert_eq!(receiver().public(), bytes(public));
        assert_eq!(receiver().open(&bytes(BODY)).unwrap(), b"When I grow up, I want to be a watermelon");
    }

    #[test]
    fn each_damage_of_the_example_has_its_name() {
        let receiver = receiver();
        let damaged = |at: usize, byte: u8| {
            let mut body = bytes(BODY);
            body[at] = byte;
            receiver.open(&body).unwrap_err()
        };
        let last = bytes(BODY).len() - 1;
        assert_eq!(damaged(last, 0), OpenError::Tag);
        assert_eq!(damaged(0, 0), OpenError::Tag, "another salt");
        assert_eq!(damaged(SALT_BYTES + 4, 64), OpenError::KeyId(64));
        assert_eq!(damaged(HEADER_BYTES - 1, 0), OpenError::Point);
        // The record of the example has 58 bytes; the record size is 00 00 10 00.
        let mut body = bytes(BODY);
        body[SALT_BYTES..][..4].copy_from_slice(&58_u32.to_be_bytes());
        assert_eq!(receiver.open(&body), Err(OpenError::RecordSize(58, 58)));
        body[SALT_BYTES..][..4].copy_from_slice(&59_u32.to_be_bytes());
        assert!(receiver.open(&body).is_ok(), "the size is not part of what is authenticated");
        assert_eq!(receiver.open(&body[..HEADER_BYTES + TAG_BYTES]), Err(OpenError::Short));
        assert_eq!(receiver.open(&body[..9]), Err(OpenError::Short));
    }

    #[test]
    fn padding_ends_with_the_delimiter_and_zeros() {
        assert_eq!(without_padding(b"a\x02\0\0"), Ok(&b"a"[..]));
        assert_eq!(without_padding(b"\x02"), Ok(&b""[..]));
        for padded in [&b""[..], b"\0\0", b"a", b"a\x01", b"a\x02\x01\0"] {
            assert_eq!(without_padding(padded), Err(OpenError::Delimiter), "{padded:?}");
        }
    }
}
