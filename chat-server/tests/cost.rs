//! What each use case costs: which methods of the store are called, and in how many sequential rounds (`DESIGN` calls them round
//! trips). A call more in one of these lists is paid by every user every day.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use madang_testkit::{Call, Config, ManualClock, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

/// A node over the model store with two users.
struct Stage {
    storage: Storage,
    node: TestNode,
    rest: Rest,
    _clock: ManualClock,
    /// The access tokens of ada and bob.
    tokens: [String; 2],
    /// The id of bob.
    bob: Value,
}

async fn start(storage: &Storage) -> (TestNode, Rest, ManualClock) {
    let mut config = Config::default();
    config.limits.enabled = false;
    let (clock, hand) = manual_clock();
    let node = TestNode::start(config, storage, clock).await.unwrap();
    let rest = Rest::new(&node.url());
    (node, rest, hand)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

impl Stage {
    async fn new() -> Self {
        let storage = Storage::model();
        let (node, rest, clock) = start(&storage).await;
        let (ada, bob) = (rest.sign_up("ada").await, rest.sign_up("bob").await);
        let tokens = [&ada, &bob].map(|user| text(&user["access_token"]));
        Self { storage, node, rest, _clock: clock, tokens, bob: bob["user"]["id"].clone() }
    }

    /// The same users on another node that knows nothing yet but the two devices.
    async fn on_another_node(self) -> Self {
        let Self { storage, node, tokens, bob, .. } = self;
        drop(node);
        let (node, rest, clock) = start(&storage).await;
        let stage = Self { storage, node, rest, _clock: clock, tokens, bob };
        for token in &stage.tokens {
            stage.rest.must("GET", "/v1/devices", Some(token), None).await;
        }
        stage
    }

    async fn make(&self, wish: Value) -> String {
        let made = self.rest.must("POST", "/v1/channels", Some(&self.tokens[0]), Some(&wish)).await;
        text(&made["id"])
    }

    async fn direct(&self) -> String {
        self.make(json!({ "kind": "direct", "members": [self.bob] })).await
    }

    /// Lets the work behind the last answer end. Everything runs on this thread and waits for no time, so it ends if it may run.
    async fn rest_of_the_last(&self) {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        self.storage.take_calls();
    }

    /// Sends a message of ada (0) or bob (1). Returns the calls up to the append.
    async fn send(&self, by: usize, channel: &str, number: u8) -> Vec<String> {
        self.rest_of_the_last().await;
        let body = json!({
            "client_msg_id": format!("01890a5d-ac96-774b-bcce-b302099a8{by}{number:02}"), "body": { "text": "hi" },
        });
        let path = format!("/v1/channels/{channel}/messages");
        self.rest.must("POST", &path, Some(&self.tokens[by]), Some(&body)).await;
        let calls = self.storage.take_calls();
        // Calls behind the append begin while the ack is on its way; `rows_back` repeats the fan-out of the home before this one.
        let append = calls.iter().find(|call| call.name == "append").unwrap().round;
        lines(calls.into_iter().filter(|call| call.round <= append && call.name != "rows_back"))
    }

    /// The calls of a request by bob.
    async fn calls_of(&self, method: &str, path: &str, body: Option<Value>) -> Vec<String> {
        self.rest_of_the_last().await;
        self.rest.must(method, path, Some(&self.tokens[1]), body.as_ref()).await;
        lines(self.storage.take_calls())
    }
}

fn lines(calls: impl IntoIterator<Item = Call>) -> Vec<String> {
    calls.into_iter().map(|Call { name, round }| format!("{round} {name}")).collect()
}

#[tokio::test]
async fn a_warm_send_waits_for_the_append_alone() {
    let stage = Stage::new().await;
    let channel = stage.direct().await;
    stage.send(0, &channel, 0).await;
    assert_eq!(stage.send(0, &channel, 1).await, ["1 append"]);
}

/// The first round finds out what the channel is. A node that knows the channel has the other three.
#[tokio::test]
async fn a_cold_send_to_a_contact_waits_for_two_rounds_of_its_home_and_the_append() {
    let stage = Stage::new().await;
    let channel = stage.direct().await;
    stage.send(1, &channel, 0).await;
    let stage = stage.on_another_node().await;
    let cold = stage.send(0, &channel, 0).await;
    assert_eq!(cold, ["1 channel", "2 tail", "3 seating", "3 channel", "3 is_blocked", "4 append"]);
}

#[tokio::test]
async fn a_join_has_four_conditional_writes() {
    let stage = Stage::new().await;
    let channel = stage.make(json!({ "kind": "open", "name": "Tea", "members": [] })).await;
    stage.calls_of("GET", "/v1/devices", None).await;
    let path = format!("/v1/channels/{channel}/membership");
    let join = stage.calls_of("PUT", &path, None).await;
    let expected = [
        "1 channel_counts",
        "2 members_of",
        "3 change_seats",
        "3 put_memberships",
        "4 append",
        "5 heads",
        "5 rows",
        "6 channel",
        "6 put_memberships",
        "6 advance_marker",
        // The user's own log, whose home is new.
        "7 tail",
        "8 append",
        "9 settle_members",
        "10 overview_of",
    ];
    assert_eq!(join, expected);
    let conditional = ["change_seats", "append", "settle_members"];
    let is_conditional = |call: &&String| conditional.iter().any(|name| call.ends_with(name));
    assert_eq!(join.iter().filter(is_conditional).count(), 4);
}

/// The conditional write is the note in the user's own log (docs/decisions/0027).
#[tokio::test]
async fn a_read_marker_has_one_conditional_write() {
    let stage = Stage::new().await;
    let channel = stage.direct().await;
    stage.send(0, &channel, 0).await;
    let path = format!("/v1/channels/{channel}/read");
    stage.calls_of("PUT", &path, Some(json!({ "seq": 3 }))).await;
    stage.send(0, &channel, 1).await;
    let read = stage.calls_of("PUT", &path, Some(json!({ "seq": 4 }))).await;
    let expected = [
        "1 overview_of",
        "2 rows",
        "3 advance_marker",
        "4 overview_of",
        "5 append",
        // The receipt for the other user.
        "6 users",
        "7 presence",
        "8 apart_from",
    ];
    assert_eq!(read, expected);
}

#[tokio::test]
async fn a_page_of_a_snapshot_is_three_reads() {
    let stage = Stage::new().await;
    stage.direct().await;
    stage.calls_of("GET", "/v1/devices", None).await;
    let page = stage.calls_of("POST", "/v1/snapshot", Some(json!({}))).await;
    assert_eq!(page, ["1 overview", "2 channels_among", "3 open_invitations"]);
}

#[tokio::test]
async fn a_resume_reads_the_inbox_and_its_content_at_once() {
    let stage = Stage::new().await;
    let channel = stage.direct().await;
    let snapshot = stage.rest.must("POST", "/v1/snapshot", Some(&stage.tokens[1]), Some(&json!({}))).await;
    stage.send(0, &channel, 0).await;
    stage.rest_of_the_last().await;
    let cursor = snapshot["cursor"].as_str();
    let (mut socket, _) = Socket::connect(stage.node.addr, &stage.tokens[1], cursor).await.unwrap();
    socket.next_of("entries").await;
    let calls = stage.storage.take_calls();
    // Presence reads the user's rows beside it.
    let of_presence = ["presence", "users", "circle"];
    let names: Vec<&str> =
        calls.iter().map(|call| call.name).filter(|name| !of_presence.contains(name)).collect();
    assert_eq!(names, ["device", "scan", "rows", "hidden_messages"]);
}
