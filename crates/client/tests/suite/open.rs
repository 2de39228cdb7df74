//! Open channels through the client: found, joined and subscribed to, across reconnects, until the user leaves.

use madang_client::Event;
use madang_ids::{ChannelId, LogId, Seq};
use madang_proto::rest::{NewChannel, OpenChannelQuery};
use madang_proto::{ChannelKind, Mode};
use madang_testkit::Fate;

use crate::harness::{Events, Harness, Person, texts};

/// An open channel that Ada created, and that Bob has found and joined.
async fn joined(harness: &Harness, ada: &Person, bob: &Person) -> ChannelId {
    let name = Some("Tea of the world".to_owned());
    let wish = NewChannel { kind: ChannelKind::Open, name, topic: None, members: Vec::new() };
    let made = harness.rest.create_channel(&ada.tokens.access, &wish, None).await.unwrap();
    let query = OpenChannelQuery { query: Some("THE WORLD".into()), ..OpenChannelQuery::default() };
    let found = harness.rest.open_channels(&bob.tokens.access, &query).await.unwrap();
    let channel = found.items[0].card.id;
    assert_eq!((channel, found.items[0].member_count), (made.card.id, 1));
    harness.rest.join(&bob.tokens.access, channel).await.unwrap();
    channel
}

/// The next event of open channels: heads as `Ok`, texts of entries as `Err`.
async fn next(events: &mut Events) -> Result<Vec<(Seq, bool)>, Vec<String>> {
    loop {
        match events.content().await {
            Event::Heads(heads) => return Ok(heads.iter().map(|head| (head.seq, head.gap)).collect()),
            Event::Entries { log: LogId::Channel(_), entries } => return Err(texts(&entries)),
            Event::Entries { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_subscription_continues_after_a_reconnect() {
    let harness = Harness::new().await;
    let (ada, bob) = (harness.person("ada").await, harness.person("bob").await);
    let (client, mut events) = harness.connected(&bob).await;
    let channel = joined(&harness, &ada, &bob).await;
    client.subscribe(channel, Mode::Active).await.unwrap();
    assert_eq!(next(&mut events).await, Ok(vec![(Seq::new(3), false)]));
    harness.say(&ada, channel, "one").await;
    assert_eq!(next(&mut events).await, Err(vec!["one".to_owned()]));
    // The connection breaks before the entry is delivered.
    harness.proxy.rule(|frame| if frame.contains("\"two\"") { Fate::Cut } else { Fate::Pass });
    harness.say(&ada, channel, "two").await;
    while !matches!(events.next().await, Event::Disconnected { .. }) {}
    harness.proxy.rule(|_| Fate::Pass);
    let mut said = Vec::new();
    harness.say(&ada, channel, "three").await;
    while said.len() < 2 {
        said.extend(next(&mut events).await.err().unwrap_or_default());
    }
    assert_eq!(said, ["two", "three"]);
    harness.rest.remove_member(&bob.tokens.access, channel, bob.id).await.unwrap();
    client.subscribe(channel, Mode::Active).await.unwrap();
    loop {
        match events.content().await {
            Event::SubscriptionRefused { channel_id, .. } => break assert_eq!(channel_id, channel),
            Event::Entries { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    client.close().await;
}

#[tokio::test]
async fn a_client_far_behind_gets_a_gap_and_continues() {
    let harness = Harness::new().await;
    let (ada, bob) = (harness.person("ada").await, harness.person("bob").await);
    let (client, mut events) = harness.connected(&bob).await;
    let channel = joined(&harness, &ada, &bob).await;
    client.subscribe(channel, Mode::Active).await.unwrap();
    assert_eq!(next(&mut events).await, Ok(vec![(Seq::new(3), false)]));
    client.unsubscribe(channel).await.unwrap();
    for number in 0..230 {
        harness.say(&ada, channel, &number.to_string()).await;
    }
    client.subscribe(channel, Mode::Active).await.unwrap();
    // The first entries may arrive before the server has noticed the end of the connection.
    let heads = loop {
        if let Ok(heads) = next(&mut events).await {
            break heads;
        }
    };
    assert_eq!(heads, [(Seq::new(233), true)]);
    harness.say(&ada, channel, "here we are").await;
    assert_eq!(next(&mut events).await, Err(vec!["here we are".to_owned()]));
    client.close().await;
}
