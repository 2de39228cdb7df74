//! Every paged call at every edge: pages of one item, of the maximum, behind the last item, behind an item that was removed.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use madang_proto::limits;
use madang_testkit::{Answer, Config, ManualClock, Rest, Socket, Storage, TestNode, manual_clock};
use serde_json::{Value, json};

struct Person {
    id: String,
    token: String,
}

/// Ada with seven users in a group, and lists of them.
struct Stage {
    rest: Rest,
    ada: Person,
    others: Vec<Person>,
    group: String,
    /// The channel from which users are banned.
    yard: OnceLock<String>,
    node: TestNode,
    clock: ManualClock,
    _storage: Storage,
}

/// A list: its path, the ids that are in it, and the call that removes an item from it.
struct Paged {
    path: String,
    ids: BTreeSet<String>,
    remove: Option<fn(&Stage, &str) -> String>,
}

impl Stage {
    async fn new() -> Self {
        let mut config = Config::default();
        config.limits.enabled = false;
        let storage = Storage::model();
        let (clock, manual) = manual_clock();
        let node = TestNode::start(config, &storage, clock).await.unwrap();
        let rest = Rest::new(&node.url());
        let ada = person(&rest, "ada").await;
        let mut others = Vec::new();
        for number in 0..7 {
            others.push(person(&rest, &format!("person{number}")).await);
        }
        let ids: Vec<&str> = others.iter().map(|one| one.id.as_str()).collect();
        let wish = json!({ "kind": "group", "name": "Tea", "members": ids });
        let view = rest.must("POST", "/v1/channels", Some(&ada.token), Some(&wish)).await;
        let group = text(&view["id"]);
        let yard = OnceLock::new();
        Self { rest, ada, others, group, yard, node, clock: manual, _storage: storage }
    }

