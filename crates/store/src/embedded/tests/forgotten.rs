//! What was deleted is in no file of the folder, some time later.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use madang_ids::{ClientMsgId, LogId, MessageId, Ordinal, UserId};
use madang_proto::{Body, Content, Entry, Message};

use super::{Embedded, Medium, config, log};
use crate::log::{Append, AppendOutcome, Head, LogStore, Row, RowChange};

const SOON: Duration = Duration::from_millis(50);

fn message(head: Head, text: &str) -> Message {
    let body = Body { text: text.to_owned(), ..Body::default() };
    let id = MessageId::from_raw(head.seq.get() + 1);
    Message::new(id, head.ordinal.next(), UserId::from_raw(1), ClientMsgId::from_uuid(7), body)
}

async fn say(store: &Embedded, log: LogId, head: Head, content: Content, change: Option<RowChange>) -> Head {
    let ordinal = Ordinal::new(head.ordinal.get() + u64::from(content.message().is_some()));
    let entry = Entry { seq: head.seq.next(), at: head.at.plus(1), content };
    let rows: Arc<[Row]> = Arc::new([Row { entry, ordinal, key: None }]);
    let append = Append { changes: change.into_iter().collect(), ..Append::of(log, head, rows) };
    let after = append.head();
    assert_eq!(store.append(append).await, Ok(AppendOutcome::Appended));
    after
}

/// The files of the folder that hold `text`.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let holds = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| holds(path)).map(|path| path.display().to_string()).collect()
}

async fn delete(store: &Embedded, log: LogId, head: Head, target: u64) -> Head {
    let blank = Message { version: 2, ..message(Head::default(), "") };
    let content = Content::Message(Box::new(blank));
    let change = RowChange { target: madang_ids::Seq::new(target), if_version: 1, content };
    say(store, log, head, Content::Created { by: UserId::from_raw(1) }, Some(change)).await
}

#[tokio::test]
async fn what_was_deleted_is_in_no_file_soon_though_nothing_more_is_written() {
    const SECRET: &str = "the harbour at nine";
    let folder = tempfile::tempdir().unwrap();
    let medium = Medium { forget_after: SOON, ..Medium::default() };
    let store = Embedded::open_on(&config(folder.path()), medium).unwrap();
    let said = Content::Message(Box::new(message(Head::default(), SECRET)));
    let head = say(&store, log(1), Head::default(), said, None).await;
    assert!(!files_with(folder.path(), SECRET).is_empty());
    delete(&store, log(1), head, 1).await;
    for _ in 0..100 {
        if files_with(folder.path(), SECRET).is_empty() {
            return;
        }
        // waits for: the writer, which empties the log by the machine's clock
        tokio::time::sleep(SOON).await;
    }
    panic!("still in {:?}", files_with(folder.path(), SECRET));
}

/// Rows are written at the end, and do not move to another page unless an edit parts theirs; so none is left behind in a gap.
#[tokio::test]
async fn of_many_that_were_deleted_none_is_left() {
    const SECRET: &str = "the harbour at ten";
    let folder = tempfile::tempdir().unwrap();
    let medium = Medium { forget_after: SOON, synchronous: "OFF", ..Medium::default() };
    let store = Embedded::open_on(&config(folder.path()), medium).unwrap();
    let mut heads = [Head::default(); 10];
    for number in 0..400 {
        // Of lengths that fill pages and spill over them.
        let text = format!("{SECRET} {}", "x".repeat(number * 37 % 6_000));
        let (head, log) = (&mut heads[number * 7 % 10], log(number as u64 * 7 % 10 + 1));
        *head = say(&store, log, *head, Content::Message(Box::new(message(*head, &text))), None).await;
    }
    for (index, head) in heads.iter_mut().enumerate() {
        for target in 1..=40 {
            *head = delete(&store, log(index as u64 + 1), *head, target).await;
        }
    }
    for _ in 0..100 {
        if files_with(folder.path(), SECRET).is_empty() {
            return;
        }
        // waits for: the writer, which empties the log by the machine's clock
        tokio::time::sleep(SOON).await;
    }
    panic!("still in {:?}", files_with(folder.path(), SECRET));
}
