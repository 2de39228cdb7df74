//! Links that fail while statements are in flight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_store::conformance::say_many;
use madang_store::scylla::{Scylla, connect, schema};
use madang_store::{Append, AppendOutcome, Head, LogStore, StoreError};

use crate::proxy::{Link, Proxy};
use crate::{PATIENCE, config, replication};

const LOG: LogId = LogId::Channel(ChannelId::from_raw(1));
/// The longest timeout of a class, and some more for a busy machine.
const BOUND: Duration = Duration::from_secs(5);

/// One message after `head`; its retry key is its place.
fn append(head: Head) -> Append {
    say_many(LOG, head, UserId::from_raw(9), head.seq.get() + 1, 1)
}

/// Waits until the driver has connected again.
async fn again(store: &Scylla) -> Head {
    let begin = Instant::now();
    loop {
        match store.heads(&[LOG]).await {
            Ok(heads) => return heads[0],
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// Sends an append over a link that fails, and repeats it over a whole one. The log has the row once.
async fn append_over(store: &Scylla, proxy: &Proxy, link: Link, head: Head) -> Head {
    let sent = append(head);
    proxy.set(link);
    let begin = Instant::now();
    let outcome = store.append(sent.clone()).await;
    assert!(begin.elapsed() < BOUND, "{link:?}: {:?}", begin.elapsed());
    // A cut link may be noticed before anything is sent, in the preparation of a statement.
    let is_bounded = matches!(outcome, Err(StoreError::Unknown(_) | StoreError::Unavailable(_)));
    assert!(is_bounded, "{link:?}: {outcome:?}");
    let begin = Instant::now();
    let read = store.heads(&[LOG]).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{link:?}: {read:?}");
    assert!(begin.elapsed() < BOUND, "{link:?}: {:?}", begin.elapsed());

    proxy.set(Link::Whole);
    let found = again(store).await;
    let repeated = store.append(sent.clone()).await.unwrap();
    match found.seq {
        seq if seq == head.seq => assert_eq!(repeated, AppendOutcome::Appended, "{link:?}"),
        _ => assert!(
            matches!(&repeated, AppendOutcome::SentBefore(sent) if sent.len() == 1),
            "{link:?}: {repeated:?}"
        ),
    }
    let rows = store.rows(LOG, head.seq.next()..=Seq::new(u64::MAX), usize::MAX).await.unwrap();
    assert_eq!(rows.len(), 1, "{link:?}");
    assert_eq!(rows[0].key, sent.rows[0].key, "{link:?}");
    sent.head()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn an_append_in_flight_on_a_failing_link_is_unknown_and_has_one_row() {
    let mut config = config("madang_test_links");
    schema::fresh_keyspace(&config, replication(&config)).await.unwrap();
    // One contact, so that the driver finds the other nodes, if there are any, at its port too.
    let proxy = Proxy::to(config.nodes[0].clone()).await;
    config.nodes = vec![proxy.addr.to_string()];
    let store: Arc<Scylla> = connect(&config, true, PATIENCE).await.unwrap();
    let first = append(Head::default());
    assert_eq!(store.append(first.clone()).await.unwrap(), AppendOutcome::Appended);
    let mut head = first.head();
    for link in [Link::HalfOpen, Link::Slow(Duration::from_secs(8)), Link::Cut, Link::HalfOpen] {
        head = append_over(&store, &proxy, link, head).await;
    }
    assert_eq!(again(&store).await, head);

    let mut registry = prometheus_client::registry::Registry::default();
    store.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let count = |name: &str| {
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}\n{text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(count("store_unknown_outcomes_total{class=\"conditional\"}") >= 2.0, "{text}");
    assert!(count("store_unavailable_total{class=\"read\"}") >= 4.0, "{text}");
    assert!(count("store_statement_seconds_count{class=\"conditional\"}") >= 5.0, "{text}");
}
