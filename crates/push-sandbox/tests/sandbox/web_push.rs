//! Pushes to browsers, right and wrong.

use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method};
use madang_push_sandbox::{Face, Sandbox, Subscription, SubscriptionState};
use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::client::{NOW_S, Signer, assert_refused, client, headers, read, start, with};

/// A server that pushes to one browser.
struct Pusher<'a> {
    sandbox: &'a Sandbox,
    http: Client,
    browser: Subscription,
    signer: Signer,
    headers: HeaderMap,
}

impl<'a> Pusher<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        let signer = Signer::p256();
        let key = URL_SAFE_NO_PAD.encode(signer.point());
        let browser = sandbox.web_push().subscribe(Some(&key)).unwrap();
        let authorization = vapid(&signer, &claims(&sandbox.web_push().url()));
        let headers = headers(&[
            ("authorization", &authorization),
            ("ttl", "86400"),
            ("urgency", "high"),
            ("topic", "abc_DEF-123"),
            ("content-encoding", "aes128gcm"),
            ("content-type", "application/octet-stream"),
        ]);
        Self { sandbox, http: client(sandbox), browser, signer, headers }
    }

    async fn push(&self, headers: &HeaderMap, body: Vec<u8>) -> Response {
        let request = self.http.post(&self.browser.endpoint).headers(headers.clone()).body(body);
        request.send().await.unwrap()
    }

    async fn assert_refused(
        &self,
        headers: &HeaderMap,
        body: Vec<u8>,
        status: u16,
        reason: &str,
        detail: &str,
    ) {
        let (seen, answer) = read(self.push(headers, body).await).await;
        assert_eq!((seen, &answer["reason"]), (status, &json!(reason)), "{detail}");
        assert_refused(self.sandbox, status, reason, detail);
    }

    async fn assert_claims_refused(&self, claims: &Value, reason: &str, detail: &str) {
        let headers = with(&self.headers, "authorization", &vapid(&self.signer, claims));
        self.assert_refused(&headers, sealed(&self.browser, &alert()), 403, reason, detail).await;
    }
}

fn claims(origin: &str) -> Value {
    json!({ "aud": origin, "exp": NOW_S + 43_200, "sub": "mailto:ops@example.test" })
}

fn vapid(signer: &Signer, claims: &Value) -> String {
    let token = signer.jwt(&json!({ "typ": "JWT", "alg": "ES256" }), claims);
    format!("vapid t={token}, k={}", URL_SAFE_NO_PAD.encode(signer.point()))
}

fn alert() -> Vec<u8> {
    json!({ "web_push": 8030, "notification": { "title": "Ada", "tag": "c7" } }).to_string().into()
}

/// What a sender may do wrong.
struct Sealing {
    record_size: u32,
    /// Follows the text.
    padding: Vec<u8>,
}

fn sealed(browser: &Subscription, text: &[u8]) -> Vec<u8> {
    seal(browser, text, &Sealing { record_size: 4_096, padding: vec![2, 0, 0] })
}

/// The sender's side of RFC 8291.
fn seal(browser: &Subscription, text: &[u8], sealing: &Sealing) -> Vec<u8> {
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let (receiver, auth, salt) = (bytes(&browser.p256dh), bytes(&browser.auth), [7; 16]);
    let own = PrivateKey::generate(&ECDH_P256).unwrap();
    let sender = own.compute_public_key().unwrap();
    let peer = UnparsedPublicKey::new(&ECDH_P256, &receiver);
    let secret = agree(&own, peer, (), |shared| {
        Ok(derive(&auth, shared, &[b"WebPush: info\0", &receiver, sender.as_ref()], 32))
    });
    let secret = secret.unwrap();
    let key = derive(&salt, &secret, &[b"Content-Encoding: aes128gcm\0"], 16);
    let nonce = derive(&salt, &secret, &[b"Content-Encoding: nonce\0"], 12);
    let mut record = [text, &sealing.padding].concat();
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut record).unwrap();
    [&salt[..], &sealing.record_size.to_be_bytes(), &[65], sender.as_ref(), &record].concat()
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(salt: &[u8], secret: &[u8], info: &[&[u8]], length: usize) -> Vec<u8> {
    let mut derived = vec![0; length];
    let key = Salt::new(HKDF_SHA256, salt).extract(secret);
    key.expand(info, Length(length)).unwrap().fill(&mut derived).unwrap();
    derived
}

