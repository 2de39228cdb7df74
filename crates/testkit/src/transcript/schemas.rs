//! Checks everything that the server sends in a transcript against the server's own descriptions: each frame against
//! `/v1/asyncapi.json`, each answer of REST against `/v1/openapi.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonschema::Validator;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::rest::Rest;

/// The descriptions do not depend on the configuration, so they are read once per process.
static SCHEMAS: OnceCell<Arc<Schemas>> = OnceCell::const_new();

/// Schemas of everything that the server sends.
pub(super) struct Schemas {
    /// By type of frame.
    frames: BTreeMap<String, Validator>,
    calls: Vec<Call>,
    error: Validator,
}

struct Call {
    method: String,
    /// The segments of the path; `None` for an id.
    path: Vec<Option<String>>,
    /// Schemas of the bodies by status; `None` if there is no body.
    answers: BTreeMap<u16, Option<Validator>>,
}

impl Schemas {
    /// The schemas of the server at `url`.
    pub(super) async fn of(url: &str) -> Result<Arc<Self>, String> {
        let read = || async {
            let rest = Rest::new(url);
            let [asyncapi, openapi] = ["/v1/asyncapi.json", "/v1/openapi.json"].map(|path| {
                let rest = rest.clone();
                async move {
                    let answer = rest.call("GET", path, None, None, None).await;
                    answer.map(|answer| answer.body).map_err(|error| format!("{path}: {error:#}"))
                }
            });
            Self::new(&asyncapi.await?, &openapi.await?).map(Arc::new)
        };
        SCHEMAS.get_or_try_init(read).await.cloned()
    }

    fn new(asyncapi: &Value, openapi: &Value) -> Result<Self, String> {
        let mut frames = BTreeMap::new();
        for (key, message) in members(&asyncapi["components"]["messages"]) {
            if let Some(kind) = key.strip_prefix("server.") {
                frames.insert(kind.to_owned(), draft7(asyncapi, &message["payload"])?);
            }
        }
        let mut calls = Vec::new();
        for (path, methods) in members(&openapi["paths"]) {
            for (method, operation) in members(methods) {
                calls.push(Call::new(openapi, path, method, operation)?);
            }
        }
        let error = json!({ "$ref": "#/components/schemas/ErrorBody" });
        Ok(Self { frames, calls, error: draft2020(openapi, &error)? })
    }

    /// Checks a frame of the server.
    pub(super) fn check_frame(&self, frame: &Value) -> Result<(), String> {
        let kind = frame["type"].as_str().unwrap_or_default();
        let validator = self.frames.get(kind).ok_or_else(|| format!("{kind:?} is not a described frame"))?;
        validator.validate(frame).map_err(|error| format!("{kind} violates its schema: {error}"))
    }

    /// Checks an answer of REST. A call that is not described must be refused, and every error must be an `ErrorBody`.
    pub(super) fn check_answer(
        &self,
        method: &str,
        path: &str,
        status: u16,
        body: &Value,
    ) -> Result<(), String> {
        let Some(call) = self.calls.iter().find(|call| call.is(method, path)) else {
            let is_refused = matches!(status, 404 | 405) && self.error.is_valid(body);
            return if is_refused { Ok(()) } else { Err(format!("{method} {path} is not described")) };
        };
        let answer = call.answers.get(&status);
        match answer.ok_or_else(|| format!("{method} {path}: {status} is not described"))? {
            Some(validator) => validator
                .validate(body)
                .map_err(|error| format!("{method} {path}: {status} violates its schema: {error}")),
            None if body.is_null() => Ok(()),
            None => Err(format!("{method} {path}: {status} has a body, and none is described")),
        }
    }
}

