//! Removal of old records.

use std::sync::Arc;

use super::OrderedSubject;
use super::accounts::invitation;
use super::build::*;
use super::devices::{device, device_id, token};
use super::logs::appended;
use super::sends::record_of;
use crate::Store;
use crate::accounts::{Claim, Claimed};
use crate::devices::PutDevice;
use crate::log::{Append, Head, SendRecord};

pub(super) async fn old_sends_are_forgotten(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    let hour = 3_600_000;
    let said = say_many(log(1), Head::default(), user(1), 1, 10);
    let aged = |(record, number)| SendRecord { at: at(number * hour), ..record };
    let records: Vec<SendRecord> = said.rows.iter().filter_map(record_of).zip(1..).map(aged).collect();
    let rows: Arc<dyn Store> = store.clone();
    appended(&rows, Append { records: records.clone(), ..said }).await;
    let before = at(6 * hour);
    assert_eq!(store.forget_sends(before, 3).await.unwrap(), 3);
    assert_eq!(store.forget_sends(before, 3).await.unwrap(), 2);
    assert_eq!(store.forget_sends(before, 3).await.unwrap(), 0);
    let keys: Vec<_> = records.iter().map(|record| (user(1), record.key.client_msg_id)).collect();
    let found = store.find_sends(channel(1), &keys).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [[false; 5], [true; 5]].concat());
}

pub(super) async fn old_claims_are_forgotten(subject: Arc<dyn OrderedSubject>) {
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

pub(super) async fn devices_whose_tokens_have_ended_are_found(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    for id in 1..=4 {
        assert_eq!(store.put_device(&device(id, 1), 9, 0).await, Ok(PutDevice::Written));
    }
    for (number, device) in [(30, 1), (10, 2), (20, 3)] {
        store.put_refresh(&token(number, device)).await.unwrap();
    }
    let found = store.devices(user(1)).await.unwrap();
    let until: Vec<_> = found.iter().map(|device| device.signed_in_until).collect();
    assert_eq!(until, [Some(at(30)), Some(at(10)), Some(at(20)), None]);
    let of = |id| (user(1), device_id(id));
    assert_eq!(store.ended_devices(at(30), 9).await, Ok(vec![of(2), of(3)]));
    assert_eq!(store.ended_devices(at(99), 1).await, Ok(vec![of(2)]));
    assert_eq!(store.revoke_device(user(1), device_id(2), at(40)).await, Ok(true));
    assert_eq!(store.ended_devices(at(99), 9).await, Ok(vec![of(3), of(1)]));
}

pub(super) async fn devices_that_were_revoked_long_ago_are_forgotten(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    for id in 1..=4 {
        assert_eq!(store.put_device(&device(id, 1), 9, 0).await, Ok(PutDevice::Written));
        assert_eq!(store.revoke_device(user(1), device_id(id), at(id)).await, Ok(true));
    }
    assert_eq!(store.forget_devices(at(4), 2).await, Ok(2));
    assert_eq!(store.forget_devices(at(4), 9).await, Ok(1));
    assert_eq!(store.device(user(1), device_id(3)).await, Ok(None));
    assert!(store.device(user(1), device_id(4)).await.unwrap().is_some());
}

pub(super) async fn invitations_that_ended_are_forgotten(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    for one in [invitation(1, 5, 20), invitation(3, 5, 95)] {
        store.put_invitation(&one).await.unwrap();
    }
    assert_eq!(store.forget_invitations(at(50), 9).await, Ok(1));
    assert_eq!(store.invitations(None, 9).await, Ok(vec![invitation(3, 5, 95)]));
    store.probe().await.unwrap();
}