#[tokio::test]
async fn a_push_is_decrypted_and_taken() {
    let (sandbox, _) = start().await;
    let pusher = Pusher::new(&sandbox);
    let response = pusher.push(&pusher.headers, sealed(&pusher.browser, &alert())).await;
    assert_eq!(response.status().as_u16(), 201);
    assert_eq!(response.headers()["ttl"], "86400");
    assert!(response.headers()["location"].to_str().unwrap().starts_with(&sandbox.web_push().url()));
    let [notice] = &sandbox.notices()[..] else { panic!("{:?}", sandbox.notices()) };
    assert_eq!(
        (notice.face, &notice.target, notice.is_visible),
        (Face::WebPush, &pusher.browser.endpoint, true)
    );
    assert_eq!((notice.priority.as_deref(), notice.ttl_s), (Some("high"), Some(86_400)));
    assert_eq!(
        (notice.collapse_key.as_deref(), notice.replaces.as_deref()),
        (Some("abc_DEF-123"), Some("c7"))
    );
    assert_eq!(notice.payload.to_string().into_bytes(), alert());
    assert_eq!(
        pusher.push(&pusher.headers, sealed(&pusher.browser, b"not JSON")).await.status().as_u16(),
        201
    );
    assert_eq!((sandbox.notices()[1].is_visible, &sandbox.notices()[1].payload), (false, &json!("not JSON")));
    assert_eq!(sandbox.refusals(), []);
    assert_eq!(sandbox.counters(Face::WebPush).provider_tokens, 1);
}

#[tokio::test]
async fn each_wrong_header_is_refused_for_its_reason() {
    let (sandbox, _) = start().await;
    let pusher = Pusher::new(&sandbox);
    let long = "x".repeat(33);
    for (name, value, reason, detail) in [
        ("ttl", "", "MissingTtl", "required"),
        ("ttl", "soon", "BadTtl", "number"),
        ("ttl", "-1", "BadTtl", "number"),
        ("urgency", "urgent", "BadUrgency", "`urgent`"),
        ("topic", long.as_str(), "BadWebPushTopic", "32"),
        ("topic", "a.b", "BadWebPushTopic", "base64url"),
        ("content-encoding", "", "BadContentEncoding", "aes128gcm"),
        ("content-encoding", "aesgcm", "BadContentEncoding", "aes128gcm"),
        ("content-type", "application/json", "BadContentType", "octet-stream"),
    ] {
        let headers = with(&pusher.headers, name, value);
        pusher.assert_refused(&headers, sealed(&pusher.browser, &alert()), 400, reason, detail).await;
    }
    let mut twice = pusher.headers.clone();
    twice.append("ttl", "60".parse().unwrap());
    pusher.assert_refused(&twice, sealed(&pusher.browser, &alert()), 400, "DuplicateHeaders", "ttl").await;
    let mut least = pusher.headers.clone();
    least.remove("urgency");
    least.remove("topic");
    assert_eq!(pusher.push(&least, sealed(&pusher.browser, &alert())).await.status().as_u16(), 201);
    assert_eq!(sandbox.notices()[0].priority.as_deref(), Some("normal"));
}

