//! A server in memory with just enough functions for a replay. It breaks one guarantee on demand.

mod changes;
pub(crate) mod fleet;
mod members;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get, patch, post, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// The fault. It is planted at the message with this number of the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    Nothing,
    /// The message is acked and delivered, but not in history.
    ForgetRow(u64),
    /// The message is not delivered.
    SkipFanOut(u64),
    /// The message is delivered twice.
    Twice(u64),
    /// The message is delivered after the next one of its channel.
    Swap(u64),
    /// The message is delivered with another text.
    OtherWords(u64),
    /// The change with this number and later changes of the same message are not delivered.
    ChangeNotDelivered(u64),
    /// The change with this number contains the message as it was before.
    WrongVersion(u64),
    /// From the change with this number on, edits are acked and not made.
    EditLost(u64),
    /// From the change with this number on, reactions are acked and not made.
    ReactionLost(u64),
    /// From the change with this number on, deletions are acked and not made.
    Undeleted(u64),
    /// The first banned user still receives entries.
    BanLeaks,
    /// The message with this number is delivered to every user.
    TellsStrangers(u64),
}

/// An entry in flight, with its channel and its receivers.
#[derive(Clone)]
struct Item {
    channel: u64,
    entry: Value,
    audience: Arc<HashSet<u64>>,
}

#[derive(Default)]
struct Inner {
    users: u64,
    devices: u64,
    channels: HashMap<u64, Channel>,
    /// Every append of the run. A cursor is an index into it.
    all: Vec<Item>,
    messages: u64,
    changes: u64,
    held: Option<(u64, Value)>,
    /// The channels and seqs at which a fault was planted.
    planted: Vec<(u64, u64)>,
    /// Users who receive entries although they are banned.
    leak_to: HashSet<u64>,
    /// Sockets of the nodes of a fleet; empty for one server.
    nodes: Vec<String>,
    /// Number of answers to the question for a node.
    tickets: u64,
    /// Tickets that were used, and whether one was used twice, or a socket of a fleet had none.
    used: HashSet<String>,
    misused: bool,
    /// The inbox epoch: cursors of earlier ones are not accepted.
    epoch: u64,
}

#[derive(Default)]
struct Channel {
    is_open: bool,
    name: String,
    members: HashSet<u64>,
    banned: HashSet<u64>,
    log: Vec<Value>,
    head: u64,
    keys: HashMap<String, (u64, u64)>,
}

pub(crate) struct Fake {
    inner: Mutex<Inner>,
    plant: Plant,
    /// An item, and the cursor after it.
    live: broadcast::Sender<(Item, usize)>,
}

type Shared = State<Arc<Fake>>;

impl Fake {
    /// Serves until the runtime ends. Returns its address.
    pub(crate) async fn start(plant: Plant) -> (Arc<Self>, String) {
        let fake = Arc::new(Self { inner: Mutex::default(), plant, live: broadcast::channel(100_000).0 });
        let app = Router::new()
            .route("/readyz", get(async || "ready"))
            .route("/v1/accounts", post(sign_up))
            .route("/v1/devices", post(add_device))
            .route("/v1/connect", post(fleet::connect))
            .route("/v1/snapshot", post(snapshot))
            .route("/v1/channels", post(create_channel))
            .route("/v1/channels/{id}", get(members::channel))
            .route("/v1/channels/{id}/entries", get(history))
            .route("/v1/channels/{id}/membership", put(members::join))
            .route("/v1/channels/{id}/members", put(members::add))
            .route("/v1/channels/{id}/members/{user}", delete(members::leave))
            .route("/v1/channels/{id}/bans/{user}", put(members::ban).delete(members::unban))
            .route("/v1/open-channels", get(members::find))
            .route("/v1/me", patch(members::rename))
            .route("/v1/ws", get(upgrade))
            .with_state(Arc::clone(&fake));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tasks = tokio_util::task::TaskTracker::new();
        tasks.spawn(async move { axum::serve(listener, app).await });
        (fake, url)
    }

