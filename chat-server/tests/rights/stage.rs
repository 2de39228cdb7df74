//! A channel with its members, and a user who tries operations.

use std::sync::atomic::{AtomicU64, Ordering};

use madang_testkit::{Ended, Rest, Socket, TestNode};
use serde_json::{Value, json};

pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) handle: String,
    pub(crate) device: String,
    pub(crate) token: String,
    pub(crate) refresh: String,
}

pub(crate) async fn person(rest: &Rest) -> Person {
    let handle = format!("p{}", next());
    let signed_in = rest.sign_up(&handle).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Person {
        id: text(&signed_in["user"]["id"]),
        handle,
        device: text(&signed_in["device_id"]),
        token: text(&signed_in["access_token"]),
        refresh: text(&signed_in["refresh_token"]),
    }
}

fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn key() -> String {
    format!("01920000-0000-7000-8000-{:012}", next())
}

/// The role of the user who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Nobody,
    Stranger,
    Invited,
    Barred,
    Left,
    Banned,
    Member,
    Muted,
    Blocked,
    Admin,
    Owner,
}

/// Kinds of channels, with the roles that a user can have in each.
pub(crate) const ROLES: [(&str, &[Role]); 3] = {
    use Role::{Admin, Banned, Barred, Blocked, Invited, Left, Member, Muted, Nobody, Owner, Stranger};
    const GROUP: &[Role] =
        &[Nobody, Stranger, Invited, Barred, Left, Banned, Member, Muted, Blocked, Admin, Owner];
    const OPEN: &[Role] = &[Nobody, Stranger, Barred, Left, Banned, Member, Muted, Blocked, Admin, Owner];
    [("group", GROUP), ("open", OPEN), ("direct", &[Nobody, Stranger, Member, Blocked])]
};

/// A channel, from the view of a user with one role.
pub(crate) struct Stage {
    rest: Rest,
    kind: &'static str,
    role: Role,
    pub(crate) me: Person,
    /// The owner, or the other user of a direct channel.
    host: Person,
    member: Person,
    outsider: Person,
    pub(crate) channel: String,
    own: u64,
    other: u64,
}

impl Stage {
    pub(crate) async fn new(node: &TestNode, kind: &'static str, role: Role) -> Self {
        let rest = Rest::new(&node.url());
        let (me, host) = (person(&rest).await, person(&rest).await);
        let (member, outsider) = (person(&rest).await, person(&rest).await);
        let channel = String::new();
        let mut stage = Self { rest, kind, role, me, host, member, outsider, channel, own: 0, other: 0 };
        stage.set_up().await;
        stage
    }

    /// Makes a new channel in the initial state.
    pub(crate) async fn set_up(&mut self) {
        match self.kind {
            "direct" => self.begin_direct().await,
            kind => self.begin(kind).await,
        }
        self.take_role().await;
    }

    async fn begin_direct(&mut self) {
        self.host = person(&self.rest).await;
        let is_hers = matches!(self.role, Role::Member | Role::Blocked);
        let partner = if is_hers { &self.me } else { &self.outsider };
        let wish = json!({ "kind": "direct", "members": [partner.id] });
        self.channel = id(&self.must("POST", "/v1/channels", &self.host, wish).await);
        self.other = self.say(&self.host).await;
        self.own = if is_hers { self.say(&self.me).await } else { self.other };
    }

    async fn begin(&mut self, kind: &str) {
        if self.role == Role::Blocked {
            let path = format!("/v1/blocks/{}", self.me.id);
            self.must("DELETE", &path, &self.host, Value::Null).await;
        }
        let owner = if self.role == Role::Owner { &self.me } else { &self.host };
        let others = if self.role == Role::Owner { vec![&self.member] } else { vec![&self.member, &self.me] };
        let is_in = !matches!(self.role, Role::Nobody | Role::Stranger | Role::Invited | Role::Barred);
        let others: Vec<&Person> = others.into_iter().filter(|one| is_in || one.id != self.me.id).collect();
        let mut wish = json!({ "kind": kind, "name": "Tea" });
        if kind == "group" {
            wish["members"] = others.iter().map(|one| json!(one.id)).collect();
        }
        self.channel = id(&self.must("POST", "/v1/channels", owner, wish).await);
        if kind == "open" {
            for one in others {
                self.must("PUT", &self.path("/membership"), one, Value::Null).await;
            }
        }
        self.other = self.say(if self.role == Role::Owner { &self.member } else { &self.host }).await;
        self.own = if is_in { self.say(&self.me).await } else { self.other };
    }

