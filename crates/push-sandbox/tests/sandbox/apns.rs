//! Requests to APNs, right and wrong.

use http::{HeaderMap, Method};
use madang_push_sandbox::{ApnsToken, Blame, Face, Sandbox};
use reqwest::Client;
use serde_json::{Value, json};

use crate::client::{Clock, NOW_S, Signer, assert_refused, client, headers, read, start, with};

const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
const DEVICE: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";

/// A provider with one connection.
pub(crate) struct Provider<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) http: Client,
    pub(crate) headers: HeaderMap,
}

/// A provider token that is issued now.
pub(crate) fn token(sandbox: &Sandbox, issued: &Value) -> String {
    let key = sandbox.apns().key();
    let header = json!({ "alg": "ES256", "kid": key.key_id });
    let claims = json!({ "iss": key.team_id, "iat": issued });
    Signer::p256_of(sandbox.apns().private_pem()).jwt(&header, &claims)
}

pub(crate) fn alert() -> Value {
    json!({ "aps": { "alert": { "title": "Ada", "body": "Tea?" }, "badge": 3 }, "c": "7" })
}

impl<'a> Provider<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox) -> Self {
        Self::at(sandbox, NOW_S)
    }

    pub(crate) fn at(sandbox: &'a Sandbox, now_s: u64) -> Self {
        let bearer = format!("bearer {}", token(sandbox, &now_s.into()));
        let headers = headers(&[
            ("authorization", &bearer),
            ("apns-id", ID),
            ("apns-topic", sandbox.apns().topic()),
            ("apns-push-type", "alert"),
            ("apns-priority", "10"),
            ("apns-expiration", "1800003600"),
            ("apns-collapse-id", "channel-7"),
        ]);
        Self { sandbox, http: client(sandbox), headers }
    }

    /// Headers of a notice that no person sees.
    fn background(&self) -> HeaderMap {
        with(&with(&self.headers, "apns-push-type", "background"), "apns-priority", "5")
    }

    pub(crate) async fn send(&self, headers: &HeaderMap, body: &Value) -> (u16, Value) {
        let path = format!("/3/device/{DEVICE}");
        self.call(Method::POST, &path, headers, body.to_string()).await
    }

    async fn call(&self, method: Method, path: &str, headers: &HeaderMap, body: String) -> (u16, Value) {
        let url = format!("{}{path}", self.sandbox.apns().url());
        let request = self.http.request(method, url).headers(headers.clone()).body(body);
        read(request.send().await.unwrap()).await
    }

    async fn assert_alert_refused(
        &self,
        name: &'static str,
        value: &str,
        status: u16,
        reason: &str,
        detail: &str,
    ) {
        let (seen, body) = self.send(&with(&self.headers, name, value), &alert()).await;
        assert_eq!((seen, &body["reason"]), (status, &json!(reason)), "{name}: {value}");
        assert_refused(self.sandbox, status, reason, detail);
    }
}

#[tokio::test]
async fn an_alert_is_taken_with_all_that_matters() {
    let (sandbox, _) = start().await;
    let provider = Provider::new(&sandbox);
    let url = format!("{}/3/device/{DEVICE}", sandbox.apns().url());
    let request = provider.http.post(url).headers(provider.headers.clone()).body(alert().to_string());
    let response = request.send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    assert_eq!(response.headers()["apns-id"], ID);
    assert!(response.headers().contains_key("apns-unique-id"));
    let [notice] = &sandbox.notices()[..] else { panic!("{:?}", sandbox.notices()) };
    assert_eq!((notice.face, notice.target.as_str(), notice.is_visible), (Face::Apns, DEVICE, true));
    assert_eq!((notice.id.as_deref(), notice.topic.as_deref()), (Some(ID), Some(sandbox.apns().topic())));
    assert_eq!((notice.priority.as_deref(), notice.expiration_s), (Some("10"), Some(1_800_003_600)));
    assert_eq!(
        (notice.collapse_key.as_deref(), notice.replaces.as_deref()),
        (Some("channel-7"), Some("channel-7"))
    );
    assert_eq!((notice.payload.clone(), notice.at_ms), (alert(), NOW_S * 1_000));
    assert_eq!(sandbox.refusals(), []);
    let counters = sandbox.counters(Face::Apns);
    assert_eq!((counters.connections, counters.requests, counters.provider_tokens), (1, 1, 1));
}