    async fn must(&self, method: &str, path: &str, by: &Person, body: Option<Value>) -> Value {
        self.rest.must(method, path, Some(&by.token), body.as_ref()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.rest.call("GET", path, Some(&self.ada.token), None, None).await.unwrap()
    }

    async fn say(&self, number: u64, text: &str) -> u64 {
        let key = format!("01920000-0000-7000-8000-{number:012}");
        let body = json!({ "client_msg_id": key, "body": { "text": text } });
        let path = format!("/v1/channels/{}/messages", self.group);
        self.must("POST", &path, &self.ada, Some(body)).await["seq"].as_u64().unwrap()
    }

    /// Moves the clock: reactions of one message are answered together, after a second.
    async fn pass(&self) {
        loop {
            self.clock.advance(Duration::from_secs(1));
            // waits for: the home that the clock has woken
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn lists(&self) -> Vec<Paged> {
        let group = format!("/v1/channels/{}", self.group);
        let people = |people: &[Person]| people.iter().map(|one| one.id.clone()).collect::<BTreeSet<_>>();
        let message = self.say(1, "tea?").await;
        let mentions = self.mention_ada().await;
        let left = self.leave_groups().await;
        let bans = self.ban_people().await;
        for one in &self.others {
            let path = format!("{group}/messages/{message}/reactions/tea");
            tokio::select! {
                _ = self.must("PUT", &path, one, None) => {}
                () = self.pass() => {}
            }
            self.must("PUT", &format!("/v1/blocks/{}", one.id), &self.ada, None).await;
        }
        let mut members = people(&self.others);
        members.insert(self.ada.id.clone());
        let mut channels = BTreeSet::from([self.group.clone()]);
        let mut open = BTreeSet::new();
        for number in 0..5 {
            let wish = json!({ "kind": "open", "name": format!("Yard {number}"), "members": [] });
            let view = self.must("POST", "/v1/channels", &self.ada, Some(wish)).await;
            open.insert(text(&view["id"]));
            let wish = json!({ "kind": "group", "name": format!("Tea {number}"), "members": [] });
            channels.insert(text(&self.must("POST", "/v1/channels", &self.ada, Some(wish)).await["id"]));
        }
        channels.extend(open.iter().cloned());
        channels.insert(bans.0.clone());
        let mut contacts = people(&self.others[4..]);
        for one in &self.others[4..] {
            self.must("DELETE", &format!("/v1/blocks/{}", one.id), &self.ada, None).await;
            self.must("PUT", &format!("/v1/contacts/{}", one.id), &self.ada, None).await;
        }
        // Open requests of others are in the list as well.
        for one in &self.others[..2] {
            self.must("DELETE", &format!("/v1/blocks/{}", one.id), &self.ada, None).await;
            self.must("PUT", &format!("/v1/contacts/{}", self.ada.id), one, None).await;
            contacts.insert(one.id.clone());
        }
        let blocks = people(&self.others[2..4]);
        let paged = |path: String, ids, remove| Paged { path, ids, remove };
        vec![
            paged(format!("{group}/messages/{message}/reactions/tea?"), people(&self.others), None),
            paged("/v1/blocks?".into(), blocks, Some(|_, id| format!("/v1/blocks/{id}"))),
            paged("/v1/contacts?".into(), contacts, Some(|_, id| format!("/v1/contacts/{id}"))),
            paged(
                format!("/v1/channels/{}/bans?", bans.0),
                bans.1,
                Some(|stage, id| format!("/v1/channels/{}/bans/{id}", stage.yard.get().unwrap())),
            ),
            paged("/v1/channels?left=true&".into(), left, None),
            paged("/v1/mentions?".into(), mentions, Some(Self::mention)),
            paged("/v1/open-channels?query=yard&".into(), open, None),
            paged("/v1/channels?".into(), channels.clone(), None),
            paged(
                format!("{group}/members?"),
                members,
                Some(|stage, id| format!("/v1/channels/{}/members/{id}", stage.group)),
            ),
            // The first page ends with the group itself, which the test then leaves.
            paged("/v1/channels?order=id&".into(), channels, Some(Self::membership)),
        ]
    }

    /// Messages that mention Ada, two of them in the same millisecond.
    async fn mention_ada(&self) -> BTreeSet<String> {
        let mut mentions = BTreeSet::new();
        for number in 200..206 {
            if number != 203 {
                self.clock.advance(Duration::from_millis(7));
            }
            let key = format!("01920000-0000-7000-8000-{number:012}");
            let body = json!({ "client_msg_id": key, "body": { "text": "tea?", "mentions": [self.ada.id] } });
            let path = format!("/v1/channels/{}/messages", self.group);
            let ack = self.must("POST", &path, &self.others[0], Some(body)).await;
            mentions.insert(format!("{}-{}", self.group, ack["seq"]));
        }
        mentions
    }

    /// The path of the message with such an id. The owner of the group can delete any message.
    fn mention(&self, id: &str) -> String {
        format!("/v1/channels/{}/messages/{}", self.group, id.rsplit('-').next().unwrap())
    }

    /// Groups that Ada has left.
    async fn leave_groups(&self) -> BTreeSet<String> {
        let mut left = BTreeSet::new();
        for number in 0..4 {
            let wish = json!({ "kind": "group", "name": format!("Old {number}"), "members": [] });
            let id = text(&self.must("POST", "/v1/channels", &self.ada, Some(wish)).await["id"]);
            self.must("DELETE", &self.membership(&id), &self.ada, None).await;
            left.insert(id);
        }
        left
    }

    /// An open channel from which everybody but Ada is banned.
    async fn ban_people(&self) -> (String, BTreeSet<String>) {
        let wish = json!({ "kind": "open", "name": "Garden", "members": [] });
        let id = text(&self.must("POST", "/v1/channels", &self.others[6], Some(wish)).await["id"]);
        self.must("PUT", &format!("/v1/channels/{id}/membership"), &self.ada, None).await;
        let admin = json!({ "role": "admin" });
        let path = format!("/v1/channels/{id}/members/{}", self.ada.id);
        self.must("PATCH", &path, &self.others[6], Some(admin)).await;
        let mut banned = BTreeSet::new();
        for one in &self.others[..5] {
            self.must("PUT", &format!("/v1/channels/{id}/bans/{}", one.id), &self.ada, Some(json!({}))).await;
            banned.insert(one.id.clone());
        }
        self.yard.set(id.clone()).unwrap();
        (id, banned)
    }

    fn membership(&self, channel: &str) -> String {
        format!("/v1/channels/{channel}/members/{}", self.ada.id)
    }

    /// All ids, page by page. After the first page its last item is removed.
    async fn walk(&self, path: &str, limit: u32, remove: Option<fn(&Self, &str) -> String>) -> Vec<String> {
        let (mut ids, mut after) = (Vec::new(), String::new());
        for page in 0..100 {
            let answer = self.get(&format!("{path}limit={limit}{after}")).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            let items = answer.body["items"].as_array().unwrap();
            assert!(items.len() <= limit as usize, "{path}");
            ids.extend(items.iter().map(id_of));
            let Some(next) = answer.body["next"].as_str() else { return ids };
            assert!(!items.is_empty(), "{path}: an empty page has no next");
            after = format!("&after={next}");
            if let Some(remove) = remove.filter(|_| page == 0) {
                let path = remove(self, ids.last().unwrap());
                self.must("DELETE", &path, &self.ada, None).await;
            }
        }
        panic!("{path} does not end");
    }
}

/// The id of an item of a list.
fn id_of(item: &Value) -> String {
    match &item["id"] {
        Value::Null => format!("{}-{}", text(&item["channel_id"]), item["seq"]),
        id => text(id),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn person(rest: &Rest, handle: &str) -> Person {
    let signed_in = rest.sign_up(handle).await;
    Person { id: text(&signed_in["user"]["id"]), token: text(&signed_in["access_token"]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_complete_with_pages_of_any_size() {
    let stage = Stage::new().await;
    for list in stage.lists().await {
        for limit in [1, 2, 3, limits::LIST_PAGE] {
            let found = stage.walk(&list.path, limit, None).await;
            assert_eq!(found.len(), list.ids.len(), "{} by {limit}: {found:?}", list.path);
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), list.ids, "{} by {limit}", list.path);
        }
        // Behind the last page there is nothing.
        let first = stage.get(&format!("{}limit=1", list.path)).await.body;
        assert!(first["next"].is_string(), "{}", list.path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_removed_between_two_pages_hides_no_other() {
    let stage = Stage::new().await;
    for list in stage.lists().await.into_iter().filter(|list| list.remove.is_some()) {
        // The owner of the group comes first among the members and stays.
        let limit = if list.path.contains("/members") { 2 } else { 1 };
        let found = stage.walk(&list.path, limit, list.remove).await;
        assert_eq!(found.len(), list.ids.len(), "{}: {found:?}", list.path);
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), list.ids, "{}", list.path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_out_of_bounds_are_named() {
    let stage = Stage::new().await;
    let mut lists: Vec<(String, u32)> =
        stage.lists().await.into_iter().map(|list| (list.path, limits::LIST_PAGE)).collect();
    lists.push((format!("/v1/channels/{}/bans?", stage.group), limits::LIST_PAGE));
    lists.push(("/v1/contacts?".into(), limits::LIST_PAGE));
    lists.push((format!("/v1/channels/{}/entries?", stage.group), limits::HISTORY_PAGE));
    for (path, most) in lists {
        for (query, field) in [
            ("limit=0".to_owned(), Some("limit")),
            (format!("limit={}", most + 1), Some("limit")),
            ("limit=-1".to_owned(), Some("limit")),
            ("limit=many".to_owned(), Some("limit")),
            ("limit=".to_owned(), Some("limit")),
            ("limit=1&limit=2".to_owned(), None),
            ("after=page%20two".to_owned(), Some("after")),
            ("after=1&after=2".to_owned(), None),
        ] {
            let answer = stage.get(&format!("{path}{query}")).await;
            assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid")), "{path}{query}");
            if let Some(field) = field {
                assert_eq!(answer.body["field"], field, "{path}{query}: {}", answer.body);
            }
        }
        let most = stage.get(&format!("{path}limit={most}&color=green")).await;
        assert_eq!(most.status, 200, "{path}: {}", most.body);
    }
}

/// `(query, places, more_before, more_after)`
type Page = (&'static str, std::ops::Range<u64>, bool, bool);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_history_say_whether_there_is_more_on_both_sides() {
    const NONE: std::ops::Range<u64> = 0..0;
    let stage = Stage::new().await;
    // `created` and eight entries `joined` come before.
    for number in 10..24 {
        stage.say(number, "tea").await;
    }
    let pages: &[Page] = &[
        ("limit=5", 19..24, true, false),
        ("limit=200", 1..24, false, false),
        ("before=1", NONE, false, true),
        ("before=0", NONE, false, true),
        ("before=2&limit=1", 1..2, false, true),
        ("before=999&limit=1", 23..24, true, false),
        ("after=0&limit=1", 1..2, false, true),
        ("after=22&limit=1", 23..24, true, false),
        ("after=23", NONE, true, false),
        ("after=9007199254740993", NONE, true, false),
        ("around=1&limit=5", 1..6, false, true),
        ("around=0&limit=2", 1..3, false, true),
        ("around=12&limit=5", 10..15, true, true),
        ("around=12&limit=1", 12..13, true, true),
        ("around=23&limit=5", 19..24, true, false),
        ("around=24&limit=5", 19..24, true, false),
        ("around=999&limit=200", 1..24, false, false),
        ("at=0&limit=2", 1..3, false, true),
        ("at=1800000000000&limit=2", 1..3, false, true),
        ("at=1900000000000", NONE, true, false),
    ];
    for (query, places, before, after) in pages {
        let answer = stage.get(&format!("/v1/channels/{}/entries?{query}", stage.group)).await;
        let page = answer.body;
        let seqs: Vec<u64> =
            page["entries"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, places.clone().collect::<Vec<_>>(), "{query}");
        assert_eq!((&page["more_before"], &page["more_after"]), (&json!(before), &json!(after)), "{query}");
        assert_eq!(page["as_of"], 23, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_around_a_place_stays_within_the_bytes_of_a_page() {
    let stage = Stage::new().await;
    let long = "x".repeat(60_000);
    for number in 10..24 {
        stage.say(number, &long).await;
    }
    stage.say(30, &"🍵".repeat(100_000)).await;
    for (around, least) in [(10, 4), (17, 4), (23, 3), (24, 1)] {
        let path = format!("/v1/channels/{}/entries?around={around}&limit=10", stage.group);
        let page = stage.get(&path).await.body;
        let entries = page["entries"].as_array().unwrap();
        let bytes = page["entries"].to_string().len();
        assert!(entries.iter().any(|entry| entry["seq"] == around), "around {around}");
        assert!(bytes <= limits::BATCH_BYTES_OUT || entries.len() == 1, "around {around}: {bytes} bytes");
        assert!(entries.len() >= least, "around {around}: {} entries", entries.len());
        let seqs: Vec<u64> = entries.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
        assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seqs:?}");
    }
}

/// Groups of Ada, page by page. Between the first two pages some are left, one is made, and one gets a message.
async fn walk_snapshot(stage: &Stage, limit: u32) {
    let mut groups = Vec::new();
    for number in 0..9 {
        let wish = json!({ "kind": "group", "name": format!("Walk {number}"), "members": [] });
        groups.push(text(&stage.must("POST", "/v1/channels", &stage.ada, Some(wish)).await["id"]));
    }
    let first = json!({ "limit": limit });
    let (mut found, mut after, mut cursor) = (Vec::new(), None, None);
    let mut come = String::new();
    loop {
        let mut query = first.clone();
        if let Some(after) = &after {
            query["after"] = json!(after);
        }
        let page = stage.must("POST", "/v1/snapshot", &stage.ada, Some(query)).await;
        let channels = page["channels"].as_array().unwrap();
        assert!(channels.len() <= limit as usize);
        found.extend(channels.iter().map(|channel| text(&channel["id"])));
        if cursor.is_none() {
            cursor = page["cursor"].as_str().map(str::to_owned);
            for gone in [&groups[0], &groups[8]] {
                stage.must("DELETE", &stage.membership(gone), &stage.ada, None).await;
            }
            let wish = json!({ "kind": "group", "name": "New", "members": [] });
            come = text(&stage.must("POST", "/v1/channels", &stage.ada, Some(wish)).await["id"]);
            stage.say(1_000 + u64::from(limit), "meanwhile").await;
        } else {
            assert_eq!(page["cursor"], Value::Null, "the first page alone has a cursor");
        }
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    for stays in groups[1..8].iter().chain([&stage.group]) {
        assert_eq!(found.iter().filter(|id| *id == stays).count(), 1, "{stays}, pages of {limit}");
    }
    assert!(
        found.iter().all(|id| found.iter().filter(|other| *other == id).count() == 1),
        "none comes twice"
    );
    // Changes that the pages cannot show follow behind the cursor of the first page.
    let token = &stage.ada.token;
    let (mut socket, welcome) = Socket::connect(stage.node.addr, token, cursor.as_deref()).await.unwrap();
    assert_eq!(welcome["resume"], "resumed");
    let (mut left, mut joined) = (BTreeSet::new(), BTreeSet::new());
    while left.len() < 2 || joined.is_empty() {
        for entry in socket.next_of("entries").await["entries"].as_array().unwrap() {
            match entry["kind"].as_str().unwrap() {
                "channel_left" => _ = left.insert(text(&entry["channel_id"])),
                "channel_joined" => _ = joined.insert(text(&entry["channel"]["id"])),
                _ => {}
            }
        }
    }
    assert_eq!(left, BTreeSet::from([groups[0].clone(), groups[8].clone()]));
    assert_eq!(joined, BTreeSet::from([come.clone()]));
    // A device that has the pages asks for changes: a channel that was left comes with its end, and nothing else comes.
    let view = stage.must("GET", &format!("/v1/channels/{}", groups[1]), &stage.ada, None).await;
    let since = json!({
        &groups[0]: { "head_seq": 9, "read_seq": 9 },
        &groups[1]: { "head_seq": view["head_seq"], "read_seq": view["read_seq"] },
    });
    let query = json!({ "since": since, "limit": 500 });
    let changed = stage.must("POST", "/v1/snapshot", &stage.ada, Some(query)).await;
    let channels = changed["channels"].as_array().unwrap();
    let of = |id: &String| channels.iter().find(|channel| channel["id"] == id.as_str());
    assert!(of(&groups[0]).is_some_and(|gone| gone["until_seq"].is_u64()), "{channels:?}");
    assert!(of(&groups[1]).is_none() && of(&groups[8]).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_complete_while_channels_are_made_left_and_written_to() {
    for limit in [1, 2, 3, 7, 500] {
        walk_snapshot(&Stage::new().await, limit).await;
    }
}
