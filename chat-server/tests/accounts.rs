//! Operations that must come to a good end although they were interrupted, or were called twice at the same time.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use madang_bus::local::LocalInbox;
use madang_chat_server::compose::{Backends, Node};
use madang_chat_server::config::Config;
use madang_chat_server::gateway::listener::listen;
use madang_chat_server::operations::{Caller, Operations};
use madang_chat_server::refusal::Result;
use madang_chat_server::rest;
use madang_ids::LogId;
use madang_proto::rest::{Deletion, NewChannel, PageQuery, SignUp, SignedIn};
use madang_proto::{ChannelKind, Content, ErrorCode};
use madang_service::{Drain, ManualClock, Tasks};
use madang_store::model::{Fate, Faults, Model, ModelConfig};
use madang_store::{AccountStore, LogStore};
use madang_testkit::{Ended, Rest, Socket, manual_clock};
use serde_json::json;
use tokio::net::TcpListener;

/// A node over a model store whose outcomes the test chooses.
struct Stage {
    model: Arc<Model>,
    node: Node,
    clock: ManualClock,
    addr: SocketAddr,
    rest: Rest,
}

impl Stage {
    async fn new() -> Self {
        let model = Model::new(ModelConfig { seed: 7, faults: Faults { delay_yields: 5, ..Faults::NONE } });
        let (inbox, follow) = LocalInbox::open(Arc::clone(&model)).await.unwrap();
        let tasks = Tasks::new(Drain::new());
        tasks.spawn("inbox", follow);
        let (clock, hand) = manual_clock();
        let mut config = Config::default();
        // The cheapest that argon2 accepts: no test is about the cost of a password.
        config.passwords.memory_kib = 8;
        config.passwords.passes = 1;
        // No test is about consent to be added to a group.
        config.accounts.consent = false;
        let store = Arc::clone(&model);
        let (secret, latest) = ([42; 32], madang_ids::Millis::ZERO);
        let backends = Backends::of_one_process(store, inbox, clock, secret, latest);
        let node = Node::assemble(config, backends, tasks).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let listening = listen::run(listener, rest::router(node.api.clone()), Arc::clone(&node.gateway));
        node.tasks.spawn("listen", listening);
        Self { model, node, clock: hand, addr, rest: Rest::new(&format!("http://{addr}")) }
    }

    fn operations(&self) -> &Operations {
        &self.node.gateway.operations
    }

    async fn sign_up(&self, handle: &str, password: &str, key: Option<&str>) -> Result<SignedIn> {
        let request = SignUp {
            handle: handle.to_owned(),
            display_name: handle.to_owned(),
            password: password.to_owned(),
            device_name: "phone".to_owned(),
            invitation: None,
        };
        self.operations().sign_up(request, key).await
    }

    async fn status(&self, method: &str, path: &str, token: &str) -> u16 {
        self.rest.call(method, path, Some(token), None, None).await.unwrap().status
    }
}

fn caller(signed_in: &SignedIn) -> Caller {
    Caller { user_id: signed_in.user.id, device_id: signed_in.device_id, origin: None }
}

