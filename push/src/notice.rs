//! What is sent to a device, before an adapter puts it into the form of its provider.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use madang_ids::{ChannelId, DeviceId, Millis};
use madang_proto::rest::{AlertData, AlertKind};
use madang_store::Subscription;

use crate::core::{Verdict, Words};

/// Bytes of an answer that are read and kept.
pub(crate) const ANSWER_BYTES: usize = 4_096;
/// Bytes of an answer that are noted for operators.
const NOTED_BYTES: usize = 300;

/// A push for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The facts that every provider carries.
    pub data: AlertData,
    /// What people see; `None` if nothing is to be shown.
    pub words: Option<Words>,
    /// Names the channel in headers, where push services of browsers see it although they cannot read the content: 32 characters of
    /// base64url.
    pub tag: String,
    /// The page that a click opens.
    pub link: String,
    /// When it is worthless.
    pub expires_at: Millis,
}

impl Notice {
    /// A notice that tests a subscription.
    #[must_use]
    pub fn test(app: &str, link: &str, tags: &Tags, now: Millis) -> Self {
        let words = Words { title: app.to_owned(), body: "This is a test notification.".to_owned() };
        let data = AlertData {
            kind: AlertKind::Test,
            channel_id: None,
            seq: None,
            count: 0,
            badge: 0,
            read: BTreeMap::new(),
        };
        let tag = tags.of(b"test");
        Self { data, words: Some(words), tag, link: link.to_owned(), expires_at: now.plus(600_000) }
    }

    /// Seconds for which the provider keeps it for a device that is off.
    #[must_use]
    pub const fn ttl_seconds(&self, now: Millis) -> u64 {
        self.expires_at.get().saturating_sub(now.get()) / 1_000
    }

    /// The same for each attempt, and different for each device and alert.
    pub(crate) fn id(&self, device: DeviceId) -> [u8; 16] {
        let seq = self.data.seq.map_or(0, |seq| seq.get());
        let text = format!("{} {seq} {device} {:?} {}", self.tag, self.data.kind, self.expires_at.get());
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_ref()[..16]);
        id
    }
}

/// Makes the names of channels for providers.
pub struct Tags(hmac::Key);

impl Tags {
    /// With a secret of the server.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The name of a channel.
    #[must_use]
    pub fn of_channel(&self, channel: ChannelId) -> String {
        self.of(format!("channel {channel}").as_bytes())
    }

    fn of(&self, text: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(&hmac::sign(&self.0, text).as_ref()[..24])
    }
}

impl std::fmt::Debug for Tags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tags").finish_non_exhaustive()
    }
}

/// The answer to one push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its meaning.
    pub verdict: Verdict,
    /// The status of HTTP, if there was an answer.
    pub status: Option<u16>,
    /// The body, or why there is none; at most 300 bytes.
    pub text: String,
}

impl Answer {
    /// An answer of a provider.
    pub(crate) fn of(verdict: Verdict, status: u16, body: &[u8]) -> Self {
        Self { verdict, status: Some(status), text: noted(&String::from_utf8_lossy(body)) }
    }

    /// No answer.
    pub(crate) fn without(verdict: Verdict, why: &str) -> Self {
        Self { verdict, status: None, text: noted(why) }
    }

    /// The line that operators read.
    #[must_use]
    pub fn detail(&self) -> String {
        match self.status {
            Some(status) => noted(format!("{status} {}", self.text).trim_end()),
            None => self.text.clone(),
        }
    }
}

fn noted(text: &str) -> String {
    let mut text = text.to_owned();
    text.truncate(text.floor_char_boundary(NOTED_BYTES));
    text
}

/// A provider of pushes.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Sends a notice to a subscription of this provider. It takes at most 45 s: a token may have to be fetched, twice, and a call takes
    /// 20 s. A call that is dropped has an unknown outcome.
    async fn send(&self, to: &Subscription, notice: &Notice, now: Millis) -> Answer;
}
