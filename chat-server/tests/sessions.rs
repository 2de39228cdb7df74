//! Whatever happens to an account, its user can log in with the right password, and nobody else stays signed in.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use madang_chat_server::config::SignUpMode;
use madang_chat_server::operations::{Caller, Operations};
use madang_chat_server::refusal::Result;
use madang_ids::DeviceId;
use madang_proto::rest::{Login, NewDevice, PasswordChange, Refresh, SignUp, SignedIn};
use madang_proto::{ErrorCode, limits};
use madang_service::ManualClock;
use madang_testkit::{Config, Ended, Socket, Storage, TestNode, manual_clock};
use tokio::task::JoinSet;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

struct Stage {
    node: TestNode,
    clock: ManualClock,
}

impl Stage {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let (clock, hand) = manual_clock();
        let mut config = Config::default();
        config.limits.enabled = false;
        change(&mut config);
        let node = TestNode::start(config, &Storage::embedded(), clock).await.unwrap();
        Self { node, clock: hand }
    }

    fn operations(&self) -> Arc<Operations> {
        Arc::clone(&self.node.node.gateway.operations)
    }

    async fn sign_up(&self, handle: &str) -> SignedIn {
        self.operations().sign_up(sign_up(handle, None), None).await.unwrap()
    }

    async fn devices(&self, signed_in: &SignedIn) -> Vec<DeviceId> {
        let devices = self.operations().store.devices(signed_in.user.id).await.unwrap();
        devices.into_iter().map(|device| device.id).collect()
    }
}

fn sign_up(handle: &str, invitation: Option<String>) -> SignUp {
    SignUp {
        handle: handle.into(),
        display_name: handle.into(),
        password: "correct horse".into(),
        device_name: "phone".into(),
        invitation,
    }
}

