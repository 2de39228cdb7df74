//! A connection with its peer, for the tests of this folder, and what concerns several of its parts.

use std::sync::Arc;

use futures_util::FutureExt;
use madang_engine::sync::Place;
use madang_ids::{Cursor, Epoch, Position, UserId};
use madang_service::Metrics;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::gateway::delivery::encode;
use crate::gateway::ledger::tests::account;
use crate::gateway::socket::lane::Urgency;
use crate::metrics::ChatMetrics;

pub(super) const LIMIT: usize = 300;
const USER: UserId = UserId::from_raw(7);

/// A connection and its peer.
pub(super) struct Pair {
    pub(super) outbound: Arc<Outbound>,
    pub(super) peer: TcpStream,
    pub(super) metrics: ChatMetrics,
}

pub(super) fn metrics() -> ChatMetrics {
    ChatMetrics::register(&Metrics::new())
}

pub(super) fn cursor(position: u64) -> Cursor {
    Cursor { epoch: Epoch::from_raw(1), position: Position::new(position) }
}

pub(super) fn said(position: u64) -> Frame {
    encode::cursor(&Lane::idle().cursors().seal(USER, cursor(position)).unwrap())
}

pub(super) fn frame(text: &str) -> Frame {
    Frame::written(text.as_bytes())
}

pub(super) fn frames(text: &str) -> Frames {
    Arc::new([frame(text)])
}

pub(super) fn place(previous: u64, at: u64) -> Place {
    Place { previous: Position::new(previous), first: Position::new(at), last: Position::new(at) }
}

impl Pair {
    pub(super) async fn new(at: Option<Cursor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let tcp = listener.accept().await.unwrap().0;
        let outbound = Arc::new(Outbound::new(1, Pipe::Plain(tcp), Lane::idle(), account()));
        outbound.open(USER, at.map_or(Position::ZERO, |cursor| cursor.position));
        Self { outbound, peer, metrics: metrics() }
    }

    /// The inbox was read up to position 4.
    pub(super) async fn live() -> Self {
        let pair = Self::new(Some(cursor(4))).await;
        pair.outbound.handle_page(cursor(4), false);
        assert!(!pair.outbound.is_reading());
        pair
    }

    /// Checks that exactly `expected` is written now.
    pub(super) async fn written(&mut self, expected: &[&Frame]) {
        assert_eq!(self.outbound.write(&self.metrics), Written::All);
        let expected: Vec<u8> = expected.iter().flat_map(|frame| frame.bytes()).copied().collect();
        let mut bytes = vec![0; expected.len()];
        self.peer.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, expected);
        // Lets the runtime notice bytes that have arrived.
        tokio::task::yield_now().await;
        let mut more = [0];
        assert!(self.peer.try_read(&mut more).is_err(), "more was written");
    }
}

impl Outbound {
    /// Bytes that wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.state.lock().queue.bytes()
    }
}

#[tokio::test]
#[should_panic(expected = "more was written")]
async fn the_check_notices_unexpected_bytes() {
    let mut pair = Pair::live().await;
    assert!(!pair.outbound.deliver(&frames("a"), place(4, 5), true, LIMIT));
    pair.written(&[]).await;
}

#[tokio::test]
async fn events_are_enqueued_after_welcome_and_only_while_little_waits() {
    let mut pair = Pair::live().await;
    assert!(pair.outbound.offer(&frame("early"), LIMIT));
    assert_eq!(pair.outbound.idle(), None);
    pair.outbound.welcome();
    assert_eq!(pair.outbound.idle(), Some(false));
    assert!(pair.outbound.offer(&frame("a"), LIMIT));
    let long = frame(&"x".repeat(LIMIT / 2));
    pair.outbound.push(long.clone());
    assert!(!pair.outbound.offer(&frame("b"), LIMIT));
    // A durable entry still finds room.
    assert!(!pair.outbound.deliver(&frames("c"), place(4, 5), true, 2 * LIMIT));
    pair.written(&[&frame("a"), &long, &frame("c"), &said(5)]).await;
    assert!(pair.outbound.offer(&frame("d"), LIMIT));
}

#[tokio::test]
async fn a_connection_whose_answers_pile_up_is_not_read() {
    let mut pair = Pair::live().await;
    (0..3).for_each(|_| pair.outbound.begin_request(10));
    assert!(!pair.outbound.may_read(3, LIMIT));
    pair.outbound.answer(frame("a"), 10);
    assert!(pair.outbound.may_read(3, LIMIT));
    pair.outbound.begin_request(IN_FLIGHT_BYTES);
    assert!(!pair.outbound.may_read(9, LIMIT));
    pair.outbound.answer(frame("b"), IN_FLIGHT_BYTES);
    assert!(pair.outbound.may_read(9, LIMIT));
    let long = frame(&"x".repeat(400));
    pair.outbound.answer(long.clone(), 10);
    assert!(!pair.outbound.may_read(3, LIMIT));
    pair.written(&[&frame("a"), &frame("b"), &long]).await;
    assert!(pair.outbound.may_read(3, LIMIT));
}

#[tokio::test]
async fn the_task_of_a_connection_that_is_not_read_is_woken_by_the_lane() {
    let pair = Pair::live().await;
    pair.outbound.post(frame("a"));
    pair.outbound.write_due(Urgency::First, &pair.metrics);
    // It is read, so the write does not concern its task.
    assert!(pair.outbound.woken().now_or_never().is_none());
    pair.outbound.begin_request(10);
    assert!(!pair.outbound.may_read(1, LIMIT));
    pair.outbound.answer(frame("b"), 10);
    pair.outbound.write_due(Urgency::First, &pair.metrics);
    assert!(pair.outbound.woken().now_or_never().is_some());
    assert!(pair.outbound.may_read(1, LIMIT));
}
