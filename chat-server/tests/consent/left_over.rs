//! Work that a process left half done when it died, and rows that cannot be read: upkeep continues with the others.

use std::time::Duration;

use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::{ChannelCard, ChannelKind};
use madang_service::{Clock, ManualClock};
use madang_store::{Channel, GroupInvitationLimits};
use madang_testkit::{PATIENCE, Rest, Storage, TestNode, manual_clock};
use serde_json::json;

use crate::stage::{Person, Stage, config, id};

const LIMITS: GroupInvitationLimits = GroupInvitationLimits { waiting: 100, by_one: 10, declined: 100 };

async fn stage_over(storage: &Storage, clock: &Clock, people: u32) -> Stage {
    let node = TestNode::start_asking(config(), storage, clock.clone()).await.unwrap();
    Stage { rest: Rest::new(&node.url()), node, people }
}

fn user(person: &Person) -> UserId {
    person.id.parse().unwrap()
}

/// Writes the group's row and an invitation, as if the process had died before it wrote the seats.
async fn invite(stage: &Stage, clock: &Clock, group: ChannelId, name: &str, by: &Person, who: &Person) {
    let store = &stage.node.node.gateway.operations.store;
    let card = ChannelCard::new(group, ChannelKind::Group, Some(name.to_owned()), None);
    store.create_channel(&Channel::new(card, user(by), clock.now_ms(), 500)).await.unwrap();
    store.invite(group, user(by), &[user(who)], clock.now_ms(), LIMITS).await.unwrap();
}

async fn noted(stage: &Stage, who: &Person) -> Vec<String> {
    let log = LogId::User(user(who));
    let store = &stage.node.node.gateway.operations.store;
    let rows = store.rows(log, Seq::new(1)..=Seq::new(99), usize::MAX).await.unwrap();
    rows.iter().map(|row| serde_json::to_value(&row.entry).unwrap()["kind"].to_string()).collect()
}

/// Lets upkeep work, one round a second, until a condition holds.
async fn until(clock: &ManualClock, is_so: impl AsyncFn() -> bool) {
    let rounds = async {
        while !is_so().await {
            clock.advance(Duration::from_secs(1));
            // waits for: the upkeep that the clock has woken
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, rounds).await.expect("upkeep comes to it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_invited_to_a_group_that_was_never_created() {
    for storage in [Storage::model(), Storage::embedded()] {
        let (clock, manual) = manual_clock();
        let mut stage = stage_over(&storage, &clock, 0).await;
        let (ada, bob, cy) = (stage.person().await, stage.person().await, stage.person().await);
        let group = ChannelId::from_raw(77);
        invite(&stage, &clock, group, "Never", &ada, &bob).await;
        // An invitation whose inviter is a member, and which is not noted either.
        let real: ChannelId = id(&stage.group(&ada, &[]).await).parse().unwrap();
        let store = std::sync::Arc::clone(&stage.node.node.gateway.operations.store);
        store.invite(real, user(&ada), &[user(&cy)], clock.now_ms(), LIMITS).await.unwrap();
        stage.node.stop().await.unwrap();
        drop(store);
        let stage = stage_over(&storage, &clock, 3).await;
        let store = &stage.node.node.gateway.operations.store;
        until(&manual, async || !noted(&stage, &cy).await.is_empty()).await;
        let begun = clock.now_ms();
        until(&manual, async || store.group_invitation(user(&bob), group).await.unwrap().is_none()).await;
        assert!(clock.now_ms() >= begun.plus(9 * 60_000), "the creation may be repeated for a while");
        assert_eq!(noted(&stage, &bob).await, [""; 0], "nobody was notified, so nothing is taken back");
        assert_eq!(stage.waiting(&cy).await, [real.to_string()]);
    }
}

/// Damages a text in the data folder of a stopped server, so that it is no longer UTF-8.
fn spoil(storage: &Storage, text: &str) {
    let Storage::Embedded(folder) = storage else { panic!("a folder") };
    let file = folder.path().join("madang.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let found: Vec<usize> =
        (0..bytes.len() - text.len()).filter(|&at| &bytes[at..at + text.len()] == text.as_bytes()).collect();
    assert!(!found.is_empty(), "the text is there");
    found.into_iter().for_each(|at| bytes[at] ^= 0x80);
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_group_does_not_hold_up_other_invitations() {
    let storage = Storage::embedded();
    let (clock, manual) = manual_clock();
    let mut stage = stage_over(&storage, &clock, 0).await;
    let (ada, bob, cy) = (stage.person().await, stage.person().await, stage.person().await);
    let store = std::sync::Arc::clone(&stage.node.node.gateway.operations.store);
    let spoiled = json!({ "kind": "group", "name": "spoiled-on-the-disk", "members": [] });
    let spoiled = id(&stage.must(&ada, "POST", "/v1/channels", spoiled).await);
    let whole = id(&stage.group(&ada, &[]).await);
    for (group, who) in [(&spoiled, &bob), (&whole, &cy)] {
        let group: ChannelId = group.parse().unwrap();
        store.invite(group, user(&ada), &[user(who)], clock.now_ms(), LIMITS).await.unwrap();
    }
    stage.node.stop().await.unwrap();
    drop(store);
    spoil(&storage, "spoiled-on-the-disk");
    let stage = stage_over(&storage, &clock, 3).await;
    until(&manual, async || !noted(&stage, &cy).await.is_empty()).await;
    assert_eq!(noted(&stage, &bob).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_cannot_be_cleared_does_not_hold_up_others() {
    let storage = Storage::embedded();
    let (clock, manual) = manual_clock();
    let mut stage = stage_over(&storage, &clock, 0).await;
    let (ada, bob, cy) = (stage.person().await, stage.person().await, stage.person().await);
    stage.befriend(&ada, &cy).await;
    let group: ChannelId = id(&stage.group(&bob, &[]).await).parse().unwrap();
    for who in [&ada, &bob] {
        stage.must(who, "POST", "/v1/me/deletion", json!({ "password": "correct horse" })).await;
    }
    stage.node.stop().await.unwrap();
    // The row of the contact between Ada and Cy.
    spoil(&storage, "mutual");
    let stage = stage_over(&storage, &clock, 3).await;
    let store = &stage.node.node.gateway.operations.store;
    assert_eq!(store.deletions(9).await.unwrap(), [user(&ada), user(&bob)]);
    until(&manual, async || store.deletions(9).await.unwrap() == [user(&ada)]).await;
    assert_eq!(store.seats(group).await.unwrap().count, 0);
}
