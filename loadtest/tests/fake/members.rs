//! Members of the channels of the server in memory, and subscriptions to open ones.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{Channel, Fake, Inner, Item, Plant, Shared, bearer};

/// Entries that a subscription delivers: few, so that a short run has gaps.
const SUBSCRIBE_ENTRIES: u64 = 10;

impl Fake {
    pub(super) fn is_member(&self, channel: u64, user: u64) -> bool {
        self.lock().channels[&channel].members.contains(&user)
    }

    pub(super) fn is_open(&self, channel: u64) -> bool {
        self.lock().channels[&channel].is_open
    }

    /// Subscribes. Returns the answer and the entries.
    pub(super) fn subscribe(
        &self,
        subscriptions: &mut HashMap<u64, u64>,
        channel_id: u64,
        request: &Value,
    ) -> Vec<Value> {
        let inner = self.lock();
        let channel = &inner.channels[&channel_id];
        let after = request["after_seq"].as_u64().unwrap();
        let is_gap = after + SUBSCRIBE_ENTRIES < channel.head;
        subscriptions.insert(channel_id, channel.head);
        let mut head =
            json!({ "channel_id": request["channel_id"], "seq": channel.head, "ordinal": channel.head });
        if is_gap {
            head["gap"] = json!(true);
        }
        let mut frames = vec![json!({ "type": "heads", "id": request["id"], "heads": [head] })];
        for entry in channel.log.iter().filter(|entry| entry["seq"].as_u64() > Some(after) && !is_gap) {
            let entries = json!([channel.carried(entry)]);
            let id = &request["channel_id"];
            frames.push(json!({ "type": "entries", "log": "channel", "channel_id": id, "entries": entries }));
        }
        frames
    }

    /// Appends an entry about a member.
    fn tell(&self, inner: &mut Inner, channel_id: u64, kind: &str, user: u64, by: u64) {
        let at = inner.messages;
        let channel = inner.channels.get_mut(&channel_id).unwrap();
        channel.head += 1;
        let entry = json!({
            "seq": channel.head, "at": at, "kind": kind, "user_id": user.to_string(), "by": by.to_string(),
        });
        channel.log.push(entry.clone());
        self.deliver_to(inner, channel_id, &entry, (kind != "unbanned").then_some(user));
        // Plants the fault at each ban: a user whose ban ends soon receives nothing wrongly, so one ban may not
        // suffice.
        if kind == "banned" && self.plant == Plant::BanLeaks {
            inner.planted.push((channel_id, inner.channels[&channel_id].head + 1));
            inner.leak_to.insert(user);
        }
    }

    fn add(&self, channel_id: u64, user: u64, by: u64) {
        let mut inner = self.lock();
        if inner.channels.get_mut(&channel_id).unwrap().members.insert(user) {
            self.tell(&mut inner, channel_id, "joined", user, by);
        }
    }
}

/// Whether an item of an open channel is delivered on a connection. A user who leaves receives nothing that comes
/// later.
pub(super) fn is_wanted(fake: &Fake, subscriptions: &mut HashMap<u64, u64>, item: &Item, user: u64) -> bool {
    let Some(from) = subscriptions.get(&item.channel).copied() else { return false };
    let is_new = item.entry["seq"].as_u64().unwrap() > from;
    let is_end = item.entry["kind"] == "left" || item.entry["kind"] == "banned";
    let leaks = fake.lock().leak_to.contains(&user);
    if is_end && item.entry["user_id"] == user.to_string().as_str() && is_new && !leaks {
        subscriptions.remove(&item.channel);
    }
    is_new
}

pub(super) fn view(id: u64, channel: &Channel) -> Value {
    let kind = if channel.is_open { "open" } else { "group" };
    json!({
        "id": id.to_string(), "kind": kind, "name": channel.name, "head_seq": channel.head, "head_ordinal": 0,
        "active_at": 1, "read_seq": 0, "unread": 0, "mentions": 0, "from_seq": 1, "role": "owner",
    })
}

pub(super) async fn channel(State(fake): Shared, Path(id): Path<u64>) -> Json<Value> {
    Json(view(id, &fake.lock().channels[&id]))
}

pub(super) async fn find(State(fake): Shared, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let inner = fake.lock();
    let found =
        inner.channels.iter().filter(|(_, channel)| channel.is_open && channel.name == query["query"]);
    let card = |(id, channel): (&u64, &Channel)| {
        let members = channel.members.len();
        json!({ "id": id.to_string(), "kind": "open", "name": channel.name, "member_count": members })
    };
    Json(json!({ "items": found.map(card).collect::<Vec<_>>() }))
}

pub(super) async fn join(
    State(fake): Shared,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    let user = bearer(&headers).0;
    if fake.lock().channels[&id].banned.contains(&user) {
        return Err(StatusCode::FORBIDDEN);
    }
    fake.add(id, user, user);
    Ok(Json(view(id, &fake.lock().channels[&id])))
}

pub(super) async fn add(
    State(fake): Shared,
    Path(id): Path<u64>,
    headers: HeaderMap,
    Json(wish): Json<Value>,
) -> Json<Value> {
    let by = bearer(&headers).0;
    for user in wish["user_ids"].as_array().unwrap() {
        fake.add(id, user.as_str().unwrap().parse().unwrap(), by);
    }
    Json(json!({ "invited": [] }))
}

pub(super) async fn leave(State(fake): Shared, Path((id, user)): Path<(u64, u64)>) -> StatusCode {
    let mut inner = fake.lock();
    inner.channels.get_mut(&id).unwrap().members.remove(&user);
    fake.tell(&mut inner, id, "left", user, user);
    StatusCode::NO_CONTENT
}

pub(super) async fn ban(
    State(fake): Shared,
    Path((id, user)): Path<(u64, u64)>,
    headers: HeaderMap,
) -> StatusCode {
    let mut inner = fake.lock();
    let channel = inner.channels.get_mut(&id).unwrap();
    channel.members.remove(&user);
    channel.banned.insert(user);
    fake.tell(&mut inner, id, "banned", user, bearer(&headers).0);
    StatusCode::NO_CONTENT
}

pub(super) async fn unban(
    State(fake): Shared,
    Path((id, user)): Path<(u64, u64)>,
    headers: HeaderMap,
) -> StatusCode {
    let mut inner = fake.lock();
    inner.channels.get_mut(&id).unwrap().banned.remove(&user);
    fake.tell(&mut inner, id, "unbanned", user, bearer(&headers).0);
    StatusCode::NO_CONTENT
}

pub(super) async fn rename(headers: HeaderMap, Json(wish): Json<Value>) -> Json<Value> {
    Json(json!({ "id": bearer(&headers).0.to_string(), "handle": "x", "display_name": wish["display_name"] }))
}
