//! What is damaged, and what fails, costs itself alone.

use madang_proto::Unreadable;

use super::*;
use crate::log::RowChange;

/// What a message said in the form in which an earlier version kept it.
async fn keep(store: &Embedded, seq: i64, data: &str) {
    let content = format!(
        r#"{{"kind":"message","message_id":"5","ordinal":1,"sender_id":"3","client_msg_id":"00000000-0000-0000-0000-000000000007","text":"","data":{data}}}"#
    );
    let written = store
        .write(move |transaction| {
            let sql = "UPDATE log SET sender = 3, client_msg_id = ?3, body_hash = ?4, content = ?2, checksum = row_checksum(id, seq,
                       pos, at_ms, ordinal, version, 3, ?3, ?4, ?2) WHERE id = 1 AND seq = ?1";
            let (key, hash) = (7_u128.to_be_bytes(), [1_u8; 16]);
            transaction.db().execute(sql, rusqlite::params![seq, content, key, hash])
        })
        .await;
    assert_eq!(written, Ok(1));
}

#[tokio::test]
async fn rows_that_earlier_versions_could_not_read_are_read_or_cost_themselves_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    let head = fill(&store, log(1), Head::default(), 4).await;
    // As the version before kept `{"a":1,"$serde_json::private::RawValue":"[1"}`, which it could not read again.
    let strange = r#"{"$serde_json::private::RawValue":"[1","a":1}"#;
    keep(&store, 2, strange).await;
    let deep = format!("{}1{}", "[".repeat(2_200), "]".repeat(2_200));
    keep(&store, 3, &deep).await;
    let rows = store.rows(log(1), Seq::new(1)..=Seq::new(4), usize::MAX).await.unwrap();
    let message = rows[1].entry.content.message().unwrap();
    assert_eq!(message.body.data.as_ref().unwrap().get(), strange);
    let Content::Unreadable(unreadable) = rows[2].entry.content else { panic!("{:?}", rows[2]) };
    let known =
        Unreadable { sender_id: Some(UserId::from_raw(3)), ordinal: Some(Ordinal::new(0)), version: 1 };
    assert_eq!(unreadable, known);
    // It can be replaced, as a deletion does, and the log goes on.
    let mut next = append(log(1), head);
    let content = Content::Message(Box::new(Message { version: 2, ..message.clone() }));
    next.changes = vec![RowChange { target: Seq::new(3), if_version: 1, content }];
    assert_eq!(store.append(next).await, Ok(AppendOutcome::Appended));
    assert!(
        store.rows_at(log(1), &[Seq::new(3)], 1).await.unwrap()[0]
            .as_ref()
            .unwrap()
            .entry
            .content
            .message()
            .is_some()
    );
    drop(store);
    let store = Embedded::open(config(folder.path())).unwrap();
    assert_eq!(store.tail(log(1), 9).await.unwrap().rows.len(), 5);
}

/// Transactions in the write-ahead log: frames that say how large the database is after them.
fn commits(folder: &std::path::Path) -> usize {
    let bytes = std::fs::read(folder.join("madang.db-wal")).unwrap();
    let page = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
    bytes[32..].chunks(24 + page).filter(|frame| frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn jobs_that_fail_cost_the_others_of_their_group_no_commit_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    let before = commits(folder.path());
    let mut jobs = JoinSet::new();
    for id in 1..=100 {
        let (store, poisoned) = (Arc::clone(&store), Arc::clone(&store));
        jobs.spawn(async move { store.append(append(log(id), Head::default())).await.is_ok() });
        // It publishes a row, and fails then.
        jobs.spawn(async move {
            let write = poisoned.write(move |transaction| {
                let rows = append(log(1_000 + id), Head::default()).rows;
                transaction.publish(log(1_000 + id), &rows);
                transaction.db().execute("INSERT INTO nowhere VALUES (1)", [])
            });
            write.await.is_err()
        });
    }
    assert!(jobs.join_all().await.into_iter().all(|is_as_expected| is_as_expected));
    assert_eq!(store.position().get(), 100, "positions of failed jobs are given out again");
    let commits = commits(folder.path()) - before;
    assert!(commits <= 20, "{commits} commits");
    drop(store);
    assert_eq!(Embedded::open(config(folder.path())).unwrap().position().get(), 100);
}
