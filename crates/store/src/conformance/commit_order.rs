//! The order of commits, and scans of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use madang_ids::{Epoch, LogId, Position, Seq, UserId};
use madang_proto::Content;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::build::*;
use super::channels::membership;
use super::{OrderedStore, OrderedSubject};
use crate::Spans;
use crate::commit_order::{CommitFeed, EpochRow, Scan, ScanItem};
use crate::log::{AppendOutcome, Head};

/// Only a store that never feeds reaches this timeout.
const FEED_TIMEOUT: Duration = Duration::from_secs(5);

/// The place of a row in both orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placed {
    position: Position,
    log: LogId,
    seq: Seq,
}

/// Takes `count` rows from the feed, and checks their order.
async fn take_rows(feed: &mut CommitFeed, count: usize, mut last: Position) -> Vec<Placed> {
    let (mut rows, mut seqs) = (Vec::new(), BTreeMap::<LogId, Seq>::new());
    while rows.len() < count {
        let commit = tokio::time::timeout(FEED_TIMEOUT, feed.recv()).await;
        let commit = commit.expect("a commit enters the feed").expect("the feed is open");
        assert_eq!(commit.first.get(), last.get() + 1, "positions have no gaps");
        last = commit.last();
        for (row, position) in commit.rows.iter().zip(commit.first.get()..) {
            let seq = row.entry.seq;
            let before = seqs.insert(commit.log, seq);
            assert!(before.is_none_or(|before| before.next() == seq), "{} follows {before:?}", seq);
            rows.push(Placed { position: Position::new(position), log: commit.log, seq });
        }
    }
    assert_eq!(rows.len(), count);
    rows
}

pub(super) async fn there_is_one_feed(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    assert_eq!(store.position(), Position::ZERO);
    assert!(store.take_feed().is_some());
    assert!(store.take_feed().is_none());
}

pub(super) async fn commits_enter_the_feed_in_order_and_once(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    let before = say_many(log(99), Head::default(), user(1), 1, 4);
    assert_eq!(store.append(before).await, Ok(AppendOutcome::Appended));
    assert_eq!(store.position(), Position::new(4));
    let mut feed = store.take_feed().expect("the first taker gets the feed");
    let mut writers = JoinSet::new();
    for writer in 1..=6 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut head = Head::default();
            for round in 0..10 {
                let append = say_many(log(writer), head, user(writer), round * 10, 1 + (round + writer) % 4);
                head = append.head();
                assert_eq!(store.append(append).await, Ok(AppendOutcome::Appended));
            }
            head.seq.get()
        });
    }
    let total: u64 = writers.join_all().await.into_iter().sum();
    assert_eq!(store.position(), Position::new(4 + total));
    let rows = take_rows(&mut feed, total as usize, Position::new(4)).await;
    assert_eq!(rows.last().map(|row| row.position), Some(store.position()));
    assert!(feed.try_recv().is_err(), "no commit is delivered twice");
}

pub(super) async fn positions_continue_after_reopening(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    let first = say_many(log(1), Head::default(), user(1), 1, 5);
    let head = first.head();
    store.append(first).await.unwrap();
    drop(store);
    let store = subject.open().await;
    assert_eq!(store.position(), Position::new(5));
    let mut feed = store.take_feed().expect("the first taker gets the feed");
    store.append(say_many(log(1), head, user(1), 6, 2)).await.unwrap();
    let rows = take_rows(&mut feed, 2, Position::new(5)).await;
    assert_eq!(rows[1], Placed { position: Position::new(7), log: log(1), seq: seq(7) });
}

pub(super) async fn process_starts_are_kept_in_order(subject: Arc<dyn OrderedSubject>) {
    let (mut head, mut expected) = (Head::default(), Vec::new());
    for raw in [9, u64::MAX, 3] {
        let store = subject.open().await;
        let row = EpochRow { epoch: Epoch::from_raw(raw), start: store.position() };
        assert_eq!(store.begin_epoch(row.epoch).await, Ok(row));
        expected.push(row);
        let append = say_many(log(1), head, user(1), raw % 1000, 3);
        head = append.head();
        store.append(append).await.unwrap();
        assert_eq!(store.epochs().await, Ok(expected.clone()));
    }
    assert_eq!(expected.iter().map(|row| row.start.get()).collect::<Vec<_>>(), [0, 3, 6]);
}

