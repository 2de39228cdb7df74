//! Several servers: the client asks which node accepts it, takes the next one if a node or a server is gone, waits in
//! line, and follows a node that drains.

use std::time::Duration;

use madang_client::{Client, ClientError, Event, Rest};
use madang_proto::CloseReason;
use madang_proto::rest::{HistoryQuery, Login};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::fake::{CHANNEL, Fake, PATIENCE, event, options, start};

/// The address of a server that is gone.
async fn gone() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// The address of a node of this server, with a ticket.
fn node(url: &str, ticket: &str) -> String {
    format!("{}/v1/ws?ticket={ticket}", url.replace("http://", "ws://"))
}

#[tokio::test]
async fn it_opens_the_best_node_that_can_be_reached_and_the_ticket_is_kept() {
    let ((asked, url), (best, best_url), (next, next_url)) =
        (Fake::start().await, Fake::start().await, Fake::start().await);
    let dead = node(&gone().await, "a");
    asked.assign_nodes(&[&dead, &node(&best_url, "b"), &node(&next_url, "c")]);
    let mut options = options(&url);
    options.region = Some("eu".into());
    let (client, mut events) = Client::start(options).unwrap();
    let (asking, (_peer, _)) = tokio::join!(ask_once(&asked), best.welcome());
    assert_eq!(asking, json!({ "region": "eu" }));
    assert!(matches!(event(&mut events).await, Event::Connected { .. }));
    assert_eq!((best.opened(), next.opened().len()), (vec!["/v1/ws?ticket=b".to_owned()], 0));
    client.close().await;
}

/// Answers one question for a node, and returns it.
async fn ask_once(fake: &Fake) -> serde_json::Value {
    let (mut stream, _) = tokio::time::timeout(PATIENCE, fake.listener.accept()).await.unwrap().unwrap();
    fake.answer(&mut stream).await;
    fake.asked().pop().unwrap()
}

#[tokio::test]
async fn it_asks_the_next_server_and_a_path_belongs_to_the_server_that_answered() {
    let (fake, url) = Fake::start().await;
    fake.assign_nodes(&["/v1/ws?ticket=shared"]);
    let mut options = options(&gone().await);
    options.urls.push(url);
    let (client, mut events) = Client::start(options).unwrap();
    let (_peer, _) = fake.welcome().await;
    assert!(matches!(event(&mut events).await, Event::Connected { .. }));
    assert_eq!(fake.opened(), ["/v1/ws?ticket=shared"]);
    client.close().await;
}

