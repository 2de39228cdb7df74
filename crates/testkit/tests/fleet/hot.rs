//! A hot channel of three nodes that are processes: they agree that it is blazing, an operator sees all of it from any node and moves its
//! home, and it stays blazing while one node after the other is killed, its home among them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use madang_testkit::{Config, FleetNodes, Rest, Socket};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{board, operator, place};

const NODES: usize = 3;
/// How long the nodes may take to agree.
const PATIENCE: Duration = Duration::from_secs(30);
/// A level that a home has sent holds for 20 s without it. Only the next home can make it hold for longer.
const HOLDS_AFTER_A_KILL: Duration = Duration::from_secs(25);

/// The number of blazing channels of a node.
async fn blazing(rest: &Rest) -> u64 {
    let metrics = rest.must("GET", "/metrics", None, None).await;
    let of_level = |line: &&str| line.starts_with("hot_channels{level=\"blazing\"}");
    let line = metrics.as_str().unwrap().lines().find(of_level);
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0)
}

/// Bars that a few dozen entries a second exceed, and no slow mode, because one member sends all of them.
fn low_bars(mut config: Value) -> Value {
    for bars in ["floor", "cap"] {
        config["heat"]["capacity"][bars] = json!([2.0, 4.0, 8.0]);
    }
    config["heat"]["pacing"]["blazing"]["slow_mode_seconds"] = json!(0);
    json!({ "config": config, "why": "a test of three nodes" })
}

struct Stage {
    nodes: FleetNodes,
    owner: String,
    operator: String,
    channel: String,
    /// Of a member who reads on each node. A node without readers has no work that it would hear the level for.
    tokens: Vec<String>,
    readers: JoinSet<()>,
    sent: u64,
    /// The place of the last message.
    seq: u64,
}

impl Stage {
    /// Sends for a while by way of a node, and returns how many of the others were blazing throughout.
    async fn send_for(&mut self, by: usize, lasts: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < lasts {
            self.send(by).await;
        }
    }

    async fn send(&mut self, by: usize) {
        self.sent += 1;
        let path = format!("/v1/channels/{}/messages", self.channel);
        let id = format!("00000000-0000-4000-8000-{:012x}", self.sent);
        let body = json!({ "client_msg_id": id, "body": { "text": "la la la" } });
        let sent = self.nodes.rest(by).call("POST", &path, Some(&self.owner), None, Some(&body)).await;
        // While a node is dead, a command may be answered as unavailable.
        let sent = sent.unwrap();
        assert!([200, 201, 503].contains(&sent.status), "{sent:?}");
        if let Some(seq) = sent.body["seq"].as_u64() {
            assert!(seq > self.seq, "{seq} after {}", self.seq);
            self.seq = seq;
        }
    }

    async fn read_on(&mut self, number: usize) {
        let (addr, token) = (self.nodes.addr(number), &self.tokens[number]);
        let (mut socket, _) = Socket::connect(addr, token, None).await.unwrap();
        let subscribe = json!({ "type": "subscribe", "id": "1", "channel_id": self.channel });
        socket.send(&subscribe).await.unwrap();
        socket.next_of("heads").await;
        self.readers.spawn(async move { while socket.next().await.is_ok() {} });
    }

    async fn board(&self, of: usize) -> Value {
        board(self.nodes.rest(of), &self.operator).await
    }

    /// Moves the home away from where it is, while messages are sent. Returns how long it took until all nodes showed another one.
    async fn move_home(&mut self) -> Duration {
        let home = |board: &Value| board["channels"][0]["home"].as_str().map(str::to_owned);
        let before = home(&self.board(0).await);
        assert!(before.is_some());
        let path = format!("/v1/operator/channels/{}/override", self.channel);
        let wish = json!({ "away_from": before, "minutes": 30, "why": "a test of three nodes" });
        let begun = Instant::now();
        let put = self.nodes.rest(0).must("PUT", &path, Some(&self.operator), Some(&wish)).await;
        assert_eq!(put["set"]["away_from"].as_str(), before.as_deref());
        let (first, mut homes) = (self.seq, BTreeSet::from([before.clone()]));
        while homes.contains(&before) {
            self.send(1).await;
            homes.clear();
            for of in 0..NODES {
                homes.insert(home(&self.board(of).await));
            }
            assert!(begun.elapsed() < PATIENCE, "the home is still {homes:?}");
        }
        let took = begun.elapsed();
        self.send_for(2, Duration::from_secs(2)).await;
        assert!(homes.len() == 1 && self.seq > first, "{homes:?}");
        took
    }

