//! Presence: what a program sets for its user, and what it receives about others.

use std::time::Duration;

use madang_client::Event;
use madang_ids::UserId;
use madang_proto::{Availability, ContactState, SetPresence, UserPresence};

use crate::harness::{Events, Harness};

async fn next_of(events: &mut Events, user: UserId) -> UserPresence {
    loop {
        if let Event::Presence(list) = events.next().await
            && let Some(card) = list.users.into_iter().find(|card| card.user_id == user)
        {
            return card;
        }
    }
}

#[tokio::test]
async fn presence_that_a_program_sets_reaches_the_watchers() {
    let harness = Harness::new().await;
    let (ada, bob) = (harness.person("ada").await, harness.person("bob").await);
    let asked = harness.rest.put_contact(&ada.tokens.access, bob.id).await.unwrap();
    let accepted = harness.rest.put_contact(&bob.tokens.access, ada.id).await.unwrap();
    assert_eq!((asked.state, accepted.state), (ContactState::Requested, ContactState::Mutual));
    let (watching, mut seen) = harness.connected(&ada).await;
    let (client, mut events) = harness.connected(&bob).await;
    assert_eq!(next_of(&mut seen, bob.id).await.state, Availability::Online);
    let away =
        SetPresence { idle: Some(true), status: Some("in the garden".into()), ..SetPresence::default() };
    client.set_presence(away).await.unwrap();
    assert_eq!(next_of(&mut events, bob.id).await.status.as_deref(), Some("in the garden"));
    loop {
        harness.clock.advance(Duration::from_secs(1));
        let card = next_of(&mut seen, bob.id).await;
        if (card.state, card.status.as_deref()) == (Availability::Away, Some("in the garden")) {
            break;
        }
    }
    let wrong = SetPresence { status: Some("x".repeat(129)), ..SetPresence::default() };
    client.set_presence(wrong).await.unwrap();
    let error = loop {
        if let Event::PresenceRefused(error) = events.next().await {
            break error;
        }
    };
    assert_eq!(error.field.as_deref(), Some("status"));
    client.close().await;
    watching.close().await;
}
