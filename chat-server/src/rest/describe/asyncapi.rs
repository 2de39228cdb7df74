//! The description of the socket, as AsyncAPI 3.

use madang_proto::{CloseReason, Request, SUBPROTOCOL_JSON, ServerFrame};
use serde_json::{Map, Value, json};

use super::examples::{self, EXAMPLES};
use super::schemas::Schemas;

/// The frames that answer each client frame, besides `error`. A frame without any is not answered.
const ANSWERS: [(&str, &[&str]); 14] = [
    ("hello", &["welcome"]),
    ("send", &["ack"]),
    ("edit", &["changed"]),
    ("delete", &["changed"]),
    ("react", &["changed"]),
    ("typing", &[]),
    ("subscribe", &["heads"]),
    ("unsubscribe", &["done"]),
    ("read", &["done"]),
    ("history", &["history"]),
    ("heartbeat", &["heartbeat"]),
    ("received", &[]),
    ("presence", &["done"]),
    ("auth", &["done"]),
];
const SOCKET: &str = "#/channels/socket";

/// A frame and its schema.
struct Frame {
    kind: String,
    schema: Value,
}

/// Describes the socket.
pub(super) fn document() -> Value {
    let mut schemas = Schemas::for_asyncapi();
    schemas.taken::<Request>();
    schemas.answered::<ServerFrame<'static>>();
    let mut schemas = schemas.into_components();
    let mut client = frames(schemas.remove("Request"));
    client.iter_mut().for_each(require_id);
    let server = frames(schemas.remove("ServerFrame"));
    examples::illustrate(&mut schemas);
    let mut messages = Map::new();
    messages.extend(client.iter().map(|frame| (key("client", &frame.kind), message("client", frame))));
    messages.extend(server.iter().map(|frame| (key("server", &frame.kind), message("server", frame))));
    let in_channel: Map<String, Value> = messages
        .keys()
        .map(|key| (key.clone(), json!({ "$ref": format!("#/components/messages/{key}") })))
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Madang over WebSocket",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Live traffic, from the view of the server: it receives client frames and sends server \
             frames, one JSON object in each text frame. In a client frame, null means that a field is absent, a \
             field must not occur twice, unknown fields are ignored, and a frame with only unknown fields is \
             refused. Everything else is described in /v1/openapi.json.",
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "defaultContentType": "application/json",
        "channels": { "socket": channel(&in_channel) },
        "operations": operations(&client, &server),
        "components": { "messages": messages, "schemas": schemas },
    })
}

fn channel(messages: &Map<String, Value>) -> Value {
    let subprotocol = json!({ "type": "string", "const": SUBPROTOCOL_JSON });
    let close_codes: Vec<Value> = CloseReason::ALL
        .iter()
        .map(|reason| {
            let code = reason.code();
            json!({ "code": code, "meaning": reason.text(), "reconnect": CloseReason::may_reconnect(code) })
        })
        .collect();
    json!({
        "address": "/v1/ws",
        "messages": messages,
        "bindings": { "ws": {
            "method": "GET",
            "headers": {
                "type": "object",
                "properties": { "Sec-WebSocket-Protocol": subprotocol },
                "required": ["Sec-WebSocket-Protocol"],
            },
            "bindingVersion": "0.1.0",
        } },
        "x-subprotocol": SUBPROTOCOL_JSON,
        "x-close-codes": close_codes,
    })
}

/// The variants of a tagged enum, each with the members that all of them have.
fn frames(schema: Option<Value>) -> Vec<Frame> {
    let mut schema = schema.unwrap_or_default();
    let shared = schema["properties"].as_object().cloned().unwrap_or_default();
    let Value::Array(variants) = schema["oneOf"].take() else { return Vec::new() };
    let frame = |mut schema: Value| {
        let kind = schema["properties"]["type"]["const"].as_str()?.to_owned();
        schema["properties"].as_object_mut()?.extend(shared.clone());
        Some(Frame { kind, schema })
    };
    variants.into_iter().filter_map(frame).collect()
}

/// Makes `id` required in frames that are answered by their id. `welcome` also answers a `hello` without an id.
fn require_id(Frame { kind, schema }: &mut Frame) {
    let is_answered = ANSWERS.iter().any(|(asked, answers)| *asked == kind && !answers.is_empty());
    if is_answered
        && !matches!(kind.as_str(), "hello" | "heartbeat")
        && let Some(required) = schema["required"].as_array_mut()
    {
        required.push("id".into());
        schema["properties"]["id"] = json!({ "$ref": "#/components/schemas/RequestId" });
    }
}

fn message(side: &str, Frame { kind, schema }: &Frame) -> Value {
    let examples: Vec<Value> = EXAMPLES
        .iter()
        .filter(|example| example.marker == side && example.json["type"] == *kind)
        .map(|example| json!({ "payload": example.json }))
        .collect();
    let mut schema = schema.clone();
    let summary = schema.as_object_mut().and_then(|schema| schema.remove("description"));
    json!({ "name": kind, "summary": summary, "payload": schema, "examples": examples })
}

fn operations(client: &[Frame], server: &[Frame]) -> Map<String, Value> {
    let mut operations = Map::new();
    for Frame { kind, .. } in client {
        let mut operation = operation("receive", "client", kind);
        operation["reply"] = reply(kind);
        operations.insert(key("receive", kind), operation);
    }
    for Frame { kind, .. } in server {
        operations.insert(key("send", kind), operation("send", "server", kind));
    }
    operations
}

fn operation(action: &str, side: &str, kind: &str) -> Value {
    json!({ "action": action, "channel": { "$ref": SOCKET }, "messages": [in_socket(side, kind)] })
}

/// The frames that may answer a frame. Every frame may be refused.
fn reply(kind: &str) -> Value {
    let (_, answers) = ANSWERS.iter().find(|(asked, _)| *asked == kind).unwrap_or(&("", &[]));
    let messages: Vec<Value> =
        answers.iter().chain(&["error"]).map(|kind| in_socket("server", kind)).collect();
    json!({ "channel": { "$ref": SOCKET }, "messages": messages })
}

fn in_socket(side: &str, kind: &str) -> Value {
    json!({ "$ref": format!("{SOCKET}/messages/{}", key(side, kind)) })
}

fn key(side: &str, kind: &str) -> String {
    format!("{side}.{kind}")
}
