//! Which part of a cluster holds a log.

use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_store::LogStore;

use crate::{config, fresh};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn the_driver_knows_the_shard_of_every_log() {
    let store = fresh(&config("madang_test_shards")).await;
    for id in 1..100 {
        for log in [LogId::Channel(ChannelId::from_raw(id)), LogId::User(UserId::from_raw(id))] {
            let shard = |seq| store.shard(log, Seq::new(seq));
            assert_ne!(shard(1), 0, "{log}: the shard is not known");
            assert_eq!(shard(1), shard(4_096), "{log}: rows of one bucket");
        }
    }
}
