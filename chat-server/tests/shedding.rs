//! A node whose store is behind refuses the least important first, before it reads or writes anything for it.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::collections::BTreeSet;
use std::time::Duration;

use madang_chat_server::compose::Backends;
use madang_store::Waits;
use madang_testkit::{Config, Faults, ManualClock, PATIENCE, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

struct Stage {
    node: TestNode,
    rest: Rest,
    hand: ManualClock,
    storage: Storage,
    waits: Waits,
    ada: String,
    bob: String,
    channel: String,
}

impl Stage {
    /// Two users who talk with each other.
    async fn new() -> Self {
        let mut config = Config::default();
        config.limits.enabled = false;
        config.accounts.consent = false;
        // Minutes pass in which the sockets of the test are silent.
        config.gateway.silence_ms = 86_400_000;
        let (clock, hand) = manual_clock();
        let (storage, waits) = (Storage::model(), Waits::default());
        let lead = |backends: &mut Backends| backends.waits = waits.clone();
        let node = TestNode::start_shedding(config, &storage, clock, lead).await.unwrap();
        let rest = Rest::new(&node.url());
        let (ada, bob) = (rest.sign_up("ada").await, rest.sign_up("bob").await);
        let [ada_token, bob_token] =
            [&ada, &bob].map(|user| user["access_token"].as_str().unwrap().to_owned());
        let wish = json!({ "kind": "direct", "members": [bob["user"]["id"]] });
        let made = rest.must("POST", "/v1/channels", Some(&ada_token), Some(&wish)).await;
        let channel = made["id"].as_str().unwrap().to_owned();
        Self { node, rest, hand, storage, waits, ada: ada_token, bob: bob_token, channel }
    }

    fn level(&self) -> u8 {
        self.node.node.gateway.operations.shedding.level()
    }

    /// Lets seconds pass in which Ada sends a message and writes wait this long, until the level is as wanted.
    async fn until(&self, wait: Duration, wanted: impl Fn(u8) -> bool) {
        let waited = async {
            while !wanted(self.level()) {
                self.say().await;
                self.waits.note_write(wait);
                self.hand.advance(Duration::from_secs(1));
                // waits for: the next look at the waits
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.unwrap();
    }

    async fn say(&self) -> u64 {
        let message = json!({ "client_msg_id": uuid::Uuid::new_v4(), "body": { "text": "hello" } });
        let path = format!("/v1/channels/{}/messages", self.channel);
        self.rest.must("POST", &path, Some(&self.ada), Some(&message)).await["seq"].as_u64().unwrap()
    }

    fn read(&self, seq: u64) -> Value {
        json!({ "type": "read", "id": "r", "channel_id": self.channel, "seq": seq })
    }

    fn typing(&self) -> Value {
        json!({ "type": "typing", "channel_id": self.channel })
    }

    /// The calls of the store since the last time, by name.
    fn calls(&self) -> BTreeSet<&'static str> {
        self.storage.take_calls().into_iter().map(|call| call.name).collect()
    }
}

/// The answer to a frame of Bob's.
async fn ask(socket: &mut Socket, frame: &Value) -> Value {
    socket.send(frame).await.unwrap();
    loop {
        let answer = socket.next().await.unwrap();
        if answer["id"] == frame["id"] {
            return answer;
        }
    }
}

#[tokio::test]
async fn a_node_whose_store_is_behind_refuses_read_markers_before_it_reads_and_takes_messages() {
    let stage = Stage::new().await;
    let (mut bob, _) = Socket::connect(stage.node.addr, &stage.bob, None).await.unwrap();
    let first = stage.say().await;
    stage.calls();
    bob.send(&stage.typing()).await.unwrap();
    let done = ask(&mut bob, &stage.read(first)).await;
    assert_eq!((done["type"].as_str(), stage.level()), (Some("done"), 0), "{done}");
    let costs = stage.calls();
    assert!(costs.contains("members_of") && costs.contains("advance_marker"), "{costs:?}");

    stage.until(Duration::from_millis(500), |level| level == 3).await;
    let second = stage.say().await;
    assert!(second > first);
    stage.calls();
    bob.send(&stage.typing()).await.unwrap();
    let refused = ask(&mut bob, &stage.read(second)).await;
    assert_eq!(refused["code"], "unavailable", "{refused}");
    assert!(refused["retry_after_ms"].as_u64().unwrap() >= 750, "{refused}");
    let calls = stage.calls();
    assert!(calls.is_disjoint(&costs), "what is shed costs nothing: {calls:?}");
    let path = format!("/v1/channels/{}/read", stage.channel);
    let over_rest =
        stage.rest.call("PUT", &path, Some(&stage.bob), None, Some(&json!({ "seq": second }))).await.unwrap();
    assert_eq!((over_rest.status, over_rest.body["code"].as_str()), (503, Some("unavailable")));

    stage.until(Duration::ZERO, |level| level == 0).await;
    let done = ask(&mut bob, &stage.read(second)).await;
    assert_eq!(done["type"], "done", "{done}");
}

#[tokio::test]
async fn what_follows_a_typing_event_does_not_wait_for_a_slow_store() {
    let stage = Stage::new().await;
    let (mut bob, _) = Socket::connect(stage.node.addr, &stage.bob, None).await.unwrap();
    // No call of the store ends any more.
    stage.storage.set_faults(Faults { delay_yields: u32::MAX, ..Faults::NONE });
    bob.send(&stage.typing()).await.unwrap();
    let next = json!({ "type": "received", "id": "n", "cursor": "none" });
    let asked = async {
        bob.send(&next).await.unwrap();
        tokio::select! {
            frame = bob.next_of("error") => frame,
            () = async {
                loop {
                    // waits for: the typing event, which begins to wait when its frame is read
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    stage.hand.advance(Duration::from_millis(50));
                }
            } => unreachable!("it goes on until the answer"),
        }
    };
    let refused = tokio::time::timeout(PATIENCE, asked).await.unwrap();
    assert_eq!(refused["id"], "n", "{refused}");
}
