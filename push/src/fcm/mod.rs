//! Firebase Cloud Messaging, version 1 of its HTTP API: data messages, which the app shows by itself.
//!
//! A message has no collapse key: Firebase stores four for each device, and takes twenty messages with one at once and then one in
//! three minutes. The app replaces a notification by its tag.

mod answer;
mod grant;

use async_trait::async_trait;
use madang_ids::Millis;
use madang_proto::PushTarget;
use madang_store::Subscription;
use reqwest::header::AUTHORIZATION;
use reqwest::{Certificate, Client};
use serde_json::{Map, Value, json};

use crate::config::FcmConfig;
use crate::core::Verdict;
use crate::http::{builder, call};
use crate::notice::{Answer, Notice, Provider};

pub use answer::{Meaning, meaning};
use grant::{Grants, ServiceAccount};

/// Bytes of all keys and values of a message.
const DATA_BYTES: usize = 4_096;
/// Seconds after which a message that removes notifications is worthless.
const READ_SECONDS: u64 = 3_600;

/// The adapter.
pub struct Fcm {
    grants: Grants,
    project: String,
    url: String,
    client: Client,
}

impl Fcm {
    /// Reads the service account.
    ///
    /// # Errors
    /// A text that names the setting.
    pub fn open(config: &FcmConfig, roots: &[Certificate]) -> Result<Self, String> {
        let name = format!("push.fcm.service_account_file {}", config.service_account_file.display());
        let text = std::fs::read(&config.service_account_file).map_err(|error| format!("{name}: {error}"))?;
        let account: ServiceAccount =
            serde_json::from_slice(&text).map_err(|error| format!("{name}: {error}"))?;
        let project = account.project_id.clone();
        let grants = Grants::new(account).map_err(|error| format!("{name}: {error}"))?;
        let client = builder(roots).build().map_err(|error| format!("push.fcm: {error}"))?;
        Ok(Self { grants, project, url: config.url.trim_end_matches('/').to_owned(), client })
    }

    /// The project that apps must belong to.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    fn message(notice: &Notice, token: &str, now: Millis) -> Option<Value> {
        let mut notice = notice.clone();
        let data = loop {
            let data = data(&notice)?;
            let bytes: usize =
                data.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
            if bytes <= DATA_BYTES {
                break data;
            }
            notice.data.read.pop_last()?;
        };
        let (priority, ttl) = match notice.words {
            Some(_) => ("HIGH", notice.ttl_seconds(now)),
            // An app that is woken and shows nothing is woken more slowly later on.
            None => ("NORMAL", READ_SECONDS),
        };
        let android = json!({ "priority": priority, "ttl": format!("{ttl}s") });
        Some(json!({ "message": { "token": token, "data": data, "android": android } }))
    }

    async fn attempt(&self, message: &Value, now: Millis) -> (Answer, bool) {
        let bearer = match self.grants.get(&self.client, now).await {
            Ok(bearer) => bearer,
            Err(answer) => return (answer, false),
        };
        let url = format!("{}/v1/projects/{}/messages:send", self.url, self.project);
        let received = match call(self.client.post(url).header(AUTHORIZATION, &bearer).json(message)).await {
            Ok(received) => received,
            Err(answer) => return (answer, false),
        };
        match meaning(received.status, &received.body, received.retry_after) {
            Meaning::Verdict(verdict) => (Answer::of(verdict, received.status, &received.body), false),
            Meaning::Renew => {
                self.grants.expire(&bearer).await;
                (Answer::of(Verdict::Credential, received.status, &received.body), true)
            }
        }
    }
}

/// All facts as strings, as Firebase wants them.
fn data(notice: &Notice) -> Option<Map<String, Value>> {
    let Value::Object(facts) = serde_json::to_value(&notice.data).ok()? else { return None };
    let as_text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let mut data: Map<String, Value> =
        facts.into_iter().map(|(key, value)| (key, as_text(value).into())).collect();
    if let Some(words) = &notice.words {
        data.insert("title".to_owned(), words.title.as_str().into());
        data.insert("body".to_owned(), words.body.as_str().into());
        data.insert("link".to_owned(), notice.link.as_str().into());
    }
    Some(data)
}

#[async_trait]
impl Provider for Fcm {
    async fn send(&self, to: &Subscription, notice: &Notice, now: Millis) -> Answer {
        let PushTarget::Fcm { token, project } = &to.target else {
            return Answer::without(Verdict::Ours, "not a subscription of FCM");
        };
        if *project != self.project {
            return Answer::without(Verdict::WrongEnvironment, "the token belongs to another project");
        }
        let Some(message) = Self::message(notice, token, now) else {
            return Answer::without(Verdict::Ours, "the notification is too long");
        };
        let (answer, has_expired) = self.attempt(&message, now).await;
        if has_expired { self.attempt(&message, now).await.0 } else { answer }
    }
}
