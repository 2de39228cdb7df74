//! Users, devices, tokens, blocks and claims.

use std::sync::Arc;

use madang_ids::{Cursor, DeviceId, Epoch, Position};
use tokio::task::JoinSet;

use super::build::*;
use super::{Subject, done};
use crate::accounts::{Claim, Claimed, Created, Device, Refresh, Replaced, Rotated, User};

fn person(id: u64, handle: &str) -> User {
    User {
        id: user(id),
        handle: handle.into(),
        display_name: format!("Person {id}"),
        created_at: at(id),
        sends_receipts: true,
    }
}

fn device_id(id: u64) -> DeviceId {
    DeviceId::from_raw(id)
}

fn device(id: u64, owner: u64) -> Device {
    let (id, user_id, name) = (device_id(id), user(owner), format!("device {id}"));
    Device { id, user_id, name, created_at: at(1), revoked_at: None, received: None }
}

fn token(number: u8, device: u64) -> Refresh {
    Refresh {
        hash: [number; 32],
        user_id: user(1),
        device_id: device_id(device),
        expires_at: at(u64::from(number)),
        replaced: None,
    }
}

/// A token in the place of another.
fn token_after(old: u8, number: u8, device: u64) -> Refresh {
    let replaced = Replaced { hash: [old; 32], until: at(u64::from(old) + 60) };
    Refresh { replaced: Some(replaced), ..token(number, device) }
}

fn cursor(epoch: u64, position: u64) -> Cursor {
    Cursor { epoch: Epoch::from_raw(epoch), position: Position::new(position) }
}

pub(super) async fn a_handle_has_one_holder(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut callers = JoinSet::new();
    for id in 1..=12 {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            let person = person(id, "mina");
            (id, done(|| store.create_user(&person, "hash")).await)
        });
    }
    let outcomes = callers.join_all().await;
    let winners: Vec<u64> =
        outcomes.iter().filter(|(_, outcome)| *outcome == Created::Created).map(|(id, _)| *id).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    let holder = person(winners[0], "mina");
    assert_eq!(done(|| store.user_by_handle("mina")).await, Some(holder.clone()));
    assert_eq!(done(|| store.create_user(&holder, "hash")).await, Created::Created);
    let late = person(77, "mina");
    assert_eq!(done(|| store.create_user(&late, "hash")).await, Created::Taken);
    assert_eq!(done(|| store.users(std::slice::from_ref(&late.id))).await, [None]);
    assert_eq!(done(|| store.user_by_handle("nobody")).await, None);
}

pub(super) async fn users_come_in_the_order_asked(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for (id, handle) in [(1, "a"), (2, "b"), (3, "c")] {
        assert_eq!(store.create_user(&person(id, handle), "hash").await, Ok(Created::Created));
    }
    let found = store.users(&[user(3), user(9), user(1)]).await.unwrap();
    assert_eq!(found, [Some(person(3, "c")), None, Some(person(1, "a"))]);
}

pub(super) async fn names_and_passwords_change(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.create_user(&person(1, "a"), "first").await.unwrap();
    assert_eq!(store.password_hash(user(1)).await, Ok(Some("first".into())));
    assert_eq!(store.password_hash(user(2)).await, Ok(None));
    store.set_password_hash(user(1), "second").await.unwrap();
    store.set_display_name(user(1), "A \u{1F600}").await.unwrap();
    store.set_sends_receipts(user(1), false).await.unwrap();
    drop(store);
    let store = subject.open().await;
    assert_eq!(store.password_hash(user(1)).await, Ok(Some("second".into())));
    let renamed = User { display_name: "A \u{1F600}".into(), sends_receipts: false, ..person(1, "a") };
    assert_eq!(store.user_by_handle("a").await, Ok(Some(renamed)));
}

pub(super) async fn a_device_keeps_what_it_received(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    assert_eq!(store.put_device(&device(1, 1), 9).await, Ok(true));
    assert_eq!(store.put_device(&device(3, 1), 9).await, Ok(true));
    assert_eq!(store.put_device(&device(2, 2), 9).await, Ok(true));
    store.set_received(&[(device_id(1), cursor(u64::MAX, 5)), (device_id(99), cursor(7, 5))]).await.unwrap();
    let renamed = Device { name: "other".into(), ..device(1, 1) };
    assert_eq!(store.put_device(&renamed, 9).await, Ok(true));
    let expected = Device { received: Some(cursor(u64::MAX, 5)), ..renamed };
    assert_eq!(store.device(device_id(1)).await, Ok(Some(expected.clone())));
    assert_eq!(store.device(device_id(99)).await, Ok(None));
    assert_eq!(store.devices(user(1)).await, Ok(vec![expected, device(3, 1)]));
}

