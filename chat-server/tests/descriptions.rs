//! The descriptions are correct: `/v1/openapi.json`, `/v1/asyncapi.json` and `/docs`, compared with the types of the wire and
//! `docs/protocol.md`.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jsonschema::{Draft, Validator};
use madang_proto::{CloseReason, KINDS, Request, SUBPROTOCOL_JSON};
use madang_testkit::{Config, Rest, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

/// Both pages that describe calls.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    [include_str!("../../docs/protocol.md"), include_str!("../../docs/operators.md")].concat()
});

async fn served(paths: &[&str]) -> Vec<Value> {
    let (clock, _manual) = manual_clock();
    let storage = Storage::model();
    let node = TestNode::start(Config::default(), &storage, clock).await.unwrap();
    let rest = Rest::new(&node.url());
    let mut bodies = Vec::new();
    for path in paths {
        bodies.push(rest.must("GET", path, None, None).await);
    }
    node.stop().await.unwrap();
    bodies
}

async fn openapi() -> Value {
    served(&["/v1/openapi.json"]).await.remove(0)
}

async fn asyncapi() -> Value {
    served(&["/v1/asyncapi.json"]).await.remove(0)
}

/// A validator for a schema of a document, with the schemas that it refers to.
fn validator(document: &Value, schema: &Value, draft: Draft) -> Validator {
    let schema = json!({ "allOf": [schema], "components": document["components"] });
    jsonschema::options().with_draft(draft).should_validate_formats(false).build(&schema).unwrap()
}

/// All references within a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                found.insert(reference.clone());
            }
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn examples(wanted: &[&str]) -> Vec<(&'static str, Value)> {
    let blocks = PAGE.split("\n```").filter_map(|block| block.strip_prefix("json ")?.split_once('\n'));
    let blocks = blocks.filter(|(marker, _)| wanted.contains(marker));
    blocks.map(|(marker, text)| (marker, serde_json::from_str(text).unwrap())).collect()
}

#[tokio::test]
async fn references_resolve_and_names_are_unique() {
    let documents = served(&["/v1/openapi.json", "/v1/asyncapi.json"]).await;
    for document in &documents {
        let mut found = BTreeSet::new();
        references(document, &mut found);
        assert!(found.len() > 10, "only {} references", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }
    let mut ids = BTreeSet::new();
    for (path, methods) in documents[0]["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap()),
                "{} twice",
                operation["operationId"]
            );
            let in_path = |one: &&Value| one["in"] == "path";
            let described = operation["parameters"].as_array().unwrap().iter().filter(in_path).count();
            assert_eq!(described, path.matches('{').count(), "ids of {path}");
        }
    }
}

/// A row of a table of calls: method and path without the names of ids, the body, the status, the answer.
type Call = (String, Option<String>, u16, Option<String>);

/// `/v1/users/{id}?x=1` → `/v1/users/{}`
fn without_names(path: &str) -> String {
    let path = path.split('?').next().unwrap();
    path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect::<Vec<_>>().join("/")
}

/// The calls of the page's table, such as ``| `PUT /v1/x/{id}` | `Body` → 200 page of `Row` | … |``.
fn calls_of_page() -> BTreeSet<Call> {
    let rows = PAGE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let (method, path) = cells.next()?.strip_suffix('`')?.split_once(' ')?;
        let (body, answer) = cells.next()?.split_once("→ ")?;
        path.starts_with("/v1/").then_some(())?;
        let (status, answer) = answer.split_once(' ').unwrap_or((answer, ""));
        let (kind, name) = answer.split_once('`').unwrap_or((answer, ""));
        let name = name.trim_end_matches(['`', ' ']);
        let answer = match kind {
            "" if name.is_empty() => None,
            "" => Some(name.to_owned()),
            "page of " => Some(format!("Page_{name}")),
            "list of " => Some(format!("List_{name}")),
            "lines of " => Some(format!("Lines_{name}")),
            other => panic!("{other} in {line}"),
        };
        let body = Some(body.trim().trim_matches('`').to_owned()).filter(|body| !body.is_empty());
        let status = status.trim_end_matches([' ', '|']).parse().unwrap();
        Some((format!("{method} {}", without_names(path)), body, status, answer))
    });
    rows.collect()
}

