//! Pages of an inbox.

use std::sync::Arc;

use madang_ids::Cursor;

use super::device::{assert_same, page, read_all};
use super::workload::{Workload, user};
use super::{Opened, Subject};

/// Four users with own logs in overlapping channels, who leave and join again; and the first cursor of each.
async fn history(opened: &Opened) -> (Workload, Vec<Cursor>) {
    let mut starts = Vec::new();
    for id in 1..=4 {
        starts.push(opened.inbox.end(user(id)).await.unwrap());
    }
    let mut workload = Workload::new(opened);
    workload.change(1, &[1, 2, 3], &[]).await;
    workload.change(2, &[1, 2], &[]).await;
    workload.change(3, &[3], &[]).await;
    for round in 0..6 {
        workload.say(1, 1, 1 + round % 4).await;
        workload.say(2, 2, 3).await;
        workload.say(3, 3, 1).await;
        workload.note(1 + round as u64 % 4).await;
        match round {
            1 => workload.change(1, &[], &[2]).await,
            2 => workload.change(2, &[3, 4], &[]).await,
            3 => workload.change(1, &[2, 4], &[]).await,
            4 => workload.change(2, &[], &[1, 4]).await,
            _ => {}
        }
    }
    (workload, starts)
}

pub(super) async fn pages_of_any_size_hold_the_same(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let (workload, starts) = history(&opened).await;
    for (id, start) in (1..).zip(starts) {
        let (whole, _) = read_all(&opened.inbox, id, start, 1_000).await;
        assert_same(&whole, &workload.expected_of(id));
        assert_eq!(whole, workload.expected_of(id), "rows of consecutive appends keep their order");
        for page_rows in [1, 2, 3, 5, 8, 13, 40] {
            assert_eq!(read_all(&opened.inbox, id, start, page_rows).await.0, whole, "pages of {page_rows}");
        }
    }
    opened.close().await;
}

pub(super) async fn a_page_continues_from_any_cursor(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let (_, starts) = history(&opened).await;
    for (id, start) in (1..).zip(starts) {
        let (whole, cursors) = read_all(&opened.inbox, id, start, 1).await;
        for (cursor, count) in cursors {
            for page_rows in [1, 4, 1_000] {
                let (rest, _) = read_all(&opened.inbox, id, cursor, page_rows).await;
                assert_eq!(rest, whole[count..], "after {count} rows of user {id}");
            }
        }
    }
    opened.close().await;
}

pub(super) async fn the_end_is_after_everything(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let (mut workload, _) = history(&opened).await;
    let before = workload.expected_of(3).len();
    let end = opened.inbox.end(user(3)).await.unwrap();
    let empty = page(&opened.inbox, 3, end, 10).await;
    assert_eq!((empty.items, empty.more), (Vec::new(), false));
    workload.say(2, 1, 3).await;
    workload.note(3).await;
    assert_eq!(read_all(&opened.inbox, 3, end, 2).await.0, workload.expected_of(3)[before..]);
    assert_eq!(read_all(&opened.inbox, 3, empty.upto, 2).await.0, workload.expected_of(3)[before..]);
    opened.close().await;
}

pub(super) async fn users_read_only_their_own_rows(subject: Arc<dyn Subject>) {
    let opened = subject.open().await;
    let start = opened.inbox.end(user(9)).await.unwrap();
    let (mut workload, _) = history(&opened).await;
    assert_eq!(read_all(&opened.inbox, 9, start, 3).await.0, []);
    workload.note(9).await;
    assert_eq!(read_all(&opened.inbox, 9, start, 3).await.0, workload.expected_of(9));
    assert_eq!(workload.expected_of(9).len(), 1);
    opened.close().await;
}