pub(super) async fn a_scan_shows_what_a_member_may_read(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    let mut spans = Spans::since(seq(2));
    spans.close(seq(4));
    spans.open(seq(7));
    spans.close(seq(8));
    store.put_memberships(&[membership(1, 1, &spans)]).await.unwrap();
    store.append(say_many(log(1), Head::default(), user(2), 1, 10)).await.unwrap();
    let blocked = notice(Head::default(), Content::Blocked { user_id: user(9) });
    store.append(append(own_log(1), Head::default(), vec![blocked])).await.unwrap();
    store.append(say_many(own_log(2), Head::default(), user(2), 1, 1)).await.unwrap();
    let item = |log, from, to, position| ScanItem {
        log,
        from: seq(from),
        to: seq(to),
        position: Position::new(position),
    };
    let (first, second, own) = (item(log(1), 2, 4, 4), item(log(1), 7, 8, 8), item(own_log(1), 1, 1, 11));
    let scan = |after, max_rows| store.scan(user(1), Position::new(after), max_rows, 99);
    let whole = |items: Vec<ScanItem>| Some(Scan { items, upto: Position::new(12), more: false });
    assert_eq!(scan(0, 99).await, Ok(whole(vec![first, second, own])));
    assert_eq!(scan(0, 6).await, Ok(whole(vec![first, second, own])));
    assert_eq!(scan(8, 99).await, Ok(whole(vec![own])));
    assert_eq!(scan(11, 99).await, Ok(whole(vec![])));
    let cut = Scan { items: vec![first, item(log(1), 7, 7, 7)], upto: Position::new(7), more: true };
    assert_eq!(scan(0, 4).await, Ok(Some(cut)));
    assert_eq!(scan(7, 4).await, Ok(whole(vec![item(log(1), 8, 8, 8), own])));
}

pub(super) async fn a_scan_is_the_merge_of_the_logs_of_a_user(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    let mut rng = StdRng::seed_from_u64(7);
    let mut feed = store.take_feed().expect("the first taker gets the feed");
    let mut spans = BTreeMap::new();
    for id in (1..=3).flat_map(|user_id| (1..=6).map(move |channel_id| (user_id, channel_id))) {
        if rng.random_bool(0.8) {
            let stays = random_spans(&mut rng);
            store.put_memberships(&[membership(id.0, id.1, &stays)]).await.unwrap();
            spans.insert((user(id.0), log(id.1)), stays);
        }
    }
    let count = random_history(&store, &mut rng).await;
    let rows = take_rows(&mut feed, count, Position::ZERO).await;
    for id in 1..=3 {
        let theirs: Vec<Placed> =
            rows.iter().filter(|row| is_theirs(&spans, user(id), **row)).copied().collect();
        for _ in 0..40 {
            let after = Position::new(rng.random_range(0..=count as u64 + 2));
            let max_rows = rng.random_range(1..60);
            let scan = store.scan(user(id), after, max_rows, 10_000).await.unwrap();
            let expected: Vec<Placed> = theirs.iter().filter(|row| row.position > after).copied().collect();
            assert_eq!(
                scan,
                Some(merged(&expected, max_rows, store.position())),
                "user {id} after {after:?}"
            );
        }
    }
}

fn is_theirs(spans: &BTreeMap<(UserId, LogId), Spans>, user: UserId, row: Placed) -> bool {
    row.log == LogId::User(user) || spans.get(&(user, row.log)).is_some_and(|spans| spans.contains(row.seq))
}

fn random_spans(rng: &mut StdRng) -> Spans {
    let (mut spans, mut place) = (Spans::default(), 0);
    for _ in 0..rng.random_range(1..4) {
        place += rng.random_range(1..12);
        spans.open(seq(place));
        if rng.random_bool(0.3) {
            return spans;
        }
        place += rng.random_range(0..12);
        spans.close(seq(place));
    }
    spans
}

async fn random_history(store: &Arc<dyn OrderedStore>, rng: &mut StdRng) -> usize {
    let (mut heads, mut count) = (BTreeMap::<LogId, Head>::new(), 0);
    for _ in 0..120 {
        let id = rng.random_range(1..=6);
        let log = if rng.random_bool(0.8) { log(id) } else { own_log(id / 2 + 1) };
        let head = heads.entry(log).or_default();
        let append = say_many(log, *head, user(50), count, rng.random_range(1..4));
        count += append.rows.len() as u64;
        *head = append.head();
        assert_eq!(store.append(append).await, Ok(AppendOutcome::Appended));
    }
    count as usize
}

/// The scan of `rows` according to its definition.
fn merged(rows: &[Placed], max_rows: usize, committed: Position) -> Scan {
    let shown = &rows[..rows.len().min(max_rows)];
    let more = shown.len() < rows.len();
    let runs = shown.chunk_by(|one, next| one.log == next.log && one.seq.next() == next.seq);
    let items = runs
        .map(|run| {
            let (first, last) = (run[0], run[run.len() - 1]);
            ScanItem { log: first.log, from: first.seq, to: last.seq, position: last.position }
        })
        .collect();
    let upto = shown.last().filter(|_| more).map_or(committed, |row| row.position);
    Scan { items, upto, more }
}

pub(super) async fn a_scan_gives_up_above_its_bound(subject: Arc<dyn OrderedSubject>) {
    let store = subject.open().await;
    store.put_memberships(&[membership(1, 1, &Spans::since(seq(1)))]).await.unwrap();
    store.append(say_many(log(1), Head::default(), user(2), 1, 50)).await.unwrap();
    store.append(say_many(own_log(1), Head::default(), user(2), 1, 50)).await.unwrap();
    assert_eq!(store.scan(user(1), Position::ZERO, 10, 99).await, Ok(None));
    assert_eq!(store.scan(user(1), Position::new(20), 10, 79).await, Ok(None));
    let scan = store.scan(user(1), Position::ZERO, 10, 100).await.unwrap();
    assert_eq!(scan.map(|scan| (scan.upto, scan.more)), Some((Position::new(10), true)));
}