#[tokio::test]
async fn a_notice_that_no_person_sees_is_taken_as_such() {
    let (sandbox, _) = start().await;
    let provider = Provider::new(&sandbox);
    let background = json!({ "aps": { "content-available": 1 }, "read": [] });
    assert_eq!(provider.send(&provider.background(), &background).await.0, 200);
    let badge = json!({ "aps": { "badge": 0 } });
    assert_eq!(provider.send(&with(&provider.headers, "apns-expiration", "0"), &badge).await.0, 200);
    let notices = sandbox.notices();
    assert_eq!((notices[0].is_visible, notices[1].is_visible), (false, false));
    assert_eq!(notices[1].expiration_s, Some(0));
    assert_eq!(sandbox.refusals(), []);
}

#[tokio::test]
async fn headers_that_may_be_absent_have_defaults() {
    let (sandbox, _) = start().await;
    let provider = Provider::new(&sandbox);
    let mut headers = provider.headers.clone();
    for name in ["apns-id", "apns-priority", "apns-expiration", "apns-collapse-id"] {
        headers.remove(name);
    }
    assert_eq!(provider.send(&headers, &alert()).await.0, 200);
    let notices = sandbox.notices();
    assert_eq!((notices[0].priority.as_deref(), notices[0].expiration_s), (Some("10"), None));
    assert!(notices[0].id.as_ref().is_some_and(|id| id.len() == 36));
}

#[tokio::test]
async fn each_wrong_header_is_refused_for_its_reason() {
    let (sandbox, _) = start().await;
    let provider = Provider::new(&sandbox);
    let long = "x".repeat(65);
    let upper = ID.to_uppercase();
    for (name, value, reason, detail) in [
        ("apns-id", upper.as_str(), "BadMessageId", "lower case"),
        ("apns-id", "0f8fad5bd9cb469fa16570867728950e", "BadMessageId", "lower case"),
        ("apns-topic", "", "MissingTopic", "required"),
        ("apns-topic", "a b", "BadTopic", "bundle id"),
        ("apns-topic", "test.example.other", "TopicDisallowed", "test.example.chat"),
        ("apns-push-type", "", "InvalidPushType", "``"),
        ("apns-push-type", "Alert", "InvalidPushType", "`Alert`"),
        ("apns-priority", "7", "BadPriority", "10, 5 or 1"),
        ("apns-priority", "high", "BadPriority", "10, 5 or 1"),
        ("apns-expiration", "tomorrow", "BadExpirationDate", "seconds"),
        ("apns-expiration", "-1", "BadExpirationDate", "seconds"),
        ("apns-expiration", "+1", "BadExpirationDate", "seconds"),
        ("apns-expiration", "1800003600000", "BadExpirationDate", "seconds"),
        ("apns-collapse-id", long.as_str(), "BadCollapseId", "65 bytes"),
    ] {
        provider.assert_alert_refused(name, value, 400, reason, detail).await;
    }
    assert_eq!(sandbox.notices().len(), 0);
    provider.send(&with(&provider.headers, "apns-collapse-id", &"x".repeat(64)), &alert()).await;
    assert_eq!(sandbox.notices().len(), 1, "64 bytes are allowed");
}

#[tokio::test]
async fn every_header_that_is_there_twice_is_refused() {
    let (sandbox, _) = start().await;
    let provider = Provider::new(&sandbox);
    for (name, value) in &provider.headers {
        let mut twice = provider.headers.clone();
        twice.append(name, value.clone());
        assert_eq!(provider.send(&twice, &alert()).await, (400, json!({ "reason": "DuplicateHeaders" })));
        assert_refused(&sandbox, 400, "DuplicateHeaders", name.as_str());
    }
    assert_eq!(sandbox.wrong_requests().len(), 7);
}

#[tokio::test]
async fn a_background_notice_does_not_have_priority_10() {
    let (sandbox, _) = start().await;
    let provider = Provider::new(&sandbox);
    let body = json!({ "aps": { "content-available": 1 } });
    for priority in ["10", ""] {
        let headers = with(&provider.background(), "apns-priority", priority);
        assert_eq!(
            provider.send(&headers, &body).await,
            (400, json!({ "reason": "BadPriority" })),
            "{priority}"
        );
    }
    assert_refused(&sandbox, 400, "BadPriority", "background");
}

