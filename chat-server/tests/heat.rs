//! Hot channels: entries leave together, events are dropped, and everything arrives once and in order.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::time::Duration;

use madang_engine::heat::Level;
use madang_ids::ChannelId;
use madang_testkit::{Config, ManualClock, PATIENCE, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

struct Stage {
    node: TestNode,
    rest: Rest,
    hand: ManualClock,
    owner: Person,
    channel: String,
    storage: Storage,
}

struct Person {
    token: String,
}

impl Stage {
    async fn new() -> Self {
        Self::over(Storage::embedded()).await
    }

    async fn over(storage: Storage) -> Self {
        let mut config = Config::default();
        config.limits.enabled = false;
        config.tokens.access_seconds = 86_400;
        // Minutes pass in which the sockets of the test are silent.
        config.gateway.silence_ms = 86_400_000;
        let (clock, hand) = manual_clock();
        let node = TestNode::start_over(config, &storage, clock, |_| {}).await.unwrap();
        let rest = Rest::new(&node.url());
        let owner = person(&rest, "owner").await;
        let wish = json!({ "kind": "open", "name": "Concert" });
        let view = rest.must("POST", "/v1/channels", Some(&owner.token), Some(&wish)).await;
        let channel = view["id"].as_str().unwrap().to_owned();
        Self { node, rest, hand, owner, channel, storage }
    }

    fn id(&self) -> ChannelId {
        self.channel.parse().unwrap()
    }

    fn level(&self) -> Level {
        self.node.node.gateway.operations.heats.level(self.id())
    }

    /// Lets a second pass in which the channel has cost this much, and waits until it was decided about.
    async fn second(&self, deliveries: u64) {
        let heats = &self.node.node.gateway.operations.heats;
        heats.delivered(self.id(), 1, deliveries, 0);
        let decided = heats.decided();
        let waited = async {
            while heats.decided() == decided {
                self.hand.advance(Duration::from_millis(100));
                // waits for: the task that decides once a second
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.unwrap();
    }

    async fn join(&self, handle: &str) -> Person {
        let person = person(&self.rest, handle).await;
        let path = format!("/v1/channels/{}/membership", self.channel);
        self.rest.must("PUT", &path, Some(&person.token), None).await;
        person
    }

    /// Subscribes to what comes from now on.
    async fn subscribe(&self, person: &Person) -> Socket {
        let (mut socket, _) = Socket::connect(self.node.addr, &person.token, None).await.unwrap();
        let subscribe = json!({ "type": "subscribe", "id": "s", "channel_id": self.channel });
        socket.send(&subscribe).await.unwrap();
        while socket.next().await.unwrap()["id"] != "s" {}
        socket
    }

    async fn say(&self, text: &str) -> u64 {
        let message = json!({ "client_msg_id": uuid::Uuid::new_v4(), "body": { "text": text } });
        let path = format!("/v1/channels/{}/messages", self.channel);
        let ack = self.rest.must("POST", &path, Some(&self.owner.token), Some(&message)).await;
        ack["seq"].as_u64().unwrap()
    }

    /// A call that may be refused.
    async fn call(&self, method: &str, path: &str, person: &Person, body: Option<&Value>) -> (u16, Value) {
        let answer = self.rest.call(method, path, Some(&person.token), None, body).await.unwrap();
        (answer.status, answer.body)
    }

    /// Lets time pass until the entry `last` has come. Returns the entries of each frame.
    async fn frames_upto(&self, socket: &mut Socket, last: u64) -> Vec<Vec<u64>> {
        let mut frames: Vec<Vec<u64>> = Vec::new();
        let coming = async {
            while frames.last().and_then(|entries| entries.last()) != Some(&last) {
                tokio::select! {
                    frame = socket.next() => {
                        let entries = entries_of(&frame.unwrap());
                        frames.extend(Some(entries).filter(|entries| !entries.is_empty()));
                    }
                    // waits for: an entry that was acknowledged and has not come to the pacer yet
                    () = tokio::time::sleep(Duration::from_millis(5)) => {
                        self.hand.advance(Duration::from_millis(100));
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, coming).await.unwrap();
        frames
    }

    /// The same, all in one list.
    async fn entries_upto(&self, socket: &mut Socket, last: u64) -> Vec<u64> {
        self.frames_upto(socket, last).await.concat()
    }

    /// An answer reaches the socket behind everything that was delivered before.
    async fn nothing_came(&self, socket: &mut Socket) {
        let ask = json!({ "type": "history", "id": "p", "channel_id": self.channel, "limit": 1 });
        socket.send(&ask).await.unwrap();
        loop {
            let frame = socket.next().await.unwrap();
            if frame["id"] == "p" {
                return;
            }
            assert!(frame["log"] != "channel", "{frame}");
        }
    }
}

async fn person(rest: &Rest, handle: &str) -> Person {
    let signed_in = rest.sign_up(handle).await;
    Person { token: signed_in["access_token"].as_str().unwrap().to_owned() }
}

/// The places of the entries of a frame of the channel.
fn entries_of(frame: &Value) -> Vec<u64> {
    if frame["log"] != "channel" {
        return Vec::new();
    }
    frame["entries"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_a_hot_channel_leave_together_and_those_of_a_cool_one_at_once() {
    let stage = Stage::new().await;
    let bob = stage.join("bob").await;
    let mut socket = stage.subscribe(&bob).await;
    let first = stage.say("cool").await;
    assert_eq!(stage.entries_upto(&mut socket, first).await, [first]);
    stage.second(2_000_000).await;
    assert_eq!(stage.level(), Level::Blazing, "one second far above the bar is enough");
    let mut said = Vec::new();
    for number in 0..5 {
        said.push(stage.say(&format!("{number}")).await);
    }
    stage.nothing_came(&mut socket).await;
    let frames = stage.frames_upto(&mut socket, said[4]).await;
    assert_eq!(frames.concat(), said);
    assert!(frames.len() <= 2, "{frames:?}");
    for _ in 0..(60 + 30 + 30) {
        stage.second(0).await;
    }
    assert_eq!(stage.level(), Level::Normal);
    let last = stage.say("cool again").await;
    assert_eq!(stage.entries_upto(&mut socket, last).await, [last]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_begins_within_a_batch_gets_its_end() {
    let stage = Stage::new().await;
    let (bob, cy) = (stage.join("bob").await, stage.join("cy").await);
    let mut early = stage.subscribe(&bob).await;
    stage.second(2_000_000).await;
    let before = [stage.say("one").await, stage.say("two").await];
    let mut late = stage.subscribe(&cy).await;
    // A user who joins reads nothing of before.
    let dan = stage.join("dan").await;
    let mut newcomer = stage.subscribe(&dan).await;
    let after = [stage.say("three").await, stage.say("four").await];
    let joined = before[1] + 1;
    let all = [before[0], before[1], joined, after[0], after[1]];
    assert_eq!(stage.entries_upto(&mut early, after[1]).await, all);
    assert_eq!(stage.entries_upto(&mut late, after[1]).await, all[2..]);
    assert_eq!(stage.entries_upto(&mut newcomer, after[1]).await, after);
}

/// The next frame that says how the channel is paced.
async fn pacing(socket: &mut Socket) -> Value {
    loop {
        let frame = socket.next().await.unwrap();
        if frame["type"] == "heads" && frame["heads"][0]["pacing"].is_object() {
            assert_eq!(frame["heads"][0]["gap"], Value::Null, "{frame}");
            return frame["heads"][0]["pacing"].clone();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_are_notified_of_the_level_when_it_changes_and_when_they_subscribe() {
    let stage = Stage::new().await;
    let (bob, cy) = (stage.join("bob").await, stage.join("cy").await);
    let mut early = stage.subscribe(&bob).await;
    stage.second(2_000_000).await;
    let blazing = json!({ "level": "blazing", "batch_ms": 500, "slow_mode_seconds": 5 });
    assert_eq!(pacing(&mut early).await, blazing);
    let mut late = stage.subscribe(&cy).await;
    assert_eq!(pacing(&mut late).await, blazing);
    for _ in 0..(60 + 30 + 30) {
        stage.second(0).await;
    }
    for socket in [&mut early, &mut late] {
        assert_eq!(pacing(socket).await, json!({ "level": "hot", "batch_ms": 250 }));
        assert_eq!(pacing(socket).await, json!({ "level": "warm", "batch_ms": 100 }));
        assert_eq!(pacing(socket).await, json!({ "level": "normal", "batch_ms": 0 }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_join_a_blazing_channel_slowly_and_learn_when_to_come_back() {
    let stage = Stage::over(Storage::model()).await;
    stage.second(2_000_000).await;
    let path = format!("/v1/channels/{}/membership", stage.channel);
    let (mut joined, mut refused) = (0, 0);
    let looked = || stage.storage.take_calls().iter().any(|call| call.name == "device");
    for number in 0..60 {
        let person = person(&stage.rest, &format!("fan{number}")).await;
        looked();
        let (status, answer) = stage.call("PUT", &path, &person, None).await;
        assert_eq!(looked(), status == 200, "a refusal costs no read, not even of the caller's device");
        match status {
            200 => joined += 1,
            429 => {
                assert_eq!(answer["code"], "limited", "{answer}");
                let wait = answer["retry_after_ms"].as_u64().unwrap();
                assert!((7_500..=12_500).contains(&wait), "{answer}");
                refused += 1;
            }
            other => panic!("{other}: {answer}"),
        }
    }
    // Time stands still in this test, so this is one second.
    assert_eq!((joined, refused), (50, 10));
    assert_eq!(stage.node.node.gateway.operations.metrics.joins_refused.get(), 10);
    let gone = person(&stage.rest, "gone").await;
    stage.rest.must("DELETE", "/v1/sessions", Some(&gone.token), None).await;
    let (status, answer) = stage.call("PUT", &path, &gone, None).await;
    assert_eq!(
        (status, &answer["code"]),
        (401, &json!("revoked")),
        "a device that is known to be revoked is refused first"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_blazing_channel_write_one_message_in_five_seconds_and_its_owner_more() {
    let stage = Stage::new().await;
    let bob = stage.join("bob").await;
    let say = async |person: &Person| {
        let message = json!({ "client_msg_id": uuid::Uuid::new_v4(), "body": { "text": "a" } });
        let path = format!("/v1/channels/{}/messages", stage.channel);
        stage.call("POST", &path, person, Some(&message)).await
    };
    stage.second(2_000_000).await;
    assert_eq!(say(&bob).await.0, 200);
    let (status, refusal) = say(&bob).await;
    assert_eq!((status, refusal["code"].as_str()), (429, Some("limited")), "{refusal}");
    assert!(refusal["retry_after_ms"].as_u64().unwrap() <= 5_000, "{refusal}");
    for _ in 0..3 {
        assert_eq!(say(&stage.owner).await.0, 200);
    }
    stage.hand.advance(Duration::from_secs(5));
    assert_eq!(say(&bob).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_page_of_a_hot_channel_is_read_once_for_all_and_a_deletion_begins_a_new_one() {
    let stage = Stage::new().await;
    let secret = stage.say("secret").await;
    let path = format!("/v1/channels/{}/entries?before={}", stage.channel, secret + 1);
    let read = async || stage.rest.must("GET", &path, Some(&stage.owner.token), None).await;
    let shared = || stage.node.node.gateway.operations.metrics.reads_shared.get();
    let cool = read().await;
    assert_eq!((read().await, shared()), (cool.clone(), 0));
    stage.second(2_000_000).await;
    assert_eq!((read().await, shared()), (cool.clone(), 0));
    assert_eq!((read().await, read().await, shared()), (cool.clone(), cool.clone(), 2));
    let message = format!("/v1/channels/{}/messages/{secret}", stage.channel);
    stage.rest.must("DELETE", &message, Some(&stage.owner.token), None).await;
    let after = read().await.to_string();
    assert!(!after.contains("secret"), "{after}");
    stage.hand.advance(Duration::from_millis(300));
    let known = shared();
    assert_eq!((read().await.to_string(), shared()), (after, known), "it was read again");
}
