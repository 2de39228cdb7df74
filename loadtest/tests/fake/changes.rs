//! Edits, deletions and reactions of the server in memory.

use serde_json::{Value, json};

use super::{Channel, Fake, Inner, Plant};

impl Channel {
    /// An entry with the present state of its message.
    pub(super) fn carried(&self, entry: &Value) -> Value {
        let row = |seq: &Value| self.log.iter().find(|row| row["seq"] == *seq);
        let mut entry = entry.clone();
        match entry["kind"].as_str().unwrap() {
            "message" => row(&entry["seq"]).cloned().unwrap_or(entry),
            "edited" | "deleted" | "reactions" => {
                let row = row(&entry["target"]).unwrap();
                carry(&mut entry, row);
                entry
            }
            _ => entry,
        }
    }
}

impl Fake {
    /// Changes a message. Returns the answer.
    pub(super) fn change(&self, user: u64, channel_id: u64, request: &Value) -> Value {
        let mut inner = self.lock();
        let target = request["seq"].as_u64().unwrap();
        let changed = |version: &Value, seq: Option<u64>| {
            let mut answer = json!({
                "type": "changed", "id": request["id"], "channel_id": request["channel_id"], "target": target,
                "version": version,
            });
            if let Some(seq) = seq {
                answer["seq"] = json!(seq);
            }
            answer
        };
        let channel = &inner.channels[&channel_id];
        let index = channel.log.iter().position(|row| row["seq"] == target).unwrap();
        let before = channel.log[index].clone();
        let mut row = before.clone();
        if row["deleted"].is_object() && request["type"] != "delete" {
            let (id, message) = (&request["id"], "it is deleted");
            return json!({ "type": "error", "id": id, "code": "not_found", "message": message, "retryable": false });
        }
        let kind = apply(&mut row, user, request);
        if row == before {
            return changed(&version(&before), None);
        }
        inner.changes += 1;
        row["version"] = json!(version(&before).as_u64().unwrap() + 1);
        if self.forgets(&mut inner, kind, channel_id, target) {
            row = Value::Object(before.as_object().unwrap().clone());
            row["version"] = json!(version(&before).as_u64().unwrap() + 1);
        }
        self.append_change(&mut inner, channel_id, (kind, user), (&before, row.clone()));
        let seq = inner.channels[&channel_id].head;
        changed(&row["version"], Some(seq))
    }

    /// Whether this change is acked and not made.
    fn forgets(&self, inner: &mut Inner, kind: &str, channel: u64, target: u64) -> bool {
        let forgets = match (self.plant, kind) {
            (Plant::EditLost(from), "edited")
            | (Plant::ReactionLost(from), "reactions")
            | (Plant::Undeleted(from), "deleted") => inner.changes >= from,
            _ => false,
        };
        if forgets {
            inner.planted.push((channel, target));
        }
        forgets
    }

    fn append_change(
        &self,
        inner: &mut Inner,
        channel_id: u64,
        (kind, user): (&str, u64),
        (before, row): (&Value, Value),
    ) {
        let number = inner.changes;
        let at = inner.messages;
        let target = row["seq"].as_u64().unwrap();
        let channel = inner.channels.get_mut(&channel_id).unwrap();
        channel.head += 1;
        let entry = json!({
            "seq": channel.head, "at": at, "kind": kind, "target": target, "version": row["version"],
            "by": user.to_string(),
        });
        let index = channel.log.iter().position(|row| row["seq"] == target).unwrap();
        channel.log[index] = row;
        channel.log.push(entry.clone());
        let mut carried = channel.carried(&entry);
        match self.plant {
            // Later changes of the same message are dropped too, because they would repair the fault.
            Plant::ChangeNotDelivered(planted)
                if planted == number || inner.planted.contains(&(channel_id, target)) =>
            {
                inner.planted.push((channel_id, target));
                return;
            }
            Plant::WrongVersion(planted) if planted == number => {
                inner.planted.push((channel_id, target));
                carry(&mut carried, before);
            }
            _ => {}
        }
        self.deliver(inner, channel_id, &carried);
    }
}

/// Makes the change in a row. Returns the kind of its entry.
fn apply(row: &mut Value, user: u64, request: &Value) -> &'static str {
    let user = user.to_string();
    match request["type"].as_str().unwrap() {
        "edit" => {
            if row["text"] != request["body"]["text"] {
                row["text"] = request["body"]["text"].clone();
                row["edited"] = json!({ "at": 1, "version": version(row).as_u64().unwrap() + 1 });
            }
            "edited"
        }
        "delete" => {
            row["text"] = json!("");
            row["deleted"] = json!({ "at": 1, "by": user });
            row.as_object_mut().unwrap().remove("reactions");
            "deleted"
        }
        _ => {
            let mut reactions = row["reactions"].as_array().cloned().unwrap_or_default();
            if !reactions.iter().any(|reaction| reaction["emoji"] == request["emoji"]) {
                reactions.push(json!({ "emoji": request["emoji"], "count": 0, "users": [] }));
            }
            let is_it = |reaction: &&mut Value| reaction["emoji"] == request["emoji"];
            let reaction = reactions.iter_mut().find(is_it).unwrap();
            let users = reaction["users"].as_array_mut().unwrap();
            users.retain(|known| *known != user.as_str());
            if request["on"] != false {
                users.push(json!(user));
                users.sort_by_key(|user| user.as_str().unwrap().parse::<u64>().unwrap());
            }
            reaction["count"] = json!(reaction["users"].as_array().unwrap().len());
            reactions.retain(|reaction| reaction["count"] != 0);
            row.as_object_mut().unwrap().remove("reactions");
            if !reactions.is_empty() {
                row["reactions"] = json!(reactions);
            }
            "reactions"
        }
    }
}

/// Puts the state of the message into a change.
fn carry(entry: &mut Value, row: &Value) {
    if entry["kind"] != "reactions" {
        entry["message"] = row.clone();
    } else if row.get("deleted").is_none() {
        let body_version = row["edited"]["version"].as_u64().unwrap_or(1);
        let reactions = row.get("reactions").cloned().unwrap_or_else(|| json!([]));
        entry["state"] =
            json!({ "version": version(row), "body_version": body_version, "reactions": reactions });
    }
}

fn version(row: &Value) -> Value {
    json!(row["version"].as_u64().unwrap_or(1))
}