fn login(handle: &str, password: &str) -> Login {
    Login { handle: handle.into(), password: password.into(), device_name: "new".into(), device_id: None }
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

fn code<T: std::fmt::Debug>(result: Result<T>) -> ErrorCode {
    result.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fifty_first_login_succeeds_and_revokes_the_device_unused_longest() {
    let stage = Stage::new(|_| ()).await;
    let operations = stage.operations();
    let first = stage.sign_up("ada").await;
    let mut all = vec![first.clone()];
    for _ in 1..limits::DEVICES_PER_USER {
        stage.clock.advance(Duration::from_secs(60));
        all.push(operations.log_in(login("ada", "correct horse"), None, HOME).await.unwrap());
    }
    // The first device is in use, so the second one is unused longest.
    stage.clock.advance(Duration::from_secs(60));
    let request = Refresh { refresh_token: first.refresh_token.clone() };
    operations.refresh(request, HOME).await.unwrap();
    let unused = &all[1];
    let token =
        operations.refresh(Refresh { refresh_token: all[2].refresh_token.clone() }, HOME).await.unwrap();
    let (watching, _) = Socket::connect(stage.node.addr, &token.access_token, None).await.unwrap();
    let mut watching = watching;
    let new = operations.log_in(login("ada", "correct horse"), None, HOME).await.unwrap();
    let entry = &watching.next_of("entries").await["entries"][0];
    assert_eq!(
        (entry["kind"].as_str(), entry["device_id"].as_str()),
        (Some("device_revoked"), Some(unused.device_id.to_string().as_str()))
    );
    let left: HashSet<DeviceId> = stage.devices(&first).await.into_iter().collect();
    assert_eq!(left.len(), limits::DEVICES_PER_USER);
    assert!(
        left.contains(&new.device_id) && left.contains(&first.device_id) && !left.contains(&unused.device_id)
    );
    // The revoked device learns it.
    let request = Refresh { refresh_token: unused.refresh_token.clone() };
    assert_eq!(code(operations.refresh(request, HOME).await), ErrorCode::Revoked);
    // A caller with a token must revoke a device themselves.
    let bot = NewDevice { device_name: "bot".into() };
    assert_eq!(code(operations.add_device(caller(&first), bot.clone(), None).await), ErrorCode::Full);
    assert_eq!(code(operations.sign_in_for("ada", "bot".into()).await), ErrorCode::Full);
    // Unless a token has expired: then there is room for a bot as well.
    stage.clock.advance(Duration::from_secs(91 * 86_400));
    let kept = operations.log_in(login("ada", "correct horse"), None, HOME).await.unwrap();
    operations.sign_in_for("ada", "bot".into()).await.unwrap();
    operations.add_device(caller(&kept), bot, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_concurrent_logins_succeed_and_fifty_devices_are_left() {
    let stage = Stage::new(|_| ()).await;
    let first = stage.sign_up("ada").await;
    let mut logins = JoinSet::new();
    for _ in 0..70 {
        let operations = stage.operations();
        logins.spawn(async move {
            loop {
                match operations.log_in(login("ada", "correct horse"), None, HOME).await {
                    Err(error) if error.code().is_retryable() => tokio::task::yield_now().await,
                    done => return done,
                }
            }
        });
    }
    let done = logins.join_all().await;
    assert!(done.iter().all(Result::is_ok), "{:?}", done.iter().find(|done| done.is_err()));
    assert_eq!(stage.devices(&first).await.len(), limits::DEVICES_PER_USER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_the_old_password_does_not_outlive_its_change() {
    let stage = Stage::new(|_| ()).await;
    let operations = stage.operations();
    for round in 0..30 {
        let handle = format!("ada{round}");
        let ada = stage.sign_up(&handle).await;
        let mut logins = JoinSet::new();
        for _ in 0..8 {
            let (operations, handle) = (stage.operations(), handle.clone());
            logins.spawn(async move {
                operations.log_in(login(&handle, "correct horse"), None, HOME).await.is_ok()
            });
        }
        let change = PasswordChange {
            old_password: "correct horse".into(),
            new_password: "battery staple".into(),
            keep_devices: false,
        };
        operations.change_password(caller(&ada), change).await.unwrap();
        logins.join_all().await;
        assert_eq!(stage.devices(&ada).await, [ada.device_id], "round {round}");
        let old = operations.log_in(login(&handle, "correct horse"), None, HOME).await;
        assert_eq!(code(old), ErrorCode::Unauthorized);
        operations.log_in(login(&handle, "battery staple"), None, HOME).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_resets_a_password_and_disables_an_account() {
    let stage = Stage::new(|_| ()).await;
    let operations = stage.operations();
    let ada = stage.sign_up("ada").await;
    let (socket, _) = Socket::connect(stage.node.addr, &ada.access_token, None).await.unwrap();
    operations.reset_password("ada", "battery staple".into(), false).await.unwrap();
    assert!(matches!(end_of(socket).await, Ended::Closed(4501, _)));
    let again = operations.log_in(login("ada", "battery staple"), None, HOME).await.unwrap();
    operations.reset_password("ada", "correct horse".into(), true).await.unwrap();
    assert_eq!(stage.devices(&ada).await, [again.device_id]);
    operations.disable_account("ada", true).await.unwrap();
    assert_eq!(code(operations.identify(&again.access_token).await), ErrorCode::Revoked);
    // Only a caller who knows the password learns that the account is disabled.
    let known = operations.log_in(login("ada", "correct horse"), None, HOME).await;
    let unknown = operations.log_in(login("ada", "wrong horse"), None, HOME).await;
    assert_eq!((code(known), code(unknown)), (ErrorCode::Forbidden, ErrorCode::Unauthorized));
    assert_eq!(code(operations.sign_in_for("ada", "bot".into()).await), ErrorCode::Forbidden);
    operations.disable_account("ada", false).await.unwrap();
    operations.log_in(login("ada", "correct horse"), None, HOME).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_from_many_addresses_are_limited_and_the_user_can_log_in() {
    let stage = Stage::new(|config| config.limits.enabled = true).await;
    let operations = stage.operations();
    stage.sign_up("ada").await;
    operations.log_in(login("ada", "correct horse"), None, HOME).await.unwrap();
    let mut tried = 0;
    for number in 0..200_u8 {
        let address = IpAddr::from([198, 51, 100, number]);
        match code(operations.log_in(login("ada", "wrong horse"), None, address).await) {
            ErrorCode::Unauthorized => tried += 1,
            other => assert_eq!(other, ErrorCode::Limited),
        }
    }
    assert_eq!(tried, 20);
    // Guesses from the user's own address do not lock the user out either.
    while code(operations.log_in(login("bob", "wrong horse"), None, HOME).await) == ErrorCode::Unauthorized {}
    operations.log_in(login("ada", "correct horse"), None, HOME).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_token_has_ended_is_revoked_by_the_upkeep() {
    let stage = Stage::new(|_| ()).await;
    let operations = stage.operations();
    let first = stage.sign_up("ada").await;
    stage.clock.advance(Duration::from_secs(45 * 86_400));
    let second = operations.log_in(login("ada", "correct horse"), None, HOME).await.unwrap();
    operations.end_old_sessions().await;
    assert_eq!(stage.devices(&first).await, [first.device_id, second.device_id]);
    stage.clock.advance(Duration::from_secs(46 * 86_400));
    operations.end_old_sessions().await;
    assert_eq!(stage.devices(&first).await, [second.device_id]);
    let request = || Refresh { refresh_token: first.refresh_token.clone() };
    assert_eq!(code(operations.refresh(request(), HOME).await), ErrorCode::Revoked);
    stage.clock.advance(Duration::from_secs(91 * 86_400));
    operations.end_old_sessions().await;
    assert_eq!(code(operations.refresh(request(), HOME).await), ErrorCode::Unauthorized);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_allows_as_many_sign_ups_as_it_says() {
    let stage = Stage::new(|config| config.accounts.sign_up = SignUpMode::Invitation).await;
    let operations = stage.operations();
    assert_eq!(code(operations.sign_up(sign_up("ada", None), None).await), ErrorCode::Forbidden);
    let invitation = operations.invite("friends", 10, 7).await.unwrap();
    let code_of = || Some(invitation.code.clone().unwrap().to_uppercase());
    let mut callers = JoinSet::new();
    for number in 0..30 {
        let (operations, code) = (stage.operations(), code_of());
        callers.spawn(async move {
            let (request, key) = (sign_up(&format!("p{number}"), code), format!("sign-up-{number}"));
            let first = operations.sign_up(request.clone(), Some(&key)).await.is_ok();
            assert_eq!(operations.sign_up(request, Some(&key)).await.is_ok(), first);
            first
        });
    }
    let let_in = callers.join_all().await.into_iter().filter(|is_in| *is_in).count();
    assert_eq!(let_in, 10);
    let listed = operations.invitations(None).await.unwrap().items;
    assert_eq!((listed[0].used, listed[0].code.clone()), (10, None));
    let second = operations.invite("", 1, 1).await.unwrap();
    stage.clock.advance(Duration::from_secs(86_400));
    let late = operations.sign_up(sign_up("late", second.code.clone()), None).await;
    assert_eq!(code(late), ErrorCode::Forbidden);
    operations.take_invitation_back(&second.id).await.unwrap();
    assert_eq!(code(operations.take_invitation_back(&second.id).await), ErrorCode::NotFound);
    // The operator can make accounts all the same, also with a reserved handle.
    operations.make_account("admin", "Admin", "correct horse".into()).await.unwrap();
    operations.log_in(login("admin", "correct horse"), None, HOME).await.unwrap();
}
