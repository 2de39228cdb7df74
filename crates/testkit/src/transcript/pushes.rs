//! Push services for a transcript: what a device subscribes to, and what it gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use madang_chat_server::config::Config;
use madang_push_sandbox::{Face, Notice};
use madang_service::Clock;
use serde_json::{Map, Value, json};

use crate::PATIENCE;
use crate::push::PushServices;

/// The services, and what each device of the transcript has taken of them.
pub(super) struct Pushes {
    services: PushServices,
    devices: BTreeMap<String, Device>,
}

struct Device {
    /// The token, the endpoint, or the name of the hook.
    target: String,
    taken: usize,
}

impl Pushes {
    /// Starts the services, on the clock of the transcript, and names them in the configuration.
    pub(super) async fn start(config: &mut Config, clock: Clock) -> anyhow::Result<Self> {
        let services = PushServices::start(config, clock).await?;
        Ok(Self { services, devices: BTreeMap::new() })
    }

    /// The body with which a device registers at `provider`.
    pub(super) fn subscription(&mut self, device: &str, provider: &str) -> Result<Value, String> {
        let (target, body) = match provider {
            "apns" => {
                let (token, topic) = (hex(device), self.services.sandbox.apns().topic());
                (token.clone(), json!({ "token": token, "topic": topic, "environment": "production" }))
            }
            "fcm" => {
                let (token, project) = (format!("fcm-{device}"), self.services.sandbox.fcm().project());
                (token.clone(), json!({ "token": token, "project": project }))
            }
            "web_push" | "unified_push" => {
                let made =
                    self.services.sandbox.web_push().subscribe(None).map_err(|error| error.to_string())?;
                let keys = json!({ "p256dh": made.p256dh, "auth": made.auth });
                (made.endpoint.clone(), json!({ "endpoint": made.endpoint, "keys": keys }))
            }
            "webhook" => {
                let name = device.replace('.', "-");
                let hook = self.services.sandbox.webhook().hook(&name).map_err(|error| error.to_string())?;
                (name, json!({ "url": hook.url }))
            }
            other => return Err(format!("{other} is no provider")),
        };
        let mut body = body;
        body["provider"] = provider.into();
        let known =
            self.devices.entry(device.to_owned()).or_insert(Device { target: String::new(), taken: 0 });
        if known.target != target {
            *known = Device { target, taken: 0 };
        }
        Ok(body)
    }

    /// The server has answered to a registration.
    pub(super) fn registered(&self, device: &str, answer: &Value) -> Result<(), String> {
        match (answer["signing_secret"].as_str(), self.devices.get(device)) {
            (Some(secret), Some(known)) => {
                let set = self.services.sandbox.webhook().set_secret(&known.target, secret);
                set.map_err(|_| "the secret is not whsec_ and base64".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The next push that a device gets.
    pub(super) async fn next(&mut self, device: &str) -> Result<Value, String> {
        let known = self.devices.get_mut(device).ok_or_else(|| format!("{device} has not subscribed"))?;
        let has_next = |notices: &[Arc<Notice>]| of(notices, &known.target).nth(known.taken).is_some();
        let notices =
            self.services.sandbox.wait_for(has_next, PATIENCE).await.map_err(|error| error.to_string())?;
        let next = of(&notices, &known.target).nth(known.taken).ok_or("there is no further push")?;
        known.taken += 1;
        Ok(plain(next))
    }

    /// Whether every push was expected, and every request was right.
    pub(super) fn end(&self) -> Result<(), String> {
        if let Some(wrong) = self.services.sandbox.wrong_requests().first() {
            return Err(format!("a push service has refused a request: {}", wrong.to_json()));
        }
        let notices = self.services.sandbox.notices();
        for (name, device) in &self.devices {
            if let Some(next) = of(&notices, &device.target).nth(device.taken) {
                return Err(format!("{name} got {}, but no statement expects it", plain(next)));
            }
        }
        Ok(())
    }
}

fn of<'a>(notices: &'a [Arc<Notice>], target: &'a str) -> impl Iterator<Item = &'a Notice> {
    notices.iter().map(Arc::as_ref).filter(move |notice| notice.target == target)
}

/// What a push says, in the same form for each provider.
fn plain(notice: &Notice) -> Value {
    let payload = &notice.payload;
    let (words, data) = match notice.face {
        Face::Apns => (&payload["aps"]["alert"], &payload["madang"]),
        Face::WebPush => (&payload["notification"], &payload["data"]),
        Face::Fcm | Face::FcmGrant => (&payload["data"], &payload["data"]),
        Face::Webhook => (payload, payload),
    };
    let mut plain = Map::new();
    for name in ["kind", "channel_id", "seq", "count", "badge", "read"] {
        if let Some(value) = data.get(name) {
            plain.insert(name.to_owned(), as_value(name, value));
        }
    }
    for name in ["title", "body"] {
        if let Some(value) = words.get(name) {
            plain.insert(name.to_owned(), value.clone());
        }
    }
    Value::Object(plain)
}

/// Firebase carries all values as text.
fn as_value(name: &str, value: &Value) -> Value {
    match value.as_str() {
        Some(text) if name != "kind" && name != "channel_id" => {
            serde_json::from_str(text).unwrap_or_else(|_| value.clone())
        }
        _ => value.clone(),
    }
}

fn hex(name: &str) -> String {
    name.bytes().map(|byte| format!("{byte:02x}")).collect()
}
