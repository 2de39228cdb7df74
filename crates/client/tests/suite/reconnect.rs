//! Broken connections: the client reconnects after a bounded wait and misses nothing.

use std::time::Duration;

use madang_client::Event;
use madang_testkit::Fate;

use crate::harness::{Harness, numbers, start};

#[tokio::test]
async fn entries_arrive_once_and_in_order_through_many_disconnects() {
    const MESSAGES: usize = 60;
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let (client, mut events) = harness.connected(&bob).await;
    let mut frames = 0;
    harness.proxy.rule(move |_| {
        frames += 1;
        // Each connection makes a little progress before it breaks.
        if frames % 5 == 0 { Fate::Cut } else { Fate::Pass }
    });
    let say = async {
        for text in numbers(0..MESSAGES) {
            harness.say(&ada, channel, &text).await;
        }
    };
    let ((), heard) = tokio::join!(say, events.texts(channel, MESSAGES));
    assert_eq!(heard, numbers(0..MESSAGES));
    client.close().await;
}

#[tokio::test]
async fn waits_grow_to_the_cap_and_differ() {
    let harness = Harness::new().await;
    let bob = harness.person("bob").await;
    let mut options = harness.options(&bob.tokens);
    (options.backoff_base, options.backoff_cap) = (Duration::from_millis(1), Duration::from_millis(20));
    harness.proxy.set_away(true);
    let (client, mut events) = start(options);
    let mut waits = Vec::new();
    for round in 0..30_u32 {
        let Event::Disconnected { back_in, .. } = events.next().await else {
            panic!("expected a disconnect")
        };
        assert!(back_in <= Duration::from_millis((1 << round.min(10)).min(20)), "{round}: {back_in:?}");
        waits.push(back_in);
    }
    // At least one of 25 draws from the whole range lies in its upper half, except with probability 2^-25.
    assert!(waits.iter().any(|wait| *wait > Duration::from_millis(10)), "{waits:?}");
    waits.sort();
    waits.dedup();
    assert!(waits.len() > 20, "{waits:?}");
    harness.proxy.set_away(false);
    while !matches!(events.next().await, Event::Connected { .. }) {}
    client.close().await;
}

#[tokio::test]
async fn a_connection_that_ends_right_after_welcome_is_no_success() {
    let harness = Harness::new().await;
    let bob = harness.person("bob").await;
    let mut options = harness.options(&bob.tokens);
    (options.backoff_base, options.backoff_cap) = (Duration::from_millis(1), Duration::from_millis(64));
    let (client, mut events) = start(options);
    let mut longest = Duration::ZERO;
    let mut ends = 0;
    while ends < 12 {
        match events.next().await {
            Event::Connected { .. } => harness.proxy.cut(),
            Event::Disconnected { back_in, .. } => (ends, longest) = (ends + 1, longest.max(back_in)),
            _ => {}
        }
    }
    assert!(longest > Duration::from_millis(1), "{longest:?}");
    client.close().await;
}
