//! A store that fails for some seconds closes no connection, and what was missed meanwhile arrives once and in order.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::sync::Arc;
use std::time::Duration;

use madang_bus::{Envelope, Loss};
use madang_testkit::{Config, Faults, Led, ManualClock, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const PEOPLE: usize = 10;
const SOCKETS_EACH: usize = 10;
/// Behind `created` and one `joined` for each member.
const FIRST_MESSAGE: u64 = PEOPLE as u64 + 2;
const MESSAGES: u64 = 100;
/// The store refuses everything while it is gone.
const GONE: Faults = Faults { delay_yields: 3, unavailable: 1.0, unknown: 0.0 };
const HALF_GONE: Faults = Faults { unavailable: 0.5, ..GONE };
const BACK: Faults = Faults { unavailable: 0.0, ..GONE };

struct Stage {
    node: TestNode,
    rest: Rest,
    clock: ManualClock,
    storage: Arc<Storage>,
    channel: String,
    /// Tokens and cursors. The first user sends the messages.
    people: Vec<(String, String)>,
}

impl Stage {
    async fn new() -> Self {
        let mut config = Config::default();
        config.limits.enabled = false;
        config.gateway.connections_per_device = SOCKETS_EACH + 1;
        // The test moves the clock faster than its clients send heartbeats.
        config.gateway.silence_ms = 3_600_000;
        let storage = Arc::new(Storage::model());
        let (clock, manual) = manual_clock();
        let breaks = Arc::clone(&storage);
        let rule = move |envelope| lose_while_the_store_goes(envelope, &breaks);
        let started = TestNode::start_over(config, &storage, clock, |backends| Led::over(backends, rule));
        let node = started.await.unwrap();
        let rest = Rest::new(&node.url());
        let mut stage =
            Self { node, rest, clock: manual, storage, channel: String::new(), people: Vec::new() };
        stage.fill().await;
        stage
    }

    async fn fill(&mut self) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut ids = Vec::new();
        for number in 0..PEOPLE {
            let signed_in = self.rest.sign_up(&format!("person{number}")).await;
            ids.push(signed_in["user"]["id"].clone());
            self.people.push((text(&signed_in["access_token"]), String::new()));
        }
        let wish = json!({ "kind": "group", "name": "Tea", "members": ids[1..] });
        let view = self.rest.must("POST", "/v1/channels", Some(&self.people[0].0), Some(&wish)).await;
        self.channel = text(&view["id"]);
        for (token, cursor) in &mut self.people {
            let snapshot = self.rest.must("POST", "/v1/snapshot", Some(token), Some(&json!({}))).await;
            *cursor = text(&snapshot["cursor"]);
        }
    }

    /// Sends all messages as Ada, on a separate socket.
    async fn talk(&self, text: &str) {
        let (mut ada, _) = Socket::connect(self.node.addr, &self.people[0].0, None).await.unwrap();
        let frames = (0..MESSAGES).map(|number| {
            let text = if number + 1 == MESSAGES { "the last" } else { text };
            json!({
                "type": "send", "id": number.to_string(), "channel_id": self.channel,
                "client_msg_id": format!("01920000-0000-7000-8000-{number:012}"),
                "body": { "text": text, "data": "x".repeat(4_000) },
            })
        });
        let answers = ada.pipeline(frames.collect()).await.unwrap();
        assert!(answers.iter().all(|answer| answer["type"] == "ack"));
        ada.close().await;
    }

    /// Connects all devices of all users. Each task ends when `then` ends.
    fn devices<T, F>(&self, then: fn(Socket) -> F) -> JoinSet<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut devices = JoinSet::new();
        for (token, cursor) in &self.people {
            for _ in 0..SOCKETS_EACH {
                let (addr, token, cursor) = (self.node.addr, token.clone(), cursor.clone());
                devices.spawn(async move {
                    let (socket, welcome) = Socket::connect(addr, &token, Some(&cursor)).await.unwrap();
                    assert_eq!(welcome["resume"], "resumed");
                    then(socket).await
                });
            }
        }
        devices
    }

    /// Moves the clock by this many seconds. After each second, waiting connections get time to ask the store again.
    async fn pass(&self, seconds: u32) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            // waits for: the connections that the clock has woken
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Moves the clock until all devices have everything.
    async fn finish(&self, mut devices: JoinSet<()>) {
        for _ in 0..300 {
            while let Some(done) = devices.try_join_next() {
                done.unwrap();
            }
            if devices.is_empty() {
                return;
            }
            self.pass(1).await;
        }
        panic!("{} devices are not complete", devices.len());
    }
}

/// Never delivers messages with a certain prefix. With the last one the store fails, and every session must read its inbox.
fn lose_while_the_store_goes(envelope: Envelope, storage: &Storage) -> Vec<Envelope> {
    let Envelope::Delivery(delivery) = &envelope else { return vec![envelope] };
    let texts: Vec<&str> = delivery
        .rows
        .iter()
        .filter_map(|row| row.entry.content.message())
        .map(|message| message.body.text.as_str())
        .collect();
    match texts.last() {
        Some(&"the last") => {
            storage.set_faults(GONE);
            vec![Envelope::Lost(Loss::Node)]
        }
        Some(&"lost") => Vec::new(),
        _ => vec![envelope],
    }
}

/// Receives every message once and in order. Nothing may close the socket meanwhile.
async fn receive_all(mut socket: Socket) {
    let mut next = FIRST_MESSAGE;
    while next < FIRST_MESSAGE + MESSAGES {
        let frame = socket.next().await.unwrap();
        assert_ne!(frame["type"], "snapshot_required");
        for entry in frame["entries"].as_array().into_iter().flatten().filter(|_| frame["log"] == "channel") {
            assert_eq!(entry["seq"], next);
            next += 1;
        }
    }
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_read_while_the_store_fails_are_not_closed_and_become_complete() {
    let stage = Stage::new().await;
    let welcomed = stage.devices(std::future::ready).join_all().await;
    let devices: JoinSet<()> = welcomed.into_iter().map(receive_all).collect();
    stage.talk("lost").await;
    stage.pass(5).await;
    stage.storage.set_faults(HALF_GONE);
    stage.pass(40).await;
    stage.storage.set_faults(BACK);
    stage.finish(devices).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_connect_while_the_store_fails_wait_for_their_welcome() {
    let stage = Stage::new().await;
    stage.talk("heard").await;
    // Everything that Ada's last message has caused is complete.
    stage.storage.set_faults(GONE);
    let devices = stage.devices(receive_all);
    stage.pass(3).await;
    stage.storage.set_faults(BACK);
    stage.finish(devices).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_has_waited_too_long_gets_an_error_and_is_closed() {
    let stage = Stage::new().await;
    stage.storage.set_faults(GONE);
    let mut socket = Socket::open(stage.node.addr).await.unwrap();
    socket.send(&json!({ "type": "hello", "id": "1", "token": stage.people[1].0 })).await.unwrap();
    stage.pass(9).await;
    let refused = socket.next().await.unwrap();
    assert_eq!((&refused["code"], &refused["id"]), (&json!("unavailable"), &json!("1")));
    let closed = socket.next().await.unwrap_err();
    assert!(matches!(closed, madang_testkit::Ended::Closed(4004, _)), "{closed:?}");
}
