//! Subscriptions, settings and notes of alerts.

use std::sync::Arc;

use madang_engine::alerts::Job;
use madang_ids::{Cursor, Epoch, Millis, Ordinal, Position};
use madang_proto::{
    AlertLevel, AlertNote, AlertOutcome, AlertPreview, AlertSettings, ApnsEnvironment, ChannelCard,
    ChannelKind, ChannelSettings, PushTarget, QuietHours,
};

use super::build::*;
use super::channels::{membership, plain};
use super::devices::{device, device_id};
use super::{OrderedSubject, Subject};
use crate::Spans;
use crate::channels::{Channel, Membership};
use crate::log::{Head, Marker};
use crate::push::{DeadLetter, NoteOf, Subscription};

pub(super) fn subscription(id: u64, owner: u64, token: &str, registered: u64) -> Subscription {
    let environment = ApnsEnvironment::Production;
    Subscription {
        user_id: user(owner),
        device_id: device_id(id),
        target: PushTarget::Apns { token: token.into(), topic: "example.app".into(), environment },
        signing_secret: None,
        registered_at: at(registered),
        seen_at: at(registered),
        app_version: "1.2".into(),
        locale: "de-DE".into(),
        halted: None,
    }
}

pub(super) async fn a_subscription_is_replaced_and_keeps_its_first_time(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for (id, owner) in [(1, 1), (2, 1), (3, 2)] {
        store.put_device(&device(id, owner), 9, 0).await.unwrap();
    }
    let first = subscription(1, 1, "aa", 5);
    assert_eq!(store.put_subscription(&first).await, Ok(first.clone()));
    store.put_subscription(&subscription(2, 1, "bb", 6)).await.unwrap();
    store.put_subscription(&subscription(3, 2, "cc", 6)).await.unwrap();
    // The app starts again with the same token, and its provider has refused it meanwhile.
    store.halt_subscription(user(1), device_id(1), at(5), AlertOutcome::WrongEnvironment).await.unwrap();
    store.halt_subscription(user(1), device_id(2), at(99), AlertOutcome::WrongEnvironment).await.unwrap();
    let halted = Subscription { halted: Some(AlertOutcome::WrongEnvironment), ..first.clone() };
    drop(store);
    let store = subject.open().await;
    assert_eq!(store.subscriptions(user(1)).await, Ok(vec![halted, subscription(2, 1, "bb", 6)]));
    let again = subscription(1, 1, "aa", 8);
    let kept = Subscription { registered_at: at(5), ..again.clone() };
    assert_eq!(store.put_subscription(&again).await, Ok(kept.clone()));
    assert_eq!(store.subscriptions(user(1)).await.unwrap()[0], kept);
    let other = subscription(1, 1, "dd", 9);
    assert_eq!(store.put_subscription(&other).await, Ok(other.clone()));
    assert_eq!(store.subscriptions(user(1)).await, Ok(vec![other, subscription(2, 1, "bb", 6)]));
    assert_eq!(store.subscriptions(user(2)).await, Ok(vec![subscription(3, 2, "cc", 6)]));
}

pub(super) async fn a_token_belongs_to_its_last_device(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for (id, owner) in [(1, 1), (2, 2)] {
        store.put_device(&device(id, owner), 9, 0).await.unwrap();
    }
    store.put_subscription(&subscription(1, 1, "aa", 5)).await.unwrap();
    let moved = subscription(2, 2, "aa", 7);
    assert_eq!(store.put_subscription(&moved).await, Ok(moved.clone()));
    assert_eq!(store.subscriptions(user(1)).await, Ok(vec![]));
    assert_eq!(store.subscriptions(user(2)).await, Ok(vec![moved]));
}

pub(super) async fn a_subscription_ends_with_its_device(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for id in [1, 2, 3] {
        store.put_device(&device(id, 1), 9, 0).await.unwrap();
        store.put_subscription(&subscription(id, 1, &format!("{id}"), 5)).await.unwrap();
    }
    let left = async || {
        let found = store.subscriptions(user(1)).await.unwrap();
        found.into_iter().map(|found| found.device_id.raw()).collect::<Vec<_>>()
    };
    assert_eq!(store.remove_subscription(user(2), device_id(1), None).await, Ok(false));
    assert_eq!(
        store.remove_subscription(user(1), device_id(1), Some(at(4))).await,
        Ok(false),
        "registered again"
    );
    assert_eq!(left().await, [1, 2, 3]);
    assert_eq!(store.remove_subscription(user(1), device_id(1), Some(at(5))).await, Ok(true));
    assert_eq!(store.remove_subscription(user(1), device_id(1), None).await, Ok(false));
    store.revoke_device(user(1), device_id(2), at(9)).await.unwrap();
    assert_eq!(left().await, [3]);
    store.revoke_devices(user(1), None, at(9)).await.unwrap();
    assert_eq!(left().await, [0; 0]);
}

pub(super) async fn settings_of_alerts_are_kept(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    assert_eq!(store.alert_settings(user(1)).await, Ok(AlertSettings::default()));
    let quiet_hours =
        QuietHours { from: "22:30".into(), until: "07:00".into(), zone: "Europe/Berlin".into() };
    let settings = AlertSettings {
        level: AlertLevel::Mentions,
        preview: AlertPreview::Sender,
        muted_until: Some(Millis::new(7)),
        quiet_hours: Some(quiet_hours),
    };
    store.put_alert_settings(user(1), &settings).await.unwrap();
    drop(store);
    let store = subject.open().await;
    assert_eq!(store.alert_settings(user(1)).await, Ok(settings));
    assert_eq!(store.alert_settings(user(2)).await, Ok(AlertSettings::default()));
    store.put_alert_settings(user(1), &AlertSettings::default()).await.unwrap();
    assert_eq!(store.alert_settings(user(1)).await, Ok(AlertSettings::default()));
}

