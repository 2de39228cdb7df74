//! How long calls wait for their turn.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::config;
use crate::embedded::Embedded;

#[tokio::test]
async fn a_write_waits_for_those_before_it_and_not_for_the_sync_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(config(folder.path())).unwrap();
    let waits = store.waits();
    for _ in 0..20 {
        store.write(|_| Ok(())).await.unwrap();
    }
    let alone = waits.take_writes();
    assert_eq!(alone.calls, 20);
    // The first group runs for a second. The writes behind it come in its first half.
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let mut begun = Some(begun);
    let slow = store.write(move |_| {
        begun.take().map(|begun| begun.send(()));
        // waits for: nothing; it is a slow transaction
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    });
    let others = async {
        has_begun.await.unwrap();
        let _ = waits.take_writes();
        let mut others = JoinSet::new();
        for _ in 0..10 {
            let store = Arc::clone(&store);
            others.spawn(async move { store.write(|_| Ok(())).await });
        }
        others.join_all().await
    };
    let (slow, others) = tokio::join!(slow, others);
    slow.unwrap();
    others.into_iter().for_each(|done| done.unwrap());
    let behind = waits.take_writes();
    assert_eq!(behind.calls, 10);
    assert!(
        behind.mean > Duration::from_millis(500) && behind.mean > 4 * alone.mean,
        "{behind:?}, {alone:?}"
    );
}
