//! The server in memory as a fleet: several nodes over the same memory. Each has a process of its own, which does
//! nothing; while that process does not run, the node accepts no connection and has none.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{Fake, Plant, Shared};

/// The program that starts a member again: another process takes its place in the file.
const RESTART: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
sleep 600 >/dev/null 2>&1 &
sed "/\"name\":\"$1\"/s/\"pid\":[0-9]*/\"pid\":$!/" fleet.json > new && mv new fleet.json
"#;

/// A fleet. Its processes are killed when it is dropped.
pub(crate) struct Fleet {
    pub(crate) fake: Arc<Fake>,
    folder: TempDir,
    urls: Vec<String>,
    _token: TaskTrackerToken,
}

impl Fleet {
    /// Three nodes, and a process in place of Redis: after its end all cursors are of another inbox.
    pub(crate) async fn start(plant: Plant) -> Self {
        let (fake, url) = Fake::start(plant).await;
        let folder = tempfile::tempdir().unwrap();
        let server = url.strip_prefix("http://").unwrap().to_owned();
        let tasks = TaskTracker::new();
        let (mut urls, mut members) = (Vec::new(), vec![member("redis", "redis", "")]);
        for number in 1..=3 {
            let name = format!("chat-{number}");
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            urls.push(format!("http://{address}"));
            members.push(member(&name, "chat", urls.last().unwrap()));
            fake.lock().nodes.push(format!("ws://{address}/v1/ws"));
            tasks.spawn(node(listener, server.clone(), name, folder.path().to_owned()));
        }
        let file = json!({ "connect": urls, "nodes": "NODES" }).to_string();
        // One line for each member, because the program that starts them edits lines.
        let file = file.replace("\"NODES\"", &format!("[\n{}\n]", members.join(",\n")));
        std::fs::write(folder.path().join("fleet.json"), file).unwrap();
        let restart = folder.path().join("restart");
        std::fs::write(&restart, RESTART).unwrap();
        std::fs::set_permissions(&restart, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        tasks.spawn(follow_redis(Arc::clone(&fake), folder.path().to_owned()));
        Self { fake, folder, urls, _token: tasks.token() }
    }

    pub(crate) fn folder(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    pub(crate) fn urls(&self) -> String {
        self.urls.join(",")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in members(self.folder.path()) {
            if let Some(pid) = rustix::process::Pid::from_raw(member["pid"].as_i64().unwrap() as i32) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

fn member(name: &str, role: &str, url: &str) -> String {
    let pid = tokio::process::Command::new("sleep").arg("600").spawn().unwrap().id().unwrap();
    json!({ "name": name, "role": role, "url": url, "pid": pid }).to_string()
}

fn members(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("fleet.json")).unwrap_or_default();
    let file: Value = serde_json::from_str(&text).unwrap_or_default();
    file["nodes"].as_array().cloned().unwrap_or_default()
}

/// Whether the process of a member runs.
fn runs(folder: &Path, name: &str) -> bool {
    let members = members(folder);
    let Some(member) = members.iter().find(|member| member["name"] == name) else { return false };
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", member["pid"])).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Forwards connections to the server in memory while the process of this node runs.
async fn node(listener: TcpListener, server: String, name: String, folder: std::path::PathBuf) {
    let (is_up, cuts) = (Arc::new(AtomicBool::new(true)), watch::channel(()).0);
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (mut client, _) = accepted.unwrap();
                if !is_up.load(Ordering::SeqCst) {
                    continue;
                }
                let (server, mut cut) = (server.clone(), cuts.subscribe());
                connections.spawn(async move {
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
            // waits for: the end of a process, of which nobody tells
            () = tokio::time::sleep(Duration::from_millis(2)) => {
                let now = runs(&folder, &name);
                is_up.store(now, Ordering::SeqCst);
                if !now {
                    cuts.send_replace(());
                }
            }
        }
    }
}

/// Begins another inbox epoch whenever the process in place of Redis has ended.
async fn follow_redis(fake: Arc<Fake>, folder: std::path::PathBuf) {
    let mut was_up = true;
    loop {
        // waits for: the end of a process, of which nobody tells
        tokio::time::sleep(Duration::from_millis(2)).await;
        let is_up = runs(&folder, "redis");
        if was_up && !is_up {
            fake.lock().epoch += 1;
        }
        was_up = is_up;
    }
}

/// `POST /v1/connect`: all nodes, beginning with another one each time, although one of them may be down.
pub(super) async fn connect(State(fake): Shared) -> (StatusCode, Json<Value>) {
    let mut inner = fake.lock();
    if inner.nodes.is_empty() {
        return (StatusCode::NOT_FOUND, Json(Value::Null));
    }
    inner.tickets += 1;
    let (first, ticket) = (inner.tickets as usize, inner.tickets);
    let count = inner.nodes.len();
    let nodes: Vec<Value> = (0..count)
        .map(|step| {
            let url = format!("{}?ticket={ticket}.{step}", inner.nodes[(first + step) % count]);
            json!({ "url": url, "expires_at": 1_u64 << 40 })
        })
        .collect();
    (StatusCode::OK, Json(json!({ "nodes": nodes })))
}