#[tokio::test]
async fn each_wrong_body_is_refused_for_its_reason() {
    let (sandbox, _) = start().await;
    let pusher = Pusher::new(&sandbox);
    let browser = &pusher.browser;
    let other = sandbox.web_push().subscribe(None).unwrap();
    let mixed = Subscription { auth: other.auth.clone(), ..browser.clone() };
    let with_padding =
        |padding: &[u8]| seal(browser, &alert(), &Sealing { record_size: 4_096, padding: padding.to_vec() });
    let with_size = |record_size: u32| seal(browser, &alert(), &Sealing { record_size, padding: vec![2] });
    let fitting = u32::try_from(alert().len() + 1 + 16 + 1).unwrap();
    for (body, status, reason, detail) in [
        (sealed(browser, &[b'a'; 3_994]), 413, "PayloadTooLarge", "4099 bytes"),
        (
            seal(browser, &[b'a'; 3_994], &Sealing { record_size: 4_096, padding: vec![] }),
            400,
            "BadEncryption",
            "delimiter",
        ),
        (Vec::new(), 400, "BadEncryption", "shorter"),
        (alert(), 400, "BadEncryption", ""),
        (sealed(&other, &alert()), 400, "BadEncryption", "not encrypted for"),
        (sealed(&mixed, &alert()), 400, "BadEncryption", "not encrypted for"),
        (with_padding(&[]), 400, "BadEncryption", "delimiter"),
        (with_padding(&[1]), 400, "BadEncryption", "delimiter"),
        (with_padding(&[2, 1]), 400, "BadEncryption", "delimiter"),
        (with_size(fitting - 1), 400, "BadEncryption", "record size"),
    ] {
        pusher.assert_refused(&pusher.headers, body, status, reason, detail).await;
    }
    for body in [with_padding(&[2]), with_size(fitting), sealed(browser, b""), longest(browser)] {
        assert_eq!(pusher.push(&pusher.headers, body).await.status().as_u16(), 201);
    }
}

fn longest(browser: &Subscription) -> Vec<u8> {
    let body = seal(browser, &[b'a'; 3_993], &Sealing { record_size: 4_096, padding: vec![2] });
    assert_eq!(body.len(), 4_096);
    body
}

#[tokio::test]
async fn each_wrong_credential_is_refused_for_its_reason() {
    let (sandbox, _) = start().await;
    let pusher = Pusher::new(&sandbox);
    let origin = sandbox.web_push().url();
    let good = claims(&origin);
    let changed = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    for (claims, reason, detail) in [
        (changed("aud", json!(format!("{origin}/"))), "BadJwtToken", "aud"),
        (changed("aud", json!("https://localhost")), "BadJwtToken", "aud"),
        (changed("aud", Value::Null), "BadJwtToken", "aud"),
        (changed("exp", json!(NOW_S + 86_401)), "BadJwtToken", "24 hours"),
        (changed("exp", json!(NOW_S)), "ExpiredJwtToken", "passed"),
        (changed("exp", json!((NOW_S + 60).to_string())), "BadJwtToken", "exp"),
        (changed("sub", Value::Null), "BadJwtToken", "sub"),
        (changed("sub", json!("ops@example.test")), "BadJwtToken", "sub"),
        (changed("sub", json!("http://example.test")), "BadJwtToken", "sub"),
        (changed("sub", json!("mailto:ops@localhost")), "BadJwtToken", "localhost"),
        (changed("sub", json!("https://localhost/ops")), "BadJwtToken", "localhost"),
    ] {
        pusher.assert_claims_refused(&claims, reason, detail).await;
    }
    let stranger = Signer::p256();
    let own_key = URL_SAFE_NO_PAD.encode(pusher.signer.point());
    let foreign = stranger.jwt(&json!({ "alg": "ES256" }), &good);
    let none = pusher.signer.jwt(&json!({ "alg": "none" }), &good);
    for (authorization, status, reason, detail) in [
        (String::new(), 401, "BadAuthorizationHeader", "no header"),
        (format!("WebPush {foreign}"), 401, "BadAuthorizationHeader", "vapid"),
        (format!("vapid t={foreign}"), 401, "BadAuthorizationHeader", "k="),
        (format!("vapid t={foreign}, k=AAAA"), 401, "BadAuthorizationHeader", "point"),
        (format!("vapid t={foreign}, k={own_key}"), 403, "BadJwtToken", "signature"),
        (format!("vapid t={none}, k={own_key}"), 403, "BadJwtToken", "alg"),
        (vapid(&stranger, &good), 403, "VapidPkHashMismatch", "another key"),
    ] {
        let headers = with(&pusher.headers, "authorization", &authorization);
        pusher.assert_refused(&headers, sealed(&pusher.browser, &alert()), status, reason, detail).await;
    }
    assert_eq!(sandbox.notices().len(), 0);
}

