//! A store shows a commit to readers a moment before it reports the commit's position.

use std::sync::Arc;

use madang_bus::local::LocalInbox;
use madang_bus::{Inbox, InboxRead};
use madang_ids::{LogId, Millis, Ordinal, Seq, UserId};
use madang_proto::{Content, Entry};
use madang_store::model::{Model, ModelConfig};
use madang_store::{Append, AppendOutcome, Head, LogStore, Row};

use crate::store::Watched;

#[tokio::test]
async fn a_cursor_of_a_page_is_accepted_at_once() {
    let model = Model::new(ModelConfig::default());
    let user_id = UserId::from_raw(1);
    let row = |place| Row {
        entry: Entry { seq: Seq::new(place), at: Millis::new(place), content: Content::Blocked { user_id } },
        ordinal: Ordinal::ZERO,
        key: None,
    };
    let rows = (1..=6).map(row).collect();
    let append = Append::of(LogId::User(user_id), Head::default(), rows);
    assert_eq!(model.append(append).await, Ok(AppendOutcome::Appended));
    let (inbox, _follow) = LocalInbox::open(Arc::new(Watched::lagging(model, 4))).await.expect("an inbox");
    let mut cursor = inbox.end(user_id).await.expect("the end");
    cursor.position = madang_ids::Position::ZERO;
    for upto in [3, 6, 6] {
        let read = inbox.read(user_id, cursor, 3).await.expect("a read");
        let InboxRead::Page(page) = read else { panic!("{cursor:?} is refused: {read:?}") };
        cursor = page.upto;
        assert_eq!(cursor.position.get(), upto);
    }
}