pub(super) async fn thirty_logins_at_once_make_ten_devices(subject: Arc<dyn Subject>) {
    const AT_MOST: usize = 10;
    let store = subject.open().await;
    let strangers = device(99, 2);
    assert!(done(|| store.put_device(&strangers, AT_MOST)).await);
    let mut callers = JoinSet::new();
    for id in 1..=30 {
        let store = Arc::clone(&store);
        let device = device(id, 1);
        callers.spawn(async move { (id, done(|| store.put_device(&device, AT_MOST)).await) });
    }
    let outcomes = callers.join_all().await;
    let mut winners: Vec<u64> =
        outcomes.into_iter().filter(|&(_, is_there)| is_there).map(|(id, _)| id).collect();
    winners.sort_unstable();
    let found: Vec<u64> = done(|| store.devices(user(1))).await.iter().map(|found| found.id.raw()).collect();
    assert_eq!(found, winners);
    assert_eq!(found.len(), AT_MOST);
    // Who has a place keeps it; who leaves makes room.
    let (one, late) = (device(winners[0], 1), device(77, 1));
    assert!(done(|| store.put_device(&one, AT_MOST)).await);
    assert!(!done(|| store.put_device(&late, AT_MOST)).await);
    assert!(done(|| store.revoke_device(user(1), one.id, at(1))).await);
    assert!(done(|| store.put_device(&late, AT_MOST)).await);
}

pub(super) async fn the_first_revocation_stays(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    assert_eq!(store.put_device(&device(1, 1), 9).await, Ok(true));
    store.put_refresh(&token(1, 1)).await.unwrap();
    assert_eq!(store.revoke_device(user(2), device_id(1), at(5)).await, Ok(false));
    assert_eq!(store.revoke_device(user(1), device_id(9), at(5)).await, Ok(false));
    assert_eq!(store.refresh(&[1; 32]).await, Ok(Some(token(1, 1))));
    for time in [10, 20] {
        assert_eq!(store.revoke_device(user(1), device_id(1), at(time)).await, Ok(true));
        let found = store.device(device_id(1)).await.unwrap();
        assert_eq!(found.and_then(|device| device.revoked_at), Some(at(10)));
    }
    assert_eq!(store.refresh(&[1; 32]).await, Ok(None));
    assert_eq!(store.rotate_refresh(&token_after(1, 2, 1)).await, Ok(Rotated::Unknown));
    assert_eq!(store.put_device(&device(1, 1), 9).await, Ok(true));
    let found = store.device(device_id(1)).await.unwrap();
    assert_eq!(found.and_then(|device| device.revoked_at), Some(at(10)));
    assert!(store.devices(user(1)).await.unwrap().is_empty());
}

pub(super) async fn received_goes_forward_within_an_epoch(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    assert_eq!(store.put_device(&device(1, 1), 9).await, Ok(true));
    let steps = [((7, 5), (7, 5)), ((7, 3), (7, 5)), ((7, 9), (7, 9)), ((8, 2), (8, 2)), ((8, 1), (8, 2))];
    for ((epoch, position), (kept_epoch, kept)) in steps {
        store.set_received(&[(device_id(1), cursor(epoch, position))]).await.unwrap();
        let found = store.device(device_id(1)).await.unwrap();
        assert_eq!(found.and_then(|device| device.received), Some(cursor(kept_epoch, kept)));
    }
}

pub(super) async fn a_device_has_one_refresh_token(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.put_refresh(&token(1, 1)).await.unwrap();
    store.put_refresh(&token(2, 2)).await.unwrap();
    store.put_refresh(&token(3, 1)).await.unwrap();
    assert_eq!(store.refresh(&[1; 32]).await, Ok(None));
    assert_eq!(store.refresh(&[2; 32]).await, Ok(Some(token(2, 2))));
    assert_eq!(store.refresh(&[3; 32]).await, Ok(Some(token(3, 1))));
    assert_eq!(store.rotate_refresh(&token_after(1, 4, 1)).await, Ok(Rotated::Unknown));
    assert_eq!(store.rotate_refresh(&token_after(2, 4, 1)).await, Ok(Rotated::Unknown));
    assert_eq!(store.rotate_refresh(&token(4, 1)).await, Ok(Rotated::Unknown));
    assert_eq!(store.refresh(&[3; 32]).await, Ok(Some(token(3, 1))));
}

pub(super) async fn a_refresh_token_is_rotated_once(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.put_refresh(&token(1, 1)).await.unwrap();
    let mut callers = JoinSet::new();
    for number in 2..=12 {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            let outcome = store.rotate_refresh(&token_after(1, number, 1)).await.unwrap();
            (number, outcome)
        });
    }
    let outcomes = callers.join_all().await;
    let winners: Vec<u8> = outcomes
        .iter()
        .filter(|(_, outcome)| *outcome == Rotated::Rotated)
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    let winner = token_after(1, winners[0], 1);
    assert_eq!(store.refresh(&[winners[0]; 32]).await, Ok(Some(winner.clone())));
    assert_eq!(store.refresh(&[1; 32]).await, Ok(Some(winner)));
}

