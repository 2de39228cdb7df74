//! Five thousand users in one open channel, all of them online. Prints how long it took.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use madang_testkit::{Server, Socket};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const BINARY: &str = env!("CARGO_BIN_EXE_madang");
const PEOPLE: usize = 5_000;
/// Concurrent calls.
const CALLS: usize = 200;
/// Concurrent sign-ups. The server lets 32 passwords wait for each core.
const SIGN_UPS: usize = 24;
const MESSAGES: u64 = 100;
const PACE: Duration = Duration::from_millis(50);

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Makes a call for each of `people`, `at_once` of them concurrently.
async fn for_each<T, F>(
    at_once: usize,
    people: impl IntoIterator<Item = T>,
    call: impl FnMut(T) -> F,
) -> Vec<F::Output>
where
    F: Future,
{
    stream::iter(people).map(call).buffered(at_once).collect().await
}

/// Reads until the last message has arrived. Returns the latency of each message, from the time in its text.
async fn listen(mut socket: Socket, started: Instant) -> Vec<Duration> {
    let mut next = None;
    let mut latencies = Vec::new();
    while (latencies.len() as u64) < MESSAGES {
        let frame = socket.next().await.unwrap();
        assert_ne!(frame["heads"][0]["gap"], true, "a gap: {frame}");
        let entries = frame["entries"].as_array().filter(|_| frame["log"] == "channel");
        for entry in entries.into_iter().flatten() {
            let seq = entry["seq"].as_u64().unwrap();
            assert!(next.is_none_or(|next| next == seq), "{seq} came instead of {next:?}");
            next = Some(seq + 1);
            if entry["kind"] == "message" {
                let sent_ms: u64 = entry["text"].as_str().unwrap().parse().unwrap();
                latencies.push(started.elapsed().saturating_sub(Duration::from_millis(sent_ms)));
            }
        }
    }
    latencies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_subscribers_get_everything_in_order() {
    let folder = tempfile::tempdir().unwrap();
    // The server uses the clock of the machine, and the test has no time to send heartbeats.
    let config = folder.path().join("madang.toml");
    std::fs::write(&config, "[gateway]\nsilence_ms = 600000\n").unwrap();
    let (data, config) = (folder.path().join("data"), config.to_str().unwrap());
    let server = Server::start(BINARY, &data, &["--limits", "off", "--config", config]).await.unwrap();
    let rest = &server.rest;
    let owner = text(&rest.sign_up("owner").await["access_token"]);
    let wish = json!({ "kind": "open", "name": "Everybody" });
    let channel = text(&rest.must("POST", "/v1/channels", Some(&owner), Some(&wish)).await["id"]);
    let tokens: Vec<String> = for_each(SIGN_UPS, 0..PEOPLE, |number| async move {
        text(&rest.sign_up(&format!("person{number}")).await["access_token"])
    })
    .await;

    let begun = Instant::now();
    let path = format!("/v1/channels/{channel}/membership");
    for_each(CALLS, &tokens, |token| rest.must("PUT", &path, Some(token), None)).await;
    let took = begun.elapsed();
    println!("{PEOPLE} joins in {took:.1?}: {:.0} a second", PEOPLE as f64 / took.as_secs_f64());

    let subscribe = json!({ "type": "subscribe", "id": "s", "channel_id": channel });
    let sockets: Vec<Socket> = for_each(CALLS, &tokens, |token| async {
        let (mut socket, _) = Socket::connect(server.addr, token, None).await.unwrap();
        socket.send(&subscribe).await.unwrap();
        assert_eq!(socket.next_of("heads").await["id"], "s");
        socket
    })
    .await;
    println!("{} subscribers, the server has {} MiB", sockets.len(), server.resident_bytes().unwrap() >> 20);

    let started = Instant::now();
    let mut listeners = JoinSet::new();
    for socket in sockets {
        listeners.spawn(listen(socket, started));
    }
    let before = server.cpu_seconds().unwrap();
    let path = format!("/v1/channels/{channel}/messages");
    let mut tick = tokio::time::interval(PACE);
    for number in 0..MESSAGES {
        tick.tick().await;
        let message = json!({
            "client_msg_id": format!("01920000-0000-7000-8000-{number:012}"),
            "body": { "text": started.elapsed().as_millis().to_string() },
        });
        rest.must("POST", &path, Some(&owner), Some(&message)).await;
    }
    let mut latencies: Vec<Duration> = listeners.join_all().await.into_iter().flatten().collect();
    let (took, after) = (started.elapsed(), server.cpu_seconds().unwrap());
    assert_eq!(latencies.len(), PEOPLE * MESSAGES as usize);
    latencies.sort_unstable();
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize];
    println!("{MESSAGES} messages to {PEOPLE} in {took:.1?}; p50 {:.0?}, p99 {:.0?}", at(0.5), at(0.99));
    let each = |seconds: f64| seconds * 1e6 / latencies.len() as f64;
    let (own, kernel) = (each(after.0 - before.0), each(after.1 - before.1));
    println!("a delivery took {own:.1} µs of the server's CPU, and {kernel:.1} µs of the kernel's");
    let metrics = text(&rest.must("GET", "/metrics", None, None).await);
    for line in metrics.lines().filter(|line| line.contains("outbound_") || line.contains("gaps")) {
        println!("{line}");
    }
}