#[tokio::test]
async fn each_wrong_path_or_method_is_refused_for_its_reason() {
    let (sandbox, _) = start().await;
    let provider = Provider::new(&sandbox);
    let device = format!("/3/device/{DEVICE}");
    for (method, path, status, reason) in [
        (Method::POST, "/", 404, "BadPath"),
        (Method::POST, "/2/device/00", 404, "BadPath"),
        (Method::PUT, device.as_str(), 405, "MethodNotAllowed"),
        (Method::POST, "/3/device/", 400, "MissingDeviceToken"),
        (Method::POST, "/3/device/not-hex", 400, "BadDeviceToken"),
        (Method::POST, "/3/device/00?x=1", 400, "BadDeviceToken"),
    ] {
        let answer = provider.call(method, path, &provider.headers, alert().to_string()).await;
        assert_eq!(answer, (status, json!({ "reason": reason })), "{path}");
        assert_refused(&sandbox, status, reason, "");
    }
    assert!(sandbox.wrong_requests().iter().all(|refusal| refusal.blame == Blame::Request));
}

#[tokio::test]
async fn each_wrong_body_is_refused_for_its_reason() {
    let (sandbox, _) = start().await;
    let provider = Provider::new(&sandbox);
    let device = format!("/3/device/{DEVICE}");
    let fits = |bytes: usize| {
        let empty = json!({ "aps": { "sound": "x" }, "text": "" }).to_string().len();
        json!({ "aps": { "sound": "x" }, "text": "a".repeat(bytes - empty) }).to_string()
    };
    for (body, status, reason, detail) in [
        (String::new(), 400, "PayloadEmpty", "empty"),
        ("{".to_owned(), 400, "PayloadEmpty", "not JSON"),
        (json!({ "alert": "x" }).to_string(), 400, "PayloadEmpty", "no object `aps`"),
        (json!({ "aps": { "thread-id": "x" } }).to_string(), 400, "InvalidPushType", "no `alert`"),
        (fits(4_097), 413, "PayloadTooLarge", "4097 bytes"),
        (fits(200_000), 413, "PayloadTooLarge", "bytes"),
    ] {
        let answer = provider.call(Method::POST, &device, &provider.headers, body).await;
        assert_eq!(answer, (status, json!({ "reason": reason })), "{detail}");
        assert_refused(&sandbox, status, reason, detail);
    }
    assert_eq!(provider.call(Method::POST, &device, &provider.headers, fits(4_096)).await.0, 200);
    for (body, detail) in [
        (json!({ "aps": { "content-available": 1, "badge": 1 } }), "more than"),
        (json!({ "aps": { "badge": 1 } }), "no `content-available: 1`"),
        (json!({ "aps": { "content-available": true } }), "no `content-available: 1`"),
    ] {
        let answer = provider.send(&provider.background(), &body).await;
        assert_eq!(answer, (400, json!({ "reason": "InvalidPushType" })));
        assert_refused(&sandbox, 400, "InvalidPushType", detail);
    }
}

#[tokio::test]
async fn each_state_of_a_device_token_has_its_answer() {
    let (sandbox, _) = start().await;
    let provider = Provider::new(&sandbox);
    let ended = ApnsToken::Unregistered { at_ms: 1_700_000_000_123 };
    for (state, status, body) in [
        (ApnsToken::OtherEnvironment, 400, json!({ "reason": "BadDeviceToken" })),
        (ApnsToken::WrongTopic, 400, json!({ "reason": "DeviceTokenNotForTopic" })),
        (ended, 410, json!({ "reason": "Unregistered", "timestamp": 1_700_000_000_123_u64 })),
        (ApnsToken::Throttled, 429, json!({ "reason": "TooManyRequests" })),
        (ApnsToken::Ok, 200, Value::Null),
    ] {
        sandbox.apns().set_token(DEVICE, state);
        assert_eq!(provider.send(&provider.headers, &alert()).await, (status, body));
    }
    assert_eq!((sandbox.refusals().len(), sandbox.wrong_requests().len()), (4, 0));
    assert_eq!(sandbox.notices().len(), 1);
}