    /// The channels and seqs at which a fault was planted.
    pub(crate) fn planted(&self) -> Vec<(u64, u64)> {
        self.lock().planted.clone()
    }

    /// Whether a socket of a fleet was opened without a ticket, or with one that was used before.
    pub(crate) fn was_misused(&self) -> bool {
        self.lock().misused
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Appends a message once per key and delivers it. Returns its seq and id.
    fn append(&self, user: u64, channel_id: u64, key: &str, text: &str) -> (u64, u64) {
        let mut inner = self.lock();
        inner.messages += 1;
        let number = inner.messages;
        let channel = inner.channels.get_mut(&channel_id).unwrap();
        if let Some(known) = channel.keys.get(key) {
            return *known;
        }
        channel.head += 1;
        let (seq, id) = (channel.head, number + 1_000);
        let mut entry = json!({
            "seq": seq, "at": number, "kind": "message", "message_id": id.to_string(), "ordinal": seq - 1,
            "sender_id": user.to_string(), "client_msg_id": key, "text": text,
        });
        channel.keys.insert(key.to_owned(), (seq, id));
        if self.plant != Plant::ForgetRow(number) {
            channel.log.push(entry.clone());
        }
        if [Plant::ForgetRow(number), Plant::SkipFanOut(number), Plant::Twice(number)].contains(&self.plant)
            || [Plant::Swap(number), Plant::OtherWords(number)].contains(&self.plant)
        {
            inner.planted.push((channel_id, seq));
        }
        if self.plant == Plant::OtherWords(number) {
            entry["text"] = json!("something else");
        }
        if self.plant == Plant::Swap(number) {
            inner.held = Some((channel_id, entry));
            return (seq, id);
        }
        if self.plant != Plant::SkipFanOut(number) {
            self.deliver(&mut inner, channel_id, &entry);
        }
        if self.plant == Plant::Twice(number) {
            self.deliver(&mut inner, channel_id, &entry);
        }
        if self.plant == Plant::TellsStrangers(number) {
            let members = &inner.channels[&channel_id].members;
            let strangers: HashSet<u64> = (1..=inner.users).filter(|user| !members.contains(user)).collect();
            if !strangers.is_empty() {
                inner.planted.push((channel_id, seq));
            }
            let item = Item { channel: channel_id, entry: entry.clone(), audience: Arc::new(strangers) };
            self.put(&mut inner, item);
        }
        if let Some((channel, held)) = inner.held.take_if(|held| held.0 == channel_id) {
            self.deliver(&mut inner, channel, &held);
        }
        (seq, id)
    }

    fn deliver(&self, inner: &mut Inner, channel: u64, entry: &Value) {
        self.deliver_to(inner, channel, entry, None);
    }

    /// Delivers to the members, and to one more user.
    fn deliver_to(&self, inner: &mut Inner, channel: u64, entry: &Value, more: Option<u64>) {
        let known = &inner.channels[&channel];
        let leaked = known.banned.iter().filter(|user| inner.leak_to.contains(user));
        let audience = Arc::new(known.members.iter().chain(leaked).copied().chain(more).collect());
        let item = Item { channel, entry: entry.clone(), audience };
        self.put(inner, item);
    }

    fn put(&self, inner: &mut Inner, item: Item) {
        inner.all.push(item.clone());
        let _ = self.live.send((item, inner.all.len()));
    }
}

/// The user and the device of a token, which is `user.device`.
fn caller(token: &str) -> (u64, u64) {
    let (user, device) = token.split_once('.').unwrap();
    (user.parse().unwrap(), device.parse().unwrap())
}

fn bearer(headers: &HeaderMap) -> (u64, u64) {
    caller(headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap())
}

fn signed_in(inner: &mut Inner, user: u64) -> (StatusCode, Json<Value>) {
    inner.devices += 1;
    let device = inner.devices;
    let body = json!({
        "user": { "id": user.to_string(), "handle": "x", "display_name": "x" }, "device_id": device.to_string(),
        "access_token": format!("{user}.{device}"), "access_expires_at": 1_u64 << 40, "refresh_token": "r",
    });
    (StatusCode::CREATED, Json(body))
}

async fn sign_up(State(fake): Shared) -> (StatusCode, Json<Value>) {
    let mut inner = fake.lock();
    inner.users += 1;
    let user = inner.users;
    signed_in(&mut inner, user)
}

async fn add_device(State(fake): Shared, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    signed_in(&mut fake.lock(), bearer(&headers).0)
}

async fn snapshot(State(fake): Shared, headers: HeaderMap) -> Json<Value> {
    let user = bearer(&headers).0;
    let inner = fake.lock();
    let mine = inner.channels.iter().filter(|(_, channel)| channel.members.contains(&user));
    let channels: Vec<Value> = mine.map(|(id, channel)| members::view(*id, channel)).collect();
    Json(json!({ "cursor": cursor(inner.epoch, inner.all.len()), "channels": channels }))
}

fn cursor(epoch: u64, position: usize) -> String {
    format!("{epoch:016x}:{position}")
}

async fn create_channel(
    State(fake): Shared,
    headers: HeaderMap,
    Json(wish): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let user = bearer(&headers).0;
    let others = wish["members"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().parse().unwrap());
    let mut inner = fake.lock();
    let id = inner.channels.len() as u64 + 1;
    let created = json!({ "seq": 1, "at": 0, "kind": "created", "by": user.to_string() });
    let channel = Channel {
        is_open: wish["kind"] == "open",
        name: wish["name"].as_str().unwrap().to_owned(),
        members: others.chain([user]).collect(),
        log: vec![created],
        head: 1,
        ..Channel::default()
    };
    let view = members::view(id, &channel);
    inner.channels.insert(id, channel);
    (StatusCode::CREATED, Json(view))
}

async fn history(
    State(fake): Shared,
    Path(id): Path<u64>,
    Query(query): Query<HashMap<String, u64>>,
) -> Json<Value> {
    let inner = fake.lock();
    let channel = &inner.channels[&id];
    Json(page(channel, query["after"], query["limit"] as usize))
}

fn page(channel: &Channel, after: u64, limit: usize) -> Value {
    let above: Vec<&Value> =
        channel.log.iter().filter(|entry| entry["seq"].as_u64().unwrap() > after).collect();
    let page: Vec<Value> = above.iter().take(limit).map(|entry| channel.carried(entry)).collect();
    json!({
        "as_of": channel.head, "entries": page, "more_before": after > 0, "more_after": above.len() > page.len(),
    })
}

async fn upgrade(
    State(fake): Shared,
    Query(query): Query<HashMap<String, String>>,
    socket: WebSocketUpgrade,
) -> Response {
    {
        let mut inner = fake.lock();
        let is_new = query.get("ticket").is_some_and(|ticket| inner.used.insert(ticket.clone()));
        inner.misused |= !inner.nodes.is_empty() && !is_new;
    }
    socket.protocols(["madang.v1.json"]).on_upgrade(async move |socket| {
        // Errors are ignored: a client that leaves ends the connection.
        let _ = serve(fake, socket).await;
    })
}

async fn serve(fake: Arc<Fake>, mut socket: WebSocket) -> Option<()> {
    let hello = frame(&mut socket).await?;
    let (user, device) = caller(hello["token"].as_str().unwrap());
    let (mut live, missed, from, is_known) = {
        let inner = fake.lock();
        let given = hello["cursor"].as_str().and_then(|text| {
            let (epoch, position) = text.split_once(':')?;
            let is_known = u64::from_str_radix(epoch, 16) == Ok(inner.epoch);
            Some((position.parse::<usize>().ok()?, is_known))
        });
        let (position, is_known) = given.unwrap_or((inner.all.len(), true));
        let missed = if is_known { inner.all[position..].to_vec() } else { Vec::new() };
        (fake.live.subscribe(), missed, inner.messages + 1, is_known)
    };
    let mut welcome = json!({
        "type": "welcome", "id": hello["id"], "user_id": user.to_string(), "device_id": device.to_string(),
        "heartbeat_interval_ms": 1_000, "token_expires_at": 1_u64 << 40, "at": from, "resume": "resumed",
    });
    if !is_known {
        welcome["resume"] = json!("snapshot_required");
        welcome["reason"] = json!("inbox_reset");
    }
    say(&mut socket, welcome).await?;
    let mut subscriptions = HashMap::new();
    for Item { channel, entry, audience } in missed {
        if audience.contains(&user) && !fake.is_open(channel) {
            let entry = fake.lock().channels[&channel].carried(&entry);
            deliver(&mut socket, channel, entry).await?;
        }
    }
    let mut begun = fake.lock().epoch;
    loop {
        tokio::select! {
            Ok((item, position)) = live.recv() => {
                let wanted = match fake.is_open(item.channel) {
                    true => members::is_wanted(&fake, &mut subscriptions, &item, user),
                    false => true,
                };
                let epoch = fake.lock().epoch;
                if epoch != begun {
                    begun = epoch;
                    say(&mut socket, json!({ "type": "snapshot_required", "reason": "inbox_reset" })).await?;
                }
                if wanted && item.audience.contains(&user) {
                    deliver(&mut socket, item.channel, item.entry).await?;
                    say(&mut socket, json!({ "type": "cursor", "cursor": cursor(epoch, position) })).await?;
                }
            },
            request = frame(&mut socket) => {
                let frames = answer(&fake, &mut subscriptions, user, &request?);
                for frame in frames {
                    say(&mut socket, frame).await?;
                }
            }
        }
    }
}

fn answer(fake: &Fake, subscriptions: &mut HashMap<u64, u64>, user: u64, request: &Value) -> Vec<Value> {
    let id = &request["id"];
    let channel: u64 = request["channel_id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
    match request["type"].as_str().unwrap() {
        "send" if !fake.is_member(channel, user) => vec![forbidden(id)],
        "send" => {
            let (key, body) = (request["client_msg_id"].as_str().unwrap(), &request["body"]);
            let (seq, message) = fake.append(user, channel, key, body["text"].as_str().unwrap());
            vec![json!({
                "type": "ack", "id": id, "channel_id": request["channel_id"], "message_id": message.to_string(),
                "seq": seq, "at": message - 1_000,
            })]
        }
        "edit" | "delete" | "react" if !fake.is_member(channel, user) => vec![forbidden(id)],
        "edit" | "delete" | "react" => vec![fake.change(user, channel, request)],
        "subscribe" if !fake.is_member(channel, user) => vec![forbidden(id)],
        "subscribe" => fake.subscribe(subscriptions, channel, request),
        "history" if !fake.is_member(channel, user) => vec![forbidden(id)],
        "history" => {
            let (after, limit) = (request["after"].as_u64().unwrap(), request["limit"].as_u64().unwrap());
            let mut page = page(&fake.lock().channels[&channel], after, limit as usize);
            (page["type"], page["id"]) = (json!("history"), id.clone());
            vec![page]
        }
        _ => vec![json!({ "type": "heartbeat", "at": 1 })],
    }
}

fn forbidden(id: &Value) -> Value {
    json!({ "type": "error", "id": id, "code": "forbidden", "message": "no member", "retryable": false })
}

async fn frame(socket: &mut WebSocket) -> Option<Value> {
    loop {
        match socket.recv().await?.ok()? {
            Message::Text(text) => return serde_json::from_str(&text).ok(),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

async fn deliver(socket: &mut WebSocket, channel: u64, entry: Value) -> Option<()> {
    let channel = channel.to_string();
    say(socket, json!({ "type": "entries", "log": "channel", "channel_id": channel, "entries": [entry] }))
        .await
}

async fn say(socket: &mut WebSocket, frame: Value) -> Option<()> {
    socket.send(Message::Text(frame.to_string().into())).await.ok()
}
