//! What only a client that writes raw bytes can do: fragments, broken UTF-8, giant frames, floods.
#![expect(clippy::unwrap_used, reason = "a test; clippy exempts test functions only, not their helpers")]

use std::collections::BTreeSet;
use std::time::Duration;

use madang_chat_server::config::Config;
use madang_testkit::{
    CONTINUATION, ManualClock, PING, PONG, RawSocket, Rest, Socket, Storage, TEXT, TestNode, manual_clock,
};
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;

/// A node, and two users with a direct channel.
struct Stage {
    node: TestNode,
    ada: Value,
    bob: Value,
    channel: String,
    hand: ManualClock,
    _storage: Storage,
}

impl Stage {
    async fn new() -> Self {
        let storage = Storage::embedded();
        let (clock, hand) = manual_clock();
        let node = TestNode::start(Config::default(), &storage, clock).await.unwrap();
        let rest = Rest::new(&node.url());
        let (ada, bob) = (rest.sign_up("ada").await, rest.sign_up("bob").await);
        let body = json!({ "kind": "direct", "members": [bob["user"]["id"]] });
        let view = rest.must("POST", "/v1/channels", ada["access_token"].as_str(), Some(&body)).await;
        let channel = view["id"].as_str().unwrap().to_owned();
        Self { node, ada, bob, channel, hand, _storage: storage }
    }

    fn hello(&self) -> String {
        json!({ "type": "hello", "id": "hello", "token": self.ada["access_token"] }).to_string()
    }

    fn send(&self, number: u64, text: &str) -> Value {
        json!({
            "type": "send", "id": number.to_string(), "channel_id": self.channel,
            "client_msg_id": format!("01920000-0000-7000-8000-{number:012}"), "body": { "text": text },
        })
    }

