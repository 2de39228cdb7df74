//! A push service of browsers and of UnifiedPush: RFC 8030, with encryption (RFC 8291) and VAPID (RFC 8292).
//!
//! Checks come in this order: method, endpoint, VAPID, headers, length of the body, decryption, state of the subscription.
//! A push service cannot decrypt; the sandbox can, because it also plays the browser.

mod decrypt;
mod headers;
mod subscription;
mod vapid;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::{Answer, Extra, Refused, Request};
use crate::clock::Now;
use crate::ledger::Ledger;
use crate::notice::{Face, Notice};
use crate::server::Service;
use headers::Headers;
use subscription::Subscriber;
pub use subscription::Subscription;
use vapid::Vapid;

const PATH: &str = "/push/";

/// The state of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionState {
    /// It takes notices.
    Ok,
    /// It has ended: 410.
    Gone,
    /// It is not known: 404.
    NotFound,
    /// It takes shorter bodies only: 413.
    TooLarge,
    /// It got too much: 429.
    Throttled {
        /// `Retry-After`, in whole seconds.
        retry_after: Duration,
    },
    /// No device has subscribed to the topic yet: 507, as ntfy answers for UnifiedPush.
    NoSubscriber,
    /// It has moved: 307. A sender must not follow.
    Redirect {
        /// Such as `http://169.254.169.254/`.
        to: String,
    },
}

/// The face of a push service.
#[derive(Debug)]
pub struct WebPush {
    port: u16,
    host: String,
    subscribers: Mutex<HashMap<String, Arc<Subscriber>>>,
    states: Mutex<HashMap<String, SubscriptionState>>,
    vapid: Vapid,
    now: Now,
    ledger: Arc<Ledger>,
}

impl WebPush {
    pub(crate) fn new(host: String, port: u16, (now, ledger): (Now, Arc<Ledger>)) -> Self {
        let vapid = Vapid::new(Arc::clone(&ledger));
        let (subscribers, states) = (Mutex::default(), Mutex::default());
        Self { port, host, subscribers, states, vapid, now, ledger }
    }

    /// The base of endpoints, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        self.origin(&self.host)
    }

    fn origin(&self, host: &str) -> String {
        match self.port {
            443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
    }

    /// Subscribes a browser. With a VAPID public key (an uncompressed point in base64url), only its owner may push.
    ///
    /// # Errors
    /// If the key pair of the browser cannot be made.
    pub fn subscribe(&self, vapid_public: Option<&str>) -> Result<Subscription, Unspecified> {
        self.subscribe_at(&self.host, vapid_public)
    }

    /// The same with another host in the endpoint, such as `push.example.test`, which the sender must resolve to 127.0.0.1.
    ///
    /// # Errors
    /// Those of [`Self::subscribe`].
    pub fn subscribe_at(&self, host: &str, vapid_public: Option<&str>) -> Result<Subscription, Unspecified> {
        let id = Uuid::new_v4().simple().to_string();
        let subscriber = Subscriber::new(self.origin(host), &format!("{PATH}{id}"), vapid_public)?;
        let subscription = subscriber.subscription().clone();
        self.subscribers.lock().insert(id, Arc::new(subscriber));
        Ok(subscription)
    }

    /// Sets the state of a subscription.
    pub fn set(&self, endpoint: &str, state: SubscriptionState) {
        self.states.lock().insert(endpoint.to_owned(), state);
    }

    fn check(&self, request: &Request) -> Result<Notice, Refused> {
        if request.method != Method::POST {
            return Err(Refused::request(405, "MethodNotAllowed", format!("{} is not POST", request.method)));
        }
        let subscriber = self.subscriber(&request.path)?;
        self.vapid.check(request, &subscriber, self.now.seconds())?;
        let headers = Headers::read(request)?;
        let text = subscriber.open(&request.body)?;
        self.check_state(&subscriber.subscription().endpoint)?;
        Ok(notice(&subscriber, headers, &text))
    }

    fn subscriber(&self, path: &str) -> Result<Arc<Subscriber>, Refused> {
        let id = path.strip_prefix(PATH).unwrap_or_default();
        let known = self.subscribers.lock().get(id).cloned();
        known.ok_or_else(|| Refused::request(404, "NotFound", "the endpoint was never given to anyone"))
    }

    fn check_state(&self, endpoint: &str) -> Result<(), Refused> {
        let refused = match self.states.lock().get(endpoint) {
            None | Some(SubscriptionState::Ok) => return Ok(()),
            Some(SubscriptionState::Gone) => Refused::state(410, "Gone"),
            Some(SubscriptionState::NotFound) => Refused::state(404, "NotFound"),
            Some(SubscriptionState::TooLarge) => Refused::state(413, "PayloadTooLarge"),
            Some(SubscriptionState::Throttled { retry_after }) => {
                Refused::state(429, "TooManyRequests").with(Extra::RetryAfter(retry_after.as_secs()))
            }
            Some(SubscriptionState::NoSubscriber) => Refused::state(507, "NoSubscriber"),
            Some(SubscriptionState::Redirect { to }) => {
                Refused::state(307, "Redirect").with(Extra::Location(to.clone()))
            }
        };
        Err(refused)
    }
}

fn notice(subscriber: &Subscriber, headers: Headers, text: &[u8]) -> Notice {
    let other = || Value::String(String::from_utf8_lossy(text).into_owned());
    let payload: Value = serde_json::from_slice(text).unwrap_or_else(|_| other());
    let notification = &payload["notification"];
    Notice {
        is_visible: notification["title"].is_string(),
        replaces: notification["tag"].as_str().map(str::to_owned),
        collapse_key: headers.topic,
        priority: Some(headers.urgency),
        ttl_s: Some(headers.ttl_s),
        ..Notice::new(Face::WebPush, &subscriber.subscription().endpoint, payload)
    }
}

impl Service for WebPush {
    type Connection = ();

    fn face(&self, _path: &str) -> Face {
        Face::WebPush
    }

    fn answer(&self, _connection: &(), request: &Request) -> Answer {
        match self.check(request) {
            Ok(notice) => {
                let ttl_s = notice.ttl_s.unwrap_or_default();
                self.ledger.take(notice);
                let location = format!("{}/message/{}", self.url(), Uuid::new_v4().simple());
                Answer::new(201).with("location", location).with("ttl", ttl_s)
            }
            Err(refused) => {
                let Refused { status, reason, ref detail, blame, .. } = refused;
                self.ledger.refuse(Face::WebPush, &request.path, (status, reason), detail, blame);
                let answer = Answer::json(status, &json!({ "reason": reason, "message": detail }));
                match refused.extra {
                    Extra::RetryAfter(seconds) => answer.with("retry-after", seconds),
                    Extra::Location(to) => answer.with("location", to),
                    _ => answer,
                }
            }
        }
    }
}