    /// Sends until the living nodes call the channel blazing.
    async fn until_blazing(&mut self, by: usize) {
        let begun = Instant::now();
        loop {
            self.send_for(by, Duration::from_millis(300)).await;
            let mut all = true;
            for number in 0..NODES {
                all &= blazing(self.nodes.rest(number)).await == 1;
            }
            if all {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not all nodes call it blazing");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MADANG_TEST_CQL, MADANG_TEST_REDIS and MADANG_TEST_BINARY"]
async fn a_channel_stays_blazing_on_all_nodes_when_its_home_is_killed() {
    let mut config = Config::default();
    config.limits.enabled = false;
    config.heat.enabled = true;
    // The readers send no heartbeats.
    config.gateway.silence_ms = 600_000;
    config.tokens.access_seconds = 86_400;
    let nodes = FleetNodes::start(&place(), config, NODES).await.unwrap();
    let rest = nodes.rest(0).clone();
    let owner = rest.sign_up("owner").await["access_token"].as_str().unwrap().to_owned();
    let wish = json!({ "kind": "open", "name": "Concert" });
    let view = rest.must("POST", "/v1/channels", Some(&owner), Some(&wish)).await;
    let channel = view["id"].as_str().unwrap().to_owned();
    let operator = operator(&nodes).await;
    let change = nodes.command(0, &["config", "get"]).await.unwrap();
    let config: Value = serde_json::from_str(&change).unwrap();
    let tag = format!("\"{}\"", config["version"]);
    let put =
        rest.put_if_match("/v1/operator/config", &operator, &tag, &low_bars(config["config"].clone())).await;
    assert_eq!(put.status, 200, "{}", put.body);

    let mut tokens = Vec::new();
    for number in 0..NODES {
        let reader =
            rest.sign_up(&format!("reader{number}")).await["access_token"].as_str().unwrap().to_owned();
        rest.must("PUT", &format!("/v1/channels/{channel}/membership"), Some(&reader), None).await;
        tokens.push(reader);
    }

    let mut stage =
        Stage { nodes, owner, operator, channel, tokens, readers: JoinSet::new(), sent: 0, seq: 0 };
    for number in 0..NODES {
        stage.read_on(number).await;
    }
    stage.until_blazing(0).await;
    for of in 0..NODES {
        let board = stage.board(of).await;
        let names: BTreeSet<&str> =
            board["nodes"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
        assert_eq!(names, BTreeSet::from(["test-0", "test-1", "test-2"]), "as node {of} shows it");
        let rows = board["channels"].as_array().unwrap();
        assert_eq!((rows.len(), rows[0]["level"].as_str()), (1, Some("blazing")), "{board}");
        assert_eq!((rows[0]["subscribers"].as_u64(), rows[0]["name"].as_str()), (Some(3), Some("Concert")));
    }

    let wrong = json!({ "away_from": "nobody", "minutes": 30, "why": "a test of three nodes" });
    let path = format!("/v1/operator/channels/{}/override", stage.channel);
    let refused =
        stage.nodes.rest(0).call("PUT", &path, Some(&stage.operator), None, Some(&wrong)).await.unwrap();
    assert_eq!(
        (refused.status, refused.body["field"].as_str()),
        (400, Some("away_from")),
        "{}",
        refused.body
    );
    println!("the home has moved on all nodes after {:?}", stage.move_home().await);
    stage.until_blazing(0).await;

    for killed in 0..NODES {
        stage.until_blazing((killed + 1) % NODES).await;
        stage.nodes.kill(killed).await.unwrap();
        let (by, begun, mut looks) = ((killed + 1) % NODES, Instant::now(), 0);
        while begun.elapsed() < HOLDS_AFTER_A_KILL {
            stage.send_for(by, Duration::from_millis(500)).await;
            for survivor in (0..NODES).filter(|number| *number != killed) {
                let count = blazing(stage.nodes.rest(survivor)).await;
                assert_eq!(count, 1, "node {survivor}, {:?} after node {killed} was killed", begun.elapsed());
                looks += 1;
            }
        }
        println!("node {killed} killed: {looks} looks, always blazing; {} messages sent so far", stage.sent);
        stage.nodes.start_killed().await.unwrap();
        stage.read_on(killed).await;
        assert_eq!(stage.board(by).await["channels"].as_array().unwrap().len(), 1);
    }
}
