//! The rule for JSON from outside, tried on every frame and every body that the descriptions name. The trials are made from the
//! examples of the protocol page, so a new frame or body is tried without a line here.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use madang_proto::Request;
use madang_proto::rest::OperatorScope;
use madang_testkit::{Answer, Config, Rest, Storage, TestNode, manual_clock};
use serde_json::{Map, Value, json};

/// A frame or a body: its schema and an example.
struct Subject {
    name: String,
    schema: Value,
    example: Map<String, Value>,
}

/// The outcome for a text.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// The text was read as a request. Whether the request succeeds does not matter.
    Read,
    /// The text is not a request. This is the field that the refusal names.
    Refused(String),
}

/// A text, and the field that its refusal must name. `None` if the text must be read.
struct Trial {
    text: String,
    blamed: Option<String>,
}

impl Trial {
    fn refused(text: impl Into<String>, blamed: &str) -> Self {
        Self { text: text.into(), blamed: Some(blamed.to_owned()) }
    }

    fn read(text: impl Into<String>) -> Self {
        Self { text: text.into(), blamed: None }
    }
}

fn text(members: &Map<String, Value>) -> String {
    Value::Object(members.clone()).to_string()
}

/// The members, with one of them replaced by a text.
fn with_member(members: &Map<String, Value>, name: &str, value: &str) -> String {
    let rest = members
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(name, value)| format!("{}:{value}", json!(name)));
    let all: Vec<String> = rest.chain([format!("{}:{value}", json!(name))]).collect();
    format!("{{{}}}", all.join(","))
}

