//! Access tokens and messages of FCM, right and wrong.

use madang_push_sandbox::{Face, FcmToken, Sandbox};
use reqwest::Client;
use serde_json::{Value, json};

use crate::client::{NOW_S, Signer, assert_refused, client, read, start};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A server that sends to FCM.
struct Sender<'a> {
    sandbox: &'a Sandbox,
    http: Client,
    account: Value,
    signer: Signer,
}

impl<'a> Sender<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        let account: Value = serde_json::from_str(&sandbox.fcm().service_account_json()).unwrap();
        let signer = Signer::rsa_of(account["private_key"].as_str().unwrap());
        Self { sandbox, http: client(sandbox), account, signer }
    }

    fn header(&self) -> Value {
        json!({ "alg": "RS256", "typ": "JWT", "kid": self.account["private_key_id"] })
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.account["client_email"], "aud": self.account["token_uri"],
            "scope": "https://www.googleapis.com/auth/firebase.messaging", "iat": NOW_S, "exp": NOW_S + 3_600,
        })
    }

    async fn grant(&self, fields: &[(&str, &str)]) -> (u16, Value) {
        let url = self.account["token_uri"].as_str().unwrap();
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let request = self.http.post(url).header("content-type", "application/x-www-form-urlencoded");
        read(request.body(form.finish()).send().await.unwrap()).await
    }

    async fn grant_for(&self, signer: &Signer, header: &Value, claims: &Value) -> (u16, Value) {
        self.grant(&[("grant_type", GRANT_TYPE), ("assertion", &signer.jwt(header, claims))]).await
    }

    async fn access_token(&self) -> String {
        let (status, body) = self.grant_for(&self.signer, &self.header(), &self.claims()).await;
        assert_eq!(
            (status, &body["expires_in"], &body["token_type"]),
            (200, &json!(3_599), &json!("Bearer"))
        );
        body["access_token"].as_str().unwrap().to_owned()
    }

    async fn send(&self, token: &str, message: &Value) -> (u16, Value) {
        let path = format!("/v1/projects/{}/messages:send", self.sandbox.fcm().project());
        self.post(&path, &format!("Bearer {token}"), &json!({ "message": message })).await
    }

    async fn post(&self, path: &str, authorization: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.sandbox.fcm().url());
        let mut request = self.http.post(url).json(body);
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        read(request.send().await.unwrap()).await
    }
}

fn alert() -> Value {
    json!({ "token": "device", "data": { "kind": "alert", "title": "Ada" }, "android": { "priority": "HIGH", "ttl": "3600s" } })
}

/// The code of an error, in its details.
fn code(body: &Value) -> &Value {
    let details = body["error"]["details"].as_array().unwrap();
    let kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
    details.iter().find(|detail| detail["@type"] == kind).map_or(&Value::Null, |detail| &detail["errorCode"])
}

#[tokio::test]
async fn a_message_is_taken_with_an_access_token() {
    let (sandbox, _) = start().await;
    let sender = Sender::new(&sandbox);
    let token = sender.access_token().await;
    let (status, body) = sender.send(&token, &alert()).await;
    assert_eq!(status, 200);
    assert!(body["name"].as_str().unwrap().starts_with("projects/madang-sandbox/messages/"));
    let [notice] = &sandbox.notices()[..] else { panic!("{:?}", sandbox.notices()) };
    assert_eq!((notice.face, notice.target.as_str(), notice.is_visible), (Face::Fcm, "device", true));
    assert_eq!((notice.priority.as_deref(), notice.ttl_s), (Some("HIGH"), Some(3_600)));
    assert_eq!((notice.payload.clone(), notice.is_high_without_alert), (alert(), false));
    assert_eq!(sandbox.refusals(), []);
    assert_eq!((sandbox.counters(Face::FcmGrant).requests, sandbox.counters(Face::Fcm).requests), (1, 1));
    assert_eq!(sandbox.counters(Face::Fcm).connections, 1);
}

#[tokio::test]
async fn messages_are_seen_or_not_and_collapse_or_not() {
    let (sandbox, _) = start().await;
    let sender = Sender::new(&sandbox);
    let token = sender.access_token().await;
    let silent = json!({ "token": "a", "data": { "kind": "read" }, "android": { "priority": "HIGH" } });
    let quiet = json!({ "token": "a", "data": { "kind": "read" } });
    let shown = json!({ "token": "a", "android": { "collapse_key": "k", "notification": { "tag": "c7" } } });
    for message in [&silent, &quiet, &shown] {
        assert_eq!(sender.send(&token, message).await.0, 200);
    }
    let dry = json!({ "message": silent, "validate_only": true });
    let path = "/v1/projects/madang-sandbox/messages:send";
    assert_eq!(sender.post(path, &format!("Bearer {token}"), &dry).await.0, 200);
    let notices = sandbox.notices();
    let seen: Vec<_> =
        notices.iter().map(|notice| (notice.is_visible, notice.is_high_without_alert)).collect();
    assert_eq!(seen, [(false, true), (false, false), (true, false)]);
    assert_eq!((notices[1].priority.as_deref(), notices[1].ttl_s), (Some("NORMAL"), Some(2_419_200)));
    assert_eq!((notices[2].collapse_key.as_deref(), notices[2].replaces.as_deref()), (Some("k"), Some("c7")));
}

