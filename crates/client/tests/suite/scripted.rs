//! The client against a server that follows a script: reconnects, retries, order, gaps and final closes.

use madang_client::{Client, ClientOptions, Event};
use madang_ids::{LogId, Seq};
use madang_proto::{ClientFrame, CloseReason};
use serde_json::json;

use crate::fake::{CHANNEL, CURSOR, Fake, PATIENCE, content, options, start, text};

#[tokio::test]
async fn unsent_messages_survive_a_reconnect_in_order_and_under_their_keys() {
    let (fake, url) = Fake::start().await;
    let (client, mut events) = start(&url);
    let mut keys = Vec::new();
    for word in ["one", "two", "three"] {
        keys.push(client.send(CHANNEL, text(word)).await.unwrap());
    }
    let (mut peer, _) = fake.welcome().await;
    let (id, word, _) = peer.send().await;
    assert_eq!(word, "one");
    peer.ack(&id, 1).await;
    assert!(
        matches!(content(&mut events).await, Event::Acked { client_msg_id, .. } if client_msg_id == keys[0])
    );
    drop(peer);
    let (mut peer, _) = fake.welcome().await;
    for (index, expected) in ["two", "three"].into_iter().enumerate() {
        let (id, word, key) = peer.send().await;
        assert_eq!((word.as_str(), key), (expected, keys[index + 1]));
        peer.ack(&id, 2 + index as u64).await;
        assert!(
            matches!(content(&mut events).await, Event::Acked { client_msg_id, .. } if client_msg_id == key)
        );
    }
    client.close().await;
}

#[tokio::test]
async fn a_message_is_sent_again_after_a_retryable_error_and_refused_after_a_final_one() {
    let (fake, url) = Fake::start().await;
    let (client, mut events) = start(&url);
    let key = client.send(CHANNEL, text("hi")).await.unwrap();
    let (mut peer, _) = fake.welcome().await;
    let (id, ..) = peer.send().await;
    peer.say(json!({
        "type": "error", "id": id, "code": "unavailable", "message": "busy", "retryable": true, "retry_after_ms": 1,
    }))
    .await;
    let (id, _, again) = peer.send().await;
    assert_eq!(again, key);
    peer.say(json!({ "type": "error", "id": id, "code": "forbidden", "message": "no", "retryable": false }))
        .await;
    assert!(
        matches!(content(&mut events).await, Event::Refused { client_msg_id, .. } if client_msg_id == key)
    );
    client.close().await;
}

#[tokio::test]
async fn it_resumes_from_its_cursor_and_delivers_nothing_twice() {
    let (fake, url) = Fake::start().await;
    let (client, mut events) = start(&url);
    let (mut peer, cursor) = fake.welcome().await;
    assert_eq!(cursor, None);
    peer.entries(&[1, 2]).await;
    peer.say(json!({ "type": "cursor", "cursor": CURSOR })).await;
    peer.entries(&[3]).await;
    for expected in [2, 1] {
        match content(&mut events).await {
            Event::Entries { log, entries } => {
                assert_eq!((log, entries.len()), (LogId::Channel(CHANNEL), expected))
            }
            other => panic!("{other:?}"),
        }
        if expected == 2 {
            assert!(
                matches!(content(&mut events).await, Event::CursorMoved(cursor) if cursor.to_string() == CURSOR)
            );
        }
    }
    drop(peer);
    let (mut peer, cursor) = fake.welcome().await;
    assert_eq!(cursor.as_deref(), Some(CURSOR));
    peer.entries(&[3, 4]).await;
    match content(&mut events).await {
        Event::Entries { entries, .. } => assert_eq!(entries[0].seq, Seq::new(4)),
        other => panic!("{other:?}"),
    }
    client.close().await;
}

#[tokio::test]
async fn a_gap_is_reported_even_if_history_cannot_fill_it() {
    let (fake, url) = Fake::start().await;
    let (client, mut events) = start(&url);
    let (mut peer, _) = fake.welcome().await;
    peer.entries(&[1]).await;
    peer.entries(&[4]).await;
    assert!(matches!(content(&mut events).await, Event::Entries { .. }));
    // The server closes the connection of the call for history.
    drop(tokio::time::timeout(PATIENCE, fake.listener.accept()).await.unwrap().unwrap());
    match content(&mut events).await {
        Event::Gap { after, before, filled, .. } => {
            assert_eq!((after, before, filled), (Seq::new(1), Seq::new(4), false));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(content(&mut events).await, Event::Entries { .. }));
    client.close().await;
}

#[tokio::test]
async fn it_reconnects_or_stops_as_the_server_asks() {
    let (fake, url) = Fake::start().await;
    let (client, mut events) = start(&url);
    let (mut peer, _) = fake.welcome().await;
    peer.say(json!({ "type": "reconnect", "after_ms": 1, "nodes": [] })).await;
    peer.close(CloseReason::Draining).await;
    let (peer, _) = fake.welcome().await;
    peer.close(CloseReason::Replaced).await;
    assert!(matches!(content(&mut events).await, Event::Closed { code: Some(4502), .. }));
    assert!(events.recv().await.is_none());
    client.close().await;
}

#[tokio::test]
async fn heartbeats_continue_while_the_program_is_slow() {
    let (fake, url) = Fake::start().await;
    let options = ClientOptions { events: 1, ..options(&url) };
    let (client, events) = Client::start(options).unwrap();
    let (mut peer, _) = fake.welcome_with_heartbeats(100).await;
    // The program does not take the first event, so this one waits for room.
    peer.entries(&[1]).await;
    for _ in 0..5 {
        assert!(matches!(peer.next().await.frame, ClientFrame::Heartbeat));
    }
    assert_eq!(events.len(), 1);
    client.close().await;
}
