//! Encryption for one subscription (RFC 8291, with the content coding of RFC 8188): only the browser reads it.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;

/// The longest text. With what encryption adds, the body has 4,096 bytes, which every push service takes (RFC 8030, section 7.2).
pub const TEXT_BYTES: usize = 3_993;
/// Lengths to which texts are padded: the length of a body says little about its text.
const SIZES: [usize; 3] = [256, 1_024, TEXT_BYTES];
/// The record size: one record holds every body.
const RECORD: u32 = 4_096;
const SALT_BYTES: usize = 16;
const POINT_BYTES: usize = 65;
const AUTH_BYTES: usize = 16;
/// Follows the text of the last record.
const LAST: u8 = 2;

/// The keys of a subscription, as its browser made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// An uncompressed point of P-256.
    p256dh: [u8; POINT_BYTES],
    auth: [u8; AUTH_BYTES],
}

/// Why keys or a text are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncryptError {
    /// Not a point.
    #[error("keys.p256dh must be an uncompressed point of P-256, 65 bytes in base64url")]
    Point,
    /// Not a secret.
    #[error("keys.auth must be 16 bytes in base64url")]
    Auth,
    /// The machine has no random numbers, or the library refused.
    #[error("the text could not be encrypted")]
    Failed,
    /// Too long.
    #[error("the text has {0} bytes, the limit is {TEXT_BYTES}")]
    TooLong(usize),
}

impl Keys {
    /// Checks the length of both, and that the point is on the curve.
    ///
    /// # Errors
    /// [`EncryptError`] names the key.
    pub fn new(p256dh: &[u8], auth: &[u8]) -> Result<Self, EncryptError> {
        let p256dh: [u8; POINT_BYTES] = p256dh.try_into().map_err(|_| EncryptError::Point)?;
        let auth = auth.try_into().map_err(|_| EncryptError::Auth)?;
        let own = PrivateKey::generate(&ECDH_P256).map_err(|_| EncryptError::Failed)?;
        let peer = UnparsedPublicKey::new(&ECDH_P256, p256dh);
        agree(&own, peer, EncryptError::Point, |_| Ok(()))?;
        Ok(Self { p256dh, auth })
    }