fn note(first: u64, last: u64, time: u64, outcome: AlertOutcome) -> AlertNote {
    let device_id = (outcome == AlertOutcome::Taken).then_some(device_id(4));
    let (first_seq, last_seq) = (seq(first), seq(last));
    AlertNote { at: at(time), first_seq, last_seq, device_id, outcome, detail: "200".into() }
}

pub(super) async fn notes_of_alerts_are_found_by_any_of_their_messages(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let (called, taken, dropped) = (
        note(3, 5, 10, AlertOutcome::NotTaken),
        note(3, 5, 11, AlertOutcome::Taken),
        note(6, 6, 12, AlertOutcome::Dropped),
    );
    let of = |place, note: &AlertNote| NoteOf { user: user(1), channel: channel(place), note: note.clone() };
    store.put_notes(vec![of(1, &called), of(1, &taken), of(2, &taken)]).await.unwrap();
    store.put_notes(vec![of(1, &dropped)]).await.unwrap();
    let found = async |owner, place, value| store.notes(user(owner), channel(place), seq(value), 9).await;
    assert_eq!(found(1, 1, 2).await, Ok(vec![]));
    for value in 3..=5 {
        assert_eq!(found(1, 1, value).await, Ok(vec![called.clone(), taken.clone()]), "{value}");
    }
    assert_eq!(found(1, 1, 6).await, Ok(vec![dropped]));
    assert_eq!(found(1, 2, 3).await, Ok(vec![taken]));
    assert_eq!(found(2, 1, 3).await, Ok(vec![]));
    assert_eq!(store.notes(user(1), channel(1), seq(4), 1).await, Ok(vec![called]));
}

pub(super) async fn dead_letters_stay_until_they_are_removed(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let place = Cursor { epoch: Epoch::from_raw(1), position: Position::new(7) };
    let letter = |id| DeadLetter {
        id,
        user_id: user(1),
        channel_id: channel(2),
        device_id: device_id(3),
        job: Job::new(seq(4), place, at(5), at(6)),
        note: note(4, 4, 9, AlertOutcome::Refused),
    };
    for id in [8, 3, 3] {
        store.put_dead_letter(&letter(id)).await.unwrap();
    }
    drop(store);
    let store = subject.open().await;
    assert_eq!(store.dead_letters(0, 9).await, Ok(vec![letter(3), letter(8)]));
    assert_eq!(store.dead_letters(0, 1).await, Ok(vec![letter(3)]));
    assert_eq!(store.dead_letters(3, 9).await, Ok(vec![letter(8)]));
    assert_eq!(store.remove_dead_letter(3).await, Ok(true));
    assert_eq!(store.remove_dead_letter(3).await, Ok(false));
    assert_eq!(store.dead_letters(0, 9).await, Ok(vec![letter(8)]));
}

pub(super) async fn old_notes_of_alerts_are_forgotten(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    let of = |time| {
        let note = note(time, time, time, AlertOutcome::Dropped);
        NoteOf { user: user(1), channel: channel(1), note }
    };
    store.put_notes((1..=10).map(of).collect()).await.unwrap();
    assert_eq!(store.forget_alert_notes(at(6), 3).await, Ok(3));
    assert_eq!(store.forget_alert_notes(at(6), 3).await, Ok(2));
    assert_eq!(store.forget_alert_notes(at(6), 3).await, Ok(0));
    for value in 1..=10 {
        let found = store.notes(user(1), channel(1), seq(value), 9).await.unwrap();
        assert_eq!(found.len(), usize::from(value >= 6), "{value}");
    }
}

pub(super) async fn a_badge_counts_unread_messages_of_channels_that_are_not_muted(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let open = ChannelCard::new(channel(4), ChannelKind::Open, Some("open".into()), None);
    store.create_channel(&Channel::new(open, user(9), at(4), 500)).await.unwrap();
    for id in 1..=3 {
        store.create_channel(&plain(id)).await.unwrap();
    }
    let mut left = Spans::since(seq(1));
    left.close(seq(2));
    for (id, spans, in_inbox) in [
        (1, Spans::since(seq(1)), true),
        (2, Spans::since(seq(1)), true),
        (3, left, true),
        (4, Spans::since(seq(1)), false),
    ] {
        let membership = Membership { in_inbox, ..membership(1, id, &spans) };
        store.put_memberships(&[membership]).await.unwrap();
        store.append(say_many(log(id), Head::default(), user(9), 1, 5)).await.unwrap();
    }
    let unread = async |now| store.unread(user(1), at(now)).await.unwrap();
    assert_eq!(unread(10).await, 10);
    let marker = Marker { seq: seq(3), ordinal: Ordinal::new(3) };
    store.advance_marker(user(1), channel(1), marker).await.unwrap();
    assert_eq!(unread(10).await, 7);
    let muted = ChannelSettings { rev: 1, muted_until: Some(at(50)), ..ChannelSettings::default() };
    store.put_channel_settings(user(1), channel(2), &muted).await.unwrap();
    assert_eq!((unread(49).await, unread(50).await), (2, 7));
    assert_eq!(store.unread(user(2), at(1)).await, Ok(0));
}
