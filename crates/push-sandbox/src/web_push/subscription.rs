//! A browser that has subscribed.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::decrypt::{AUTH_BYTES, Receiver};
use crate::answer::Refused;

/// What a browser hands to the page, and the page to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Where pushes are sent.
    pub endpoint: String,
    /// The browser's public key: an uncompressed point of P-256 in base64url.
    pub p256dh: String,
    /// A secret of 16 bytes in base64url.
    pub auth: String,
}

/// The browser's side of a subscription.
#[derive(Debug)]
pub(super) struct Subscriber {
    subscription: Subscription,
    receiver: Receiver,
    /// Scheme, host, and the port unless it is 443.
    pub(super) origin: String,
    /// The key of the only server that may push.
    pub(super) vapid_public: Option<String>,
}

impl Subscriber {
    pub(super) fn new(origin: String, path: &str, vapid_public: Option<&str>) -> Result<Self, Unspecified> {
        let key = PrivateKey::generate(&ECDH_P256)?;
        let mut auth = [0; AUTH_BYTES];
        rand::fill(&mut auth)?;
        let receiver = Receiver::new(key, auth)?;
        let subscription = Subscription {
            endpoint: format!("{origin}{path}"),
            p256dh: URL_SAFE_NO_PAD.encode(receiver.public()),
            auth: URL_SAFE_NO_PAD.encode(auth),
        };
        Ok(Self { subscription, receiver, origin, vapid_public: vapid_public.map(str::to_owned) })
    }

    pub(super) const fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Decrypts a body.
    pub(super) fn open(&self, body: &[u8]) -> Result<Vec<u8>, Refused> {
        self.receiver.open(body).map_err(|error| Refused::request(400, "BadEncryption", error.to_string()))
    }
}