    /// The body of a request with this text.
    ///
    /// # Errors
    /// [`EncryptError::TooLong`] or [`EncryptError::Failed`].
    pub fn encrypt(&self, text: &[u8]) -> Result<Vec<u8>, EncryptError> {
        let size = SIZES.into_iter().find(|size| text.len() <= *size);
        let size = size.ok_or(EncryptError::TooLong(text.len()))?;
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| EncryptError::Failed)?;
        let own = PrivateKey::generate(&ECDH_P256).map_err(|_| EncryptError::Failed)?;
        self.encrypt_with(&own, salt, text, size - text.len()).map_err(|_| EncryptError::Failed)
    }

    fn encrypt_with(
        &self,
        own: &PrivateKey,
        salt: [u8; SALT_BYTES],
        text: &[u8],
        padding: usize,
    ) -> Result<Vec<u8>, Unspecified> {
        let public = own.compute_public_key()?;
        let public = public.as_ref();
        let peer = UnparsedPublicKey::new(&ECDH_P256, self.p256dh);
        // RFC 8291, section 3.4.
        let secret = agree(own, peer, Unspecified, |shared| {
            let info = [b"WebPush: info\0", &self.p256dh[..], public];
            derive::<32>(&self.auth, shared, &info)
        })?;
        // RFC 8188, sections 2.2 and 2.3.
        let key: [u8; 16] = derive(&salt, &secret, &[b"Content-Encoding: aes128gcm\0"])?;
        let nonce: [u8; 12] = derive(&salt, &secret, &[b"Content-Encoding: nonce\0"])?;
        let mut record = [text, &[LAST]].concat();
        record.resize(record.len() + padding, 0);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?);
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut record)?;
        let id_bytes = u8::try_from(public.len()).map_err(|_| Unspecified)?;
        Ok([&salt[..], &RECORD.to_be_bytes(), &[id_bytes], public, &record].concat())
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> Result<[u8; N], Unspecified> {
    let mut derived = [0; N];
    Salt::new(HKDF_SHA256, salt).extract(secret).expand(info, Length(N))?.fill(&mut derived)?;
    Ok(derived)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const READ_BY_ANOTHER: [(usize, usize, &str); 6] = [
        (0, 256, "lvgiGmrIXab8ATWaa0Ua9a8GV5rJ_59mqLU11b2F4FA"),
        (1, 256, "ShvrIzkY59HxRFIeGTppjkFffCF8hIJI_P95OFW1i9s"),
        (255, 256, "QhRhSgrbwGarLcKq-Od-IqrPOZKKtdrSMGU1k_1GtTk"),
        (256, 256, "baMLDeETu8w61M1OhDjHO3W3X6P2KAxtFGsxoPl9-Uo"),
        (257, 1_024, "rLjVdkkKCNBV82rGQ7J4MP1R8RbzRugPy__D_sZi2Gs"),
        (3_993, 3_993, "7qJjM0W8lQ41ImavKBWrMBl5HFrSaLATBl_YrYFp5q0"),
    ];

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    /// RFC 8291, section 5 and appendix A.
    #[test]
    fn the_example_of_the_rfc_is_made() {
        let p256dh =
            bytes("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4");
        let keys = Keys::new(&p256dh, &bytes("BTBZMqHH6r4Tts7J_aSIgg")).unwrap();
        let own = bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw");
        let own = PrivateKey::from_private_key(&ECDH_P256, &own).unwrap();
        let salt = bytes("DGv6ra1nlYgDCS1FRnbzlw").try_into().unwrap();
        let body = keys.encrypt_with(&own, salt, b"When I grow up, I want to be a watermelon", 0).unwrap();
        assert_eq!(
            URL_SAFE_NO_PAD.encode(body),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PB\
             ru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        );
    }

    /// Keys of the example of RFC 8291; texts of the lengths around the steps of the padding. Each body was decrypted by
    /// `http_ece` 1.2.1, a Python package, which returned the text: `http_ece.decrypt(body, private_key=…, auth_secret=…,
    /// version="aes128gcm")`.
    #[test]
    fn bodies_that_another_implementation_has_read_are_made() {
        let p256dh =
            bytes("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4");
        let keys = Keys::new(&p256dh, &bytes("BTBZMqHH6r4Tts7J_aSIgg")).unwrap();
        let own = bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw");
        let own = PrivateKey::from_private_key(&ECDH_P256, &own).unwrap();
        let salt: [u8; SALT_BYTES] = bytes("DGv6ra1nlYgDCS1FRnbzlw").try_into().unwrap();
        for (length, size, digest) in READ_BY_ANOTHER {
            let text: Vec<u8> = (0..length).map(|at| b'a' + (at % 26) as u8).collect();
            let body = keys.encrypt_with(&own, salt, &text, size - length).unwrap();
            let found = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &body);
            assert_eq!(URL_SAFE_NO_PAD.encode(found), digest, "{length}");
        }
    }

    #[test]
    fn bodies_have_few_lengths_and_the_longest_text_fits() {
        let browser = PrivateKey::generate(&ECDH_P256).unwrap();
        let keys = Keys::new(browser.compute_public_key().unwrap().as_ref(), &[7; 16]).unwrap();
        let length = |text: usize| keys.encrypt(&vec![b'a'; text]).map(|body| body.len());
        assert_eq!(length(0), length(256));
        assert_eq!(length(257), length(1_024));
        assert_eq!(length(TEXT_BYTES), Ok(4_096));
        assert_eq!(length(TEXT_BYTES + 1), Err(EncryptError::TooLong(TEXT_BYTES + 1)));
        assert_ne!(keys.encrypt(b"a").unwrap(), keys.encrypt(b"a").unwrap());
    }

    #[test]
    fn keys_that_are_none_are_refused_by_name() {
        let browser = PrivateKey::generate(&ECDH_P256).unwrap();
        let public = browser.compute_public_key().unwrap();
        let point = public.as_ref();
        assert_eq!(Keys::new(&point[1..], &[7; 16]), Err(EncryptError::Point));
        assert_eq!(Keys::new(point, &[7; 15]), Err(EncryptError::Auth));
        let mut beside = point.to_vec();
        beside[64] ^= 1;
        assert_eq!(Keys::new(&beside, &[7; 16]), Err(EncryptError::Point), "not on the curve");
        assert_eq!(Keys::new(&[0; 65], &[7; 16]), Err(EncryptError::Point));
    }
}
