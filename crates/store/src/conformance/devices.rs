//! Devices and refresh tokens.

use std::sync::Arc;

use madang_ids::{Cursor, DeviceId, Epoch, Position};
use tokio::task::JoinSet;

use super::build::*;
use super::{Subject, done};
use crate::accounts::User;
use crate::devices::{Device, PutDevice, REVOKED_KEPT, Refresh, Replaced, Rotated};

pub(super) fn device_id(id: u64) -> DeviceId {
    DeviceId::from_raw(id)
}

pub(super) fn device(id: u64, owner: u64) -> Device {
    Device {
        id: device_id(id),
        user_id: user(owner),
        name: format!("device {id}"),
        created_at: at(1),
        revoked_at: None,
        received: None,
        signed_in_until: None,
    }
}

pub(super) fn token(number: u8, device: u64) -> Refresh {
    Refresh {
        hash: [number; 32],
        user_id: user(1),
        device_id: device_id(device),
        expires_at: at(u64::from(number)),
        replaced: None,
    }
}

/// A token that replaces another one.
fn token_after(old: u8, number: u8, device: u64) -> Refresh {
    let replaced = Replaced { hash: [old; 32], until: at(u64::from(old) + 60) };
    Refresh { replaced: Some(replaced), ..token(number, device) }
}

fn cursor(epoch: u64, position: u64) -> Cursor {
    Cursor { epoch: Epoch::from_raw(epoch), position: Position::new(position) }
}

pub(super) async fn a_device_keeps_what_it_received(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    assert_eq!(store.put_device(&device(1, 1), 9, 0).await, Ok(PutDevice::Written));
    assert_eq!(store.put_device(&device(3, 1), 9, 0).await, Ok(PutDevice::Written));
    assert_eq!(store.put_device(&device(2, 2), 9, 0).await, Ok(PutDevice::Written));
    store
        .set_received(&[(user(1), device_id(1), cursor(u64::MAX, 5)), (user(1), device_id(99), cursor(7, 5))])
        .await
        .unwrap();
    let renamed = Device { name: "other".into(), ..device(1, 1) };
    assert_eq!(store.put_device(&renamed, 9, 0).await, Ok(PutDevice::Written));
    let expected = Device { received: Some(cursor(u64::MAX, 5)), ..renamed };
    assert_eq!(store.device(user(1), device_id(1)).await, Ok(Some(expected.clone())));
    assert_eq!(store.device(user(1), device_id(99)).await, Ok(None));
    assert_eq!(store.devices(user(1)).await, Ok(vec![expected, device(3, 1)]));
}

pub(super) async fn thirty_logins_at_once_make_ten_devices(subject: Arc<dyn Subject>) {
    const AT_MOST: usize = 10;
    let store = subject.open().await;
    let strangers = device(99, 2);
    let put = async |device: &Device| done(|| store.put_device(device, AT_MOST, 0)).await;
    assert_eq!(put(&strangers).await, PutDevice::Written);
    let mut callers = JoinSet::new();
    for id in 1..=30 {
        let store = Arc::clone(&store);
        let device = device(id, 1);
        callers.spawn(async move { (id, done(|| store.put_device(&device, AT_MOST, 0)).await) });
    }
    let outcomes = callers.join_all().await;
    let mut winners: Vec<u64> =
        outcomes.into_iter().filter(|&(_, put)| put == PutDevice::Written).map(|(id, _)| id).collect();
    winners.sort_unstable();
    let found: Vec<u64> = done(|| store.devices(user(1))).await.iter().map(|found| found.id.raw()).collect();
    assert_eq!(found, winners);
    assert_eq!(found.len(), AT_MOST);
    // A device that has a place keeps it; a revoked device frees its place.
    let (one, late) = (device(winners[0], 1), device(77, 1));
    assert_eq!(put(&one).await, PutDevice::Written);
    assert_eq!(put(&late).await, PutDevice::Full);
    assert!(done(|| store.revoke_device(user(1), one.id, at(1))).await);
    assert_eq!(put(&late).await, PutDevice::Written);
}

pub(super) async fn the_first_revocation_stays(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    assert_eq!(store.put_device(&device(1, 1), 9, 0).await, Ok(PutDevice::Written));
    store.put_refresh(&token(1, 1)).await.unwrap();
    assert_eq!(store.revoke_device(user(2), device_id(1), at(5)).await, Ok(false));
    assert_eq!(store.revoke_device(user(1), device_id(9), at(5)).await, Ok(false));
    assert_eq!(store.refresh(&[1; 32]).await, Ok(Some(token(1, 1))));
    for time in [10, 20] {
        assert_eq!(store.revoke_device(user(1), device_id(1), at(time)).await, Ok(true));
        let found = store.device(user(1), device_id(1)).await.unwrap();
        assert_eq!(found.and_then(|device| device.revoked_at), Some(at(10)));
    }
    // A device that presents its token later must learn that it was revoked.
    assert_eq!(store.refresh(&[1; 32]).await, Ok(Some(token(1, 1))));
    assert_eq!(store.rotate_refresh(&token_after(1, 2, 1)).await, Ok(Rotated::Unknown));
    store.put_refresh(&token(3, 1)).await.unwrap();
    assert_eq!(store.rotate_refresh(&token_after(3, 4, 1)).await, Ok(Rotated::Unknown));
    assert_eq!(store.put_device(&device(1, 1), 9, 0).await, Ok(PutDevice::Revoked));
    assert_eq!(store.rename_device(user(1), device_id(1), "new").await, Ok(false));
    let found = store.device(user(1), device_id(1)).await.unwrap();
    assert_eq!(found.and_then(|device| device.revoked_at), Some(at(10)));
    assert!(store.devices(user(1)).await.unwrap().is_empty());
}