async fn end_of(mut socket: Socket) -> Ended {
    loop {
        if let Err(ended) = socket.next().await {
            return ended;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_closed_although_the_note_failed_and_nobody_can_repeat_the_call() {
    let stage = Stage::new().await;
    let ada = stage.sign_up("ada", "correct horse", None).await.unwrap();
    let (socket, _) = Socket::connect(stage.addr, &ada.access_token, None).await.unwrap();
    let mut ended = Box::pin(end_of(socket));
    // The log refuses the note of the first call and of the next try.
    stage.model.script(LogId::User(ada.user.id), Fate::Unavailable);
    stage.model.script(LogId::User(ada.user.id), Fate::Unavailable);
    assert_eq!(stage.status("DELETE", "/v1/sessions", &ada.access_token).await, 503);
    assert_eq!(stage.status("DELETE", "/v1/sessions", &ada.access_token).await, 401);
    for _ in 0..5 {
        stage.clock.advance(Duration::from_secs(1));
        // A call gives the server time to work.
        stage.status("GET", "/v1/me", &ada.access_token).await;
    }
    let ended = tokio::time::timeout(Duration::from_secs(10), &mut ended).await;
    assert!(matches!(ended, Ok(Ended::Closed(4501, _))), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_revoked_while_the_store_accepts_no_writes_is_refused_at_once() {
    let stage = Stage::new().await;
    let ada = stage.sign_up("ada", "correct horse", None).await.unwrap();
    let (socket, _) = Socket::connect(stage.addr, &ada.access_token, None).await.unwrap();
    let mut ended = Box::pin(end_of(socket));
    assert_eq!(stage.status("GET", "/v1/me", &ada.access_token).await, 200);
    stage.model.set_faults(Faults { unknown: 1.0, ..Faults::NONE });
    let refused =
        stage.rest.call("DELETE", "/v1/sessions", Some(&ada.access_token), None, None).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(
        refused.body["message"].as_str().unwrap().contains("refuses the device from now on"),
        "{}",
        refused.body
    );
    assert_eq!(stage.status("GET", "/v1/me", &ada.access_token).await, 401);
    let body = json!({ "refresh_token": ada.refresh_token });
    let refreshed = stage.rest.call("POST", "/v1/tokens", None, None, Some(&body)).await.unwrap();
    assert_ne!(refreshed.status, 200);
    for _ in 0..3 {
        stage.clock.advance(Duration::from_secs(1));
        stage.status("GET", "/v1/me", &ada.access_token).await;
    }
    let ended = tokio::time::timeout(Duration::from_secs(10), &mut ended).await;
    assert!(matches!(ended, Ok(Ended::Closed(4501, _))), "{ended:?}");
    // Once the store accepts writes the revocation is durable, and the account can be used on another device.
    stage.model.set_faults(Faults::NONE);
    for _ in 0..30 {
        stage.clock.advance(Duration::from_secs(1));
        stage.status("GET", "/v1/me", &ada.access_token).await;
    }
    assert!(stage.operations().revocations.pending().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_whose_note_failed_is_noted_by_the_repeated_call() {
    let stage = Stage::new().await;
    let ada = stage.sign_up("ada", "correct horse", None).await.unwrap();
    let bob = stage.sign_up("bob", "correct horse", None).await.unwrap();
    let (mut socket, _) = Socket::connect(stage.addr, &ada.access_token, None).await.unwrap();
    let path = format!("/v1/blocks/{}", bob.user.id);
    for (method, kind) in [("PUT", "blocked"), ("DELETE", "unblocked")] {
        stage.model.script(LogId::User(ada.user.id), Fate::Unavailable);
        assert_eq!(stage.status(method, &path, &ada.access_token).await, 503);
        assert_eq!(stage.status(method, &path, &ada.access_token).await, 204);
        let entry = &socket.next_of("entries").await["entries"][0];
        assert_eq!((&entry["kind"], &entry["user_id"]), (&json!(kind), &json!(bob.user.id)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_block_and_unblock_end_with_a_note_of_the_stored_state() {
    let stage = Stage::new().await;
    let ada = stage.sign_up("ada", "correct horse", None).await.unwrap();
    let bob = stage.sign_up("bob", "correct horse", None).await.unwrap();
    let operations = stage.operations();
    for round in 0..300 {
        let blocked = operations.block(caller(&ada), bob.user.id);
        let (blocked, unblocked) = tokio::join!(blocked, operations.unblock(caller(&ada), bob.user.id));
        assert_eq!((blocked, unblocked), (Ok(()), Ok(())));
        let is_blocked =
            !operations.blocks(caller(&ada), PageQuery::default()).await.unwrap().items.is_empty();
        let told = stage.model.tail(LogId::User(ada.user.id), 1).await.unwrap().rows;
        let is_recorded = matches!(told[0].entry.content, Content::Blocked { .. });
        assert_eq!(is_recorded, is_blocked, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_sign_ups_with_one_key_and_two_passwords_one_succeeds() {
    let stage = Stage::new().await;
    for round in 0..50 {
        let (handle, key) = (format!("ada{round}"), format!("sign-up-{round}"));
        let (one, other) = tokio::join!(
            stage.sign_up(&handle, "correct horse", Some(&key)),
            stage.sign_up(&handle, "battery staple", Some(&key)),
        );
        let refused: Vec<ErrorCode> =
            [&one, &other].into_iter().filter_map(|tried| tried.as_ref().err()).map(|e| e.code()).collect();
        assert_eq!(refused, [ErrorCode::Conflict], "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_kept_for_a_day_and_then_deleted() {
    let stage = Stage::new().await;
    let ada = stage.sign_up("ada", "correct horse", None).await.unwrap();
    let group = async || {
        let (kind, name) = (ChannelKind::Group, Some("Tea".to_owned()));
        let request = NewChannel { kind, name, topic: None, members: Vec::new() };
        let view = stage.operations().create_channel(caller(&ada), request, Some("tea-group-1")).await;
        stage.operations().forget_old_keys().await;
        view.unwrap().card.id
    };
    let first = group().await;
    stage.clock.advance(Duration::from_secs(86_400));
    assert_eq!(group().await, first);
    stage.clock.advance(Duration::from_millis(1));
    assert_eq!(group().await, first);
    assert_ne!(group().await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_is_cleared_although_steps_fail() {
    let stage = Stage::new().await;
    let ada = stage.sign_up("ada", "correct horse", None).await.unwrap();
    let bob = stage.sign_up("bob", "correct horse", None).await.unwrap();
    let operations = stage.operations();
    let (kind, name) = (ChannelKind::Group, Some("Tea".to_owned()));
    let request = NewChannel { kind, name, topic: None, members: vec![bob.user.id] };
    let group = operations.create_channel(caller(&ada), request, None).await.unwrap().card.id;
    operations.put_contact(caller(&ada), bob.user.id).await.unwrap();
    operations.put_contact(caller(&bob), ada.user.id).await.unwrap();
    for _ in 0..2 {
        stage.model.script(LogId::Channel(group), Fate::Unavailable);
        stage.model.script(LogId::User(bob.user.id), Fate::Unavailable);
        stage.model.script(LogId::User(ada.user.id), Fate::Unavailable);
    }
    let request = madang_proto::rest::Deletion { password: "correct horse".to_owned() };
    // The note of the revocation fails. What has begun is finished all the same.
    let deleted = operations.delete_account(caller(&ada), request).await;
    assert_eq!(deleted.unwrap_err().code(), ErrorCode::Unavailable);
    assert_eq!(stage.status("GET", "/v1/me", &ada.access_token).await, 401);
    for _ in 0..200 {
        stage.clock.advance(Duration::from_secs(1));
        // A call gives the server time to work.
        stage.status("GET", "/v1/me", &bob.access_token).await;
        if operations.store.deletions(1).await.unwrap().is_empty() {
            break;
        }
    }
    assert!(operations.store.deletions(1).await.unwrap().is_empty());
    let members = operations.members(caller(&bob), group, PageQuery::default()).await.unwrap().items;
    let members: Vec<_> = members.into_iter().map(|member| (member.user.id, member.role)).collect();
    assert_eq!(members, [(bob.user.id, madang_proto::Role::Owner)]);
    assert!(operations.contacts(caller(&bob), PageQuery::default()).await.unwrap().items.is_empty());
    // The handle stays reserved for 90 days.
    let taken = stage.sign_up("ada", "correct horse", None).await;
    assert_eq!(taken.unwrap_err().code(), ErrorCode::Conflict);
    stage.clock.advance(Duration::from_secs(90 * 86_400));
    assert_ne!(stage.sign_up("ada", "correct horse", None).await.unwrap().user.id, ada.user.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_of_another_spelling_is_accepted_and_renewed() {
    let stage = Stage::new().await;
    let operations = stage.operations();
    let log_in = async |password: &str| {
        let (handle, password) = ("ada".to_owned(), password.to_owned());
        let request =
            madang_proto::rest::Login { handle, password, device_name: String::new(), device_id: None };
        operations.log_in(request, None, std::net::IpAddr::from([192, 0, 2, 1])).await.map(drop)
    };
    let ada = stage.sign_up("ada", "correct horse", None).await.unwrap();
    for (kept, typed) in [
        ("pa\u{DF}wo\u{308}rter", "pa\u{DF}w\u{F6}rter"),
        ("pa\u{DF}w\u{F6}rter", "pa\u{DF}wo\u{308}rter"),
        ("no\u{A0}break\u{3000}space", "no\u{A0}break\u{3000}space"),
    ] {
        // As an older server has stored it.
        let old = operations.passwords.hash(kept.to_owned(), madang_auth::Lane::Guest).await.unwrap();
        operations.store.set_password_hash(ada.user.id, &old, None).await.unwrap();
        log_in(typed).await.unwrap();
        log_in(kept).await.unwrap();
        let present = operations.store.credentials(ada.user.id).await.unwrap().unwrap().password_hash;
        let spelling = madang_auth::spellings(kept).remove(0);
        let is_present = operations.passwords.verify(spelling, present, madang_auth::Lane::Guest).await;
        assert!(is_present.unwrap(), "{kept}");
        assert_eq!(log_in("no break spac").await.unwrap_err().code(), ErrorCode::Unauthorized);
    }
    log_in("no break space").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_log_and_blocks_of_a_deleted_user_are_deleted() {
    let stage = Stage::new().await;
    let ada = stage.sign_up("ada", "correct horse", None).await.unwrap();
    let bob = stage.sign_up("bob", "correct horse", None).await.unwrap();
    let cy = stage.sign_up("cy", "correct horse", None).await.unwrap();
    let operations = stage.operations();
    let request =
        NewChannel { kind: ChannelKind::Direct, name: None, topic: None, members: vec![bob.user.id] };
    operations.create_channel(caller(&ada), request, None).await.unwrap();
    operations.block(caller(&ada), cy.user.id).await.unwrap();
    let request = Deletion { password: "correct horse".to_owned() };
    operations.delete_account(caller(&ada), request).await.unwrap();
    for round in 0.. {
        assert!(round < 1_000, "the deletion is finished");
        stage.clock.advance(Duration::from_secs(1));
        stage.status("GET", "/v1/me", &bob.access_token).await;
        if stage.model.deletions(1).await.unwrap().is_empty() {
            break;
        }
    }
    let own = LogId::User(ada.user.id);
    let rows = stage.model.tail(own, 100).await.unwrap().rows;
    assert!(rows.len() <= 1, "{} rows of the own log are left", rows.len());
    // The remaining block keeps the direct channel closed.
    assert_eq!(stage.model.blocks(ada.user.id, None, 9).await, Ok(vec![bob.user.id]));
}
