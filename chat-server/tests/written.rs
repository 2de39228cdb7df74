//! The operator sees which users and channels write most, and the metrics contain no names.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::process::Command;
use std::time::Duration;

use madang_testkit::{Config, PATIENCE, Rest, Server, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

fn token(person: &Value) -> &str {
    person["access_token"].as_str().unwrap()
}

async fn group(rest: &Rest, person: &Value) -> String {
    let wish = json!({ "kind": "group", "name": "Tea", "members": [] });
    let view = rest.must("POST", "/v1/channels", Some(token(person)), Some(&wish)).await;
    view["id"].as_str().unwrap().to_owned()
}

async fn say(rest: &Rest, person: &Value, channel: &str, number: u64, bytes: usize) -> u64 {
    let key = format!("01920000-0000-7000-8000-{number:012}");
    let body = json!({ "client_msg_id": key, "body": { "text": "a".repeat(bytes) } });
    let path = format!("/v1/channels/{channel}/messages");
    rest.must("POST", &path, Some(token(person)), Some(&body)).await["seq"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heaviest_writers_come_first_and_an_hour_ends() {
    let mut config = Config::default();
    config.limits.enabled = false;
    let (clock, manual) = manual_clock();
    let node = TestNode::start(config, &Storage::model(), clock).await.unwrap();
    let operations = &node.node.gateway.operations;
    let rest = Rest::new(&node.url());
    let (ada, bob) = (rest.sign_up("ada").await, rest.sign_up("bob").await);
    let (quiet, loud) = (group(&rest, &ada).await, group(&rest, &bob).await);
    say(&rest, &ada, &quiet, 1, 10_000).await;
    let seq = say(&rest, &bob, &loud, 2, 100_000).await;
    let top = operations.top(5).await.unwrap().remove(0);
    let handles: Vec<&str> = top.users.iter().map(|user| user.handle.as_str()).collect();
    assert_eq!(handles, ["bob", "ada"]);
    let channels: Vec<String> = top.channels.iter().map(|channel| channel.id.to_string()).collect();
    assert_eq!(channels, [loud.clone(), quiet]);
    assert_eq!(top.channels[0].name.as_deref(), Some("Tea"));
    assert!((100_000..103_000).contains(&top.users[0].bytes), "{top:?}");
    assert!(top.bytes >= 110_000);
    // A reaction rewrites the whole message.
    let path = format!("/v1/channels/{loud}/messages/{seq}/reactions/tea");
    rest.must("PUT", &path, Some(token(&bob)), None).await;
    let top = operations.top(1).await.unwrap().remove(0);
    assert_eq!((top.users.len(), top.channels.len()), (1, 1));
    assert!(top.users[0].bytes >= 200_000, "{top:?}");
    assert_eq!(operations.metrics.written_top_user.get(), 0.0);
    let ended = async {
        while operations.top(1).await.unwrap().len() == 1 {
            manual.advance(Duration::from_secs(600));
            // waits for: the upkeep that the clock has woken
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    let periods = operations.top(1).await.unwrap();
    assert_eq!((periods[0].bytes, periods[0].users.len()), (0, 0));
    assert_eq!((periods[1].seconds, periods[1].users[0].handle.as_str()), (3_600, "bob"));
    let share = operations.metrics.written_top_user.get();
    assert!((0.9..=1.0).contains(&share), "{share}");
    let metrics = reqwest::get(format!("{}/metrics", node.url())).await.unwrap().text().await.unwrap();
    let lines: Vec<&str> = metrics.lines().filter(|line| line.contains("written_")).collect();
    assert!(lines.iter().any(|line| line.starts_with("written_top_user_share 0.9")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains('{')), "no label: {lines:?}");
    assert!(operations.top(0).await.is_err() && operations.top(101).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_asks_the_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_madang");
    let top = |args: &[&str]| {
        let mut command = Command::new(binary);
        command.arg("top").arg("--data").arg(folder.path()).args(args).output().unwrap()
    };
    let none = top(&[]);
    assert!(!none.status.success());
    assert!(String::from_utf8_lossy(&none.stderr).contains("no server runs on"), "{none:?}");
    let server = Server::start(binary, folder.path(), &["--limits", "off"]).await.unwrap();
    let ada = server.rest.sign_up("ada").await;
    let channel = group(&server.rest, &ada).await;
    say(&server.rest, &ada, &channel, 1, 50_000).await;
    let periods: Value = serde_json::from_slice(&top(&["--json"]).stdout).unwrap();
    assert_eq!(periods[0]["users"][0]["handle"], "ada");
    assert_eq!(periods[0]["channels"][0]["id"], channel.as_str());
    let text = String::from_utf8(top(&[]).stdout).unwrap();
    assert!(text.contains("were written") && text.contains("ada") && text.contains(&channel), "{text}");
    let refused = top(&["--limit", "101"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("it must be 1 to 100"), "{refused:?}");
}