pub(super) async fn received_goes_forward_within_an_epoch(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    assert_eq!(store.put_device(&device(1, 1), 9, 0).await, Ok(PutDevice::Written));
    let steps = [((7, 5), (7, 5)), ((7, 3), (7, 5)), ((7, 9), (7, 9)), ((8, 2), (8, 2)), ((8, 1), (8, 2))];
    for ((epoch, position), (kept_epoch, kept)) in steps {
        store.set_received(&[(user(1), device_id(1), cursor(epoch, position))]).await.unwrap();
        let found = store.device(user(1), device_id(1)).await.unwrap();
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
            let next = token_after(1, number, 1);
            (number, done(|| store.rotate_refresh(&next)).await)
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
    // A client that repeats the rotation is recognised by the old token; what the first attempt wrote stays.
    assert_eq!(store.refresh(&[1; 32]).await, Ok(Some(second.clone())));
    let later = Refresh { expires_at: at(99), ..second.clone() };
    assert_eq!(store.rotate_refresh(&later).await, Ok(Rotated::Rotated));
    assert_eq!(store.refresh(&[2; 32]).await, Ok(Some(second.clone())));
    // Neither can another token replace it, nor can another user repeat the rotation.
    let stranger = Refresh { user_id: user(2), ..second };
    for wrong in [token_after(1, 3, 1), token_after(3, 2, 1), stranger] {
        assert_eq!(store.rotate_refresh(&wrong).await, Ok(Rotated::Unknown), "{wrong:?}");
    }
    // Only the last replaced token is kept.
    let third = token_after(2, 3, 1);
    assert_eq!(store.rotate_refresh(&third).await, Ok(Rotated::Rotated));
    assert_eq!(store.refresh(&[1; 32]).await, Ok(None));
    assert_eq!(store.refresh(&[2; 32]).await, Ok(Some(third)));
    // A login replaces all of them.
    store.put_refresh(&token(9, 1)).await.unwrap();
    assert_eq!(store.refresh(&[2; 32]).await, Ok(None));
}

pub(super) async fn all_devices_but_one_are_revoked_together(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let person = User::new(user(1), "ada".into(), "Ada".into(), at(1));
    store.create_user(&person, "hash", None).await.unwrap();
    for (id, owner) in [(1, 1), (2, 1), (3, 1), (4, 2)] {
        assert_eq!(store.put_device(&device(id, owner), 9, 0).await, Ok(PutDevice::Written));
    }
    store.put_refresh(&token(1, 1)).await.unwrap();
    assert_eq!(store.sign_in_rev(user(1)).await, Ok(0));
    let revoked = store.revoke_devices(user(1), Some(device_id(2)), at(5)).await;
    assert_eq!(revoked, Ok(vec![device_id(1), device_id(3)]));
    assert_eq!(store.devices(user(1)).await, Ok(vec![device(2, 1)]));
    assert_eq!(store.devices(user(2)).await, Ok(vec![device(4, 2)]));
    assert_eq!(store.rotate_refresh(&token_after(1, 2, 1)).await, Ok(Rotated::Unknown));
    // A sign-in that began before the revocation must be started again.
    assert_eq!(store.sign_in_rev(user(1)).await, Ok(1));
    assert_eq!(store.put_device(&device(7, 1), 9, 0).await, Ok(PutDevice::Overtaken));
    assert_eq!(store.put_device(&device(7, 1), 9, 1).await, Ok(PutDevice::Written));
    assert_eq!(store.revoke_devices(user(1), None, at(6)).await, Ok(vec![device_id(2), device_id(7)]));
    let first = store.device(user(1), device_id(1)).await.unwrap().and_then(|device| device.revoked_at);
    assert_eq!(first, Some(at(5)));
}

pub(super) async fn a_device_is_renamed_by_its_user(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    assert_eq!(store.put_device(&device(1, 1), 9, 0).await, Ok(PutDevice::Written));
    assert_eq!(store.rename_device(user(2), device_id(1), "no").await, Ok(false));
    assert_eq!(store.rename_device(user(1), device_id(2), "no").await, Ok(false));
    assert_eq!(store.rename_device(user(1), device_id(1), "yes").await, Ok(true));
    assert_eq!(store.devices(user(1)).await.unwrap()[0].name, "yes");
}

pub(super) async fn few_revoked_devices_are_kept(subject: Arc<dyn Subject>) {
    const MORE: u64 = 7;
    let kept = REVOKED_KEPT as u64;
    let store = subject.open().await;
    for id in 1..=kept + MORE {
        assert_eq!(store.put_device(&device(id, 1), 9, 0).await, Ok(PutDevice::Written));
        assert_eq!(store.revoke_device(user(1), device_id(id), at(id)).await, Ok(true));
    }
    assert_eq!(store.device(user(1), device_id(MORE)).await, Ok(None));
    assert!(store.device(user(1), device_id(MORE + 1)).await.unwrap().is_some());
}
