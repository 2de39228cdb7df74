//! Web Push (RFC 8030, 8188, 8291, 8292): browsers, and UnifiedPush on Android.
//!
//! The endpoint is what a user says it is. It is checked when it is registered, before each call, and its addresses when a connection
//! is made.

mod answer;
mod encrypt;
mod endpoint;
mod payload;
mod vapid;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use madang_ids::Millis;
use madang_proto::{PushTarget, WebPushKeys};
use madang_store::Subscription;
use parking_lot::Mutex;
use reqwest::Certificate;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};

use crate::core::Verdict;
use crate::http::{EndpointClients, LookUp, call};
use crate::notice::{Answer, Notice, Provider};

pub use answer::verdict;
pub use encrypt::{EncryptError, Keys, TEXT_BYTES};
pub use endpoint::{ENDPOINT_BYTES, Endpoint, EndpointError, is_public};
pub use payload::text;
pub use vapid::{Vapid, VapidError};

/// Seconds after which a push that removes notifications is worthless.
const READ_SECONDS: u64 = 3_600;

/// The adapter.
pub struct WebPush {
    vapid: Mutex<Vapid>,
    allowed: Vec<String>,
    clients: EndpointClients,
}

impl WebPush {
    /// With the key of this server, which connects to public addresses, and to hosts in `allowed`.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(
        vapid: Vapid,
        allowed: &[String],
        look_up: &Arc<dyn LookUp>,
        roots: &[Certificate],
    ) -> Result<Self, String> {
        let clients = EndpointClients::new(roots, allowed, look_up);
        let clients = clients.map_err(|error| format!("push.web_push: {error}"))?;
        Ok(Self { vapid: Mutex::new(vapid), allowed: allowed.to_vec(), clients })
    }

    /// The public key, which a browser needs to subscribe.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.vapid.lock().public().to_owned()
    }
}

/// The keys of a subscription, from base64url with or without padding.
///
/// # Errors
/// [`EncryptError`] names the key.
pub fn keys(keys: &WebPushKeys) -> Result<Keys, EncryptError> {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text));
    let point = decode(&keys.p256dh).map_err(|_| EncryptError::Point)?;
    let auth = decode(&keys.auth).map_err(|_| EncryptError::Auth)?;
    Keys::new(&point, &auth)
}

#[async_trait]
impl Provider for WebPush {
    async fn send(&self, to: &Subscription, notice: &Notice, now: Millis) -> Answer {
        let (PushTarget::WebPush { endpoint, keys } | PushTarget::UnifiedPush { endpoint, keys }) =
            &to.target
        else {
            return Answer::without(Verdict::Ours, "not a subscription of Web Push");
        };
        // The operator may have changed which hosts are allowed.
        let endpoint = match Endpoint::parse(endpoint, &self.allowed) {
            Ok(endpoint) => endpoint,
            Err(error) => return Answer::without(Verdict::WrongEnvironment, &error.to_string()),
        };
        let ours = |why: &dyn std::fmt::Display| Answer::without(Verdict::Ours, &why.to_string());
        let Some(text) = text(notice) else { return ours(&"the notification is too long") };
        let body = match self::keys(keys).and_then(|keys| keys.encrypt(&text)) {
            Ok(body) => body,
            Err(error) => return ours(&error),
        };
        let authorization = match self.vapid.lock().authorization(&endpoint.origin(), now) {
            Ok(authorization) => authorization,
            Err(error) => return ours(&error),
        };
        let is_shown = notice.words.is_some();
        let ttl = if is_shown { notice.ttl_seconds(now) } else { READ_SECONDS };
        let mut request = self
            .clients
            .of(endpoint.is_known(&self.allowed))
            .post(endpoint.url().clone())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_ENCODING, "aes128gcm")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("ttl", ttl)
            .header("urgency", if is_shown { "high" } else { "low" });
        if !endpoint.is_slow_with_topics() {
            request = request.header("topic", &notice.tag);
        }
        match call(request.body(body)).await {
            Ok(received) => {
                let text = String::from_utf8_lossy(&received.body);
                let verdict = verdict(received.status, &text, received.retry_after);
                Answer::of(verdict, received.status, &received.body)
            }
            Err(answer) => answer,
        }
    }
}