impl Subject {
    fn is_required(&self, name: &str) -> bool {
        self.schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name))
    }

    fn trials(&self, whole: &str) -> Vec<Trial> {
        let values = Value::Array(self.example.values().cloned().collect());
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let mut trials = vec![
            Trial::read(text(&self.example)),
            Trial::refused(values.to_string(), whole),
            Trial::refused("null", whole),
            Trial::refused(format!("{} x", text(&self.example)), whole),
            Trial::read(with_member(&self.example, "not_known_here", &nested(63))),
            Trial::refused(with_member(&self.example, "not_known_here", &nested(5_000)), whole),
        ];
        for (name, schema) in self.schema["properties"].as_object().unwrap() {
            // The envelope of frames is tested elsewhere.
            if matches!(name.as_str(), "type" | "id") {
                continue;
            }
            let null = with_member(&self.example, name, "null");
            trials.push(if self.is_required(name) { Trial::refused(null, name) } else { Trial::read(null) });
            let Some(value) = self.example.get(name) else { continue };
            let twice = format!("{{{}:{value},{}", json!(name), &text(&self.example)[1..]);
            trials.push(Trial::refused(twice, name));
            if value.is_object() && schema.get("additionalProperties").is_none() {
                trials.push(Trial::refused(with_member(&self.example, name, "[]"), name));
                let unknown = with_member(&self.example, name, r#"{"not_known_here":1}"#);
                trials.push(Trial::refused(unknown, &format!("{name}.not_known_here")));
            }
            if value.is_u64() {
                trials.push(Trial::read(with_member(&self.example, name, &format!("{value}.0"))));
                trials.push(Trial::refused(with_member(&self.example, name, &format!("{value}.5")), name));
                trials.push(Trial::refused(with_member(&self.example, name, &format!("\"{value}\"")), name));
            }
            if value.is_string() {
                trials.push(Trial::refused(with_member(&self.example, name, r#""a\ud83d""#), name));
                trials.push(Trial::refused(with_member(&self.example, name, "[\"a\"]"), name));
            }
        }
        trials
    }

    /// A request without any known field, except the envelope of a frame.
    fn unknown_alone(&self, envelope: &[&str]) -> Trial {
        let mut members: Map<String, Value> = self
            .example
            .iter()
            .filter(|(name, _)| envelope.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        members.insert("not_known_here".into(), json!(1));
        Trial::refused(text(&members), "not_known_here")
    }
}

async fn described() -> (TestNode, Rest, Value, Value) {
    let (clock, _manual) = manual_clock();
    let mut config = Config::default();
    config.limits.enabled = false;
    let node = TestNode::start(config, &Storage::model(), clock).await.unwrap();
    let rest = Rest::new(&node.url());
    let openapi = rest.must("GET", "/v1/openapi.json", None, None).await;
    let asyncapi = rest.must("GET", "/v1/asyncapi.json", None, None).await;
    (node, rest, openapi, asyncapi)
}

#[tokio::test]
async fn every_frame_follows_the_rule() {
    let (node, _, _, asyncapi) = described().await;
    let mut count = 0;
    for (key, message) in asyncapi["components"]["messages"].as_object().unwrap() {
        let Some(kind) = key.strip_prefix("client.") else { continue };
        for example in message["examples"].as_array().unwrap() {
            let example = example["payload"].as_object().unwrap().clone();
            let subject = Subject { name: kind.to_owned(), schema: message["payload"].clone(), example };
            let mut trials = subject.trials("frame");
            // `heartbeat` has no fields, and `history` reports its missing channel first.
            if !matches!(kind, "heartbeat" | "history") {
                trials.push(subject.unknown_alone(&["type", "id"]));
            }
            count += trials.len();
            for Trial { text, blamed } in trials {
                let refused =
                    Request::parse(&text).err().map(|refused| refused.error.field.unwrap_or_default());
                assert_eq!(refused, blamed, "{}: {text:.300}", subject.name);
            }
        }
    }
    assert!(count > 150, "only {count} trials");
    node.stop().await.unwrap();
}

/// A refusal by the rule names `blamed`. Any other answer means that the request was read.
fn verdict(answer: &Answer, blamed: &str) -> Verdict {
    match (&answer.body["code"], &answer.body["field"]) {
        (Value::String(code), Value::String(field))
            if code == "invalid" && (field == blamed || blamed.is_empty()) =>
        {
            Verdict::Refused(field.clone())
        }
        _ => Verdict::Read,
    }
}

#[tokio::test]
async fn every_body_follows_the_rule() {
    let (node, rest, openapi, _) = described().await;
    // Not the password of the examples, which would delete the account.
    let ada = json!({ "handle": "ada", "display_name": "Ada", "password": "another horse" });
    let ada = rest.must("POST", "/v1/accounts", None, Some(&ada)).await;
    let user = ada["access_token"].as_str().unwrap();
    let secret = node.node.gateway.operations.operators.add("op", OperatorScope::Act).await.unwrap();
    let sign_in = json!({ "name": "op", "secret": secret.reveal() });
    let operator = rest.must("POST", "/v1/operator/token", None, Some(&sign_in)).await;
    let operator = operator["token"].as_str().unwrap();
    let mut count = 0;
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(name) =
                operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()
            else {
                continue;
            };
            let name = name.rsplit('/').next().unwrap().to_owned();
            let schema = openapi["components"]["schemas"][&name].clone();
            let example =
                schema["examples"][0].as_object().unwrap_or_else(|| panic!("{name} has no example")).clone();
            let subject = Subject { name, schema, example };
            let path: String = path
                .split('/')
                .map(|part| if part.starts_with('{') { "/7".into() } else { format!("/{part}") })
                .collect();
            let path = path.trim_start_matches('/');
            let token = if path.starts_with("v1/operator/") { operator } else { user };
            let mut trials = subject.trials("body");
            // A subscription reports its missing provider first, which decides the fields that are known.
            if subject.name != "PushRegistration" {
                trials.push(subject.unknown_alone(&[]));
            }
            count += trials.len();
            for Trial { text, blamed } in trials {
                // These calls compute slow hashes, which have nothing to do with JSON.
                if blamed.is_none() && matches!(subject.name.as_str(), "SignUp" | "Login") {
                    continue;
                }
                let answer =
                    rest.send_text(&method.to_uppercase(), &format!("/{path}"), Some(token), &text).await;
                let expected = blamed.clone().map_or(Verdict::Read, Verdict::Refused);
                let found = verdict(&answer, blamed.as_deref().unwrap_or("body"));
                assert_eq!(found, expected, "{method} {path}, {}: {text:.300}: {answer:?}", subject.name);
            }
        }
    }
    assert!(count > 150, "only {count} trials");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_without_any_known_field_is_refused() {
    let (node, rest, ..) = described().await;
    let ada = json!({ "handle": "ada", "display_name": "Ada", "password": "correct horse" });
    let ada = rest.must("POST", "/v1/accounts", None, Some(&ada)).await;
    let token = ada["access_token"].as_str();
    let call = async |method: &str, path: &str, text: &str| {
        let answer = rest.send_text(method, path, token, text).await;
        (answer.status, answer.body["field"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(call("PATCH", "/v1/me", r#"{"password":"better horse"}"#).await, (400, "password".into()));
    assert_eq!(call("PATCH", "/v1/me", r#"{"password":"x","display_name":"Ada L."}"#).await.0, 200);
    assert_eq!(call("PATCH", "/v1/me", "{}").await.0, 200);
    assert_eq!(call("GET", "/v1/channels?lmit=5", "").await, (400, "lmit".into()));
    assert_eq!(call("GET", "/v1/channels?lmit=5&limit=5", "").await.0, 200);
    assert_eq!(call("PATCH", "/v1/me", "{\"display_name\":\"\u{ac00}\u{0}\"}").await.1, "body");
    node.stop().await.unwrap();
}