#[tokio::test]
async fn a_token_is_verified_once_and_its_end_each_time() {
    let (sandbox, clock) = start().await;
    let pusher = Pusher::new(&sandbox);
    for _ in 0..3 {
        assert_eq!(
            pusher.push(&pusher.headers, sealed(&pusher.browser, &alert())).await.status().as_u16(),
            201
        );
    }
    assert_eq!(sandbox.counters(Face::WebPush).provider_tokens, 1);
    clock.advance(43_200);
    let body = sealed(&pusher.browser, &alert());
    pusher.assert_refused(&pusher.headers, body, 403, "ExpiredJwtToken", "passed").await;
}

#[tokio::test]
async fn a_subscription_without_a_key_needs_no_credentials_and_may_have_another_host() {
    let (sandbox, _) = start().await;
    let mut pusher = Pusher::new(&sandbox);
    pusher.browser = sandbox.web_push().subscribe_at("push.example.test", None).unwrap();
    let body = || sealed(&pusher.browser, &alert());
    assert_eq!(pusher.push(&with(&pusher.headers, "authorization", ""), body()).await.status().as_u16(), 201);
    pusher.assert_refused(&pusher.headers, body(), 403, "BadJwtToken", "aud").await;
    let origin = sandbox.web_push().url().replace("localhost", "push.example.test");
    let headers = with(&pusher.headers, "authorization", &vapid(&pusher.signer, &claims(&origin)));
    assert_eq!(pusher.push(&headers, body()).await.status().as_u16(), 201);
}

#[tokio::test]
async fn each_state_of_a_subscription_has_its_answer() {
    let (sandbox, _) = start().await;
    let pusher = Pusher::new(&sandbox);
    let to = "http://169.254.169.254/".to_owned();
    for (state, status) in [
        (SubscriptionState::Gone, 410),
        (SubscriptionState::NotFound, 404),
        (SubscriptionState::TooLarge, 413),
        (SubscriptionState::Throttled { retry_after: Duration::from_secs(77) }, 429),
        (SubscriptionState::NoSubscriber, 507),
        (SubscriptionState::Redirect { to }, 307),
        (SubscriptionState::Ok, 201),
    ] {
        sandbox.web_push().set(&pusher.browser.endpoint, state.clone());
        let response = pusher.push(&pusher.headers, sealed(&pusher.browser, &alert())).await;
        assert_eq!(response.status().as_u16(), status);
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
        match state {
            SubscriptionState::Throttled { .. } => assert_eq!(header("retry-after"), Some("77")),
            SubscriptionState::Redirect { to } => assert_eq!(header("location"), Some(to.as_str())),
            _ => {}
        }
    }
    assert_eq!((sandbox.refusals().len(), sandbox.wrong_requests().len()), (6, 0));
}

#[tokio::test]
async fn a_wrong_method_or_endpoint_is_refused() {
    let (sandbox, _) = start().await;
    let pusher = Pusher::new(&sandbox);
    let request = pusher.http.request(Method::PUT, &pusher.browser.endpoint).headers(pusher.headers.clone());
    assert_eq!(request.send().await.unwrap().status().as_u16(), 405);
    assert_refused(&sandbox, 405, "MethodNotAllowed", "PUT");
    let url = format!("{}x", pusher.browser.endpoint);
    let request = pusher.http.post(url).headers(pusher.headers.clone());
    assert_eq!(request.send().await.unwrap().status().as_u16(), 404);
    assert_refused(&sandbox, 404, "NotFound", "never");
}