pub(super) async fn a_rotation_may_be_repeated(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.put_refresh(&token(1, 1)).await.unwrap();
    let second = token_after(1, 2, 1);
    assert_eq!(store.rotate_refresh(&second).await, Ok(Rotated::Rotated));
    drop(store);
    let store = subject.open().await;
    // Who comes again is known by the old token; what the first try wrote stays.
    assert_eq!(store.refresh(&[1; 32]).await, Ok(Some(second.clone())));
    let later = Refresh { expires_at: at(99), ..second.clone() };
    assert_eq!(store.rotate_refresh(&later).await, Ok(Rotated::Rotated));
    assert_eq!(store.refresh(&[2; 32]).await, Ok(Some(second.clone())));
    // Another one cannot take its place, nor can somebody else repeat it.
    let stranger = Refresh { user_id: user(2), ..second };
    for wrong in [token_after(1, 3, 1), token_after(3, 2, 1), stranger] {
        assert_eq!(store.rotate_refresh(&wrong).await, Ok(Rotated::Unknown), "{wrong:?}");
    }
    // Only the last one is kept.
    let third = token_after(2, 3, 1);
    assert_eq!(store.rotate_refresh(&third).await, Ok(Rotated::Rotated));
    assert_eq!(store.refresh(&[1; 32]).await, Ok(None));
    assert_eq!(store.refresh(&[2; 32]).await, Ok(Some(third)));
    // A login leaves nothing of it.
    store.put_refresh(&token(9, 1)).await.unwrap();
    assert_eq!(store.refresh(&[2; 32]).await, Ok(None));
}

pub(super) async fn blocks_come_by_pages(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for other in [5, 3, 9, 7] {
        assert_eq!(store.block(user(1), user(other), at(1)).await, Ok(true));
        assert_eq!(store.block(user(1), user(other), at(2)).await, Ok(false));
    }
    assert_eq!(store.blocks(user(1), None, 2).await, Ok(vec![user(3), user(5)]));
    assert_eq!(store.blocks(user(1), Some(user(5)), 9).await, Ok(vec![user(7), user(9)]));
    assert_eq!(store.is_blocked(user(1), user(5)).await, Ok(true));
    assert_eq!(store.is_blocked(user(5), user(1)).await, Ok(true));
    assert_eq!(store.is_blocked(user(5), user(3)).await, Ok(false));
    assert_eq!(store.unblock(user(5), user(1)).await, Ok(false));
    assert_eq!(store.unblock(user(1), user(5)).await, Ok(true));
    assert_eq!(store.unblock(user(1), user(5)).await, Ok(false));
    assert_eq!(store.is_blocked(user(1), user(5)).await, Ok(false));
}

pub(super) async fn a_key_is_claimed_once(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let claim = |id: u64| Claim { id, request_hash: [id as u8; 16], at: at(id) };
    let mut callers = JoinSet::new();
    for id in 1..=12 {
        let store = Arc::clone(&store);
        // Who claimed without hearing so finds her own claim before her.
        callers.spawn(async move {
            match done(|| store.claim("channels", "key", claim(id))).await {
                Claimed::First => claim(id),
                Claimed::Before(first) => first,
            }
        });
    }
    let mut claims = callers.join_all().await;
    claims.dedup();
    assert_eq!(claims.len(), 1, "{claims:?}");
    assert_eq!(done(|| store.claim("channels", "key", claim(99))).await, Claimed::Before(claims[0]));
    let others = [("channels", "other"), ("users", "key")];
    for (scope, key) in others {
        let outcome = done(|| store.claim(scope, key, claim(50))).await;
        assert!(matches!(outcome, Claimed::First | Claimed::Before(Claim { id: 50, .. })));
    }
}

pub(super) async fn old_claims_are_forgotten(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let claim = |id: u64| Claim { id, request_hash: [0; 16], at: at(id * 100) };
    for id in 1..=10 {
        assert_eq!(store.claim("channels", &id.to_string(), claim(id)).await, Ok(Claimed::First));
    }
    assert_eq!(store.forget_claims(at(501), 3).await, Ok(3));
    assert_eq!(store.forget_claims(at(501), 3).await, Ok(2));
    assert_eq!(store.forget_claims(at(501), 3).await, Ok(0));
    for id in 1..=10 {
        let expected = if id <= 5 { Claimed::First } else { Claimed::Before(claim(id)) };
        assert_eq!(store.claim("channels", &id.to_string(), claim(id)).await, Ok(expected));
    }
}
