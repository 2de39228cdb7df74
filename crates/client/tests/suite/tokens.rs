//! Tokens: renewed before they expire, after they have expired, and when renewal is refused.

use std::time::Duration;

use madang_client::Event;

use crate::harness::{Events, Harness, Person, body, start};

/// Longer than the 15 minutes of a token's life and the minute of grace.
const PAST_THE_TOKEN: Duration = Duration::from_secs(17 * 60);

/// The client measures a token's life from `welcome`, on its own clock.
async fn pass_for_the_client(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// The next event. Fails if it is the end of the connection.
async fn on_this_connection(events: &mut Events) -> Event {
    let event = events.next().await;
    assert!(!matches!(event, Event::Disconnected { .. } | Event::Closed { .. }), "{event:?}");
    event
}

async fn acked(events: &mut Events) {
    while !matches!(on_this_connection(events).await, Event::Acked { .. }) {}
}

#[tokio::test]
async fn a_token_is_renewed_on_the_connection_before_it_expires() {
    let harness = Harness::new().await;
    let (_, bob, channel) = harness.pair().await;
    let (client, mut events) = harness.connected(&bob).await;
    harness.clock.advance(Duration::from_secs(12 * 60));
    pass_for_the_client(Duration::from_secs(12 * 60)).await;
    let renewed = match events.content().await {
        Event::TokensRenewed(tokens) => tokens,
        other => panic!("{other:?}"),
    };
    assert_ne!(renewed.access, bob.tokens.access);
    // The server reads this after `auth` on the same connection, so it has the new token when the first one expires.
    client.send(channel, body("before the end")).await.unwrap();
    acked(&mut events).await;
    harness.clock.advance(Duration::from_secs(5 * 60));
    client.send(channel, body("past the first one's end")).await.unwrap();
    loop {
        match on_this_connection(&mut events).await {
            Event::Acked { .. } => break,
            Event::TokensRenewed(_) => panic!("the server did not accept the new token"),
            _ => {}
        }
    }
    // The second token is renewed in the same way.
    harness.clock.advance(Duration::from_secs(10 * 60 + 1));
    client.send(channel, body("past the second one's end")).await.unwrap();
    acked(&mut events).await;
    client.close().await;
}

#[tokio::test]
async fn a_token_that_expired_is_renewed_and_the_message_is_sent_once() {
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let (client, mut events) = harness.connected(&bob).await;
    harness.clock.advance(Duration::from_secs(15 * 60 + 1));
    client.send(channel, body("late")).await.unwrap();
    assert!(matches!(events.content().await, Event::TokensRenewed(_)));
    acked(&mut events).await;
    let ada = harness.rest.refresh(&ada.tokens.refresh).await.unwrap();
    let ada = Person { id: ada.user.id, tokens: ada.into() };
    assert_eq!(harness.texts(&ada, channel).await, ["late"]);
    client.close().await;
}

#[tokio::test]
async fn an_expired_token_is_renewed_before_the_client_connects() {
    let harness = Harness::new().await;
    let bob = harness.person("bob").await;
    harness.clock.advance(PAST_THE_TOKEN);
    let (client, mut events) = start(harness.options(&bob.tokens));
    assert!(matches!(events.next().await, Event::Disconnected { .. }));
    assert!(matches!(events.next().await, Event::TokensRenewed(_)));
    assert!(matches!(events.next().await, Event::Connected { .. }));
    client.close().await;
}

#[tokio::test]
async fn without_a_valid_token_the_user_must_sign_in() {
    let harness = Harness::new().await;
    let (_, bob, channel) = harness.pair().await;
    harness.rest.refresh(&bob.tokens.refresh).await.unwrap();
    harness.clock.advance(PAST_THE_TOKEN);
    let (client, mut events) = start(harness.options(&bob.tokens));
    assert!(matches!(events.next().await, Event::Disconnected { .. }));
    assert!(matches!(events.next().await, Event::SignInRequired { .. }));
    assert!(events.end_or_next().await.is_none());
    assert!(client.send(channel, body("nobody hears it")).await.is_err());
}

#[tokio::test]
async fn a_refused_renewal_on_the_connection_requires_sign_in() {
    let harness = Harness::new().await;
    let (_, bob, channel) = harness.pair().await;
    let (client, mut events) = harness.connected(&bob).await;
    harness.rest.refresh(&bob.tokens.refresh).await.unwrap();
    harness.clock.advance(Duration::from_secs(15 * 60 + 1));
    client.send(channel, body("too late")).await.unwrap();
    assert!(matches!(events.content().await, Event::SignInRequired { .. }));
    assert!(events.end_or_next().await.is_none());
}

#[tokio::test]
async fn a_temporary_failure_of_renewal_keeps_the_connection() {
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let (client, mut events) = harness.connected(&bob).await;
    // The proxy accepts no new connections; the open socket stays.
    harness.proxy.set_away(true);
    let tries = harness.proxy.tries();
    pass_for_the_client(Duration::from_secs(12 * 60)).await;
    while harness.proxy.tries() == tries {
        // waits for: a call that the proxy refuses
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    harness.say(&ada, channel, "still here").await;
    while !matches!(on_this_connection(&mut events).await, Event::Entries { .. }) {}
    client.close().await;
}
