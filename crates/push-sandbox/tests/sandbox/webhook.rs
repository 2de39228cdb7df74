//! Webhooks, right and wrong.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use madang_push_sandbox::{Face, Hook, Sandbox};
use serde_json::{Value, json};

use crate::client::{NOW_S, assert_refused, client, headers, read, start, with};

fn sign(hook: &Hook, id: &str, seconds: u64, body: &str) -> String {
    let key = STANDARD.decode(hook.secret.strip_prefix("whsec_").unwrap()).unwrap();
    let signed = format!("{id}.{seconds}.{body}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
    format!("v1,{}", STANDARD.encode(tag))
}

pub(crate) fn signed(hook: &Hook, seconds: u64, body: &str) -> HeaderMap {
    headers(&[
        ("content-type", "application/json"),
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", &seconds.to_string()),
        ("webhook-signature", &sign(hook, "msg_1", seconds, body)),
    ])
}

async fn post(sandbox: &Sandbox, url: &str, headers: &HeaderMap, body: &str) -> (u16, Value) {
    let request = client(sandbox).post(url).headers(headers.clone()).body(body.to_owned());
    read(request.send().await.unwrap()).await
}

fn alert() -> String {
    json!({ "kind": "alert", "channel": "7" }).to_string()
}

#[tokio::test]
async fn a_signed_webhook_is_taken() {
    let (sandbox, _) = start().await;
    let hook = sandbox.webhook().hook("bot").unwrap();
    assert_eq!(sandbox.webhook().hook("bot").unwrap(), hook);
    for seconds in [NOW_S - 300, NOW_S + 300] {
        assert_eq!(post(&sandbox, &hook.url, &signed(&hook, seconds, &alert()), &alert()).await.0, 204);
    }
    let both = format!("v1,AAAA {}", sign(&hook, "msg_1", NOW_S, "{}"));
    let rotated = with(&signed(&hook, NOW_S, "{}"), "webhook-signature", &both);
    assert_eq!(post(&sandbox, &hook.url, &rotated, "{}").await.0, 204);
    let notices = sandbox.notices();
    assert_eq!(
        (notices[0].face, notices[0].target.as_str(), notices[0].is_visible),
        (Face::Webhook, "bot", true)
    );
    assert_eq!((notices[0].id.as_deref(), &notices[0].payload["channel"]), (Some("msg_1"), &json!("7")));
    assert!(!notices[2].is_visible);
    assert_eq!(sandbox.refusals(), []);
}

#[tokio::test]
async fn each_wrong_webhook_is_refused_for_its_reason() {
    let (sandbox, _) = start().await;
    let hook = sandbox.webhook().hook("bot").unwrap();
    let other = sandbox.webhook().hook("other").unwrap();
    let good = signed(&hook, NOW_S, &alert());
    let unversioned = sign(&hook, "msg_1", NOW_S, &alert()).replace("v1,", "");
    let mut twice = good.clone();
    twice.append("webhook-id", "msg_2".parse().unwrap());
    for (headers, status, reason, detail) in [
        (with(&good, "webhook-id", ""), 400, "BadHeader", "webhook-id"),
        (with(&good, "webhook-timestamp", ""), 400, "BadHeader", "webhook-timestamp"),
        (with(&good, "webhook-signature", ""), 400, "BadHeader", "webhook-signature"),
        (twice, 400, "BadHeader", "webhook-id"),
        (with(&good, "webhook-timestamp", "now"), 400, "BadTimestamp", "number"),
        (signed(&hook, NOW_S - 301, &alert()), 400, "BadTimestamp", "five minutes"),
        (signed(&hook, NOW_S + 301, &alert()), 400, "BadTimestamp", "five minutes"),
        (with(&good, "webhook-id", "msg_2"), 401, "BadSignature", "this hook"),
        (with(&good, "webhook-timestamp", &(NOW_S + 1).to_string()), 401, "BadSignature", "this hook"),
        (with(&good, "webhook-signature", &unversioned), 401, "BadSignature", "this hook"),
        (signed(&other, NOW_S, &alert()), 401, "BadSignature", "this hook"),
        (signed(&hook, NOW_S, "{}"), 401, "BadSignature", "this hook"),
        (with(&good, "content-type", "text/plain"), 400, "BadContentType", "json"),
    ] {
        let (seen, body) = post(&sandbox, &hook.url, &headers, &alert()).await;
        assert_eq!((seen, &body["error"]), (status, &json!(reason)), "{headers:?}");
        assert_refused(&sandbox, status, reason, detail);
    }
    assert_eq!(post(&sandbox, &hook.url, &signed(&hook, NOW_S, "{"), "{").await.0, 400);
    assert_refused(&sandbox, 400, "BadBody", "JSON");
    assert_eq!(post(&sandbox, &format!("{}x", hook.url), &good, &alert()).await.0, 404);
    let long = "x".repeat(30_000);
    assert_eq!(post(&sandbox, &hook.url, &good, &long).await.0, 413);
    assert_eq!(sandbox.notices().len(), 0);
}

#[tokio::test]
async fn a_secret_of_the_sender_replaces_that_of_the_hook() {
    let (sandbox, _) = start().await;
    let old = sandbox.webhook().hook("bot").unwrap();
    let secret = format!("whsec_{}", STANDARD.encode([7; 32]));
    sandbox.webhook().set_secret("bot", &secret).unwrap();
    let new = Hook { url: old.url.clone(), secret };
    assert_eq!(post(&sandbox, &old.url, &signed(&old, NOW_S, "{}"), "{}").await.0, 401);
    assert_eq!(post(&sandbox, &new.url, &signed(&new, NOW_S, "{}"), "{}").await.0, 204);
    assert_eq!(sandbox.webhook().hook("bot").unwrap(), new);
    for wrong in ["AAAA", "whsec_!"] {
        assert!(sandbox.webhook().set_secret("bot", wrong).is_err(), "{wrong}");
    }
}
