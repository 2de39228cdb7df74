//! Acts of operators.

use std::sync::Arc;

use madang_ids::Millis;

use super::Subject;
use super::build::*;
use crate::acts::Act;

fn act(place: u64) -> Act {
    Act {
        seq: place,
        at: Millis::new(1_800_000_000_000 + place),
        by: format!("operator{place}"),
        from: "127.0.0.1".to_owned(),
        kind: "override_set".to_owned(),
        channel: place.is_multiple_of(2).then(|| channel(place)),
        change: "level: blazing".to_owned(),
        why: "the concert begins".to_owned(),
        document: format!("{{\"place\":{place}}}"),
    }
}

pub(super) async fn acts_are_in_one_order_without_a_hole(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let seqs = |acts: Vec<Act>| acts.into_iter().map(|act| act.seq).collect::<Vec<_>>();
    assert_eq!(store.last_act().await, Ok(None));
    assert_eq!(store.append_act(&act(2)).await, Ok(false), "1 is missing");
    // More than one partition of a cluster.
    for place in 1..=260 {
        assert_eq!(store.append_act(&act(place)).await, Ok(true));
    }
    assert_eq!(store.append_act(&Act { by: "late".to_owned(), ..act(260) }).await, Ok(false));
    assert_eq!(store.append_act(&act(262)).await, Ok(false));
    assert_eq!(store.last_act().await, Ok(Some(act(260))));
    assert_eq!(store.acts(None, 2).await, Ok(vec![act(260), act(259)]));
    assert_eq!(seqs(store.acts(Some(259), 4).await.unwrap()), [258, 257, 256, 255]);
    assert_eq!(seqs(store.acts(Some(3), 100).await.unwrap()), [2, 1]);
    assert_eq!(store.acts(Some(1), 100).await, Ok(Vec::new()));
    assert_eq!(store.acts(Some(261), 1_000).await.unwrap().len(), 260);
}