#[tokio::test]
async fn each_wrong_assertion_is_refused_for_its_reason() {
    let (sandbox, _) = start().await;
    let sender = Sender::new(&sandbox);
    let (header, claims) = (sender.header(), sender.claims());
    let other = |part: &Value, name: &str, value: Value| {
        let mut part = part.clone();
        part[name] = value;
        part
    };
    for (header, claims, error, detail) in [
        (other(&header, "alg", json!("ES256")), claims.clone(), "invalid_grant", "alg"),
        (other(&header, "kid", json!("x")), claims.clone(), "invalid_grant", "kid"),
        (header.clone(), other(&claims, "iss", json!("x@y")), "invalid_grant", "iss"),
        (
            header.clone(),
            other(&claims, "aud", json!("https://oauth2.googleapis.com/token")),
            "invalid_grant",
            "aud",
        ),
        (header.clone(), other(&claims, "scope", json!("email")), "invalid_scope", "scope"),
        (header.clone(), other(&claims, "exp", json!(NOW_S + 3_601)), "invalid_grant", "hour"),
        (header.clone(), other(&claims, "exp", json!(NOW_S)), "invalid_grant", "passed"),
        (header.clone(), other(&claims, "iat", json!(NOW_S.to_string())), "invalid_grant", "iat"),
        (header.clone(), other(&claims, "iat", json!(NOW_S + 61)), "invalid_grant", "future"),
    ] {
        let (status, body) = sender.grant_for(&sender.signer, &header, &claims).await;
        assert_eq!((status, &body["error"]), (400, &json!(error)), "{detail}");
        assert_refused(&sandbox, 400, error, detail);
    }
    let mut foreign = sender.signer.jwt(&header, &claims);
    foreign.replace_range(foreign.len() - 9..foreign.len() - 5, "AAAA");
    for (fields, error, detail) in [
        (vec![("grant_type", GRANT_TYPE), ("assertion", foreign.as_str())], "invalid_grant", "Signature"),
        (vec![("grant_type", GRANT_TYPE), ("assertion", "x")], "invalid_grant", "not a JWT"),
        (vec![("grant_type", GRANT_TYPE)], "invalid_request", "assertion"),
        (vec![("assertion", foreign.as_str())], "invalid_request", "grant_type"),
        (vec![("grant_type", "password")], "unsupported_grant_type", "RFC 7523"),
    ] {
        assert_eq!(sender.grant(&fields).await.0, 400);
        assert_refused(&sandbox, 400, error, detail);
        assert_eq!(sandbox.refusals().last().unwrap().face, Face::FcmGrant);
    }
}