#[tokio::test]
async fn each_wrong_provider_token_is_refused_for_its_reason() {
    let (sandbox, _) = start().await;
    let provider = Provider::new(&sandbox);
    let key = sandbox.apns().key().clone();
    let signer = Signer::p256_of(sandbox.apns().private_pem());
    let (header, claims) =
        (json!({ "alg": "ES256", "kid": key.key_id }), json!({ "iss": key.team_id, "iat": NOW_S }));
    let changed = |part: &Value, name: &str, value: Value| {
        let mut part = part.clone();
        part[name] = value;
        part
    };
    let good = signer.jwt(&header, &claims);
    for (authorization, reason, detail) in [
        (String::new(), "MissingProviderToken", ""),
        (good.clone(), "InvalidProviderToken", "not `bearer"),
        (format!("basic {good}"), "InvalidProviderToken", "not `bearer"),
        ("bearer a.b".to_owned(), "InvalidProviderToken", "not a JWT"),
        (format!("bearer {good}x"), "InvalidProviderToken", ""),
        (bearer(&signer, &changed(&header, "alg", json!("RS256")), &claims), "InvalidProviderToken", "alg"),
        (bearer(&signer, &changed(&header, "kid", json!("OTHER")), &claims), "InvalidProviderToken", "kid"),
        (bearer(&signer, &json!({ "alg": "ES256" }), &claims), "InvalidProviderToken", "no kid"),
        (bearer(&signer, &header, &changed(&claims, "iss", json!("OTHER"))), "InvalidProviderToken", "iss"),
        (
            bearer(&signer, &header, &changed(&claims, "iat", json!(NOW_S.to_string()))),
            "InvalidProviderToken",
            "iat",
        ),
        (
            bearer(&signer, &header, &changed(&claims, "iat", json!(NOW_S + 61))),
            "InvalidProviderToken",
            "future",
        ),
        (bearer(&Signer::p256(), &header, &claims), "InvalidProviderToken", "signature"),
    ] {
        provider.assert_alert_refused("authorization", &authorization, 403, reason, detail).await;
    }
    assert_eq!(provider.send(&provider.headers, &alert()).await.0, 200, "the connection is still good");
}

fn bearer(signer: &Signer, header: &Value, claims: &Value) -> String {
    format!("bearer {}", signer.jwt(header, claims))
}

#[tokio::test]
async fn after_an_expired_token_a_connection_stays_bad_and_another_is_good() {
    let (sandbox, clock) = start().await;
    let provider = Provider::new(&sandbox);
    assert_eq!(provider.send(&provider.headers, &alert()).await.0, 200);
    clock.advance(3_600);
    assert_eq!(provider.send(&provider.headers, &alert()).await.0, 200, "an hour old");
    clock.advance(1);
    let expired = (403, json!({ "reason": "ExpiredProviderToken" }));
    assert_eq!(provider.send(&provider.headers, &alert()).await, expired);
    let renewed = Provider::at(&sandbox, clock.seconds());
    assert_eq!(provider.send(&renewed.headers, &alert()).await, expired);
    assert_refused(&sandbox, 403, "ExpiredProviderToken", "open another connection");
    assert_eq!(renewed.send(&renewed.headers, &alert()).await.0, 200);
    assert_eq!(sandbox.counters(Face::Apns).connections, 2);
}

#[tokio::test]
async fn a_second_new_token_within_20_minutes_is_refused_and_the_first_stays_good() {
    let (sandbox, clock) = start().await;
    let first = Provider::new(&sandbox);
    // A signature of ECDSA contains a random number: the same claims make another token.
    let second = Provider::new(&sandbox);
    assert_ne!(first.headers["authorization"], second.headers["authorization"]);
    let send = async |provider: &Provider<'_>| provider.send(&provider.headers, &alert()).await;
    assert_eq!(send(&first).await.0, 200);
    clock.advance(1_199);
    let refused = (429, json!({ "reason": "TooManyProviderTokenUpdates" }));
    assert_eq!(send(&second).await, refused);
    assert_eq!(send(&second).await, refused);
    assert_eq!(send(&first).await.0, 200);
    assert_eq!(sandbox.counters(Face::Apns).provider_tokens, 2);
    clock.advance(1);
    assert_eq!(send(&second).await.0, 200);
    let third = at(&sandbox, &clock);
    assert_eq!(send(&third).await, refused);
    sandbox.apns().forget_provider_tokens();
    assert_eq!(send(&third).await.0, 200);
}

fn at<'a>(sandbox: &'a Sandbox, clock: &Clock) -> Provider<'a> {
    Provider::at(sandbox, clock.seconds())
}
