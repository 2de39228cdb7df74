//! Unacked messages: they survive reconnects, keep their order, are appended once, and their number is bounded.

use std::collections::HashSet;

use madang_client::Event;
use madang_testkit::Fate;

use crate::harness::{Events, Harness, body, numbers, start};

/// Waits until `count` different keys are acked.
async fn acked(events: &mut Events, count: usize) {
    let mut keys = HashSet::new();
    while keys.len() < count {
        match events.content().await {
            Event::Acked { client_msg_id, .. } => assert!(keys.insert(client_msg_id), "acked twice"),
            Event::Refused { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn messages_whose_acks_are_lost_are_appended_once_and_in_order() {
    const MESSAGES: usize = 40;
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let (client, mut events) = harness.connected(&bob).await;
    let mut acks = 0;
    harness.proxy.rule(move |frame| {
        acks += usize::from(frame.contains("\"ack\""));
        // Every third ack is lost with its connection: the message is durable, and the client does not know it.
        if frame.contains("\"ack\"") && acks % 3 == 0 { Fate::Cut } else { Fate::Pass }
    });
    let send = async {
        for text in numbers(0..MESSAGES) {
            client.send(channel, body(&text)).await.unwrap();
        }
    };
    tokio::join!(send, acked(&mut events, MESSAGES));
    assert_eq!(harness.texts(&ada, channel).await, numbers(0..MESSAGES));
    client.close().await;
}

#[tokio::test]
async fn a_full_queue_delays_the_sender_and_loses_nothing() {
    const OUTBOX: usize = 4;
    /// Capacity of the queue of commands to the driving task.
    const COMMANDS: usize = 16;
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let mut options = harness.options(&bob.tokens);
    options.outbox = OUTBOX;
    harness.proxy.set_away(true);
    let (client, mut events) = start(options);
    let mut taken = 0;
    let mut tries_without_room = 0;
    while tries_without_room < 5 {
        tokio::select! {
            biased;
            sent = client.send(channel, body(&taken.to_string())) => {
                sent.unwrap();
                (taken, tries_without_room) = (taken + 1, 0);
            }
            event = events.next() => {
                assert!(matches!(event, Event::Disconnected { .. }));
                tries_without_room += 1;
            }
        }
    }
    assert_eq!(taken, OUTBOX + COMMANDS);
    harness.proxy.set_away(false);
    // A cancelled call that waited for room has enqueued nothing. The next message is appended after the others.
    let send = async { client.send(channel, body("last")).await.unwrap() };
    tokio::join!(send, acked(&mut events, taken + 1));
    let mut expected = numbers(0..taken);
    expected.push("last".to_owned());
    assert_eq!(harness.texts(&ada, channel).await, expected);
    client.close().await;
}