#[tokio::test]
async fn an_access_token_must_be_known_and_not_expired() {
    let (sandbox, clock) = start().await;
    let sender = Sender::new(&sandbox);
    let token = sender.access_token().await;
    let path = "/v1/projects/madang-sandbox/messages:send";
    let body = json!({ "message": alert() });
    for (authorization, detail) in
        [("", "no access token"), ("Bearer x", "unknown"), (&format!("bearer {token}"), "not `Bearer")]
    {
        let (status, body) = sender.post(path, authorization, &body).await;
        assert_eq!((status, &body["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
        assert_eq!(code(&body), &Value::Null);
        assert_refused(&sandbox, 401, "UNAUTHENTICATED", detail);
    }
    clock.advance(3_598);
    assert_eq!(sender.send(&token, &alert()).await.0, 200);
    clock.advance(1);
    assert_eq!(sender.send(&token, &alert()).await.0, 401);
    assert_refused(&sandbox, 401, "UNAUTHENTICATED", "expired");
    let mut claims = sender.claims();
    (claims["iat"], claims["exp"]) = (json!(clock.seconds()), json!(clock.seconds() + 60));
    let (_, granted) = sender.grant_for(&sender.signer, &sender.header(), &claims).await;
    let renewed = granted["access_token"].as_str().unwrap();
    assert_eq!(sender.send(renewed, &alert()).await.0, 200);
    sandbox.fcm().expire_access_tokens();
    assert_eq!(sender.send(renewed, &alert()).await.0, 401);
}

#[tokio::test]
async fn each_wrong_message_is_refused_for_its_reason() {
    let (sandbox, _) = start().await;
    let sender = Sender::new(&sandbox);
    let token = sender.access_token().await;
    let data = |data: Value| json!({ "token": "a", "data": data });
    let android = |android: Value| json!({ "token": "a", "android": android });
    let fits = json!({ "k": "x".repeat(4_095) });
    for (message, detail) in [
        (json!({ "data": {} }), "Recipient"),
        (json!({ "topic": "x" }), "Unknown name \"topic\""),
        (json!({ "token": "a", "priority": "HIGH" }), "Unknown name \"priority\" at 'message'"),
        (android(json!({ "time_to_live": "1s" })), "at 'message.android'"),
        (data(json!({ "seq": 7 })), "`seq` is not a string"),
        (data(json!({ "from": "x" })), "from"),
        (data(json!({ "message_type": "x" })), "message_type"),
        (data(json!({ "google.x": "x" })), "google.x"),
        (data(json!({ "gcm_x": "x" })), "gcm_x"),
        (data(json!({ "k": "x".repeat(4_096) })), "4097 bytes"),
        (data(json!("x")), "not an object"),
        (android(json!({ "priority": "high" })), "HIGH or NORMAL"),
        (android(json!({ "priority": 10 })), "HIGH or NORMAL"),
        (android(json!({ "ttl": "2419201s" })), "four weeks"),
        (android(json!({ "ttl": 3_600 })), "\"3600s\""),
        (android(json!({ "ttl": "3600" })), "\"3600s\""),
        (android(json!({ "ttl": "-1s" })), "number"),
        (android(json!({ "collapse_key": 7 })), "not a string"),
    ] {
        let (status, body) = sender.send(&token, &message).await;
        assert_eq!((status, code(&body)), (400, &json!("INVALID_ARGUMENT")), "{message}");
        assert_refused(&sandbox, 400, "INVALID_ARGUMENT", detail);
    }
    assert_eq!(sandbox.notices().len(), 0);
    assert_eq!(sender.send(&token, &data(fits)).await.0, 200);
    assert_eq!(sender.send(&token, &android(json!({ "ttl": "2419200.5s" }))).await.0, 200);
}

#[tokio::test]
async fn each_wrong_path_or_media_type_is_refused_for_its_reason() {
    let (sandbox, _) = start().await;
    let sender = Sender::new(&sandbox);
    let bearer = format!("Bearer {}", sender.access_token().await);
    let body = json!({ "message": alert() });
    for (path, status, reason) in [
        ("/fcm/send", 404, "NOT_FOUND"),
        ("/v1/projects/other/messages:send", 403, "PERMISSION_DENIED"),
        ("/v1/projects/madang-sandbox/messages", 404, "NOT_FOUND"),
    ] {
        let (seen, body) = sender.post(path, &bearer, &body).await;
        assert_eq!((seen, &body["error"]["status"]), (status, &json!(reason)));
        assert_refused(&sandbox, status, reason, "");
    }
    let url = format!("{}/v1/projects/madang-sandbox/messages:send", sandbox.fcm().url());
    let text = sender.http.post(&url).header("authorization", &bearer).body(body.to_string());
    assert_eq!(text.send().await.unwrap().status().as_u16(), 400);
    assert_refused(&sandbox, 400, "INVALID_ARGUMENT", "content-type");
    assert_eq!(sender.http.get(&url).send().await.unwrap().status().as_u16(), 404);
}

#[tokio::test]
async fn each_state_of_a_registration_token_has_its_answer() {
    let (sandbox, _) = start().await;
    let sender = Sender::new(&sandbox);
    let token = sender.access_token().await;
    for (state, status, reason, coarse) in [
        (FcmToken::Unregistered, 404, "UNREGISTERED", "NOT_FOUND"),
        (FcmToken::OtherSender, 403, "SENDER_ID_MISMATCH", "PERMISSION_DENIED"),
        (FcmToken::Malformed, 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ] {
        sandbox.fcm().set_token("device", state);
        let (seen, body) = sender.send(&token, &alert()).await;
        assert_eq!((seen, code(&body), &body["error"]["status"]), (status, &json!(reason), &json!(coarse)));
        if state == FcmToken::Malformed {
            assert_eq!(body["error"]["details"][1]["fieldViolations"][0]["field"], "message.token");
        }
    }
    sandbox.fcm().set_token("device", FcmToken::Ok);
    assert_eq!(sender.send(&token, &alert()).await.0, 200);
    assert_eq!((sandbox.refusals().len(), sandbox.wrong_requests().len()), (3, 0));
}

#[tokio::test]
async fn a_burst_of_collapsible_messages_meets_the_quota() {
    let (sandbox, clock) = start().await;
    let sender = Sender::new(&sandbox);
    let token = sender.access_token().await;
    let keyed = |key: &str| json!({ "token": "device", "android": { "collapse_key": key } });
    for _ in 0..20 {
        assert_eq!(sender.send(&token, &keyed("a")).await.0, 200);
    }
    let (status, body) = sender.send(&token, &keyed("a")).await;
    assert_eq!(
        (status, code(&body), &body["error"]["status"]),
        (429, &json!("QUOTA_EXCEEDED"), &json!("RESOURCE_EXHAUSTED"))
    );
    assert_refused(&sandbox, 429, "QUOTA_EXCEEDED", "20 collapsible");
    assert_eq!(sender.send(&token, &alert()).await.0, 200, "data without a key is not limited");
    clock.advance(3 * 180);
    for key in ["b", "c", "d"] {
        assert_eq!(sender.send(&token, &keyed(key)).await.0, 200);
    }
    clock.advance(180);
    assert_eq!(sender.send(&token, &keyed("e")).await.0, 429);
    assert_refused(&sandbox, 429, "QUOTA_EXCEEDED", "fifth");
}