    async fn take_role(&self) {
        let of_me = |what: &str| self.path(&format!("/{what}/{}", self.me.id));
        match self.role {
            Role::Nobody | Role::Stranger | Role::Member | Role::Owner => Value::Null,
            Role::Invited => {
                self.must("PATCH", "/v1/me", &self.me, json!({ "may_add": "contacts" })).await;
                let wish = json!({ "user_ids": [self.me.id] });
                self.must("PUT", &self.path("/members"), &self.host, wish).await
            }
            Role::Barred | Role::Banned => self.must("PUT", &of_me("bans"), &self.host, json!({})).await,
            Role::Muted => self.must("PUT", &of_me("mutes"), &self.host, json!({})).await,
            Role::Left => self.must("DELETE", &of_me("members"), &self.me, Value::Null).await,
            Role::Admin => {
                self.must("PATCH", &of_me("members"), &self.host, json!({ "role": "admin" })).await
            }
            Role::Blocked => {
                self.must("PUT", &format!("/v1/blocks/{}", self.me.id), &self.host, Value::Null).await
            }
        };
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/channels/{}{rest}", self.channel)
    }

    async fn say(&self, sender: &Person) -> u64 {
        let message = json!({ "client_msg_id": key(), "body": { "text": "tea?" } });
        self.must("POST", &self.path("/messages"), sender, message).await["seq"].as_u64().unwrap()
    }

    async fn must(&self, method: &str, path: &str, by: &Person, body: Value) -> Value {
        let body = (!body.is_null()).then_some(&body);
        self.rest.must(method, path, Some(&by.token), body).await
    }

    /// Replaces the placeholders `$…`.
    pub(crate) fn fill(&self, text: &str, message: &str) -> String {
        let owner = if self.role == Role::Owner { &self.me } else { &self.host };
        let seq = if message == "$own" { self.own } else { self.other };
        text.replace("$member", &self.member.id)
            .replace("$owner", &owner.id)
            .replace("$outsider", &self.outsider.id)
            .replace("$me", &self.me.id)
            .replace("$seq", &seq.to_string())
            .replace("$key", &key())
    }

    /// The user's token. `None` for the role `Nobody`.
    pub(crate) fn token(&self) -> Option<&str> {
        (self.role != Role::Nobody).then_some(self.me.token.as_str())
    }
}

fn id(view: &Value) -> String {
    view["id"].as_str().unwrap().to_owned()
}

/// Sends a frame. Returns its answer, or the code of a close. A frame that may have no answer is followed by a request that has
/// one: `None` if nothing comes before that answer.
pub(crate) async fn ask(socket: &mut Socket, mut frame: Value) -> Result<Option<Value>, u16> {
    let is_heartbeat = frame["type"] == "heartbeat";
    let may_be_silent = matches!(frame["type"].as_str(), Some("typing" | "received"));
    if !is_heartbeat {
        frame["id"] = json!("asked");
    }
    socket.send(&frame).await.unwrap();
    if may_be_silent {
        socket.send(&json!({ "type": "unsubscribe", "id": "behind", "channel_id": "1" })).await.unwrap();
    }
    let mut found = None;
    loop {
        match socket.next().await {
            Ok(answer) if answer["id"] == "behind" => return Ok(found),
            Ok(answer) if answer["id"] == "asked" && may_be_silent => found = Some(answer),
            Ok(answer) if answer["id"] == "asked" => return Ok(Some(answer)),
            Ok(answer) if is_heartbeat && answer["type"] == "heartbeat" => return Ok(Some(answer)),
            Ok(_) => {}
            Err(Ended::Closed(code, _)) => return Err(code),
            Err(ended) => panic!("{frame}: {ended:?}"),
        }
    }
}
