//! The real binary as operators use it: `madang users …` and `madang invitations …`, beside a running server and on the folder of
//! a stopped one. Each change is logged; each refusal has a text and an exit code.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use madang_testkit::{PATIENCE, Rest};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

const BINARY: &str = env!("CARGO_BIN_EXE_madang");

/// A server whose log is read, and its folder.
struct Stage {
    folder: tempfile::TempDir,
    rest: Rest,
    server: Child,
    log: Lines<BufReader<ChildStderr>>,
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.env("MADANG_SERVER__DATA", data);
    // Cheap passwords: no test is about their cost.
    command.env("MADANG_PASSWORDS__MEMORY_KIB", "8").env("MADANG_PASSWORDS__PASSES", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// The result of a command: its exit code and its output.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }
}

async fn run(data: &Path, args: &[&str], input: &str) -> Ran {
    let mut child = command(data).args(args).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let Output { status, stdout, stderr } =
        timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

impl Stage {
    async fn new(sign_up: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = command(folder.path())
            .args(["serve", "--addr", "127.0.0.1:0", "--limits", "off"])
            .env("MADANG_ACCOUNTS__SIGN_UP", sign_up)
            .env("MADANG_TELEMETRY__FILTER", "info")
            .env("MADANG_TELEMETRY__FORMAT", "json")
            .spawn()
            .unwrap();
        let mut out = BufReader::new(server.stdout.take().unwrap()).lines();
        let first = timeout(PATIENCE, out.next_line()).await.unwrap().unwrap();
        let Some(first) = first else {
            let output = server.wait_with_output().await.unwrap();
            panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        };
        let log = BufReader::new(server.stderr.take().unwrap()).lines();
        let rest = Rest::new(&format!("http://{}", first.rsplit_once("://").unwrap().1));
        Self { folder, rest, server, log }
    }

    async fn run(&self, args: &[&str]) -> Ran {
        run(self.folder.path(), args, "").await
    }

    /// Runs a command that must succeed and prints JSON.
    async fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat()).await;
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
        ran.json()
    }

    /// The next line of the server's log with this message, with its fields.
    async fn logged(&mut self, what: &str) -> Value {
        let read = async {
            loop {
                let line = self.log.next_line().await.unwrap().expect("the server goes on");
                if line.contains(what) {
                    return serde_json::from_str(&line).unwrap();
                }
            }
        };
        timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("the log does not say: {what}"))
    }

    async fn log_in(&self, handle: &str) -> (u16, Value) {
        let body = json!({ "handle": handle, "password": "correct horse" });
        let answer = self.rest.call("POST", "/v1/sessions", None, None, Some(&body)).await.unwrap();
        (answer.status, answer.body)
    }

    async fn stop(mut self) -> tempfile::TempDir {
        self.server.kill().await.unwrap();
        self.folder
    }
}

