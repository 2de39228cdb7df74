//! Users, invitations, blocks and claims.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::build::*;
use super::{Subject, done};
use crate::accounts::{Claim, Claimed, Created, Credentials, Profile, User, UserState};
use crate::invitations::Invitation;

fn person(id: u64, handle: &str) -> User {
    User::new(user(id), handle.into(), format!("Person {id}"), at(id))
}

pub(super) async fn a_handle_has_one_holder(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let mut callers = JoinSet::new();
    for id in 1..=12 {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            let person = person(id, "mina");
            (id, done(|| store.create_user(&person, "hash", None)).await)
        });
    }
    let outcomes = callers.join_all().await;
    let winners: Vec<u64> =
        outcomes.iter().filter(|(_, outcome)| *outcome == Created::Created).map(|(id, _)| *id).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    let holder = person(winners[0], "mina");
    assert_eq!(done(|| store.user_by_handle("mina")).await, Some(holder.clone()));
    assert_eq!(done(|| store.create_user(&holder, "hash", None)).await, Created::Created);
    let late = person(77, "mina");
    assert_eq!(done(|| store.create_user(&late, "hash", None)).await, Created::Taken);
    assert_eq!(done(|| store.users(std::slice::from_ref(&late.id))).await, [None]);
    assert_eq!(done(|| store.user_by_handle("nobody")).await, None);
}

pub(super) async fn users_come_in_the_order_asked(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for (id, handle) in [(1, "a"), (2, "b"), (3, "c")] {
        assert_eq!(store.create_user(&person(id, handle), "hash", None).await, Ok(Created::Created));
    }
    let found = store.users(&[user(3), user(9), user(1)]).await.unwrap();
    assert_eq!(found, [Some(person(3, "c")), None, Some(person(1, "a"))]);
}

pub(super) async fn names_and_passwords_change(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.create_user(&person(1, "a"), "first", None).await.unwrap();
    let credentials = async |id| store.credentials(user(id)).await.unwrap().map(|found| found.password_hash);
    assert_eq!(credentials(1).await, Some("first".into()));
    assert_eq!(credentials(2).await, None);
    assert_eq!(store.set_password_hash(user(1), "second", None).await, Ok(true));
    assert_eq!(store.set_password_hash(user(1), "third", Some("first")).await, Ok(false));
    assert_eq!(store.set_password_hash(user(1), "third", Some("second")).await, Ok(true));
    assert_eq!(store.set_password_hash(user(1), "third", Some("second")).await, Ok(true));
    let name = Profile { display_name: Some("A \u{1F600}".into()), avatar: None };
    store.set_profile(user(1), &name).await.unwrap();
    let avatar = Profile { display_name: None, avatar: Some("https://a".into()) };
    for _ in 0..2 {
        store.set_profile(user(1), &avatar).await.unwrap();
    }
    store.set_sends_receipts(user(1), false).await.unwrap();
    drop(store);
    let store = subject.open().await;
    let found = store.credentials(user(1)).await.unwrap();
    let expected = Credentials { password_hash: "third".into(), state: UserState::Active };
    assert_eq!(found, Some(expected));
    let renamed = User {
        display_name: "A \u{1F600}".into(),
        avatar: "https://a".into(),
        rev: 3,
        sends_receipts: false,
        ..person(1, "a")
    };
    assert_eq!(store.user_by_handle("a").await, Ok(Some(renamed)));
}

pub(super) async fn users_come_by_handle(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for (id, handle) in [(1, "bob"), (2, "ada"), (3, "bea"), (4, "bo"), (5, "c")] {
        store.create_user(&person(id, handle), "hash", None).await.unwrap();
    }
    store.delete_user(user(5), at(99)).await.unwrap();
    let handles = async |prefix: &str, after: &str, limit| {
        let found = store.users_by_handle(prefix, after, limit).await.unwrap();
        found.into_iter().map(|user| user.handle).collect::<Vec<_>>()
    };
    assert_eq!(handles("", "", 9).await, ["ada", "bea", "bo", "bob"]);
    assert_eq!(handles("", "ada", 2).await, ["bea", "bo"]);
    assert_eq!(handles("bo", "", 9).await, ["bo", "bob"]);
    assert_eq!(handles("bo", "bo", 9).await, ["bob"]);
}

