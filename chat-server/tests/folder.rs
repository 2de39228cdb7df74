//! The real binary and its data folder: backed up while it serves, restored, damaged, on a disk that fails.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use madang_testkit::{PATIENCE, Server, Socket};
use serde_json::{Value, json};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_madang");

/// A change of a file's bytes.
type Harm = fn(&mut Vec<u8>);

async fn start(data: &Path) -> Server {
    Server::start(BINARY, data, &["--limits", "off"]).await.unwrap()
}

/// Runs a command to its end.
async fn madang(args: &[&str], data: &Path) -> Output {
    let mut command = tokio::process::Command::new(BINARY);
    command.args(args).arg("--data").arg(data).kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn must(args: &[&str], data: &Path) -> String {
    let output = madang(args, data).await;
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    said(&output)
}

async fn stop(mut server: Server) {
    server.terminate().unwrap();
    assert_eq!(server.wait().await.unwrap().code(), Some(0));
}

/// Ada, who writes, and Bob, who reads.
struct People {
    ada: String,
    bob: String,
    channel: String,
}

impl People {
    async fn sign_up(server: &Server) -> Self {
        let (ada, bob) = (server.rest.sign_up("ada").await, server.rest.sign_up("bob").await);
        let token = |signed_in: &Value| signed_in["access_token"].as_str().unwrap().to_owned();
        let (ada_token, bob_token) = (token(&ada), token(&bob));
        let body = json!({ "kind": "direct", "members": [bob["user"]["id"]] });
        let view = server.rest.must("POST", "/v1/channels", Some(&ada_token), Some(&body)).await;
        Self { ada: ada_token, bob: bob_token, channel: view["id"].as_str().unwrap().to_owned() }
    }

    fn message(&self, key: u64, text: &str) -> (String, Value) {
        let client_msg_id = format!("01920000-0000-7000-8000-{key:012}");
        let body = json!({ "client_msg_id": client_msg_id, "body": { "text": text } });
        (format!("/v1/channels/{}/messages", self.channel), body)
    }

    async fn try_say(&self, server: &Server, key: u64, text: &str) -> Result<Value, Value> {
        let (path, body) = self.message(key, text);
        let answer = server.rest.call("POST", &path, Some(&self.ada), None, Some(&body)).await.unwrap();
        if answer.status < 300 { Ok(answer.body) } else { Err(answer.body) }
    }

    async fn say(&self, server: &Server, keys: std::ops::Range<u64>) {
        for key in keys {
            self.try_say(server, key, "a line").await.unwrap();
        }
    }

    /// The end of Bob's inbox.
    async fn cursor(&self, server: &Server) -> String {
        let (mut bob, _) = Socket::connect(server.addr, &self.bob, None).await.unwrap();
        bob.next_of("cursor").await["cursor"].as_str().unwrap().to_owned()
    }

    /// The verdict that a device of Bob gets for this cursor.
    async fn verdict(&self, server: &Server, cursor: &str) -> (String, Option<String>) {
        let (_, welcome) = Socket::connect(server.addr, &self.bob, Some(cursor)).await.unwrap();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        (text(&welcome["resume"]).unwrap(), text(&welcome["reason"]))
    }

    async fn messages(&self, server: &Server) -> Vec<Value> {
        let path = format!("/v1/channels/{}/entries?limit=200", self.channel);
        let page = server.rest.must("GET", &path, Some(&self.ada), None).await;
        let entries = page["entries"].as_array().unwrap().iter();
        entries.filter(|entry| entry["kind"] == "message").cloned().collect()
    }
}

fn snapshot(reason: &str) -> (String, Option<String>) {
    ("snapshot_required".to_owned(), Some(reason.to_owned()))
}

fn resumed() -> (String, Option<String>) {
    ("resumed".to_owned(), None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_serves_and_judges_each_device_by_its_cursor() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str| parent.path().join(name);
    let server = start(&path("data")).await;
    let people = People::sign_up(&server).await;
    people.say(&server, 0..10).await;
    let before = people.cursor(&server).await;
    let told = must(&["backup", "--to", path("backup").to_str().unwrap()], &path("data")).await;
    assert!(told.contains("contains everything up to position"), "{told}");
    people.say(&server, 10..20).await;
    let beyond = people.cursor(&server).await;
    stop(server).await;
    let server = start(&path("data")).await;
    let of_a_later_start = people.cursor(&server).await;
    stop(server).await;

    let refusal = madang(&["backup", "--to", path("backup").to_str().unwrap()], &path("data")).await;
    assert!(!refusal.status.success() && said(&refusal).contains("already exists"), "{}", said(&refusal));
    let from = path("backup").to_str().unwrap().to_owned();
    let refusal = madang(&["restore", "--from", &from], &path("data")).await;
    assert!(!refusal.status.success() && said(&refusal).contains("already exists"), "{}", said(&refusal));
    must(&["restore", "--from", &from], &path("restored")).await;
    must(&["check"], &path("restored")).await;

    let server = start(&path("restored")).await;
    assert_eq!(people.messages(&server).await.len(), 10);
    assert_eq!(people.verdict(&server, &before).await, resumed());
    assert_eq!(people.verdict(&server, &beyond).await, snapshot("beyond_store"));
    assert_eq!(people.verdict(&server, &of_a_later_start).await, snapshot("foreign_cursor"));
    // Also after the restored store has grown past those positions.
    people.say(&server, 20..40).await;
    assert_eq!(people.verdict(&server, &beyond).await, snapshot("beyond_store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_folder_is_backed_up_and_checked_and_doctor_works_beside_a_server() {
    let parent = tempfile::tempdir().unwrap();
    let path = |name: &str| parent.path().join(name);
    let server = start(&path("data")).await;
    let people = People::sign_up(&server).await;
    people.say(&server, 0..3).await;
    let looked = madang(&["doctor"], &path("data")).await;
    assert!(matches!(looked.status.code(), Some(0 | 1)), "{}", said(&looked));
    for what in ["ok  files", "ok  secret", "disk ", "ok  clock", "sync ", "open files"] {
        assert!(said(&looked).contains(what), "{}", said(&looked));
    }
    let busy = madang(&["check"], &path("data")).await;
    assert!(busy.status.code() == Some(2) && said(&busy).contains("is in use"), "{}", said(&busy));
    stop(server).await;
    must(&["backup", "--to", path("backup").to_str().unwrap()], &path("data")).await;
    for folder in ["data", "backup"] {
        let told = must(&["check"], &path(folder)).await;
        assert!(told.contains("no damage"), "{told}");
    }
    std::fs::write(path("backup").join("token.secret"), "short").unwrap();
    let looked = madang(&["doctor"], &path("backup")).await;
    assert!(looked.status.code() == Some(1) && said(&looked).contains("BAD secret"), "{}", said(&looked));
    let absent = madang(&["check"], &path("absent")).await;
    assert_eq!(absent.status.code(), Some(2), "{}", said(&absent));
    let absent = madang(&["doctor"], &path("absent")).await;
    assert_eq!(absent.status.code(), Some(2), "{}", said(&absent));
    assert!(!path("absent").exists());
}

/// Waits until the server has noted the acknowledged position.
async fn noted(data: &Path, position: u64) {
    let noted = || {
        let note = std::fs::read_to_string(data.join("acked")).unwrap();
        note.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let waited = tokio::time::timeout(PATIENCE, async {
        while noted() < position {
            // waits for: the note that the server writes each second
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_log_of_a_killed_server_stops_the_next_start_until_the_operator_decides() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    let people = People::sign_up(&server).await;
    people.say(&server, 0..20).await;
    let early = people.cursor(&server).await;
    people.say(&server, 20..100).await;
    let late = people.cursor(&server).await;
    noted(folder.path(), 100).await;
    server.kill().await.unwrap();
    let wal = folder.path().join("madang.db-wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    let middle = bytes.len() * 2 / 3;
    bytes[middle] ^= 1;
    std::fs::write(&wal, bytes).unwrap();

    let refusal = Server::start(BINARY, folder.path(), &[]).await.err().unwrap().to_string();
    assert!(refusal.contains("are lost") && refusal.contains("--accept-loss"), "{refusal}");
    assert_eq!(refusal.lines().count(), 1);
    println!("{refusal}");
    let found = madang(&["check"], folder.path()).await;
    assert!(found.status.code() == Some(1) && said(&found).contains("are lost"), "{}", said(&found));
    must(&["check", "--accept-loss"], folder.path()).await;

    let server = start(folder.path()).await;
    let left = people.messages(&server).await.len();
    assert!((20..100).contains(&left), "{left}");
    assert_eq!(people.verdict(&server, &early).await, resumed());
    assert_eq!(people.verdict(&server, &late).await, snapshot("beyond_store"));
    // A device that sends the lost messages again gets new acks.
    people.say(&server, 20..100).await;
    assert_eq!(people.messages(&server).await.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused_in_one_sentence_and_reported_by_check() {
    let damage: [(&str, Harm); 3] = [
        ("starts with zeros", |bytes| bytes.fill(0)),
        ("its header says", |bytes| bytes.truncate(bytes.len() / 2)),
        ("does not start with the header of an SQLite database", |bytes| bytes[..16].fill(b'x')),
    ];
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path()).await;
    People::sign_up(&server).await;
    stop(server).await;
    let file = folder.path().join("madang.db");
    let whole = std::fs::read(&file).unwrap();
    for (told, damage) in damage {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        std::fs::write(&file, &bytes).unwrap();
        let refusal = Server::start(BINARY, folder.path(), &[]).await.err().unwrap().to_string();
        assert!(refusal.contains(told) && refusal.contains("madang restore"), "{refusal}");
        assert!(refusal.starts_with("exit status: 65: "), "to start again does not help: {refusal}");
        assert_eq!(refusal.lines().count(), 1);
        println!("{refusal}");
        let found = madang(&["check"], folder.path()).await;
        assert!(found.status.code() == Some(1) && said(&found).contains(told), "{}", said(&found));
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }
    std::fs::write(&file, whole).unwrap();
    must(&["check"], folder.path()).await;
}

/// A script that is started instead of the binary and starts the binary in an environment of its own.
fn wrapper(folder: &TempDir, lines: &str) -> PathBuf {
    let path = folder.path().join("madang");
    std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

async fn until_ready_is(server: &Server, status: u16) {
    let ready = async {
        while server.rest.call("GET", "/readyz", None, None, None).await.unwrap().status != status {
            // waits for: the next write of the upkeep
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.unwrap_or_else(|_| panic!("/readyz never was {status}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_accepts_them_when_there_is_room() {
    const DISK: &str = "size=6m";
    let (surroundings, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mount = format!("mount -t tmpfs -o {DISK} tmpfs '{}'", data.path().display());
    let may_mount = std::process::Command::new("unshare").args(["-Urm", "sh", "-c", &mount]).status();
    if !may_mount.is_ok_and(|status| status.success()) {
        // The same is tested everywhere on the simulated disk of crates/store/src/embedded/power_loss.
        eprintln!("nothing can be mounted here: not tried");
        return;
    }
    let lines = format!("exec unshare -Urm sh -c \"{mount} && exec '{BINARY}' \\\"\\$@\\\"\" madang \"$@\"");
    let binary = wrapper(&surroundings, &lines);
    let server = Server::start(binary.to_str().unwrap(), data.path(), &["--limits", "off"]).await.unwrap();
    let people = People::sign_up(&server).await;
    people.say(&server, 0..10).await;
    let seen_from_here = PathBuf::from(format!("/proc/{}/root{}", server.id(), data.path().display()));
    let filler = seen_from_here.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    // The write-ahead log has some space of its own.
    let text = "long ".repeat(500);
    let mut acked: Vec<Value> = people.messages(&server).await;
    let (refused, refusal) = loop {
        let key = acked.len() as u64;
        match people.try_say(&server, key, &text).await {
            Ok(_) => acked = people.messages(&server).await,
            Err(refusal) => break (key, refusal),
        }
    };
    assert_eq!(refusal["code"], "unavailable", "{refusal}");
    assert!(refusal["retry_after_ms"].as_u64() > Some(0), "{refusal}");
    assert_eq!(people.messages(&server).await, acked, "reads go on");
    until_ready_is(&server, 503).await;
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    let ack = people.try_say(&server, refused, &text).await.unwrap();
    assert_eq!(people.try_say(&server, refused, &text).await.unwrap(), ack);
    people.say(&server, refused + 1..refused + 5).await;
    let messages = people.messages(&server).await;
    assert_eq!(messages[..acked.len()], acked);
    assert_eq!(messages.len(), acked.len() + 5);
    until_ready_is(&server, 200).await;
    // The mounted disk disappears with the process, so its backup is checked.
    let backup = surroundings.path().join("backup");
    must(&["backup", "--to", backup.to_str().unwrap()], &seen_from_here).await;
    must(&["check"], &backup).await;
}

const FAILING_SYNC: &str = r#"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int fails(void) { return access(getenv("SYNC_FAILS"), F_OK) == 0; }
int fsync(int fd) { (void)fd; if (fails()) { errno = EIO; return -1; } return 0; }
int fdatasync(int fd) { return fsync(fd); }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_is_never_acked_and_ends_the_process_with_its_code() {
    let (surroundings, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = |name: &str| surroundings.path().join(name);
    std::fs::write(path("shim.c"), FAILING_SYNC).unwrap();
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(path("shim.so")).arg(path("shim.c"));
    assert!(compiler.status().unwrap().success());
    let (shim, switch) = (path("shim.so"), path("fails"));
    let lines =
        format!("SYNC_FAILS='{}' LD_PRELOAD='{}' exec '{BINARY}' \"$@\"", switch.display(), shim.display());
    let binary = wrapper(&surroundings, &lines);
    let mut server =
        Server::start(binary.to_str().unwrap(), data.path(), &["--limits", "off"]).await.unwrap();
    let people = People::sign_up(&server).await;
    people.say(&server, 0..10).await;
    let acked = people.messages(&server).await;
    let (mut bob, _) = Socket::connect(server.addr, &people.bob, None).await.unwrap();
    std::fs::write(&switch, "").unwrap();
    let refusal = people.try_say(&server, 10, "lost?").await.unwrap_err();
    assert_eq!(refusal["code"], "unavailable", "{refusal}");
    // The process is soon not ready, or has ended. While it drains it accepts nothing.
    let not_ready = async {
        while let Ok(ready) = server.rest.call("GET", "/readyz", None, None, None).await {
            if ready.status == 503 {
                assert_eq!(ready.body["ready"], json!(false));
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, not_ready).await.unwrap();
    let (path, body) = people.message(11, "and this");
    if let Ok(answer) = server.rest.call("POST", &path, Some(&people.ada), None, Some(&body)).await {
        assert_eq!(answer.body["code"], "unavailable", "{answer:?}");
    }
    bob.next_of("reconnect").await;
    assert_eq!(server.wait().await.unwrap().code(), Some(74));
    std::fs::remove_file(&switch).unwrap();
    let server = start(data.path()).await;
    assert_eq!(people.messages(&server).await[..acked.len()], acked);
    // Whether the message was written is unknown. Sent again, it is there once.
    people.try_say(&server, 10, "lost?").await.unwrap();
    let texts: Vec<Value> =
        people.messages(&server).await[acked.len()..].iter().map(|m| m["text"].clone()).collect();
    assert_eq!(texts, ["lost?"]);
}
