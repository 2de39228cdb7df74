//! Handles of sign-ups that were not finished.

use madang_ids::{Millis, Snowflakes, UserId};
use madang_store::{AccountStore, Created, User};

use crate::{config, fresh};

/// A user whose id was minted at this time.
fn user(at: u64, display_name: &str) -> User {
    let id = UserId::from_raw(Snowflakes::last_of(Millis::new(at)).raw());
    User::new(id, "ada".to_owned(), display_name.to_owned(), Millis::new(at))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn a_handle_whose_sign_up_died_is_free_a_minute_later() {
    const BEGUN: u64 = 1_800_000_000_000;
    let config = config("madang_test_handles");
    let store = fresh(&config).await;
    let (dead, soon, later) =
        (user(BEGUN, "dead"), user(BEGUN + 59_000, "soon"), user(BEGUN + 60_000, "later"));
    assert!(store.take_handle_only(&dead).await.unwrap());
    assert_eq!(store.create_user(&soon, "hash", None).await.unwrap(), Created::Taken);
    assert_eq!(store.create_user(&later, "hash", None).await.unwrap(), Created::Created);
    // The first process was only slow, or its client repeats the call with the same key.
    assert_eq!(store.create_user(&dead, "hash", None).await.unwrap(), Created::Taken);
    assert_eq!(store.user_by_handle("ada").await.unwrap().unwrap().id, later.id);
    let listed = store.users_by_handle("a", "", 9).await.unwrap();
    assert_eq!(listed.iter().map(|user| user.id).collect::<Vec<_>>(), [later.id]);
    // A user that was made keeps the handle.
    let last = user(BEGUN + 999_000, "last");
    assert_eq!(store.create_user(&last, "hash", None).await.unwrap(), Created::Taken);
    assert_eq!(store.create_user(&later, "hash", None).await.unwrap(), Created::Created);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the address of a CQL server in MADANG_TEST_CQL"]
async fn two_sign_ups_for_an_abandoned_handle_make_one_user() {
    const BEGUN: u64 = 1_800_000_000_000;
    let config = config("madang_test_handles_twice");
    let store = fresh(&config).await;
    assert!(store.take_handle_only(&user(BEGUN, "dead")).await.unwrap());
    let (one, other) = (user(BEGUN + 70_000, "one"), user(BEGUN + 70_001, "other"));
    let (made, taken) =
        tokio::join!(store.create_user(&one, "hash", None), store.create_user(&other, "hash", None));
    let mut outcomes = [made.unwrap(), taken.unwrap()];
    outcomes.sort_by_key(|outcome| *outcome != Created::Created);
    assert_eq!(outcomes, [Created::Created, Created::Taken]);
}
