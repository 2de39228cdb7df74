//! The description of REST, as OpenAPI 3.1.

use std::collections::{BTreeMap, BTreeSet};

use madang_proto::{ErrorBody, ErrorCode};
use serde_json::{Map, Value, json};

use super::examples;
use super::routes::{Operation, Routes};
use super::schemas::Schemas;
use super::signature::Signature;

/// Refusals of every call.
const ALWAYS: [ErrorCode; 3] = [ErrorCode::Limited, ErrorCode::Unavailable, ErrorCode::Internal];
const OPERATORS: &str = "operators";
const REQUEST_ID: &str = "X-Request-Id";
const BEARER: &str = "access_token";

/// Describes routes.
pub(super) fn document(routes: &Routes) -> Value {
    let mut schemas = Schemas::for_openapi();
    let mut responses = Responses { body: schemas.answered::<ErrorBody>(), named: Map::new() };
    let mut paths = Map::new();
    for operation in &routes.operations {
        let path = paths.entry(format!("/v1{}", operation.route.path)).or_insert_with(|| json!({}));
        let method = operation.route.method.to_ascii_lowercase();
        path[method] = describe(operation, &mut schemas, &mut responses);
    }
    paths.extend(for_operators());
    let mut schemas = schemas.into_components();
    examples::illustrate(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Madang over REST",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Everything that is not live traffic. In a body, null means that a field is absent, a \
             field must not occur twice, unknown fields are ignored, and a body or query with only unknown fields \
             is refused. The socket is described in /v1/asyncapi.json. Every path answers 405 with `Allow` to a \
             method that it does not support, 415 to a body in another charset or coding, and 400 to a request \
             that violates HTTP; each answer has `X-Request-Id`.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags(routes),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses.named,
            "securitySchemes": { BEARER: { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
        },
    })
}

/// The paths outside of `/v1`, which need no token.
fn for_operators() -> Map<String, Value> {
    let answer = |description: &str, kind: &str, schema: Value| {
        let headers = json!({ REQUEST_ID: request_id() });
        json!({ "description": description, "headers": headers, "content": { kind: { "schema": schema } } })
    };
    let call = |name: &str, summary: &str, responses: Value| {
        let id = format!("operators_{name}");
        let get = json!({
            "operationId": id, "summary": summary, "tags": [OPERATORS], "parameters": [],
            "responses": responses, "security": [],
        });
        (format!("/{name}"), json!({ "get": get }))
    };
    let text = || json!({ "type": "string" });
    let readiness = || {
        let reasons = json!({ "type": "object", "additionalProperties": { "type": "string" } });
        json!({
            "type": "object",
            "required": ["ready", "reasons"],
            "properties": {
                "ready": { "type": "boolean" },
                "reasons": reasons,
                "shed_level": { "type": "integer", "minimum": 0, "maximum": 7 },
            },
        })
    };
    let ready = answer("It accepts work.", "application/json", readiness());
    let not_ready =
        answer("It does not: the names of the parts that do not work.", "application/json", readiness());
    let paths = [
        call(
            "healthz",
            "Whether the process is alive.",
            json!({ "200": answer("It is alive.", "text/plain", text()) }),
        ),
        call("readyz", "Whether the process accepts work.", json!({ "200": ready, "503": not_ready })),
        call(
            "metrics",
            "Metrics in the text format of OpenMetrics.",
            json!({
                "200": answer("All metrics.", madang_service::METRICS_CONTENT_TYPE, text()),
            }),
        ),
    ];
    paths.into_iter().collect()
}

fn tags(routes: &Routes) -> Value {
    let of_routes = routes.operations.iter().map(|operation| operation.route.tag);
    let tags: BTreeSet<&str> = of_routes.chain([OPERATORS]).collect();
    tags.into_iter().map(|name| json!({ "name": name })).collect()
}

fn describe(operation: &Operation, schemas: &mut Schemas, responses: &mut Responses) -> Value {
    let (route, signature) = (&operation.route, (operation.signature)(schemas));
    let mut answers = Map::new();
    for (status, codes) in refusals(route.refusals, &signature) {
        answers.insert(status.to_string(), responses.refer(&codes));
    }
    let mut success =
        json!({ "description": if signature.answer.is_some() { "Done." } else { "Done; no body." } });
    if let Some(schema) = signature.answer {
        success["content"] = if signature.is_lines { lines(&schema) } else { content(&schema) };
    }
    success["headers"] = json!({ REQUEST_ID: request_id() });
    answers.insert(signature.status.to_string(), success);
    let mut parameters = ids(route.path, signature.ids);
    parameters.extend(signature.parameters);
    let mut described = json!({
        "operationId": route.id,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": parameters,
        "responses": answers,
        "security": if signature.wants_token { json!([{ BEARER: [] }]) } else { json!([]) },
    });
    if let Some(schema) = signature.body {
        described["requestBody"] = json!({ "required": true, "content": content(&schema) });
    }
    described
}

/// The ids in a path, with the names that the path gives them.
fn ids(path: &str, schemas: Vec<Value>) -> Vec<Value> {
    let names = path.split(['{', '}']).skip(1).step_by(2);
    names
        .zip(schemas)
        .map(|(name, schema)| json!({ "name": name, "in": "path", "required": true, "schema": schema }))
        .collect()
}

/// The refusals of a call, by their status.
fn refusals(own: &[ErrorCode], signature: &Signature) -> BTreeMap<u16, Vec<ErrorCode>> {
    let Signature { wants_token, ids, parameters, body, .. } = signature;
    let mut all: Vec<ErrorCode> = own.iter().copied().chain(ALWAYS).collect();
    if *wants_token {
        all.extend([ErrorCode::Unauthorized, ErrorCode::Revoked]);
    }
    if body.is_some() {
        all.push(ErrorCode::TooLarge);
    }
    if body.is_some() || !ids.is_empty() || !parameters.is_empty() {
        all.push(ErrorCode::Invalid);
    }
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in all {
        by_status.entry(code.http_status()).or_default().push(code);
    }
    by_status
}

/// Refusals, with each set of codes written once.
struct Responses {
    body: Value,
    named: Map<String, Value>,
}

impl Responses {
    fn refer(&mut self, codes: &[ErrorCode]) -> Value {
        let mut names: Vec<String> = codes.iter().map(name).collect();
        names.sort_unstable();
        let (key, said) = (names.join("_or_"), names.join("` or `"));
        let mut response = json!({
            "description": format!("`{said}`"),
            "content": content(&self.body),
            "headers": { REQUEST_ID: request_id() },
        });
        if codes.iter().any(|code| matches!(code, ErrorCode::Limited | ErrorCode::Unavailable)) {
            let wait = json!({ "description": "Seconds to wait.", "schema": { "type": "integer" } });
            response["headers"]["Retry-After"] = wait;
        }
        self.named.entry(key.clone()).or_insert(response);
        json!({ "$ref": format!("#/components/responses/{key}") })
    }
}

fn name(code: &ErrorCode) -> String {
    serde_json::to_value(code).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn request_id() -> Value {
    json!({ "description": "The id of the request in the log of the server.", "schema": { "type": "string" } })
}

fn content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

/// The schema of each line.
fn lines(schema: &Value) -> Value {
    json!({ "application/x-ndjson": { "schema": schema } })
}
