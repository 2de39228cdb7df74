//! Apple Push Notification service: one connection for each environment, and one token for all.

mod answer;
mod token;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use madang_ids::{DeviceId, Millis};
use madang_proto::rest::AlertKind;
use madang_proto::{ApnsEnvironment, PushTarget};
use madang_store::Subscription;
use moka::sync::Cache;
use parking_lot::RwLock;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Certificate, Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;

use crate::config::ApnsConfig;
use crate::core::Verdict;
use crate::http::{builder, call};
use crate::notice::{Answer, Notice, Provider};
use crate::shelf::Shelf;

pub use answer::{Connection, verdict};
use token::ProviderToken;

/// The longest body that Apple takes.
const BODY_BYTES: usize = 4_096;
/// An app may be woken in the background two or three times an hour.
const WAKES: Duration = Duration::from_secs(1_200);
/// How long a call waits for the first one of its connection.
const FIRST: Duration = Duration::from_secs(5);
/// Devices of which is known when they were woken last, with about 100 bytes each.
const WOKEN: u64 = 100_000;

/// The adapter.
pub struct Apns {
    token: ProviderToken,
    production: Service,
    sandbox: Service,
    woken: Cache<DeviceId, ()>,
}

/// One environment.
struct Service {
    url: String,
    roots: Vec<Certificate>,
    client: RwLock<Client>,
    /// Whether a request on the present connection was answered. Until then Apple takes one at a time.
    is_warm: Mutex<bool>,
    /// Counts the connections that were given up.
    generation: AtomicU64,
}

impl Apns {
    /// Reads the key. `shelf` keeps the token that it signs.
    ///
    /// # Errors
    /// A text that names the setting.
    pub fn open(config: &ApnsConfig, roots: &[Certificate], shelf: Arc<dyn Shelf>) -> Result<Self, String> {
        for (field, id) in [("key_id", &config.key_id), ("team_id", &config.team_id)] {
            if id.len() != 10 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(format!("push.apns.{field} must have 10 letters and digits"));
            }
        }
        if config.topics.is_empty() {
            return Err("push.apns.topics is empty: name the bundle ids of the apps".to_owned());
        }
        let file = config.key_file.display();
        let pem =
            std::fs::read(&config.key_file).map_err(|error| format!("push.apns.key_file {file}: {error}"))?;
        let token = ProviderToken::new(&pem, &config.key_id, &config.team_id, shelf);
        let token = token
            .ok_or_else(|| format!("push.apns.key_file {file} is not a private key of P-256 in PEM (.p8)"))?;
        let service = |url: &str| Service::new(url, roots).map_err(|error| format!("push.apns.url: {error}"));
        let woken = Cache::builder().max_capacity(WOKEN).time_to_live(WAKES).build();
        Ok(Self { token, production: service(&config.url)?, sandbox: service(&config.sandbox_url)?, woken })
    }

    /// The body for a device. Of what was read, the first ones as fit; `None` if the words alone are too long.
    fn body(&self, device: DeviceId, notice: &Notice) -> Option<Vec<u8>> {
        let mut notice = notice.clone();
        loop {
            let body = serde_json::to_vec(&self.payload(device, &notice)).ok()?;
            if body.len() <= BODY_BYTES {
                return Some(body);
            }
            notice.data.read.pop_last()?;
        }
    }

    fn payload(&self, device: DeviceId, notice: &Notice) -> Value {
        let mut aps = json!({ "badge": notice.data.badge });
        match &notice.words {
            Some(words) => {
                aps["alert"] = json!({ "title": words.title, "body": words.body });
                aps["sound"] = "default".into();
                aps["thread-id"] = notice.tag.as_str().into();
                // The app may put it into its own words, and remove what was read elsewhere.
                aps["mutable-content"] = 1.into();
            }
            None if !self.woken.contains_key(&device) => aps["content-available"] = 1.into(),
            None => {}
        }
        json!({ "aps": aps, "madang": notice.data })
    }

    fn request(
        &self,
        service: &Service,
        to: &Subscription,
        notice: &Notice,
        bearer: &str,
    ) -> Option<RequestBuilder> {
        let PushTarget::Apns { token, topic, .. } = &to.target else { return None };
        let is_shown = notice.words.is_some();
        let body = self.body(to.device_id, notice)?;
        let expiration = if is_shown { notice.expires_at.get() / 1_000 } else { 0 };
        let id = uuid::Builder::from_custom_bytes(notice.id(to.device_id)).into_uuid();
        let request = service.client.read().post(format!("{}/3/device/{token}", service.url));
        let request = request
            .header(AUTHORIZATION, format!("bearer {bearer}"))
            .header("apns-topic", topic)
            .header("apns-push-type", "alert")
            .header("apns-priority", if is_shown { "10" } else { "5" })
            .header("apns-expiration", unindexed(&expiration.to_string())?)
            .header("apns-id", unindexed(&Uuid::to_string(&id))?);
        let request = match notice.data.kind {
            AlertKind::Alert | AlertKind::Test => request.header("apns-collapse-id", unindexed(&notice.tag)?),
            AlertKind::Read => request,
        };
        Some(request.body(body))
    }
}