pub(super) async fn a_disabled_user_may_be_enabled_again(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.create_user(&person(1, "a"), "hash", None).await.unwrap();
    let state = async || store.credentials(user(1)).await.unwrap().map(|found| found.state);
    assert_eq!(store.set_disabled(user(1), true).await, Ok(true));
    assert_eq!(state().await, Some(UserState::Disabled));
    assert_eq!(store.user_by_handle("a").await.unwrap().map(|user| user.state), Some(UserState::Disabled));
    assert_eq!(store.set_disabled(user(1), false).await, Ok(true));
    assert_eq!(state().await, Some(UserState::Active));
    assert_eq!(store.set_disabled(user(2), true).await, Ok(false));
}

pub(super) async fn a_deleted_user_leaves_an_id_and_a_handle_that_is_kept(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    store.create_user(&person(1, "a"), "hash", None).await.unwrap();
    for _ in 0..2 {
        store.delete_user(user(1), at(50)).await.unwrap();
    }
    let gone = User { state: UserState::Deleted, rev: 2, display_name: String::new(), ..person(1, "") };
    assert_eq!(store.users(&[user(1)]).await, Ok(vec![Some(gone)]));
    assert_eq!(store.user_by_handle("a").await, Ok(None));
    let credentials = Credentials { password_hash: String::new(), state: UserState::Deleted };
    assert_eq!(store.credentials(user(1)).await, Ok(Some(credentials)));
    assert_eq!(store.set_password_hash(user(1), "new", None).await, Ok(false));
    assert_eq!(store.set_disabled(user(1), false).await, Ok(false));
    assert_eq!(store.deletions(9).await, Ok(vec![user(1)]));
    store.settle_deletion(user(1)).await.unwrap();
    assert_eq!(store.deletions(9).await, Ok(vec![]));
    assert_eq!(store.create_user(&person(49, "a"), "hash", None).await, Ok(Created::Taken));
    assert_eq!(store.create_user(&person(50, "a"), "hash", None).await, Ok(Created::Created));
}

pub(super) fn invitation(number: u8, uses: u32, ends: u64) -> Invitation {
    let (label, created_at) = (format!("for {number}"), at(1));
    Invitation { hash: [number; 32], label, created_at, ends_at: at(ends), uses, used: 0 }
}

pub(super) async fn ten_uses_let_ten_of_thirty_in(subject: Arc<dyn Subject>) {
    const USES: u32 = 10;
    const FIRST: [u8; 32] = [1; 32];
    const SECOND: [u8; 32] = [2; 32];
    let store = subject.open().await;
    let (first, second) = (invitation(1, USES, 1_000), invitation(2, 30, 1_000));
    done(|| store.put_invitation(&first)).await;
    let mut callers = JoinSet::new();
    for id in 1..=30 {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            let person = person(id, &format!("p{id}"));
            // A sign-up may be repeated; it counts as one use of the invitation.
            let first = done(|| store.create_user(&person, "hash", Some(&FIRST))).await;
            let second = done(|| store.create_user(&person, "hash", Some(&FIRST))).await;
            assert_eq!(first, second);
            first
        });
    }
    let outcomes = callers.join_all().await;
    let let_in = outcomes.iter().filter(|outcome| **outcome == Created::Created).count();
    assert_eq!(let_in, USES as usize, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| *outcome != Created::Taken));
    assert_eq!(done(|| store.invitations(None, 9)).await[0].used, USES);
    // The handle of a user without a valid invitation is free again.
    done(|| store.put_invitation(&second)).await;
    for id in 1..=30 {
        let person = person(id, &format!("p{id}"));
        assert_eq!(done(|| store.create_user(&person, "hash", Some(&SECOND))).await, Created::Created);
    }
}

