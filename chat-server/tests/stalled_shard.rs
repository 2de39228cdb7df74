//! A part of the store that does not answer holds up the channels that are in it, and no others.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_testkit::{Config, Rest, Storage, TestNode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Direct channels. The model has four shards.
const PAIRS: usize = 16;
/// Calls of the stalled channels at the same moment.
const READS: usize = 100;
const SENDS: usize = 40;
const ROUNDS: usize = 25;

struct Stage {
    _node: TestNode,
    rest: Arc<Rest>,
    storage: Storage,
    pairs: Vec<Pair>,
}

#[derive(Clone)]
struct Pair {
    token: String,
    channel: String,
}

impl Stage {
    async fn new() -> Self {
        let mut config = Config::default();
        config.limits.enabled = false;
        let storage = Storage::model();
        let node = TestNode::start(config, &storage, madang_service::Clock::system()).await.unwrap();
        let rest = Arc::new(Rest::new(&node.url()));
        let bob = rest.sign_up("bob").await;
        let mut pairs = Vec::new();
        for number in 0..PAIRS {
            let user = rest.sign_up(&format!("user{number}")).await;
            let token = user["access_token"].as_str().unwrap().to_owned();
            let wish = json!({ "kind": "direct", "members": [bob["user"]["id"]] });
            let made = rest.must("POST", "/v1/channels", Some(&token), Some(&wish)).await;
            pairs.push(Pair { token, channel: made["id"].as_str().unwrap().to_owned() });
        }
        Self { _node: node, rest, storage, pairs }
    }

    fn shard(&self, pair: &Pair) -> u64 {
        self.storage.shard(pair.channel.parse().unwrap())
    }
}

async fn say(rest: &Rest, pair: &Pair) -> Value {
    let message = json!({ "client_msg_id": uuid::Uuid::new_v4(), "body": { "text": "hello" } });
    let path = format!("/v1/channels/{}/messages", pair.channel);
    rest.must("POST", &path, Some(&pair.token), Some(&message)).await
}

async fn read(rest: &Rest, pair: &Pair) -> (u16, Value) {
    let path = format!("/v1/channels/{}/entries?limit=10", pair.channel);
    let answer = rest.call("GET", &path, Some(&pair.token), None, None).await.unwrap();
    (answer.status, answer.body)
}

/// Sends and reads in all these channels, and returns how long a message took at the 99th percentile.
async fn talk(rest: &Rest, pairs: &[Pair]) -> Duration {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        for pair in pairs {
            let begun = Instant::now();
            say(rest, pair).await;
            took.push(begun.elapsed());
            assert_eq!(read(rest, pair).await.0, 200);
        }
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_does_not_answer_holds_up_only_its_channels() {
    let stage = Stage::new().await;
    let stalled = stage.shard(&stage.pairs[0]);
    let (inside, outside): (Vec<Pair>, Vec<Pair>) =
        stage.pairs.iter().cloned().partition(|pair| stage.shard(pair) == stalled);
    assert!(!outside.is_empty());
    talk(&stage.rest, &inside).await;
    let before = talk(&stage.rest, &outside).await;

    stage.storage.stall(Some(stalled));
    let (mut reads, mut sends) = (JoinSet::new(), JoinSet::new());
    for number in 0..READS.max(SENDS) {
        let pair = &inside[number % inside.len()];
        if number < READS {
            let (rest, pair) = (Arc::clone(&stage.rest), pair.clone());
            reads.spawn(async move { read(&rest, &pair).await });
        }
        if number < SENDS {
            let (rest, pair) = (Arc::clone(&stage.rest), pair.clone());
            sends.spawn(
                async move { (pair.channel.clone(), say(&rest, &pair).await["seq"].as_u64().unwrap()) },
            );
        }
    }
    // Those that found no place in the bulkhead were refused.
    let refused = reads.join_next().await.unwrap().unwrap();
    assert_eq!((refused.0, refused.1["code"].as_str()), (503, Some("unavailable")), "{refused:?}");
    let meanwhile = talk(&stage.rest, &outside).await;
    assert!(sends.try_join_next().is_none(), "nothing of the stalled shard is acknowledged");
    println!("a message took {before:?} before, and {meanwhile:?} while a shard was stalled (p99)");

    stage.storage.stall(None);
    let mut acked = sends.join_all().await;
    acked.sort_unstable();
    let count = acked.len();
    acked.dedup();
    assert_eq!((count, acked.len()), (SENDS, SENDS), "every message has a place of its own");
    for (status, body) in reads.join_all().await {
        assert!(status == 200 || body["code"] == "unavailable", "{status} {body}");
    }
    talk(&stage.rest, &inside).await;
}
