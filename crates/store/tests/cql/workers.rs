//! Numbers of nodes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use madang_ids::Millis;
use madang_store::scylla::{LeaseError, Scylla};
use tokio::task::JoinSet;

use crate::{config, fresh};

/// The clock of a node.
#[expect(
    clippy::disallowed_methods,
    reason = "the product reads it through a clock of a crate that this one may not use"
)]
fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Millis::new(u64::try_from(since.as_millis()).unwrap())
}

async fn store() -> Arc<Scylla> {
    fresh(&config("madang_test_workers")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn numbers_are_leased_to_one_process_each() {
    let store = store().await;
    let first = store.lease_worker("chat-1", &now).await.unwrap();
    let second = store.lease_worker("chat-2", &now).await.unwrap();
    assert_eq!((first.worker, second.worker), (0, 1));
    assert!(second.epoch > first.epoch);
    assert_eq!((first.namesake, second.namesake), (None, None));
    assert_eq!(first.valid_for, Duration::from_secs(60));

    // Another node with the name of the first one gets a number of its own, and each learns of the other.
    let third = store.lease_worker("chat-1", &now).await.unwrap();
    assert_eq!(third.worker, 2);
    let other = third.namesake.unwrap();
    assert_eq!((other.worker, other.epoch), (first.worker, first.epoch));
    assert!(other.renewed_ago < Duration::from_secs(30), "{other:?}");
    let renewed = store.renew_worker(&first).await.unwrap();
    assert_eq!((renewed.worker, renewed.epoch), (first.worker, first.epoch));
    assert_eq!(renewed.namesake.unwrap().worker, third.worker);

    // A lease that has just ended is not granted again at once.
    store.release_worker(&second).await.unwrap();
    assert_eq!(store.lease_worker("chat-2", &now).await.unwrap().worker, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn a_lease_that_is_over_goes_to_another_process_under_a_greater_epoch() {
    let store = store().await;
    let paused = store.lease_worker("chat-1", &now).await.unwrap();
    store.expire_worker(paused.worker).await.unwrap();
    // While nobody else has the number, its holder may come back.
    let back = store.renew_worker(&paused).await.unwrap();
    assert_eq!(back.epoch, paused.epoch);
    store.expire_worker(paused.worker).await.unwrap();
    let next = store.lease_worker("chat-1", &now).await.unwrap();
    assert_eq!(next.worker, paused.worker);
    assert!(next.epoch > paused.epoch);
    for late in
        [store.renew_worker(&paused).await.unwrap_err(), store.release_worker(&paused).await.unwrap_err()]
    {
        assert!(matches!(late, LeaseError::Lost { worker } if worker == paused.worker), "{late}");
    }
    assert!(store.renew_worker(&next).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn nodes_that_start_together_get_different_numbers_and_epochs() {
    let store = store().await;
    let (begin, mut nodes) = (Instant::now(), JoinSet::new());
    for node in 0..12 {
        let store = Arc::clone(&store);
        nodes.spawn(async move { store.lease_worker(&format!("chat-{node}"), &now).await.unwrap() });
    }
    let leases = nodes.join_all().await;
    println!("twelve leases at once: {:?}", begin.elapsed());
    let numbers: BTreeSet<u16> = leases.iter().map(|lease| lease.worker).collect();
    let epochs: BTreeSet<u64> = leases.iter().map(|lease| lease.epoch).collect();
    assert_eq!(numbers, (0..12).collect());
    assert_eq!(epochs.len(), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn a_node_with_a_wrong_clock_gets_no_number() {
    let store = store().await;
    let ahead = store.lease_worker("chat-1", &|| now().plus(3_600_000)).await.unwrap_err();
    assert!(
        matches!(ahead, LeaseError::ClockOff { off_ms } if (3_590_000..3_610_000).contains(&off_ms)),
        "{ahead}"
    );
    let behind = store.lease_worker("chat-1", &|| now().minus(60_000)).await.unwrap_err();
    assert!(
        matches!(behind, LeaseError::ClockOff { off_ms } if (-70_000..-50_000).contains(&off_ms)),
        "{behind}"
    );
    assert!(store.lease_worker("chat-1", &|| now().minus(200)).await.is_ok());
}
