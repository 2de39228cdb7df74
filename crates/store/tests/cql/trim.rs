//! What a cluster removes while it writes.

use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::{Role, limits};
use madang_store::conformance::say_many;
use madang_store::{Append, AppendOutcome, ChannelStore, Head, LogStore, Membership, Spans};

use crate::{config, fresh};

const USER: UserId = UserId::from_raw(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn an_own_log_keeps_the_rows_that_a_device_may_be_behind() {
    let store = fresh(&config("madang_test_trim")).await;
    let log = LogId::User(USER);
    let (mut head, mut starts) = (Head::default(), Vec::new());
    // Five buckets and a few rows: two of them are too old.
    while head.seq.get() < 5 * 4_096 + 256 {
        if head.seq.get() % 4_096 == 0 {
            starts.push(head);
        }
        let append: Append = say_many(log, head, UserId::from_raw(9), head.seq.get() + 1, 256);
        head = append.head();
        assert_eq!(store.append(append).await.unwrap(), AppendOutcome::Appended);
    }
    let rows = store.rows(log, Seq::new(1)..=head.seq, usize::MAX).await.unwrap();
    let seqs: Vec<u64> = rows.iter().map(|row| row.entry.seq.get()).collect();
    assert_eq!(seqs, (2 * 4_096 + 1..=head.seq.get()).collect::<Vec<_>>());
    assert!(seqs.len() as u64 > limits::SYNC_ITEMS);
    assert_eq!(store.heads(&[log]).await.unwrap(), [head]);
    // A writer that was paused in the first or second bucket does not begin it anew.
    for stale in &starts[..2] {
        let late = say_many(log, *stale, UserId::from_raw(9), stale.seq.get() + 1, 1);
        assert_eq!(store.append(late).await.unwrap(), AppendOutcome::Moved, "{stale:?}");
    }
    let next = say_many(log, head, UserId::from_raw(9), head.seq.get() + 1, 1);
    assert_eq!(store.append(next).await.unwrap(), AppendOutcome::Appended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn channels_that_a_user_left_do_not_grow_for_ever() {
    let store = fresh(&config("madang_test_trim")).await;
    let membership = |id: u64, in_inbox: bool| {
        let mut spans = Spans::since(Seq::new(1));
        spans.close(Seq::new(5));
        Membership {
            user_id: USER,
            channel_id: ChannelId::from_raw(id),
            role: Role::Member,
            version: Seq::new(5),
            spans,
            in_inbox,
            has_accepted: in_inbox,
        }
    };
    let left = limits::LEFT_CHANNELS as u64;
    // Open channels, and groups whose rows say that they were left just now.
    let groups: Vec<Membership> = (1..=20).map(|id| membership(id, true)).collect();
    for group in &groups {
        let append = say_many(LogId::Channel(group.channel_id), Head::default(), USER, 1, 5);
        store.append(append).await.unwrap();
    }
    store.put_memberships(&groups).await.unwrap();
    for ids in (100..100 + left + 400).collect::<Vec<_>>().chunks(100) {
        let open: Vec<Membership> = ids.iter().map(|id| membership(*id, false)).collect();
        store.put_memberships(&open).await.unwrap();
    }
    let kept = store.memberships(USER, None, usize::MAX).await.unwrap();
    // At most the leaves between two looks are above the number.
    assert!((left..left + 200).contains(&(kept.len() as u64)), "{}", kept.len());
    let gone = left + 420 - kept.len() as u64;
    assert_eq!(store.metrics().forgotten_channels.get(), gone);
    // The rows of `say_many` are of 1970, so the groups are old; open channels go first.
    assert_eq!(kept.iter().filter(|kept| kept.in_inbox).count(), 20);
}
