//! Open channels over real sockets and REST: seats that run out, leaving in a crowd, readers that stop.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::sync::Arc;

use madang_bus::{Envelope, Loss};
use madang_chat_server::compose::Backends;
use madang_proto::Content;
use madang_testkit::{Config, Led, ManualClock, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};
use tokio::task::JoinSet;

struct Stage {
    node: TestNode,
    rest: Arc<Rest>,
    owner: Person,
    channel: String,
    _clock: ManualClock,
    _storage: Storage,
}

#[derive(Clone)]
struct Person {
    id: String,
    token: String,
}

impl Stage {
    async fn new(storage: Storage, seats: u32) -> Self {
        Self::with(storage, seats, |_| {}).await
    }

    /// A stage whose inbox is wrapped by `lead`.
    async fn with(storage: Storage, seats: u32, lead: impl FnOnce(&mut Backends)) -> Self {
        let mut config = Config::default();
        config.limits.enabled = false;
        config.channels.open_members = seats;
        let (clock, manual) = manual_clock();
        let node = TestNode::start_over(config, &storage, clock, lead).await.unwrap();
        let rest = Arc::new(Rest::new(&node.url()));
        let owner = person(&rest, "owner").await;
        let wish = json!({ "kind": "open", "name": "Tea" });
        let view = rest.must("POST", "/v1/channels", Some(&owner.token), Some(&wish)).await;
        let channel = view["id"].as_str().unwrap().to_owned();
        Self { node, rest, owner, channel, _clock: manual, _storage: storage }
    }

    async fn people(&self, count: usize) -> Vec<Person> {
        let mut people = Vec::new();
        for number in 0..count {
            people.push(person(&self.rest, &format!("person{number}")).await);
        }
        people
    }

