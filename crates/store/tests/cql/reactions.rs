//! Reactions that nodes change late.

use madang_ids::{ChannelId, Seq, UserId};
use madang_store::{LogStore, ReactionChange};

use crate::{config, fresh};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn the_later_change_stays_in_whichever_order_they_are_carried_out() {
    let store = fresh(&config("madang_test_reactions")).await;
    let (channel, target, user_id) = (ChannelId::from_raw(1), Seq::new(4), UserId::from_raw(7));
    let react = async |on, at_us| {
        let change = ReactionChange { user_id, emoji: "+1".to_owned(), on, at_us };
        let all = store.react(channel, target, &[change], 9).await.unwrap();
        let own = store.reactions_by(channel, user_id, None, 9).await.unwrap().found;
        assert_eq!(all.len(), own.len(), "both tables say the same");
        !all.is_empty()
    };
    assert!(react(true, 10).await);
    assert!(!react(false, 20).await);
    // A node that was paused since before the removal.
    assert!(!react(true, 15).await);
    assert!(react(true, 30).await);
    assert!(react(false, 25).await);
}