pub(super) async fn an_invitation_ends(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for one in [invitation(1, 5, 20), invitation(2, 5, 90), invitation(3, 5, 95)] {
        store.put_invitation(&one).await.unwrap();
    }
    let sign_up = async |id, number| {
        store.create_user(&person(id, &format!("p{id}")), "hash", Some(&[number; 32])).await.unwrap()
    };
    assert_eq!(sign_up(19, 1).await, Created::Created);
    assert_eq!(sign_up(20, 1).await, Created::NotInvited);
    assert_eq!(sign_up(21, 9).await, Created::NotInvited);
    let used = Invitation { used: 1, ..invitation(1, 5, 20) };
    assert_eq!(store.invitations(None, 2).await, Ok(vec![used, invitation(2, 5, 90)]));
    assert_eq!(store.invitations(Some(&[2; 32]), 9).await, Ok(vec![invitation(3, 5, 95)]));
    assert_eq!(store.revoke_invitation(&[2; 32]).await, Ok(true));
    assert_eq!(store.revoke_invitation(&[2; 32]).await, Ok(false));
    assert_eq!(sign_up(22, 2).await, Created::NotInvited);
    assert_eq!(store.invitations(Some(&[1; 32]), 9).await, Ok(vec![invitation(3, 5, 95)]));
}

pub(super) async fn blocks_come_by_pages(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for other in [5, 3, 9, 7] {
        assert_eq!(store.block(user(1), user(other), at(1)).await, Ok(true));
        assert_eq!(store.block(user(1), user(other), at(2)).await, Ok(false));
    }
    assert_eq!(store.blocks(user(1), None, 2).await, Ok(vec![user(3), user(5)]));
    assert_eq!(store.blocks(user(1), Some(user(5)), 9).await, Ok(vec![user(7), user(9)]));
    assert_eq!(store.is_blocked(user(1), user(5)).await, Ok(true));
    assert_eq!(store.is_blocked(user(5), user(1)).await, Ok(true));
    assert_eq!(store.is_blocked(user(5), user(3)).await, Ok(false));
    // In both directions, each user once.
    store.block(user(5), user(1), at(3)).await.unwrap();
    store.block(user(2), user(1), at(3)).await.unwrap();
    assert_eq!(store.apart_from(user(1), 9).await, Ok([2, 3, 5, 7, 9].map(user).to_vec()));
    assert_eq!(store.apart_from(user(1), 2).await, Ok([2, 3].map(user).to_vec()));
    assert_eq!(store.apart_from(user(5), 9).await, Ok(vec![user(1)]));
    assert_eq!(store.apart_from(user(8), 9).await, Ok(Vec::new()));
    assert_eq!(store.who_block(user(1), &[9, 5, 3, 2].map(user)).await, Ok([5, 2].map(user).to_vec()));
    assert_eq!(store.unblock(user(5), user(1)).await, Ok(true));
    assert_eq!(store.unblock(user(5), user(1)).await, Ok(false));
    assert_eq!(store.unblock(user(1), user(5)).await, Ok(true));
    assert_eq!(store.unblock(user(1), user(5)).await, Ok(false));
    assert_eq!(store.is_blocked(user(1), user(5)).await, Ok(false));
}

pub(super) async fn a_key_is_claimed_once(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let claim = |id: u64| Claim { id, request_hash: [id as u8; 16], at: at(id) };
    let mut callers = JoinSet::new();
    for id in 1..=12 {
        let store = Arc::clone(&store);
        // A caller whose first attempt had an unknown outcome finds its own claim.
        callers.spawn(async move {
            match done(|| store.claim("channels", "key", claim(id))).await {
                Claimed::First => claim(id),
                Claimed::Before(first) => first,
            }
        });
    }
    let mut claims = callers.join_all().await;
    claims.dedup();
    assert_eq!(claims.len(), 1, "{claims:?}");
    assert_eq!(done(|| store.claim("channels", "key", claim(99))).await, Claimed::Before(claims[0]));
    let others = [("channels", "other"), ("users", "key")];
    for (scope, key) in others {
        let outcome = done(|| store.claim(scope, key, claim(50))).await;
        assert!(matches!(outcome, Claimed::First | Claimed::Before(Claim { id: 50, .. })));
    }
}
