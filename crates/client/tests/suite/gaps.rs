//! Gaps in a live log: they are filled from history, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use madang_client::Event;
use madang_ids::{LogId, Seq};
use madang_proto::ChannelKind;
use madang_testkit::{Fate, Proxy};
use tokio::sync::mpsc;

use crate::harness::{Harness, numbers, texts};

/// Makes the proxy lose every frame of entries that contains the text. The receiver reports each lost frame.
fn lose(proxy: &Proxy, text: &'static str) -> mpsc::Receiver<()> {
    let (lost, told) = mpsc::channel(1);
    proxy.rule(move |frame| {
        if frame.contains("\"entries\"") && frame.contains(text) {
            let _ = lost.try_send(());
            return Fate::Lose;
        }
        Fate::Pass
    });
    told
}

#[tokio::test]
async fn a_lost_frame_is_read_from_history_before_later_entries() {
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let (client, mut events) = harness.connected(&bob).await;
    harness.say(&ada, channel, "one").await;
    assert_eq!(events.texts(channel, 1).await, ["one"]);
    let mut lost = lose(&harness.proxy, "\"two\"");
    let two = harness.say(&ada, channel, "two").await;
    lost.recv().await.unwrap();
    let three = harness.say(&ada, channel, "three").await;
    match events.content().await {
        Event::Gap { log, after, before, filled } => {
            assert_eq!((log, before, filled), (LogId::Channel(channel), three, true));
            assert_eq!(after.next(), two);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(events.texts(channel, 2).await, ["two", "three"]);
    client.close().await;
}

#[tokio::test]
async fn a_gap_of_many_pages_is_filled_completely() {
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let (client, mut events) = harness.connected(&bob).await;
    let loses = Arc::new(AtomicBool::new(true));
    let rule = Arc::clone(&loses);
    harness.proxy.rule(move |frame| {
        let is_lost = rule.load(Ordering::SeqCst) && frame.contains("\"entries\"");
        if is_lost && frame.contains("\"419\"") {
            rule.store(false, Ordering::SeqCst);
        }
        if is_lost { Fate::Lose } else { Fate::Pass }
    });
    for text in numbers(0..420) {
        harness.say(&ada, channel, &text).await;
    }
    while loses.load(Ordering::SeqCst) {
        // waits for: the last frame to be lost
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    harness.say(&ada, channel, "420").await;
    assert!(matches!(events.content().await, Event::Gap { filled: true, .. }));
    assert_eq!(events.texts(channel, 421).await, numbers(0..421));
    client.close().await;
}

#[tokio::test]
async fn messages_of_a_time_without_membership_are_not_missing() {
    let harness = Harness::new().await;
    let (ada, bob) = (harness.person("ada").await, harness.person("bob").await);
    let channel = harness.channel(ChannelKind::Group, &ada, &bob).await;
    let (client, mut events) = harness.connected(&bob).await;
    harness.rest.remove_member(&ada.tokens.access, channel, bob.id).await.unwrap();
    let unheard = harness.say(&ada, channel, "unheard").await;
    harness.rest.add_members(&ada.tokens.access, channel, vec![bob.id]).await.unwrap();
    harness.say(&ada, channel, "welcome back").await;
    let (mut said, mut gaps) = (Vec::new(), Vec::new());
    while said.is_empty() {
        match events.content().await {
            Event::Entries { log: LogId::Channel(_), entries } => said.extend(texts(&entries)),
            Event::Gap { after, before, filled, .. } => gaps.push((after, before, filled)),
            _ => {}
        }
    }
    let seq = |offset: u64| Seq::new(unheard.get() + offset);
    assert_eq!((said, gaps), (vec!["welcome back".to_owned()], vec![(unheard.minus(1), seq(1), true)]));
    client.close().await;
}
