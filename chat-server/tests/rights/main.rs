//! Rights: every call and every frame is really tried by users of every role. `docs/rights.md` holds the expected results.
//!
//! `table.rs` lists what is tried. The descriptions that the server gives of itself are used to check that nothing is left out.
//! `cargo xtask rights` writes the page instead of comparing it: read what has changed before you keep it.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

mod stage;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jsonschema::Validator;
use madang_testkit::{Answer, Config, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use stage::{Person, ROLES, Role, Stage, ask, key, person};
use table::{ELSEWHERE, Elsewhere, IN_CHANNEL, Trial};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rights.md");

/// A call, from the description.
struct Described {
    method: String,
    path: String,
    /// The codes and bodies of its answers, by status.
    answers: BTreeMap<u16, (String, Option<Validator>)>,
}

/// A frame of the client, from the description.
struct Asked {
    names_channel: bool,
    /// The frames that answer it.
    replies: String,
}

/// The descriptions that the server gives of itself.
struct Api {
    calls: BTreeMap<String, Described>,
    frames: BTreeMap<String, Asked>,
    /// The schema of each frame of the server.
    pushed: BTreeMap<String, Validator>,
}

impl Api {
    async fn read(rest: &Rest) -> Self {
        let openapi = rest.must("GET", "/v1/openapi.json", None, None).await;
        let asyncapi = rest.must("GET", "/v1/asyncapi.json", None, None).await;
        let mut calls = BTreeMap::new();
        let paths = openapi["paths"].as_object().unwrap().iter();
        for (path, methods) in paths.filter(|(path, _)| path.starts_with("/v1/")) {
            for (method, operation) in methods.as_object().unwrap() {
                let answers = operation["responses"].as_object().unwrap().iter();
                let answers =
                    answers.map(|(status, answer)| (status.parse().unwrap(), described(&openapi, answer)));
                let (method, path) = (method.to_uppercase(), path.clone());
                let id = operation["operationId"].as_str().unwrap().to_owned();
                calls.insert(id, Described { method, path, answers: answers.collect() });
            }
        }
        let messages = asyncapi["components"]["messages"].as_object().unwrap();
        let frame = |(key, message): (&String, &Value)| {
            let kind = key.strip_prefix("client.")?;
            let text = message["payload"].to_string() + &referred(&asyncapi, &message["payload"]);
            let replies = asyncapi["operations"][format!("receive.{kind}")]["reply"].to_string();
            let names_channel = text.contains("\"channel_id\"");
            Some((kind.to_owned(), Asked { names_channel, replies }))
        };
        let pushed = |(key, message): (&String, &Value)| {
            let schema = json!({ "allOf": [message["payload"]], "components": asyncapi["components"] });
            Some((key.strip_prefix("server.")?.to_owned(), jsonschema::draft7::new(&schema).unwrap()))
        };
        let frames = messages.iter().filter_map(frame).collect();
        Self { calls, frames, pushed: messages.iter().filter_map(pushed).collect() }
    }

    /// The names of all operations that concern a channel, or of all others.
    fn operations(&self, in_channel: bool) -> BTreeSet<String> {
        // The calls of operators are no calls of users; tests/board.rs tries what their scopes may do.
        let of_users = self.calls.iter().filter(|(id, _)| !id.starts_with("operator_"));
        let calls = of_users.filter(|(_, call)| call.path.contains("{channel_id}") == in_channel);
        let frames = self.frames.iter().filter(|(_, frame)| frame.names_channel == in_channel);
        calls.map(|(id, _)| id.clone()).chain(frames.map(|(kind, _)| format!("frame {kind}"))).collect()
    }

    /// The outcome of a call. The answer must be one of those that are described.
    fn outcome(&self, operation: &str, answer: &Answer) -> String {
        let Answer { status, body } = answer;
        let (codes, validator) = self.calls[operation]
            .answers
            .get(status)
            .unwrap_or_else(|| panic!("{operation} answers {status}, which is not described: {body}"));
        match validator {
            Some(validator) => each_line(body, |body| {
                validator.validate(body).unwrap_or_else(|error| panic!("{operation}: {error}: {body}"));
            }),
            None => assert_eq!(*body, Value::Null, "{operation}"),
        }
        if *status < 300 {
            return "ok".to_owned();
        }
        let code = body["code"].as_str().unwrap().to_owned();
        assert!(
            codes.split("_or_").any(|one| one == code),
            "{operation} answers {code}, which is not described"
        );
        code
    }
}

impl Api {
    /// Sends a frame and returns the outcome. The answer must be one of those that are described.
    async fn ask(&self, socket: &mut Socket, frame: Value) -> String {
        let kind = frame["type"].as_str().unwrap().to_owned();
        let answer = match ask(socket, frame).await {
            Ok(answer) => answer,
            Err(code) => return format!("closed {code}"),
        };
        let Some(answer) = answer else { return "ok".to_owned() };
        let said = answer["type"].as_str().unwrap();
        let reply = format!("server.{said}\"");
        assert!(
            self.frames[&kind].replies.contains(&reply),
            "{kind} is answered by {answer}, which is not described"
        );
        self.pushed[said].validate(&answer).unwrap_or_else(|error| panic!("{kind}: {error}: {answer}"));
        answer["code"].as_str().unwrap_or("ok").to_owned()
    }
}

/// Checks an answer of one value, or each line of an answer that has lines.
fn each_line(body: &Value, check: impl Fn(&Value)) {
    match body {
        Value::String(lines) => lines.lines().for_each(|line| check(&serde_json::from_str(line).unwrap())),
        body => check(body),
    }
}

/// The codes and the schema of an answer.
fn described(openapi: &Value, answer: &Value) -> (String, Option<Validator>) {
    let reference = answer["$ref"].as_str().unwrap_or_default();
    let found = openapi.pointer(reference.trim_start_matches('#')).filter(|_| !reference.is_empty());
    let content = &found.unwrap_or(answer)["content"];
    let schema = ["application/json", "application/x-ndjson"].map(|kind| &content[kind]["schema"]);
    let schema = schema.into_iter().find(|schema| !schema.is_null()).unwrap_or(&Value::Null);
    let schema = json!({ "allOf": [schema], "components": openapi["components"] });
    let has_body = !schema["allOf"][0].is_null();
    let codes = reference.rsplit('/').next().unwrap_or_default().to_owned();
    (codes, has_body.then(|| jsonschema::draft202012::new(&schema).unwrap()))
}

/// The schemas that a frame refers to as a whole.
fn referred(asyncapi: &Value, payload: &Value) -> String {
    let references = payload["allOf"].as_array().into_iter().flatten().filter_map(|one| one["$ref"].as_str());
    references
        .map(|one| asyncapi.pointer(one.trim_start_matches('#')).unwrap()["properties"].to_string())
        .collect()
}

/// Tries everything in a channel of one kind as a user of one role.
async fn try_all(node: &TestNode, api: &Api, kind: &'static str, role: Role) -> Vec<String> {
    let mut stage = Stage::new(node, kind, role).await;
    let rest = Rest::new(&node.url());
    let mut socket = Socket::open(node.addr).await.unwrap();
    if let Some(token) = stage.token() {
        socket = socket.greet(token, None).await.unwrap().0;
    }
    let mut outcomes = Vec::new();
    for trial in IN_CHANNEL {
        let (outcome, changes) = match trial.operation.strip_prefix("frame ") {
            Some(frame) => {
                let outcome = api.ask(&mut socket, frame_of(&stage, trial, frame)).await;
                if outcome.starts_with("closed") {
                    socket = Socket::open(node.addr).await.unwrap();
                }
                (outcome, !matches!(frame, "history" | "subscribe" | "unsubscribe" | "typing"))
            }
            None => {
                let answer = call(&rest, api, &stage, trial).await;
                (api.outcome(trial.operation, &answer), api.calls[trial.operation].method != "GET")
            }
        };
        if outcome == "ok" && changes {
            stage.set_up().await;
        }
        outcomes.push(outcome);
    }
    outcomes
}

fn frame_of(stage: &Stage, trial: &Trial, kind: &str) -> Value {
    let mut frame: Value = serde_json::from_str(&stage.fill(trial.body, trial.message)).unwrap();
    frame["type"] = json!(kind);
    frame["channel_id"] = json!(stage.channel);
    frame
}

async fn call(rest: &Rest, api: &Api, stage: &Stage, trial: &Trial) -> Answer {
    let Some(described) = api.calls.get(trial.operation) else {
        panic!("{} is no operation", trial.operation)
    };
    let path = described.path.replace("{channel_id}", &stage.channel).replace("{emoji}", "tea");
    let path = path.replace("{user_id}", trial.user).replace("{seq}", "$seq");
    let path = stage.fill(&path, trial.message);
    let body = (!trial.body.is_empty())
        .then(|| serde_json::from_str(&stage.fill(trial.body, trial.message)).unwrap());
    rest.call(&described.method, &path, stage.token(), None, body.as_ref()).await.unwrap()
}

/// The columns of operations that do not concern a channel.
const RELATIONS: [&str; 4] = ["nobody", "the caller", "another user", "a user who blocks the caller"];

/// Placeholders for a user, or for something that belongs to a user.
const OF_SOMEBODY: [&str; 7] =
    ["$cursor", "$handle", "$refresh", "$token", "$user", "{user_id}", "{device_id}"];

/// Tries an operation that does not concern a channel: without a token, about the caller, about another user, and about a user
/// who blocks the caller.
async fn try_elsewhere(node: &TestNode, api: &Api, row: &Elsewhere) -> Vec<String> {
    let path = api.calls.get(row.operation).map_or("", |call| call.path.as_str());
    let told = format!("{path}{}{}", row.query, row.body);
    let is_about_somebody = OF_SOMEBODY.iter().any(|one| told.contains(one));
    let mut outcomes = Vec::new();
    for relation in RELATIONS {
        let is_tried = is_about_somebody || matches!(relation, "nobody" | "the caller");
        outcomes.push(if is_tried { try_relation(node, api, row, relation).await } else { String::new() });
    }
    outcomes
}

async fn try_relation(node: &TestNode, api: &Api, row: &Elsewhere, relation: &str) -> String {
    let rest = Rest::new(&node.url());
    let (me, other) = (person(&rest).await, person(&rest).await);
    if relation == "a user who blocks the caller" {
        rest.must("PUT", &format!("/v1/blocks/{}", me.id), Some(&other.token), None).await;
    }
    let user = if matches!(relation, "nobody" | "the caller") { &me } else { &other };
    let token = (relation != "nobody").then_some(me.token.as_str());
    let mut body = fill(row.body, user);
    if body.contains("$cursor") {
        let snapshot = rest.must("POST", "/v1/snapshot", Some(&user.token), Some(&json!({}))).await;
        body = body.replace("$cursor", snapshot["cursor"].as_str().unwrap());
    }
    let body: Option<Value> = (!body.is_empty()).then(|| serde_json::from_str(&body).unwrap());
    if let Some(kind) = row.operation.strip_prefix("frame ") {
        return try_frame(node, api, kind, body.unwrap(), token).await;
    }
    let Described { method, path, .. } = &api.calls[row.operation];
    let path = fill(&format!("{path}{}", row.query), user);
    let answer = rest.call(method, &path, token, None, body.as_ref()).await.unwrap();
    api.outcome(row.operation, &answer)
}

async fn try_frame(node: &TestNode, api: &Api, kind: &str, mut frame: Value, token: Option<&str>) -> String {
    frame["type"] = json!(kind);
    let mut socket = Socket::open(node.addr).await.unwrap();
    match (kind, token) {
        ("hello", None) => frame["token"] = json!("no token"),
        ("hello", Some(_)) | (_, None) => {}
        (_, Some(token)) => socket = socket.greet(token, None).await.unwrap().0,
    }
    api.ask(&mut socket, frame).await
}

fn fill(text: &str, user: &Person) -> String {
    text.replace("$handle", &user.handle)
        .replace("$refresh", &user.refresh)
        .replace("$token", &user.token)
        .replace("{user_id}", &user.id)
        .replace("$user", &user.id)
        .replace("{device_id}", &user.device)
        .replace("$key", &key()[30..])
}

/// The name of an operation on the page.
fn title(api: &Api, operation: &str) -> String {
    api.calls.get(operation).map_or_else(
        || format!("`{}`", operation.trim_start_matches("frame ")),
        |call| format!("`{} {}`", call.method, call.path.trim_start_matches("/v1")),
    )
}

fn line(cells: impl IntoIterator<Item = String>) -> String {
    format!("| {} |\n", cells.into_iter().collect::<Vec<_>>().join(" | "))
}

fn table(head: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let rule = vec!["---".to_owned(); head.len()];
    [head, rule].into_iter().chain(rows).map(line).collect()
}

const INTRODUCTION: &str = "# Rights

Every call of REST (paths are below `/v1`) and every frame of the socket, tried by users of every role. A cell is `ok`, or the code of
the refusal. A test tries each cell. It fails if this page says something else, or if an operation is missing. `cargo xtask rights`
writes the page again.

**Nobody** has no token. A **stranger** has never been a member. An **invited** user has an open invitation. A **barred** user has never
been a member and is banned. A user who has **left**, or is **banned**, was a member before. A **blocked** member is blocked by the
owner, or by the other user of a direct channel. Other products call an **admin** a moderator.
";

fn page(api: &Api, channels: &BTreeMap<(usize, usize), Vec<String>>, elsewhere: &[Vec<String>]) -> String {
    let mut page = INTRODUCTION.to_owned();
    for (kind_index, (kind, roles)) in ROLES.iter().enumerate() {
        let head = ["".to_owned(), "about".to_owned()].into_iter();
        let head = head.chain(roles.iter().map(|role| format!("{role:?}").to_lowercase())).collect();
        let rows = IN_CHANNEL.iter().enumerate().map(|(row, trial)| {
            let cells = (0..roles.len()).map(|role| channels[&(kind_index, role)][row].clone());
            [title(api, trial.operation), trial.about.to_owned()].into_iter().chain(cells).collect()
        });
        page += &format!("\n## In a channel: {kind}\n\n{}", table(head, rows));
    }
    let head = [""].into_iter().chain(RELATIONS).map(str::to_owned).collect();
    let rows = ELSEWHERE
        .iter()
        .zip(elsewhere)
        .map(|(row, cells)| [title(api, row.operation)].into_iter().chain(cells.iter().cloned()).collect());
    page + &format!(
        "\n## Outside of channels, by the user that the operation is about\n\n{}",
        table(head, rows)
    )
}

async fn start(storage: &Storage) -> (TestNode, Api) {
    let mut config = Config::default();
    config.limits.enabled = false;
    config.push.webhook.enabled = true;
    let node = TestNode::start(config, storage, manual_clock().0).await.unwrap();
    let api = Api::read(&Rest::new(&node.url())).await;
    (node, api)
}

#[tokio::test]
async fn a_stranger_cannot_tell_a_private_channel_from_a_missing_one() {
    let storage = Storage::model();
    let (node, api) = start(&storage).await;
    let rest = Rest::new(&node.url());
    let kinds = [("group", Role::Stranger), ("group", Role::Barred), ("group", Role::Invited)];
    for (kind, role) in kinds.into_iter().chain([("direct", Role::Stranger)]) {
        let mut stage = Stage::new(&node, kind, role).await;
        // An invited user knows what the invitation says about the group, and nothing more.
        let is_tried = |trial: &&Trial| {
            let is_invitation = trial.operation.starts_with("invitations_") && role == Role::Invited;
            !trial.operation.starts_with("frame ") && !is_invitation
        };
        for trial in IN_CHANNEL.iter().filter(is_tried) {
            let of_channel = call(&rest, &api, &stage, trial).await;
            let channel = std::mem::replace(&mut stage.channel, "1".to_owned());
            let of_none = call(&rest, &api, &stage, trial).await;
            assert_eq!(of_channel, of_none, "{} {}: {role:?} of a {kind}", trial.operation, trial.about);
            stage.channel = channel;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_may_do_what_the_page_says() {
    let storage = Storage::model();
    let (node, api) = start(&storage).await;
    let (node, api) = (Arc::new(node), Arc::new(api));
    let tried: BTreeSet<String> = IN_CHANNEL.iter().map(|trial| trial.operation.to_owned()).collect();
    assert_eq!(tried, api.operations(true), "what concerns a channel is tried");
    let tried: BTreeSet<String> = ELSEWHERE.iter().map(|row| row.operation.to_owned()).collect();
    assert_eq!(tried, api.operations(false), "what concerns no channel is tried");

    let mut trials = JoinSet::new();
    for (kind_index, (kind, roles)) in ROLES.iter().enumerate() {
        for (role_index, role) in roles.iter().enumerate() {
            let (node, api) = (Arc::clone(&node), Arc::clone(&api));
            trials.spawn(async move { ((kind_index, role_index), try_all(&node, &api, kind, *role).await) });
        }
    }
    let channels: BTreeMap<(usize, usize), Vec<String>> = trials.join_all().await.into_iter().collect();
    let mut elsewhere = Vec::new();
    for row in ELSEWHERE {
        elsewhere.push(try_elsewhere(&node, &api, row).await);
    }
    let found = page(&api, &channels, &elsewhere);
    if std::env::var_os("MADANG_RIGHTS").is_some_and(|how| how == "write") {
        std::fs::write(PAGE, found).unwrap();
        return;
    }
    let told = std::fs::read_to_string(PAGE).unwrap();
    for (told, found) in told.lines().zip(found.lines()) {
        assert_eq!(told, found, "docs/rights.md says otherwise");
    }
    assert_eq!(told.lines().count(), found.lines().count(), "rows of docs/rights.md");
}
