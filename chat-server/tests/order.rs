//! A change and its note: whatever happens at the same moment, the last note says what is in the store.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use madang_testkit::{Config, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

const ROUNDS: u64 = 40;

struct Person {
    id: String,
    token: String,
}

struct Stage {
    node: TestNode,
    rest: Rest,
    _storage: Storage,
}

impl Stage {
    async fn new() -> Self {
        let storage = Storage::embedded();
        let mut config = Config::default();
        config.limits.enabled = false;
        let node = TestNode::start(config, &storage, manual_clock().0).await.unwrap();
        Self { rest: Rest::new(&node.url()), node, _storage: storage }
    }

    async fn person(&self, handle: &str) -> Person {
        let signed_in = self.rest.sign_up(handle).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Person { id: text(&signed_in["user"]["id"]), token: text(&signed_in["access_token"]) }
    }

    async fn direct(&self, one: &Person, other: &Person) -> String {
        let wish = json!({ "kind": "direct", "members": [other.id] });
        let view = self.rest.must("POST", "/v1/channels", Some(&one.token), Some(&wish)).await;
        view["id"].as_str().unwrap().to_owned()
    }

    async fn socket(&self, person: &Person) -> Socket {
        Socket::connect(self.node.addr, &person.token, None).await.unwrap().0
    }

    async fn say(&self, person: &Person, channel: &str, number: u64) -> u64 {
        let body = json!({ "client_msg_id": format!("00000000-0000-7000-8000-{number:012x}"), "body": { "text": "x" } });
        let path = format!("/v1/channels/{channel}/messages");
        self.rest.must("POST", &path, Some(&person.token), Some(&body)).await["seq"].as_u64().unwrap()
    }
}

/// The contents of own-log entries up to and with the first for which `is_last` holds.
async fn own_entries(socket: &mut Socket, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut found = Vec::new();
    loop {
        let frame = socket.next_of("entries").await;
        if frame["log"] == "user" {
            found.extend(frame["entries"].as_array().unwrap().iter().cloned());
            if found.last().is_some_and(&is_last) {
                return found;
            }
        }
    }
}

/// Blocks a user and ends the block in turn, because a call that changes nothing makes no entry.
fn toggle(round: u64) -> &'static str {
    if round.is_multiple_of(2) { "PUT" } else { "DELETE" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_devices_that_read_concurrently_end_with_the_greater_marker_and_receipt() {
    let stage = Stage::new().await;
    let (ada, bob, cy) = (stage.person("ada").await, stage.person("bob").await, stage.person("cy").await);
    let channel = stage.direct(&ada, &bob).await;
    let (mut to_ada, mut to_bob) = (stage.socket(&ada).await, stage.socket(&bob).await);
    let path = format!("/v1/channels/{channel}/read");
    let read = async |seq: u64| {
        stage.rest.must("PUT", &path, Some(&ada.token), Some(&json!({ "seq": seq }))).await;
    };
    for round in 0..ROUNDS {
        let first = stage.say(&bob, &channel, 3 * round).await;
        let second = stage.say(&bob, &channel, 3 * round + 1).await;
        if round % 2 == 0 {
            tokio::join!(read(first), read(second));
        } else {
            tokio::join!(read(second), read(first));
        }
        // The entry of this call comes behind the notes of the calls before it.
        stage.rest.must(toggle(round), &format!("/v1/blocks/{}", cy.id), Some(&ada.token), None).await;
        let entries = own_entries(&mut to_ada, |entry| entry["user_id"] == json!(cy.id)).await;
        let reads: Vec<u64> = entries.iter().filter_map(|entry| entry["read_seq"].as_u64()).collect();
        assert_eq!(reads.last(), Some(&second), "round {round}: {reads:?}");
        assert!(reads.is_sorted(), "round {round}: {reads:?}");
        stage.say(&ada, &channel, 3 * round + 2).await;
        let mut receipts = Vec::new();
        loop {
            let frame = to_bob.next().await.unwrap();
            receipts.extend(frame["seq"].as_u64().filter(|_| frame["type"] == "receipt"));
            let said = frame["entries"].as_array().into_iter().flatten();
            if said.filter(|entry| entry["sender_id"] == json!(ada.id)).count() > 0 {
                break;
            }
        }
        assert_eq!(receipts.last(), Some(&second), "round {round}: {receipts:?}");
        assert!(receipts.is_sorted(), "round {round}: {receipts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_entry_about_a_block_or_a_contact_says_what_is_stored() {
    let stage = Stage::new().await;
    let (ada, bob, cy) = (stage.person("ada").await, stage.person("bob").await, stage.person("cy").await);
    let mut to_ada = stage.socket(&ada).await;
    let (block, contact) = (format!("/v1/blocks/{}", bob.id), format!("/v1/contacts/{}", bob.id));
    let (asks, sentinel) = (format!("/v1/contacts/{}", ada.id), format!("/v1/blocks/{}", cy.id));
    let call = async |who: &Person, method: &str, path: &str| {
        drop(stage.rest.call(method, path, Some(&who.token), None, None).await.unwrap());
    };
    for round in 0..ROUNDS {
        tokio::join!(
            call(&ada, "PUT", &contact),
            call(&bob, "PUT", &asks),
            call(&ada, "DELETE", &contact),
            call(&ada, "PUT", &block),
            call(&ada, "DELETE", &block),
        );
        call(&ada, toggle(round), &sentinel).await;
        let is_sentinel = |entry: &Value| entry["user_id"] == json!(cy.id);
        let entries = own_entries(&mut to_ada, is_sentinel).await;
        let last = |kinds: &[&str]| {
            let found = entries.iter().rfind(|entry| kinds.contains(&entry["kind"].as_str().unwrap()));
            found.filter(|entry| !is_sentinel(entry)).map(|entry| entry["kind"].as_str().unwrap().to_owned())
        };
        let blocks = stage.rest.must("GET", "/v1/blocks", Some(&ada.token), None).await;
        let blocks = blocks["items"].as_array().unwrap().iter().any(|card| card["id"] == json!(bob.id));
        let noted: Vec<&Value> = entries.iter().filter(|entry| !is_sentinel(entry)).collect();
        let about_block =
            noted.iter().rfind(|entry| entry["kind"] == "blocked" || entry["kind"] == "unblocked");
        if let Some(entry) = about_block {
            assert_eq!(entry["kind"] == "blocked", blocks, "round {round}: {noted:?}");
        }
        let contacts = stage.rest.must("GET", "/v1/contacts", Some(&ada.token), None).await;
        let state = contacts["items"][0]["state"].as_str().unwrap_or("none").to_owned();
        let said = last(&["contact_requested", "contact_accepted", "contact_removed"]);
        if let Some(said) = said {
            let is = match &*state {
                "mutual" => "contact_accepted",
                "none" => "contact_removed",
                _ => "contact_requested",
            };
            assert_eq!(said, is, "round {round}: {noted:?}");
        }
    }
}