fn calls_of_description(openapi: &Value) -> BTreeSet<Call> {
    let named = |part: &Value| {
        let lines = part["content"]["application/x-ndjson"]["schema"]["$ref"].as_str();
        let reference = part["content"]["application/json"]["schema"]["$ref"].as_str().or(lines)?;
        let prefix = if lines.is_some() { "Lines_" } else { "" };
        Some(format!("{prefix}{}", reference.rsplit('/').next()?))
    };
    let mut calls = BTreeSet::new();
    let paths = openapi["paths"].as_object().unwrap().iter();
    for (path, methods) in paths.filter(|(path, _)| path.starts_with("/v1/")) {
        for (method, operation) in methods.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            let (status, response) = responses.iter().find(|(status, _)| status.starts_with('2')).unwrap();
            let call = format!("{} {}", method.to_uppercase(), without_names(path));
            calls.insert((call, named(&operation["requestBody"]), status.parse().unwrap(), named(response)));
        }
    }
    calls
}

#[tokio::test]
async fn the_calls_are_those_of_the_protocol() {
    let (told, described) = (calls_of_page(), calls_of_description(&openapi().await));
    let missing: Vec<_> = described.difference(&told).collect();
    let too_many: Vec<_> = told.difference(&described).collect();
    assert!(
        missing.is_empty() && too_many.is_empty(),
        "not on the page: {missing:#?}\nonly there: {too_many:#?}"
    );
    assert!(told.len() > 40);
}

#[tokio::test]
async fn bodies_have_the_examples_of_the_protocol_and_these_match_their_schemas() {
    let openapi = openapi().await;
    let mut count = 0;
    for (name, schema) in openapi["components"]["schemas"].as_object().unwrap() {
        let Some(examples) = schema["examples"].as_array() else { continue };
        let validator = validator(&openapi, schema, Draft::Draft202012);
        for example in examples {
            validator.validate(example).unwrap_or_else(|error| panic!("{name}: {error}\n{example}"));
        }
        count += examples.len();
    }
    // `ErrorBody` and `Ack` are among them. `Changed` and others came from the same blocks.
    let told = PAGE.matches("\n```json rest:").count() + PAGE.matches("\n```json entry").count();
    assert_eq!(count, told, "some example found no schema");
}

