//! Properties of spans, and of scans against their definition.

use std::collections::BTreeMap;
use std::sync::Arc;

use madang_ids::{ChannelId, LogId, Millis, Ordinal, Position, Seq, UserId};
use madang_proto::{Content, Entry, Role};
use madang_store::embedded::{Embedded, EmbeddedConfig};
use madang_store::model::{Model, ModelConfig};
use madang_store::{
    Append, AppendOutcome, ChannelStore, CommitOrder, Head, LogStore, Membership, Row, Spans,
};
use proptest::prelude::*;

/// Joins and leaves at rising places.
fn spans() -> impl Strategy<Value = (Spans, Vec<(u64, u64)>)> {
    let stays = prop::collection::vec((1_u64..12, 0_u64..12), 0..7);
    (stays, any::<bool>()).prop_map(|(steps, lasts)| {
        let (mut spans, mut stays, mut place) = (Spans::default(), Vec::new(), 0);
        let count = steps.len();
        for (index, (gap, length)) in steps.into_iter().enumerate() {
            let from = place + gap;
            place = from + length;
            spans.open(Seq::new(from));
            if lasts && index + 1 == count {
                stays.push((from, u64::MAX));
            } else {
                spans.close(Seq::new(place));
                stays.push((from, place));
            }
        }
        (spans, stays)
    })
}

proptest! {
    #[test]
    fn spans_contain_what_happened_during_stays((spans, stays) in spans(), place in 0_u64..150) {
        let expected = stays.iter().any(|&(from, until)| (from..=until).contains(&place));
        prop_assert_eq!(spans.contains(Seq::new(place)), expected);
        let text = serde_json::to_string(&spans).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Spans>(&text).expect("spans"), spans);
    }

    #[test]
    fn clipped_parts_are_what_is_contained((spans, _) in spans(), from in 0_u64..100, length in 0_u64..60) {
        let range = Seq::new(from)..=Seq::new(from + length);
        let expected: Vec<u64> = (from..=from + length).filter(|&place| spans.contains(Seq::new(place))).collect();
        let parts = spans.clip(range).flat_map(|part| part.start().get()..=part.end().get());
        prop_assert_eq!(parts.collect::<Vec<u64>>(), expected);
    }
}

/// Rows for a log: which (four channels, then two users' own), and how many.
type History = Vec<(u64, u64)>;

fn log(number: u64) -> LogId {
    if number < 4 {
        LogId::Channel(ChannelId::from_raw(number + 1))
    } else {
        LogId::User(UserId::from_raw(number - 3))
    }
}

fn append(log: LogId, expected: Head, count: u64) -> Append {
    let rows = (1..=count).map(|step| Row {
        entry: Entry {
            seq: expected.seq.plus(step),
            at: Millis::new(expected.at.get() + step),
            content: Content::Created { by: UserId::from_raw(1) },
        },
        ordinal: Ordinal::ZERO,
        key: None,
    });
    Append::of(log, expected, rows.collect())
}

async fn write(store: &(impl LogStore + ChannelStore), history: &History, memberships: &[Membership]) {
    let mut heads = BTreeMap::<u64, Head>::new();
    for &(number, count) in history {
        let head = heads.entry(number).or_default();
        let append = append(log(number), *head, count);
        *head = append.head();
        assert_eq!(store.append(append).await, Ok(AppendOutcome::Appended));
    }
    store.put_memberships(memberships).await.expect("memberships are written");
}

async fn compare(
    history: History,
    hers: Vec<Spans>,
    scans: Vec<(u64, usize, usize)>,
) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = EmbeddedConfig { path: folder.path().to_owned(), ..EmbeddedConfig::default() };
    let (embedded, model): (Arc<Embedded>, Arc<Model>) =
        (Embedded::open(config).expect("a store"), Model::new(ModelConfig::default()));
    let user_id = UserId::from_raw(1);
    let memberships: Vec<Membership> = hers
        .into_iter()
        .zip(1..)
        .map(|(spans, id)| Membership {
            user_id,
            channel_id: ChannelId::from_raw(id),
            role: Role::Member,
            version: spans.edge().unwrap_or_default(),
            spans,
            // One is an open channel.
            in_inbox: id != 2,
            has_accepted: true,
        })
        .collect();
    write(&*embedded, &history, &memberships).await;
    write(&*model, &history, &memberships).await;
    for (after, max_rows, give_up) in scans {
        let after = Position::new(after);
        let found = embedded.scan(user_id, after, max_rows, give_up).await;
        prop_assert_eq!(found, model.scan(user_id, after, max_rows, give_up).await);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_scan_is_what_the_plain_definition_says(
        history in prop::collection::vec((0_u64..6, 1_u64..5), 1..60),
        hers in prop::collection::vec(spans().prop_map(|(spans, _)| spans), 0..4),
        scans in prop::collection::vec((0_u64..160, 1_usize..80, 20_usize..200), 8),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        runtime.block_on(compare(history, hers, scans))?;
    }
}