#[tokio::test]
async fn it_waits_in_line_and_says_so() {
    let (fake, url) = Fake::start().await;
    fake.assign(json!({ "nodes": [], "wait": { "place": 7, "estimate_ms": 8_000, "retry_after_ms": 3 } }));
    fake.assign_nodes(&["/v1/ws?ticket=x"]);
    let (client, mut events) = start(&url);
    let (_peer, _) = fake.welcome().await;
    match event(&mut events).await {
        Event::Waiting { place, estimate, ask_in } => {
            assert_eq!((place, estimate, ask_in), (7, Duration::from_secs(8), Duration::from_millis(3)));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(event(&mut events).await, Event::Connected { .. }));
    assert_eq!(fake.asked().len(), 2);
    client.close().await;
}

#[tokio::test]
async fn it_asks_again_after_a_lost_connection_and_leaves_a_dead_node() {
    let ((asked, url), (other, other_url)) = (Fake::start().await, Fake::start().await);
    let (client, mut events) = {
        let (first, first_url) = Fake::start().await;
        asked.assign_nodes(&[&node(&first_url, "1")]);
        // The node is gone when it is named again, so the client asks until another one is named.
        asked.assign_nodes(&[&node(&first_url, "2")]);
        asked.assign_nodes(&[&node(&first_url, "3"), &node(&other_url, "4")]);
        let (client, mut events) = start(&url);
        let (_, (peer, _)) = tokio::join!(ask_once(&asked), first.welcome());
        assert!(matches!(event(&mut events).await, Event::Connected { .. }));
        drop((peer, first));
        (client, events)
    };
    ask_once(&asked).await;
    let (_, (_peer, _)) = tokio::join!(ask_once(&asked), other.welcome());
    for _ in 0..2 {
        assert!(matches!(event(&mut events).await, Event::Disconnected { .. }));
    }
    assert!(matches!(event(&mut events).await, Event::Connected { .. }));
    assert_eq!(other.opened(), ["/v1/ws?ticket=4"]);
    client.close().await;
}

#[tokio::test]
async fn it_follows_a_node_that_drains_without_asking_and_asks_if_the_other_one_is_gone() {
    let ((first, url), (second, second_url)) = (Fake::start().await, Fake::start().await);
    first.assign_nodes(&["/v1/ws?ticket=1"]);
    let (client, mut events) = start(&url);
    let (mut peer, _) = first.welcome().await;
    let nodes = [node(&gone().await, "2"), node(&second_url, "3")];
    peer.say(json!({ "type": "reconnect", "after_ms": 1, "nodes": nodes })).await;
    peer.close(CloseReason::Draining).await;
    let (mut peer, _) = second.welcome().await;
    assert_eq!((first.asked().len(), second.opened()), (1, vec!["/v1/ws?ticket=3".to_owned()]));
    peer.say(json!({ "type": "reconnect", "after_ms": 1, "nodes": [node(&gone().await, "4")] })).await;
    peer.close(CloseReason::Draining).await;
    first.assign_nodes(&["/v1/ws?ticket=5"]);
    let (_peer, _) = first.welcome().await;
    assert_eq!(first.opened(), ["/v1/ws?ticket=1", "/v1/ws?ticket=5"]);
    for round in 0..3 {
        assert!(matches!(event(&mut events).await, Event::Connected { .. }), "{round}");
        if round < 2 {
            assert!(
                matches!(event(&mut events).await, Event::Disconnected { back_in, .. } if back_in.as_millis() == 1)
            );
        }
    }
    client.close().await;
}

#[tokio::test]
async fn a_call_goes_to_another_server_unless_the_first_may_have_carried_it_out() {
    // This server reads a call and closes the connection without an answer.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let hang_up = async |times: usize| {
        for _ in 0..times {
            let (mut stream, _) = silent.accept().await.unwrap();
            stream.read_u8().await.unwrap();
        }
    };
    let answering = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let answering_url = format!("http://{}", answering.local_addr().unwrap());
    let urls = [gone().await, silent_url, answering_url];
    let rest = Rest::with_servers(&urls, PATIENCE, &madang_client::Trust::default()).unwrap();
    let login = Login {
        handle: "ada".into(),
        password: "correct horse".into(),
        device_name: String::new(),
        device_id: None,
    };
    let (refused, ()) = tokio::join!(rest.log_in(&login), hang_up(1));
    assert!(matches!(refused, Err(ClientError::Http(_))), "{refused:?}");
    let page = async {
        let (mut stream, _) = answering.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        let body = r#"{"as_of":7,"entries":[],"more_before":false,"more_after":false}"#;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        tokio::io::AsyncWriteExt::write_all(&mut stream, (head + body).as_bytes()).await.unwrap();
        // The client has the answer when it closes its end.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    };
    let query = HistoryQuery::default();
    let (read, (), ()) = tokio::join!(rest.history("a.b.c", CHANNEL, &query), hang_up(1), page);
    assert_eq!(read.unwrap().as_of.get(), 7);
    // The server that answered is the first from now on: the silent one is not asked again.
    let page = async {
        let (mut stream, _) = answering.accept().await.unwrap();
        stream.read_u8().await.unwrap();
    };
    tokio::select! {
        _ = rest.history("a.b.c", CHANNEL, &query) => panic!("nobody answers"),
        () = page => {}
        () = hang_up(1) => panic!("the server that did not answer was asked first"),
    }
}
