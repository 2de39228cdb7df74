//! Cursors that the server does not accept: the snapshot, and the entries after it.

use madang_client::Event;
use madang_ids::{LogId, Seq};
use madang_proto::rest::MarkRead;
use madang_proto::{ChannelKind, Resume, SnapshotReason};
use madang_testkit::Fate;

use crate::yard::{Events, Yard, start};

/// The next snapshot: its reason, and the head of each channel.
async fn snapshot(events: &mut Events) -> (SnapshotReason, Vec<(madang_ids::ChannelId, Seq)>) {
    match events.content().await {
        Event::SnapshotRequired { reason, channels, .. } => {
            (reason, channels.iter().map(|view| (view.card.id, view.head_seq)).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_new_device_takes_a_snapshot_and_resumes_from_it() {
    let yard = Yard::new().await;
    let (ada, bob, channel) = yard.pair().await;
    let head = yard.say(&ada, channel, "before").await;
    let (client, mut events) = start(yard.options(&bob.tokens));
    let no_cursor = Resume::SnapshotRequired { reason: SnapshotReason::NoCursor };
    assert!(matches!(events.next().await, Event::Connected { resume } if resume == no_cursor));
    assert_eq!(snapshot(&mut events).await, (SnapshotReason::NoCursor, vec![(channel, head)]));
    assert!(matches!(events.next().await, Event::CursorMoved(_)));
    yard.say(&ada, channel, "live").await;
    assert_eq!(events.texts(channel, 1).await, ["live"]);
    yard.proxy.set_away(true);
    yard.proxy.cut();
    yard.say(&ada, channel, "missed").await;
    yard.proxy.set_away(false);
    let resume = loop {
        if let Event::Connected { resume } = events.next().await {
            break resume;
        }
    };
    assert_eq!(resume, Resume::Resumed);
    assert_eq!(events.texts(channel, 1).await, ["missed"]);
    client.close().await;
}

#[tokio::test]
async fn heads_of_another_store_hide_no_entries_of_this_one() {
    let yard = Yard::new().await;
    let (ada, bob, channel) = yard.pair().await;
    let mut options = yard.options(&bob.tokens);
    options.cursor = Some("0000000000000007:1000".to_owned().into());
    options.heads =
        [(LogId::Channel(channel), Seq::new(1_000)), (LogId::User(bob.id), Seq::new(1_000))].into();
    let (client, mut events) = start(options);
    assert_eq!(snapshot(&mut events).await.0, SnapshotReason::ForeignCursor);
    yard.say(&ada, channel, "hello").await;
    assert_eq!(events.texts(channel, 1).await, ["hello"]);
    client.close().await;
}

#[tokio::test]
async fn a_snapshot_on_an_open_connection_names_changed_channels_and_leaves_no_gap() {
    let yard = Yard::new().await;
    let (ada, bob, channel) = yard.pair().await;
    let quiet = yard.channel(ChannelKind::Group, &ada, &bob).await;
    let (client, mut events) = yard.connected(&bob).await;
    let mark = |seq| MarkRead { seq: Seq::new(seq) };
    yard.rest.mark_read(&bob.tokens.access, quiet, &mark(1)).await.unwrap();
    assert!(matches!(events.content().await, Event::Entries { log: LogId::User(_), .. }));
    // The frames with the message and with the read marker are lost; then the server asks for a snapshot.
    let too_far = r#"{"type":"snapshot_required","reason":"too_far_behind"}"#;
    yard.proxy.rule(move |frame| match frame.contains("\"entries\"") {
        true if frame.contains("lost") => Fate::Replace(too_far.to_owned()),
        true if frame.contains("\"read_seq\":2") => Fate::Lose,
        _ => Fate::Pass,
    });
    yard.rest.mark_read(&bob.tokens.access, channel, &mark(2)).await.unwrap();
    let head = yard.say(&ada, channel, "lost").await;
    assert_eq!(snapshot(&mut events).await, (SnapshotReason::TooFarBehind, vec![(channel, head)]));
    yard.say(&ada, channel, "heard").await;
    assert_eq!(events.texts(channel, 1).await, ["heard"]);
    yard.rest.mark_read(&bob.tokens.access, channel, &mark(head.get())).await.unwrap();
    assert!(matches!(events.content().await, Event::Entries { log: LogId::User(_), .. }));
    client.close().await;
}
