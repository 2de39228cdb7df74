//! Changes of messages, and events, as a program receives them.

use madang_client::Event;
use madang_proto::rest::EditMessage;
use madang_proto::{Body, Content};

use crate::harness::Harness;

#[tokio::test]
async fn an_edit_contains_the_message_and_events_are_delivered() {
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let (client, mut events) = harness.connected(&bob).await;
    let (connection, mut of_ada) = harness.connected(&ada).await;
    harness.say(&ada, channel, "tea?").await;
    let seq = madang_ids::Seq::new(4);
    let body = Body { text: "coffee?".to_owned(), ..Body::default() };
    let edit = EditMessage { version: Some(1), body };
    let token = &ada.tokens.access;
    let changed = harness.rest.edit(token, channel, seq, &edit).await.unwrap();
    assert_eq!((changed.target, changed.version), (seq, 2));
    harness.rest.react(&bob.tokens.access, channel, seq, "+1", true).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 2 {
        let Event::Entries { entries, .. } = events.content().await else { continue };
        told.extend(entries.into_iter().filter_map(|entry| match entry.content {
            content @ (Content::Edited(_) | Content::Reactions(_)) => Some(content),
            _ => None,
        }));
    }
    let mut kept = told[0].carried().unwrap().clone();
    assert_eq!((kept.body.text.as_str(), kept.version), ("coffee?", 2));
    assert!(told[1].reacted().unwrap().apply_to(&mut kept));
    assert_eq!(
        (kept.reactions[0].emoji.as_str(), kept.body.text.as_str(), kept.version),
        ("+1", "coffee?", 3)
    );
    client.typing(channel).await.unwrap();
    client.mark_read(channel, seq).await.unwrap();
    let (mut has_typed, mut has_read) = (false, false);
    while !(has_typed && has_read) {
        match of_ada.content().await {
            Event::Typing { channel_id, .. } => has_typed = channel_id == channel,
            Event::Receipt { seq: at, .. } => has_read = at == seq,
            _ => {}
        }
    }
    connection.close().await;
    client.close().await;
}
