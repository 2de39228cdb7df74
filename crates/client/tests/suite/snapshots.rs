//! Cursors that the server does not accept: the snapshot, and the entries after it.

use std::time::{Duration, Instant};

use madang_client::Event;
use madang_ids::{LogId, Seq};
use madang_proto::rest::MarkRead;
use madang_proto::{ChannelKind, Resume, SnapshotReason};
use madang_testkit::Fate;

use crate::harness::{Events, Harness, start};

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
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let head = harness.say(&ada, channel, "before").await;
    let (client, mut events) = start(harness.options(&bob.tokens));
    let no_cursor = Resume::SnapshotRequired { reason: SnapshotReason::NoCursor };
    assert!(matches!(events.next().await, Event::Connected { resume } if resume == no_cursor));
    assert_eq!(snapshot(&mut events).await, (SnapshotReason::NoCursor, vec![(channel, head)]));
    assert!(matches!(events.next().await, Event::CursorMoved(_)));
    harness.say(&ada, channel, "live").await;
    assert_eq!(events.texts(channel, 1).await, ["live"]);
    harness.proxy.set_away(true);
    harness.proxy.cut();
    harness.say(&ada, channel, "missed").await;
    harness.proxy.set_away(false);
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
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let mut options = harness.options(&bob.tokens);
    options.cursor = Some("0000000000000007:1000".to_owned().into());
    options.heads =
        [(LogId::Channel(channel), Seq::new(1_000)), (LogId::User(bob.id), Seq::new(1_000))].into();
    let (client, mut events) = start(options);
    assert_eq!(snapshot(&mut events).await.0, SnapshotReason::ForeignCursor);
    harness.say(&ada, channel, "hello").await;
    assert_eq!(events.texts(channel, 1).await, ["hello"]);
    client.close().await;
}

#[tokio::test]
async fn a_snapshot_on_an_open_connection_names_changed_channels_and_leaves_no_gap() {
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let quiet = harness.channel(ChannelKind::Group, &ada, &bob).await;
    let (client, mut events) = harness.connected(&bob).await;
    let mark = |seq| MarkRead { seq: Seq::new(seq) };
    harness.rest.mark_read(&bob.tokens.access, quiet, &mark(1)).await.unwrap();
    assert!(matches!(events.content().await, Event::Entries { log: LogId::User(_), .. }));
    // The frames with the message and with the read marker are lost; then the server asks for a snapshot.
    let too_far = r#"{"type":"snapshot_required","reason":"too_far_behind"}"#;
    harness.proxy.rule(move |frame| match frame.contains("\"entries\"") {
        true if frame.contains("lost") => Fate::Replace(too_far.to_owned()),
        true if frame.contains("\"read_seq\":2") => Fate::Lose,
        _ => Fate::Pass,
    });
    harness.rest.mark_read(&bob.tokens.access, channel, &mark(2)).await.unwrap();
    let head = harness.say(&ada, channel, "lost").await;
    assert_eq!(snapshot(&mut events).await, (SnapshotReason::TooFarBehind, vec![(channel, head)]));
    harness.say(&ada, channel, "heard").await;
    assert_eq!(events.texts(channel, 1).await, ["heard"]);
    harness.rest.mark_read(&bob.tokens.access, channel, &mark(head.get())).await.unwrap();
    assert!(matches!(events.content().await, Event::Entries { log: LogId::User(_), .. }));
    client.close().await;
}

#[tokio::test]
async fn a_snapshot_that_the_server_wants_later_is_taken_later_and_no_cursor_is_kept_meanwhile() {
    const WAIT: Duration = Duration::from_millis(1_500);
    let harness = Harness::new().await;
    let (ada, bob, channel) = harness.pair().await;
    let (client, mut events) = harness.connected(&bob).await;
    let later = r#"{"type":"snapshot_required","reason":"inbox_reset","wait_ms":1500}"#;
    harness.proxy.rule(move |frame| match frame.contains("\"entries\"") && frame.contains("lost") {
        true => Fate::Replace(later.to_owned()),
        false => Fate::Pass,
    });
    let begun = Instant::now();
    let head = harness.say(&ada, channel, "lost").await;
    let mut heard = Vec::new();
    harness.say(&ada, channel, "heard").await;
    loop {
        match events.next().await {
            Event::Entries { entries, .. } => heard.extend(entries),
            Event::Gap { filled, .. } => assert!(filled),
            // One from before the loss may come first.
            Event::CursorMoved(_) => assert!(heard.is_empty(), "this cursor is behind what is missing"),
            Event::SnapshotRequired { reason, .. } => {
                assert_eq!(reason, SnapshotReason::InboxReset);
                break;
            }
            _ => {}
        }
    }
    assert!(begun.elapsed() >= WAIT, "{:?}", begun.elapsed());
    let seqs: Vec<Seq> = heard.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, [head, head.next()], "live entries came, and the hole was filled from history");
    client.close().await;
}
