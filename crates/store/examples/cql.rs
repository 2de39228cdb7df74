//! How long an append to a CQL cluster takes, beside a bare conditional batch of the same size on the same cluster, one after the
//! other. `cargo run --release -p madang-store --features scylla,conformance --example cql ADDRESS`.
#![expect(clippy::unwrap_used, reason = "a bench that fails says where")]

use std::time::{Duration, Instant};

use madang_ids::{ChannelId, LogId, UserId};
use madang_store::conformance::say_many;
use madang_store::scylla::{connect, schema};
use madang_store::{Append, AppendOutcome, Head, LogStore, StoreConfig, StoreKind};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::{Consistency, SerialConsistency};
use tokio::time::sleep;

const KEYSPACE: &str = "madang_bench";
const WARM: usize = 100;
const ROUNDS: usize = 400;
/// The pace of the quiet channels of `cargo xtask bench fleet`, which compares its acks with these calls.
const PAUSE: Duration = Duration::from_millis(60);
const PACED: usize = 100;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let address = std::env::args().nth(1).unwrap();
    let config = StoreConfig {
        kind: StoreKind::Scylla,
        nodes: vec![address.clone()],
        keyspace: KEYSPACE.to_owned(),
        ..StoreConfig::default()
    };
    schema::fresh_keyspace(&config, 1).await.unwrap();
    let store = connect(&config, true, Duration::from_secs(60)).await.unwrap();
    let bare = Bare::new(&address).await;
    let log = LogId::Channel(ChannelId::from_raw(1));
    let mut head = Head::default();
    let mut number = 0;
    let mut measure = async |rounds: usize, pause: Duration| {
        let (mut appends, mut batches) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            number += 1;
            let append: Append = say_many(log, head, UserId::from_raw(9), number, 1);
            head = append.head();
            sleep(pause).await;
            let begun = Instant::now();
            assert_eq!(store.append(append).await.unwrap(), AppendOutcome::Appended);
            appends.push(begun.elapsed());
            sleep(pause).await;
            let begun = Instant::now();
            bare.append(number as i64).await;
            batches.push(begun.elapsed());
        }
        (median(&mut appends), median(&mut batches))
    };
    measure(WARM, Duration::ZERO).await;
    let (append, batch) = measure(ROUNDS, Duration::ZERO).await;
    println!(
        "append {append:.2} ms, bare conditional batch {batch:.2} ms (medians of {ROUNDS}), ratio {:.2}",
        append / batch
    );
    // A quiet server is slower: its caches are cold, and its processors sleep.
    let (append, batch) = measure(PACED, PAUSE).await;
    println!(
        "one each {PAUSE:?}: append {append:.2} ms, bare conditional batch {batch:.2} ms (medians of {PACED}), ratio {:.2}",
        append / batch
    );
    println!("bare_ms {batch:.3}");
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1_000.0
}

/// A partition whose head rises with each row.
struct Bare {
    session: Session,
    batch: Batch,
}

impl Bare {
    async fn new(address: &str) -> Self {
        let session = SessionBuilder::new().known_node(address).build().await.unwrap();
        let drop = format!("DROP TABLE IF EXISTS {KEYSPACE}.bare");
        let create = format!(
            "CREATE TABLE {KEYSPACE}.bare (id bigint, seq bigint, head bigint STATIC, body text, PRIMARY KEY (id, seq))"
        );
        for statement in [drop, create] {
            session.query_unpaged(statement, ()).await.unwrap();
        }
        let first = format!("INSERT INTO {KEYSPACE}.bare (id, seq, head, body) VALUES (1, -1, -1, '')");
        session.query_unpaged(first, ()).await.unwrap();
        let mut batch = Batch::new(BatchType::Logged);
        batch.set_consistency(Consistency::LocalQuorum);
        batch.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        let head = format!("UPDATE {KEYSPACE}.bare SET head = ? WHERE id = 1 IF head = ?");
        let row = format!("INSERT INTO {KEYSPACE}.bare (id, seq, body) VALUES (1, ?, ?)");
        batch.append_statement(session.prepare(head).await.unwrap());
        batch.append_statement(session.prepare(row).await.unwrap());
        Self { session, batch }
    }

    async fn append(&self, number: i64) {
        let values = ((number, number - 1), (number, "line of a message"));
        self.session.batch(&self.batch, values).await.unwrap();
    }
}