    /// A raw socket of Ada after `welcome`, and the cursor that it got.
    async fn raw(&self) -> (RawSocket, String) {
        let mut socket = RawSocket::open(self.node.addr).await.unwrap();
        socket.write_text(&self.hello()).await.unwrap();
        assert!(socket.read_text().await.unwrap().contains(r#""type":"welcome""#));
        let cursor: Value = serde_json::from_str(&socket.read_text().await.unwrap()).unwrap();
        (socket, cursor["cursor"].as_str().unwrap().to_owned())
    }

    /// Checks that the session resumes from its cursor and that nobody else was affected.
    async fn check_resumes(&self, cursor: &str) {
        let token = self.ada["access_token"].as_str().unwrap();
        let (mut ada, welcome) = Socket::connect(self.node.addr, token, Some(cursor)).await.unwrap();
        assert_eq!(welcome["resume"], "resumed");
        let (mut bob, _) =
            Socket::connect(self.node.addr, self.bob["access_token"].as_str().unwrap(), None).await.unwrap();
        let answers = bob.pipeline(vec![self.send(999_999, "still here")]).await.unwrap();
        assert_eq!(answers[0]["type"], "ack");
        let entries = ada.next_of("entries").await;
        assert_eq!(entries["entries"][0]["text"], "still here");
    }
}

async fn write_fragments(socket: &mut RawSocket, text: &[u8], size: usize) -> anyhow::Result<()> {
    let count = text.len().div_ceil(size);
    for (index, part) in text.chunks(size).enumerate() {
        let opcode = if index == 0 { TEXT } else { CONTINUATION };
        socket.write(index + 1 == count, opcode, part).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_may_come_in_fragments_and_its_limit_counts_all_of_them() {
    let stage = Stage::new().await;
    let (mut socket, _) = stage.raw().await;
    let large = stage.send(1, &"x".repeat(MIB + MIB / 2)).to_string();
    write_fragments(&mut socket, large.as_bytes(), 60_000).await.unwrap();
    let error: Value = serde_json::from_str(&socket.read_text().await.unwrap()).unwrap();
    assert_eq!((&error["code"], &error["field"]), (&json!("too_large"), &json!("frame")));
    // Fragments may even end in the middle of a character.
    let text = stage.send(2, &"마당".repeat(20)).to_string();
    write_fragments(&mut socket, text.as_bytes(), 7).await.unwrap();
    let (mut is_acked, mut is_delivered) = (false, false);
    while !(is_acked && is_delivered) {
        let frame = socket.read_text().await.unwrap();
        is_acked |= frame.contains(r#""type":"ack""#) && frame.contains(r#""seq":4"#);
        is_delivered |= frame.contains(&"마당".repeat(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_above_two_mebibytes_closes_with_1009_and_the_session_can_be_resumed() {
    let stage = Stage::new().await;
    let giant = stage.send(1, &"x".repeat(2 * MIB)).to_string();
    let (mut whole, cursor) = stage.raw().await;
    // The server may close the connection during this write.
    let _ = whole.write_text(&giant).await;
    assert_eq!(whole.read_close().await.unwrap(), 1009);
    let (mut fragments, _) = stage.raw().await;
    let _ = write_fragments(&mut fragments, giant.as_bytes(), 60_000).await;
    assert_eq!(fragments.read_close().await.unwrap(), 1009);
    stage.check_resumes(&cursor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8_closes_with_1007_and_the_session_can_be_resumed() {
    let stage = Stage::new().await;
    let (mut socket, cursor) = stage.raw().await;
    socket.write(true, TEXT, b"{\"type\":\"heartbeat\",\"x\":\"\xff\"}").await.unwrap();
    assert_eq!(socket.read_close().await.unwrap(), 1007);
    // Also before `hello`.
    let mut socket = RawSocket::open(stage.node.addr).await.unwrap();
    socket.write(true, TEXT, b"\xc3\x28").await.unwrap();
    assert_eq!(socket.read_close().await.unwrap(), 1007);
    stage.check_resumes(&cursor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_without_our_subprotocol_or_from_a_foreign_page_is_refused() {
    let stage = Stage::new().await;
    let refusal = |headers: &'static [(&str, &str)]| async {
        RawSocket::upgrade(stage.node.addr, headers).await.err().unwrap().to_string()
    };
    assert!(refusal(&[]).await.starts_with("HTTP/1.1 400"));
    assert!(refusal(&[("Sec-WebSocket-Protocol", "chat")]).await.starts_with("HTTP/1.1 400"));
    let foreign = &[("Sec-WebSocket-Protocol", "madang.v1.json"), ("Origin", "https://evil.example")];
    assert!(refusal(foreign).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_floods_without_hello_is_closed_in_time() {
    let stage = Stage::new().await;
    let mut floods = tokio::task::JoinSet::new();
    for opcode in [CONTINUATION, CONTINUATION, CONTINUATION, PING, PING, PING] {
        let mut socket = RawSocket::open(stage.node.addr).await.unwrap();
        floods.spawn(async move {
            // Pieces of one text that never ends, or pings.
            let is_whole = opcode == PING;
            let mut written = socket.write(is_whole, if is_whole { PING } else { TEXT }, b"").await;
            while written.is_ok() {
                written = socket.write_empty(is_whole, opcode, 20_000).await;
            }
        });
    }
    let cut_off = async {
        while !floods.is_empty() {
            stage.hand.advance(Duration::from_secs(11));
            // waits for: connections whose task had not begun when the clock moved
            let _ = tokio::time::timeout(Duration::from_millis(100), floods.join_next()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), cut_off).await.expect("they are cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_answered_before_hello_and_after_it() {
    let stage = Stage::new().await;
    let mut socket = RawSocket::open(stage.node.addr).await.unwrap();
    socket.write(true, PING, b"early").await.unwrap();
    assert_eq!(socket.read().await.unwrap(), (PONG, b"early".to_vec()));
    let (mut socket, _) = stage.raw().await;
    socket.write(true, PING, b"late").await.unwrap();
    assert_eq!(socket.read().await.unwrap(), (PONG, b"late".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_larger_than_the_queue_does_not_slow_the_connection_down() {
    let stage = Stage::new().await;
    let ada = stage.ada["access_token"].as_str().unwrap();
    let (mut socket, _) = Socket::connect(stage.node.addr, ada, None).await.unwrap();
    let texts = (1..=4).map(|number| stage.send(number, &"y".repeat(90_000))).collect();
    assert!(socket.pipeline(texts).await.unwrap().iter().all(|answer| answer["type"] == "ack"));
    let huge = stage.send(9, &"\u{1F642}".repeat(100_000));
    assert_eq!(socket.pipeline(vec![huge]).await.unwrap()[0]["type"], "ack");
    for id in 0..5 {
        let page = json!({
            "type": "history", "id": format!("page {id}"), "channel_id": stage.channel, "limit": 4, "before": 100,
        });
        let read =
            json!({ "type": "read", "id": format!("read {id}"), "channel_id": stage.channel, "seq": 1 });
        let answers = socket.pipeline(vec![page, read]).await.unwrap();
        assert_eq!((&answers[0]["type"], &answers[1]["type"]), (&json!("history"), &json!("done")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_pipelined_requests_are_all_answered_and_affect_nobody_else() {
    const REQUESTS: u64 = 10_000;
    let stage = Stage::new().await;
    let (ada, bob) =
        (stage.ada["access_token"].as_str().unwrap(), stage.bob["access_token"].as_str().unwrap());
    let (mut flood, _) = Socket::connect(stage.node.addr, ada, None).await.unwrap();
    let (mut other, _) = Socket::connect(stage.node.addr, bob, None).await.unwrap();
    let frames = (1..=REQUESTS).map(|number| stage.send(number, "flood")).collect();
    let calm = async {
        let mut acks = Vec::new();
        for number in 1..=20 {
            acks.extend(other.pipeline(vec![stage.send(number, "calm")]).await.unwrap());
        }
        acks
    };
    let (answers, acks) = tokio::join!(flood.pipeline(frames), calm);
    let answers = answers.unwrap();
    let ids: BTreeSet<&str> = answers.iter().map(|answer| answer["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len() as u64, REQUESTS);
    let (acked, refused): (Vec<&Value>, Vec<&Value>) =
        answers.iter().partition(|answer| answer["type"] == "ack");
    assert_eq!(acked.len(), 200);
    assert!(
        refused
            .iter()
            .all(|answer| answer["code"] == "limited" && answer["retry_after_ms"].as_u64() > Some(0))
    );
    assert!(acks.iter().all(|answer| answer["type"] == "ack"));
}