impl Call {
    fn new(openapi: &Value, path: &str, method: &str, operation: &Value) -> Result<Self, String> {
        let mut answers = BTreeMap::new();
        for (status, answer) in members(&operation["responses"]) {
            let reference = answer["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
            let found = reference.and_then(|pointer| openapi.pointer(pointer)).unwrap_or(answer);
            let schema = &found["content"]["application/json"]["schema"];
            let validator = if schema.is_null() { None } else { Some(draft2020(openapi, schema)?) };
            let status = status.parse().map_err(|_| format!("{status} of {path} is no status"))?;
            answers.insert(status, validator);
        }
        let parts = path.split('/').map(|part| (!part.starts_with('{')).then(|| part.to_owned()));
        Ok(Self { method: method.to_uppercase(), path: parts.collect(), answers })
    }

    fn is(&self, method: &str, path: &str) -> bool {
        let parts: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
        let fits = |(own, part): (&Option<String>, &&str)| own.as_deref().is_none_or(|own| own == *part);
        self.method == method && self.path.len() == parts.len() && self.path.iter().zip(&parts).all(fits)
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A schema of a document, together with the schemas that it refers to.
fn whole(document: &Value, schema: &Value) -> Value {
    json!({ "allOf": [schema], "components": document["components"] })
}

fn draft7(document: &Value, schema: &Value) -> Result<Validator, String> {
    jsonschema::draft7::new(&whole(document, schema)).map_err(|error| error.to_string())
}

fn draft2020(document: &Value, schema: &Value) -> Result<Validator, String> {
    jsonschema::draft202012::new(&whole(document, schema)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Storage, TestNode, manual_clock};

    async fn documents() -> (Value, Value) {
        let storage = Storage::model();
        let node = TestNode::start(Config::default(), &storage, manual_clock().0).await.unwrap();
        let rest = Rest::new(&node.url());
        let asyncapi = rest.must("GET", "/v1/asyncapi.json", None, None).await;
        let openapi = rest.must("GET", "/v1/openapi.json", None, None).await;
        node.stop().await.unwrap();
        (asyncapi, openapi)
    }

    #[tokio::test]
    async fn a_frame_with_one_wrong_member_is_found() {
        let (asyncapi, openapi) = documents().await;
        let schemas = Schemas::new(&asyncapi, &openapi).unwrap();
        let mut spoiled = 0;
        for (key, message) in members(&asyncapi["components"]["messages"]) {
            let of_server = key.starts_with("server.");
            for example in message["examples"].as_array().into_iter().flatten().filter(|_| of_server) {
                let frame = &example["payload"];
                schemas.check_frame(frame).unwrap();
                for name in frame.as_object().unwrap().keys() {
                    let mut wrong = frame.clone();
                    wrong[name] = json!({ "wrong": [] });
                    assert!(schemas.check_frame(&wrong).is_err(), "{wrong}");
                    spoiled += 1;
                }
            }
        }
        assert!(spoiled > 50, "{spoiled}");
        for frame in [json!({}), json!({ "type": "dance" }), json!([]), json!({ "type": "ack", "id": "1" })] {
            assert!(schemas.check_frame(&frame).is_err(), "{frame}");
        }
    }

    #[tokio::test]
    async fn an_answer_with_one_wrong_member_is_found() {
        let (asyncapi, openapi) = documents().await;
        let schemas = Schemas::new(&asyncapi, &openapi).unwrap();
        let me = json!({ "id": "7", "handle": "ada", "display_name": "Ada" });
        let refusal = json!({ "code": "not_found", "message": "no", "retryable": false });
        let check = |method: &str, path: &str, status: u16, body: &Value| {
            schemas.check_answer(method, path, status, body)
        };
        check("GET", "/v1/users/7", 200, &me).unwrap();
        check("GET", "/v1/users?handle=ada", 200, &me).unwrap();
        check("GET", "/v1/users/7", 404, &refusal).unwrap();
        check("DELETE", "/v1/blocks/7", 204, &Value::Null).unwrap();
        check("GET", "/v1/nothing", 404, &refusal).unwrap();
        check("PUT", "/v1/users/7", 405, &refusal).unwrap();
        let without_handle = json!({ "id": "7", "display_name": "Ada" });
        let wrong: [(&str, &str, u16, &Value); 8] = [
            ("GET", "/v1/users/7", 200, &without_handle),
            ("GET", "/v1/users/7", 200, &Value::Null),
            ("GET", "/v1/users/7", 404, &me),
            ("GET", "/v1/users/7", 418, &refusal),
            ("DELETE", "/v1/blocks/7", 204, &me),
            ("GET", "/v1/nothing", 200, &me),
            ("GET", "/v1/nothing", 404, &me),
            ("GET", "/v1/channels/7/members", 200, &me),
        ];
        for (method, path, status, body) in wrong {
            assert!(check(method, path, status, body).is_err(), "{method} {path} {status} {body}");
        }
    }
}