    /// Makes a call for everybody concurrently. Returns the statuses in the order of `people`.
    async fn all(&self, people: &[Person], call: impl Fn(&Person) -> (&'static str, String)) -> Vec<u16> {
        let mut calls = JoinSet::new();
        for (index, person) in people.iter().enumerate() {
            let (rest, token, (method, path)) = (Arc::clone(&self.rest), person.token.clone(), call(person));
            calls.spawn(async move {
                (index, rest.call(method, &path, Some(&token), None, None).await.unwrap().status)
            });
        }
        let mut statuses = calls.join_all().await;
        statuses.sort_unstable();
        statuses.into_iter().map(|(_, status)| status).collect()
    }

    async fn join_all(&self, people: &[Person]) -> Vec<u16> {
        self.all(people, |_| ("PUT", format!("/v1/channels/{}/membership", self.channel))).await
    }

    async fn subscribed(&self, person: &Person, after: u64) -> Socket {
        let (mut socket, _) = Socket::connect(self.node.addr, &person.token, None).await.unwrap();
        let subscribe =
            json!({ "type": "subscribe", "id": "s", "channel_id": self.channel, "after_seq": after });
        socket.send(&subscribe).await.unwrap();
        socket
    }

    async fn say(&self, text: &str) -> u64 {
        let message = json!({ "client_msg_id": uuid(), "body": { "text": text } });
        let path = format!("/v1/channels/{}/messages", self.channel);
        let ack = self.rest.must("POST", &path, Some(&self.owner.token), Some(&message)).await;
        ack["seq"].as_u64().unwrap()
    }
}

async fn person(rest: &Rest, handle: &str) -> Person {
    let signed_in = rest.sign_up(handle).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Person { id: text(&signed_in["user"]["id"]), token: text(&signed_in["access_token"]) }
}

fn uuid() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("01920000-0000-7000-8000-{:012}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The entries of the channel that a socket gets, up to the first for which `is_last` holds.
async fn entries_until(socket: &mut Socket, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut entries: Vec<Value> = Vec::new();
    loop {
        let frame = socket.next().await.unwrap();
        if frame["log"] == "channel" {
            entries.extend(frame["entries"].as_array().unwrap().iter().cloned());
        }
        if entries.last().is_some_and(&is_last) {
            return entries;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seats_and_thirty_concurrent_joins_make_ten_members() {
    for storage in [Storage::model(), Storage::embedded()] {
        let stage = Stage::new(storage, 10).await;
        let people = stage.people(30).await;
        let statuses = stage.join_all(&people).await;
        let count = |status: u16| statuses.iter().filter(|&&it| it == status).count();
        // One seat is the owner's.
        assert_eq!((count(200), count(409)), (9, 21), "{statuses:?}");
        let path = format!("/v1/channels/{}/members", stage.channel);
        let members = stage.rest.must("GET", &path, Some(&stage.owner.token), None).await;
        let members: Vec<&str> =
            members["items"].as_array().unwrap().iter().map(|card| card["id"].as_str().unwrap()).collect();
        assert_eq!(members.len(), 10);
        for (person, status) in people.iter().zip(&statuses) {
            assert_eq!(members.contains(&person.id.as_str()), *status == 200);
        }
        // A user who was refused finds the seat that another one frees.
        let leaver = people.iter().zip(&statuses).find(|(_, status)| **status == 200).unwrap().0.clone();
        let left = stage.all(&[leaver], |person| ("DELETE", format!("{path}/{}", person.id))).await;
        assert_eq!(left, [204]);
        let refused: Vec<Person> = people
            .iter()
            .zip(&statuses)
            .filter(|(_, status)| **status == 409)
            .map(|(person, _)| person.clone())
            .collect();
        let statuses = stage.join_all(&refused).await;
        assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_leaves_in_a_crowd_gets_the_row_of_the_leave_and_none_behind_it() {
    let stage = Stage::new(Storage::embedded(), 100).await;
    let people = stage.people(25).await;
    assert!(stage.join_all(&people).await.iter().all(|&status| status == 200));
    let mut sockets = Vec::new();
    for person in &people {
        sockets.push(stage.subscribed(person, 0).await);
    }
    let members = format!("/v1/channels/{}/members", stage.channel);
    let (leavers, stayers) = people.split_at(20);
    let left = stage.all(leavers, |person| ("DELETE", format!("{members}/{}", person.id))).await;
    assert!(left.iter().all(|&status| status == 204));
    let last = stage.say("the last word").await;
    for (person, socket) in people.iter().zip(&mut sockets) {
        let stays = stayers.iter().any(|stayer| stayer.id == person.id);
        let is_last = |entry: &Value| match stays {
            true => entry["seq"] == last,
            false => entry["kind"] == "left" && entry["user_id"] == person.id.as_str(),
        };
        let entries = entries_until(socket, is_last).await;
        let seqs: Vec<u64> = entries.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
        assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{seqs:?}");
        assert_eq!(entries.iter().filter(|entry| is_last(entry)).count(), 1);
        if !stays {
            // The answer to a heartbeat comes behind everything that was enqueued before.
            socket.send(&json!({ "type": "heartbeat" })).await.unwrap();
            loop {
                let frame = socket.next().await.unwrap();
                assert_ne!(frame["log"], "channel", "{frame}");
                if frame["type"] == "heartbeat" {
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_stops_reading_gets_a_gap_and_then_live_entries() {
    let stage = Stage::new(Storage::embedded(), 10).await;
    let mut socket = stage.subscribed(&stage.owner, 0).await;
    assert_eq!(socket.next_of("heads").await["heads"][0]["seq"], 2);
    let text = "x".repeat(60_000);
    // Much more than the kernel and the queue hold for a reader that takes nothing.
    for _ in 0..400 {
        stage.say(&text).await;
    }
    let (mut next, mut gaps) = (1, 0);
    let mut last_said = 402;
    while next <= last_said {
        let frame = socket.next().await.unwrap();
        assert_ne!(frame["type"], "resync", "the inbox lost nothing");
        if frame["type"] == "heads" {
            assert_eq!(frame["heads"][0]["gap"], true);
            let seq = frame["heads"][0]["seq"].as_u64().unwrap();
            assert!(seq >= next, "{seq} is no gap");
            next = seq + 1;
            gaps += 1;
            // Live entries follow the gap.
            last_said = stage.say("after the gap").await;
        }
        for entry in frame["entries"].as_array().into_iter().flatten().filter(|_| frame["log"] == "channel") {
            assert_eq!(entry["seq"], next);
            next += 1;
        }
    }
    assert!(gaps > 0, "everything found room");
}

/// The content of the first row of an open channel in an envelope.
fn content(envelope: &Envelope) -> Option<&Content> {
    match envelope {
        Envelope::Open(open) => Some(&open.rows[0].entry.content),
        _ => None,
    }
}

fn said(envelope: &Envelope) -> Option<&str> {
    Some(&content(envelope)?.message()?.body.text)
}

/// Drops rows with the text "lost". Replaces a row with "lost, and it is known" by a report of the loss.
fn lose(envelope: Envelope) -> Vec<Envelope> {
    match said(&envelope) {
        Some("lost") => Vec::new(),
        Some("lost, and it is known") => vec![Envelope::Lost(Loss::Node)],
        _ => vec![envelope],
    }
}

/// Holds everything back from the first row of a leave on, until a message says "now".
fn hold_leaves() -> impl FnMut(Envelope) -> Vec<Envelope> + Send {
    let mut held: Vec<Envelope> = Vec::new();
    move |envelope| {
        let is_leave = matches!(content(&envelope), Some(Content::Left { .. }));
        let is_now = said(&envelope) == Some("now");
        if held.is_empty() && !is_leave {
            return vec![envelope];
        }
        held.push(envelope);
        if is_now { std::mem::take(&mut held) } else { Vec::new() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_lost_between_nodes_are_a_gap() {
    let stage = Stage::with(Storage::embedded(), 10, |backends| Led::over(backends, lose)).await;
    let mut socket = stage.subscribed(&stage.owner, 2).await;
    assert_eq!(socket.next_of("heads").await["heads"][0]["seq"], 2);
    let gap = |seq: u64| json!({ "channel_id": stage.channel, "seq": seq, "ordinal": seq - 2, "gap": true });
    assert_eq!(stage.say("heard").await, 3);
    assert_eq!(entries_until(&mut socket, |entry| entry["seq"] == 3).await.len(), 1);
    // A hole is noticed when a later row arrives.
    stage.say("lost").await;
    stage.say("behind it").await;
    assert_eq!(socket.next_of("heads").await["heads"][0], gap(4));
    assert_eq!(entries_until(&mut socket, |entry| entry["seq"] == 5).await.len(), 1);
    // A loss without a later row is reported by the one who lost the rows.
    stage.say("lost").await;
    stage.say("lost, and it is known").await;
    assert_eq!(socket.next_of("heads").await["heads"][0], gap(7));
    stage.say("heard").await;
    assert_eq!(entries_until(&mut socket, |entry| entry["seq"] == 8).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_row_of_a_leave_ends_no_later_subscription() {
    let stage = Stage::with(Storage::embedded(), 10, |backends| Led::over(backends, hold_leaves())).await;
    let bob = &stage.people(1).await[0];
    let membership = format!("/v1/channels/{}/membership", stage.channel);
    let member = format!("/v1/channels/{}/members/{}", stage.channel, bob.id);
    stage.rest.must("PUT", &membership, Some(&bob.token), None).await;
    let mut socket = stage.subscribed(bob, 0).await;
    assert_eq!(entries_until(&mut socket, |entry| entry["seq"] == 3).await.len(), 3);
    // Bob leaves and joins again, and no row of that has arrived when he subscribes.
    stage.rest.must("DELETE", &member, Some(&bob.token), None).await;
    stage.rest.must("PUT", &membership, Some(&bob.token), None).await;
    let subscribe =
        json!({ "type": "subscribe", "id": "again", "channel_id": stage.channel, "after_seq": 3 });
    socket.send(&subscribe).await.unwrap();
    assert_eq!(entries_until(&mut socket, |entry| entry["seq"] == 5).await.len(), 2);
    assert_eq!(stage.say("now").await, 6);
    assert_eq!(entries_until(&mut socket, |entry| entry["seq"] == 6).await.len(), 1);
    stage.rest.must("DELETE", &member, Some(&bob.token), None).await;
    stage.say("now").await;
    let last = entries_until(&mut socket, |entry| entry["seq"] == 7).await;
    assert_eq!((last.len(), &last[0]["kind"]), (1, &json!("left")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_have_a_bound_and_end_with_their_connection() {
    let stage = Stage::new(Storage::model(), 10).await;
    let (mut socket, _) = Socket::connect(stage.node.addr, &stage.owner.token, None).await.unwrap();
    let mut channels = vec![stage.channel.clone()];
    // One user makes at most a hundred open channels.
    for maker in stage.people(2).await {
        for number in 0..100 {
            let wish = json!({ "kind": "open", "name": format!("Tea {number}") });
            let view = stage.rest.must("POST", "/v1/channels", Some(&maker.token), Some(&wish)).await;
            let channel = view["id"].as_str().unwrap().to_owned();
            let join = format!("/v1/channels/{channel}/membership");
            stage.rest.must("PUT", &join, Some(&stage.owner.token), None).await;
            channels.push(channel);
        }
    }
    let subscribe = |channel: &String| json!({ "type": "subscribe", "id": channel, "channel_id": channel, "mode": "passive" });
    let answers = socket.pipeline(channels.iter().map(subscribe).collect()).await.unwrap();
    let refused: Vec<&Value> = answers.iter().filter(|answer| answer["type"] == "error").collect();
    assert_eq!((answers.len(), refused.len()), (201, 1));
    assert_eq!((&refused[0]["code"], &refused[0]["id"]), (&json!("full"), &json!(channels[200])));
    // A subscription that ends makes room for another one.
    let end = json!({ "type": "unsubscribe", "id": "u", "channel_id": channels[0] });
    let answers = socket.pipeline(vec![end, subscribe(&channels[200])]).await.unwrap();
    assert_eq!((&answers[0]["type"], &answers[1]["type"]), (&json!("done"), &json!("heads")));
    socket.close().await;
}