fn field<'a>(line: &'a Value, name: &str) -> &'a Value {
    let nested = &line["fields"][name];
    if nested.is_null() { &line[name] } else { nested }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_and_devices_are_managed_beside_a_running_server() {
    let mut stage = Stage::new("open").await;
    let ada = stage.rest.sign_up("ada").await;
    let (ada_id, phone) = (ada["user"]["id"].clone(), text(&ada["device_id"]).to_owned());
    let token = text(&ada["access_token"]).to_owned();
    for handle in ["abe", "bob"] {
        stage.rest.sign_up(handle).await;
    }

    // Lists have pages, for people and for programs.
    let page = stage.json(&["users", "list", "--prefix", "a", "--limit", "1"]).await;
    assert_eq!((&page["items"][0]["handle"], &page["next"]), (&json!("abe"), &json!("abe")));
    let page = stage.json(&["users", "list", "--prefix", "a", "--after", "abe", "--limit", "1"]).await;
    assert_eq!(page["items"][0]["id"], ada_id);
    let lines = stage.run(&["users", "list", "--limit", "2"]).await;
    let handles: Vec<&str> = lines.out.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(
        (lines.code, handles, lines.err.trim()),
        (Some(0), vec!["abe", "ada"], "there may be more: continue with --after ada")
    );

    let shown = stage.json(&["users", "show", "ADA"]).await;
    assert_eq!((&shown["id"], &shown["disabled"]), (&ada_id, &json!(false)));
    assert_eq!(shown["devices"][0]["id"], phone.as_str());
    let devices = stage.json(&["users", "devices", "ada"]).await;
    assert_eq!(devices.as_array().unwrap().len(), 1);
    let lines = stage.run(&["users", "devices", "ada"]).await.out;
    assert!(lines.starts_with(&format!("{phone}\t")) && lines.lines().count() == 1, "{lines}");

    // Each change is logged, with the user.
    let made = run(stage.folder.path(), &["users", "create", "admin", "--json"], "battery staple\n").await;
    assert_eq!((made.code, &made.json()["handle"]), (Some(0), &json!("admin")), "{}", made.err);
    assert_eq!(field(&stage.logged("operator created an account").await, "user.handle"), "admin");

    let (_, tablet) = stage.log_in("ada").await;
    let tablet = text(&tablet["device_id"]).to_owned();
    let revoked = stage.json(&["users", "revoke", "ada", "--device", &tablet]).await;
    assert_eq!(revoked, json!({ "revoked": 1 }));
    let line = stage.logged("operator revoked devices").await;
    assert_eq!((text(field(&line, "user.id")), field(&line, "count")), (text(&ada_id), &json!(1)));

    stage.json(&["users", "disable", "ada"]).await;
    let line = stage.logged("operator disabled or enabled an account").await;
    assert_eq!((text(field(&line, "user.id")), field(&line, "is_disabled")), (text(&ada_id), &json!(true)));
    assert_eq!(stage.rest.call("GET", "/v1/me", Some(&token), None, None).await.unwrap().status, 401);
    assert_eq!(stage.log_in("ada").await.0, 403);
    let shown = stage.json(&["users", "show", "ada"]).await;
    assert_eq!(shown["disabled"], true);
    // A page for operators shows ids.
    let id = format!("id:{}", shown["id"].as_str().unwrap());
    assert_eq!(stage.json(&["users", "show", &id]).await, shown);
    stage.json(&["users", "enable", "ada"]).await;
    assert_eq!(field(&stage.logged("operator disabled or enabled an account").await, "is_disabled"), false);
    let (status, again) = stage.log_in("ada").await;
    assert_eq!(status, 200);
    let said = stage.run(&["users", "revoke", "ada", "--all"]).await;
    assert_eq!((said.code, said.err.trim()), (Some(0), "revoked 1 devices"));
    stage.logged("operator revoked devices").await;
    let token = text(&again["access_token"]);
    assert_eq!(
        stage.rest.call("GET", "/v1/me", Some(token), None, None).await.unwrap().body["code"],
        "revoked"
    );

    // The data of a user is written to a new file that others cannot read.
    let to: PathBuf = stage.folder.path().join("ada.jsonl");
    let end = stage.json(&["users", "export", "ada", "--to", to.to_str().unwrap()]).await;
    stage.logged("operator is exporting the data of a user").await;
    let lines = std::fs::read_to_string(&to).unwrap();
    assert_eq!(end["lines"], lines.lines().count() - 1);
    assert!(lines.lines().last().unwrap().contains("\"type\":\"end\""));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&to).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let there = stage.run(&["users", "export", "ada", "--to", to.to_str().unwrap()]).await;
    assert!(there.code == Some(1) && there.err.contains("exists"), "{}", there.err);

    stage.json(&["users", "delete", "ada"]).await;
    assert_eq!(text(field(&stage.logged("operator is deleting an account").await, "user.id")), text(&ada_id));
    assert_eq!(stage.log_in("ada").await.0, 401);
    let handles = stage.json(&["users", "list"]).await;
    let handles: Vec<&str> =
        handles["items"].as_array().unwrap().iter().map(|one| text(&one["handle"])).collect();
    assert_eq!(handles, ["abe", "admin", "bob"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_a_text_and_an_exit_code() {
    let stage = Stage::new("open").await;
    let ada = stage.rest.sign_up("ada").await;
    let device = text(&ada["device_id"]).to_owned();
    stage.rest.sign_up("bob").await;
    let cases: &[(&[&str], i32, &str)] = &[
        (&["users", "show", "nobody"], 1, "user"),
        (&["users", "devices", "nobody"], 1, "user"),
        (&["users", "disable", "nobody"], 1, "user"),
        (&["users", "disable", "id:7"], 1, "user"),
        (&["users", "disable", "id:seven"], 1, "user"),
        (&["users", "enable", "nobody"], 1, "user"),
        (&["users", "delete", "nobody"], 1, "user"),
        (&["users", "export", "nobody", "--to", "nobody.jsonl"], 1, "user"),
        (&["users", "show", "no body"], 1, "handle"),
        (&["users", "list", "--limit", "0"], 1, "limit is 0, it must be 1 to 500"),
        (&["users", "list", "--limit", "501"], 1, "limit is 501"),
        (&["users", "revoke", "bob", "--device", &device], 1, "device"),
        // Refused by clap: no request was made.
        (&["users", "revoke", "ada"], 2, "--device"),
        (&["users", "revoke", "ada", "--all", "--device", &device], 2, "--all"),
        (&["users", "revoke", "ada", "--device", "phone"], 2, "phone"),
        (&["users", "export", "ada"], 2, "--to"),
        (&["users", "promote", "ada"], 2, "promote"),
        (&["users", "show"], 2, "HANDLE"),
        (&["invitations", "create", "--uses", "0"], 1, "uses is 0, it must be 1 to 100000"),
        (&["invitations", "create", "--days", "4000"], 1, "days is 4000"),
        (&["invitations", "create", "--label", "a\u{202e}b"], 1, "label"),
        (&["invitations", "revoke", "abc"], 1, "id must be"),
        (&["invitations", "list", "--after", "abc"], 1, "id must be"),
        (&["invitations", "create", "--uses", "many"], 2, "many"),
    ];
    for (args, code, said) in cases {
        let ran = stage.run(args).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(*code), ""), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{args:?}: {}", ran.err);
    }
    let taken = run(stage.folder.path(), &["users", "create", "bob"], "correct horse").await;
    assert!(taken.code == Some(1) && taken.err.contains("handle is already in use"), "{}", taken.err);
    let short = run(stage.folder.path(), &["users", "create", "cy"], "short\n").await;
    assert!(short.code == Some(1) && short.err.contains("password"), "{}", short.err);
    // None of these commands has changed anything.
    assert_eq!(stage.json(&["users", "show", "ada"]).await["devices"].as_array().unwrap().len(), 1);
    assert_eq!(stage.json(&["invitations", "list"]).await["items"], json!([]));

    // On the folder of a stopped server the same commands work; without a folder they do not.
    let folder = stage.stop().await;
    let shown = run(folder.path(), &["users", "disable", "ada", "--json"], "").await;
    assert_eq!((shown.code, shown.json()), (Some(0), json!({})), "{}", shown.err);
    let shown = run(folder.path(), &["users", "show", "ada", "--json"], "").await;
    assert_eq!((&shown.json()["disabled"], shown.json()["devices"].as_array()), (&json!(true), None));
    let nowhere = run(&folder.path().join("nowhere"), &["users", "list"], "").await;
    assert!(nowhere.code == Some(1) && nowhere.err.contains("does not exist"), "{}", nowhere.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invitations_are_made_used_and_taken_back() {
    let mut stage = Stage::new("invitation").await;
    let made =
        stage.json(&["invitations", "create", "--uses", "2", "--days", "3", "--label", "friends"]).await;
    let line = stage.logged("operator created an invitation").await;
    assert_eq!((field(&line, "invitation.id"), field(&line, "uses")), (&made["id"], &json!(2)));
    assert!(!line.to_string().contains(text(&made["code"])), "the code is in no log");
    let sign_up = async |handle: &str, code: &str| {
        let body = json!({ "handle": handle, "display_name": handle, "password": "correct horse", "invitation": code });
        stage.rest.call("POST", "/v1/accounts", None, None, Some(&body)).await.unwrap().status
    };
    assert_eq!(sign_up("ada", text(&made["code"])).await, 201);
    let code = stage.run(&["invitations", "create"]).await;
    assert_eq!((code.code, code.out.lines().count()), (Some(0), 1), "the code alone: {}", code.out);
    let list = stage.json(&["invitations", "list"]).await["items"].clone();
    let friends = list.as_array().unwrap().iter().find(|one| one["id"] == made["id"]).unwrap().clone();
    assert_eq!(
        (&friends["used"], &friends["label"], &friends["code"]),
        (&json!(1), &json!("friends"), &Value::Null)
    );
    let lines = stage.run(&["invitations", "list"]).await.out;
    assert!(lines.contains(&format!("{}\t1/2\t", text(&made["id"]))), "{lines}");
    let back = stage.run(&["invitations", "revoke", text(&made["id"])]).await;
    assert_eq!((back.code, back.err.trim()), (Some(0), "done"));
    assert_eq!(sign_up("bob", text(&made["code"])).await, 403);
    assert_eq!(sign_up("bob", code.out.trim()).await, 201);
    let again = stage.run(&["invitations", "revoke", text(&made["id"])]).await;
    assert!(again.code == Some(1) && again.err.contains("invitation"), "{}", again.err);
    let line = stage.logged("operator revoked an invitation").await;
    assert_eq!(field(&line, "invitation.id"), &made["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_and_the_configuration_at_run_time_are_managed_by_commands() {
    let stage = Stage::new("open").await;
    let added = stage.run(&["operator", "add", "ada", "--scope", "act"]).await;
    assert_eq!(added.code, Some(0), "{}", added.err);
    let secret = added.out.trim();
    assert!(secret.starts_with("mop_") && secret.len() == 36, "only the secret is printed: {secret}");
    let sign_in = json!({ "name": "ada", "secret": secret });
    let token = stage.rest.must("POST", "/v1/operator/token", None, Some(&sign_in)).await;
    let token = token["token"].as_str().unwrap().to_owned();
    let listed = stage.run(&["operator", "list"]).await.out;
    assert!(listed.starts_with("ada\tact\t") && !listed.contains(secret), "{listed}");
    let got = stage.run(&["config", "get"]).await;
    let (mut whole, file) = (got.json(), stage.folder.path().join("heat.json"));
    whole["config"]["heat"]["pacing"]["warm"]["batch_ms"] = json!(50);
    std::fs::write(&file, whole.to_string()).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(stage.run(&["config", "diff", file]).await.out, "heat.pacing.warm.batch_ms: 100 -> 50\n");
    let short = stage.run(&["config", "set", file, "--why", "short"]).await;
    assert_eq!((short.code, short.err.contains("10 to 500")), (Some(1), true), "{}", short.err);
    let set = stage.run(&["config", "set", file, "--why", "fifty is enough for us"]).await;
    assert_eq!(set.json()["version"], 2, "{}", set.err);
    // The file has the version that it replaces.
    let again = stage.run(&["config", "set", file, "--why", "fifty is enough for us"]).await;
    assert_eq!((again.code, again.err.contains("version 2")), (Some(1), true), "{}", again.err);
    let history = stage.run(&["config", "history"]).await.out;
    let lines: Vec<&str> = history.lines().collect();
    assert!(lines[0].contains("batch_ms: 100 -> 50\tfifty is enough for us"), "{history}");
    assert!(lines[1].contains("ada added, scope act"), "{history}");
    let top = stage.run(&["operator", "top", "--once"]).await.out;
    assert!(top.contains(" ready ") && top.contains("no channel is hot"), "{top}");
    assert_eq!(stage.run(&["operator", "remove", "ada"]).await.code, Some(0));
    let after = stage.rest.call("GET", "/v1/operator/board", Some(&token), None, None).await.unwrap();
    assert_eq!(after.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_of_operators_serves_them_alone() {
    let folder = tempfile::tempdir().unwrap();
    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = command(folder.path())
        .args(["serve", "--addr", "0.0.0.0:0"])
        .env("MADANG_OPERATOR__ADDR", addr.to_string())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(server.stdout.take().unwrap()).lines();
    let first = timeout(PATIENCE, out.next_line()).await.unwrap().unwrap().unwrap();
    let port = first.rsplit_once(':').unwrap().1;
    let clients = Rest::new(&format!("http://127.0.0.1:{port}"));
    let operators = Rest::new(&format!("http://{addr}"));
    let status = async |rest: &Rest, path: &str| rest.send_text("GET", path, None, "").await.status;
    assert_eq!(status(&clients, "/v1/operator/board").await, 404);
    assert_eq!(status(&operators, "/v1/operator/board").await, 401);
    assert_eq!(status(&operators, "/readyz").await, 200);
    assert_eq!(status(&operators, "/v1/me").await, 404);
    assert_eq!(status(&clients, "/v1/me").await, 401);
    server.kill().await.unwrap();
}