/// A value that the table of HTTP/2 headers does not keep: it would push out those that repeat.
fn unindexed(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[async_trait]
impl Provider for Apns {
    async fn send(&self, to: &Subscription, notice: &Notice, now: Millis) -> Answer {
        let service = match to.target {
            PushTarget::Apns { environment: ApnsEnvironment::Sandbox, .. } => &self.sandbox,
            _ => &self.production,
        };
        let Some(bearer) = self.token.get(now).await else {
            return Answer::without(Verdict::Credential, "the key signs no token");
        };
        let Some(request) = self.request(service, to, notice, &bearer) else {
            return Answer::without(Verdict::Ours, "the notification is too long");
        };
        let generation = service.generation.load(Ordering::SeqCst);
        let wakes = notice.words.is_none() && !self.woken.contains_key(&to.device_id);
        let (mut answer, connection) = service.call(request).await;
        // Before another connection is opened: it must not begin with the expired token.
        if answer.text.contains("ExpiredProviderToken") && !self.token.expire(now).await {
            // It was made just now, so the clock of this machine is wrong. No further token helps.
            answer.verdict = Verdict::Credential;
        }
        if connection == Connection::Drop {
            service.reconnect(generation).await;
        }
        if answer.verdict == Verdict::Delivered && wakes {
            self.woken.insert(to.device_id, ());
        }
        answer
    }
}

impl Service {
    fn new(url: &str, roots: &[Certificate]) -> reqwest::Result<Self> {
        let (url, roots) = (url.trim_end_matches('/').to_owned(), roots.to_vec());
        let client = RwLock::new(client(&roots)?);
        Ok(Self { url, roots, client, is_warm: Mutex::new(false), generation: AtomicU64::new(0) })
    }

    async fn call(&self, request: RequestBuilder) -> (Answer, Connection) {
        let Ok(mut is_warm) = timeout(FIRST, self.is_warm.lock()).await else {
            let verdict = Verdict::NotTaken { after: None };
            return (
                Answer::without(verdict, "the first call of the connection is not answered"),
                Connection::Keep,
            );
        };
        if *is_warm {
            drop(is_warm);
            let (answer, connection) = answer_of(request).await;
            if answer.status.is_none() {
                // The next call may be the first one of another connection.
                *self.is_warm.lock().await = false;
            }
            return (answer, connection);
        }
        let (answer, connection) = answer_of(request).await;
        *is_warm = answer.status.is_some();
        (answer, connection)
    }

    /// Makes the next call open another connection, unless another call has done so since. The present one ends with its last call.
    async fn reconnect(&self, generation: u64) {
        let mut is_warm = self.is_warm.lock().await;
        if self.generation.load(Ordering::SeqCst) != generation {
            return;
        }
        if let Ok(client) = client(&self.roots) {
            *self.client.write() = client;
            *is_warm = false;
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn answer_of(request: RequestBuilder) -> (Answer, Connection) {
    match call(request).await {
        Ok(received) => {
            let (verdict, connection) = verdict(received.status, &received.body);
            (Answer::of(verdict, received.status, &received.body), connection)
        }
        Err(answer) => (answer, Connection::Keep),
    }
}

fn client(roots: &[Certificate]) -> reqwest::Result<Client> {
    builder(roots).https_only(true).http2_prior_knowledge().pool_idle_timeout(None).build()
}