#[tokio::test]
async fn every_frame_is_described() {
    let asyncapi = asyncapi().await;
    let messages = asyncapi["components"]["messages"].as_object().unwrap();
    let described = |side: &str| -> BTreeSet<String> {
        messages.keys().filter_map(|key| key.strip_prefix(side)).map(str::to_owned).collect()
    };
    assert_eq!(described("client."), KINDS.map(str::to_owned).into());
    // A test of `proto` checks that the page has an example of each frame.
    let shown =
        examples(&["server"]).into_iter().map(|(_, frame)| frame["type"].as_str().unwrap().to_owned());
    assert_eq!(described("server."), shown.collect::<BTreeSet<_>>());
    for (key, message) in messages {
        assert!(message["summary"].is_string(), "{key} has no summary");
        assert!(!message["examples"].as_array().unwrap().is_empty(), "{key} has no example");
    }
    let operations = asyncapi["operations"].as_object().unwrap();
    assert_eq!(operations.len(), messages.len());
    let is_answered =
        |operation: &&Value| operation["reply"]["messages"].as_array().is_some_and(|all| all.len() > 1);
    let answered = operations.values().filter(is_answered).count();
    assert_eq!(
        answered,
        KINDS.len() - 2,
        "only `typing` and `received` are not answered, unless they are refused"
    );
    let socket = &asyncapi["channels"]["socket"];
    assert_eq!(
        socket["bindings"]["ws"]["headers"]["properties"]["Sec-WebSocket-Protocol"]["const"],
        SUBPROTOCOL_JSON
    );
    let codes: Vec<u64> = socket["x-close-codes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|close| close["code"].as_u64().unwrap())
        .collect();
    assert_eq!(codes, CloseReason::ALL.map(|reason| u64::from(reason.code())));
}

/// The schema of each frame, by `client.send` and the like.
fn frames(asyncapi: &Value) -> BTreeMap<String, Validator> {
    let messages = asyncapi["components"]["messages"].as_object().unwrap();
    let validator = |message: &Value| validator(asyncapi, &message["payload"], Draft::Draft7);
    messages.iter().map(|(key, message)| (key.clone(), validator(message))).collect()
}

#[tokio::test]
async fn the_examples_of_the_protocol_match_the_schemas_of_the_frames() {
    let asyncapi = asyncapi().await;
    let frames = frames(&asyncapi);
    let entry = validator(&asyncapi, &json!({ "$ref": "#/components/schemas/Entry" }), Draft::Draft7);
    for (marker, example) in examples(&["client", "server", "entry"]) {
        let validator = match marker {
            "entry" => &entry,
            side => &frames[&format!("{side}.{}", example["type"].as_str().unwrap())],
        };
        validator.validate(&example).unwrap_or_else(|error| panic!("{error}\n{example}"));
    }
}

/// Frames with one mistake each, made from examples.
fn spoiled() -> Vec<Value> {
    let example = |kind: &str| {
        let of_kind = |(_, frame): &(&str, Value)| frame["type"] == kind;
        examples(&["client"]).into_iter().find(of_kind).unwrap().1
    };
    let spoil = |kind: &str, pointer: &str, value: Value| {
        let mut frame = example(kind);
        *frame.pointer_mut(pointer).unwrap_or_else(|| panic!("{kind} has no {pointer}")) = value;
        frame
    };
    let without = |kind: &str, name: &str| {
        let mut frame = example(kind);
        frame.as_object_mut().unwrap().remove(name).unwrap();
        frame
    };
    vec![
        spoil("hello", "/token", json!(5)),
        spoil("hello", "/cursor", json!(5)),
        without("hello", "token"),
        spoil("send", "/channel_id", json!(269_737_367)),
        spoil("send", "/channel_id", json!("-7")),
        spoil("send", "/channel_id", json!("0")),
        spoil("send", "/client_msg_id", json!("my message")),
        spoil("send", "/body", json!("hi")),
        spoil("send", "/body", json!(null)),
        spoil("send", "/body", json!(["hi"])),
        spoil("send", "/body/reply_to", json!(-1)),
        spoil("send", "/id", json!(7)),
        spoil("send", "/id", json!("7".repeat(65))),
        without("send", "body"),
        spoil("edit", "/version", json!("1")),
        spoil("edit", "/seq", json!(1.5)),
        without("delete", "seq"),
        spoil("react", "/emoji", json!(["tea"])),
        spoil("read", "/seq", json!("5")),
        spoil("subscribe", "/mode", json!("eager")),
        spoil("history", "/before", json!("204")),
        spoil("presence", "/idle", json!("yes")),
        without("received", "cursor"),
        without("auth", "token"),
        without("typing", "channel_id"),
    ]
}

#[tokio::test]
async fn the_parser_refuses_what_the_schemas_forbid() {
    let frames = frames(&asyncapi().await);
    for frame in spoiled() {
        let kind = frame["type"].as_str().unwrap();
        assert!(!frames[&format!("client.{kind}")].is_valid(&frame), "the schema allows {frame}");
        assert!(Request::parse(&frame.to_string()).is_err(), "the parser takes {frame}");
    }
}

#[tokio::test]
async fn an_entry_of_a_later_kind_matches_the_schema() {
    let documents = served(&["/v1/openapi.json", "/v1/asyncapi.json"]).await;
    for (document, draft) in documents.iter().zip([Draft::Draft202012, Draft::Draft7]) {
        let entry = validator(document, &json!({ "$ref": "#/components/schemas/Entry" }), draft);
        assert!(entry.is_valid(&json!({ "seq": 5, "at": 7, "kind": "levitated", "height": 3 })));
        assert!(
            !entry.is_valid(&json!({ "seq": 5, "at": 7, "kind": "pinned" })),
            "a known kind has its fields"
        );
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let (clock, _manual) = manual_clock();
    let storage = Storage::model();
    let node = TestNode::start(Config::default(), &storage, clock).await.unwrap();
    for path in ["/docs", "/docs/page.js", "/docs/page.css"] {
        let response = reqwest::get(format!("{}{path}", node.url())).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        let text = response.text().await.unwrap();
        assert!(
            !text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"),
            "{path}"
        );
    }
    node.stop().await.unwrap();
}
