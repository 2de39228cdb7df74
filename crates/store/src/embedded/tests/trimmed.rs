//! What is forgotten of users where rows of one of them are damaged.

use madang_ids::{LogId, UserId};
use rusqlite::Connection;

use super::{Embedded, config, fill};
use crate::log::{Head, LogStore};
use crate::trim::TrimStep;
use crate::upkeep::Upkeep;

#[tokio::test]
async fn a_user_whose_rows_are_damaged_keeps_no_other_from_being_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    let own_log = |id| LogId::User(UserId::from_raw(id));
    for id in 1..=3 {
        fill(&store, own_log(id), Head::default(), 20).await;
    }
    drop(store);
    let db = Connection::open(folder.path().join("madang.db")).unwrap();
    assert_eq!(db.execute("UPDATE user_heads SET trimmed = 'no number' WHERE id = 2", []).unwrap(), 1);
    drop(db);
    let store = Embedded::open(config(folder.path())).unwrap();
    let step = TrimStep { after: None, users: 10, own_rows: 5, left_channels: 9, forgets: 100 };
    let trimmed = store.trim(step).await.unwrap();
    assert_eq!((trimmed.own_rows, trimmed.more), (30, false));
    let rows = async |id| {
        let all = madang_ids::Seq::new(1)..=madang_ids::Seq::new(99);
        store.rows(own_log(id), all, usize::MAX).await.unwrap().len()
    };
    assert_eq!((rows(1).await, rows(2).await, rows(3).await), (5, 20, 5));
}
