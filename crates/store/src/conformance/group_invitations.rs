//! Invitations to groups, acceptance of groups, and the right to invite.

use std::sync::Arc;

use madang_proto::{Audience, ChannelCard, ChannelKind, Role};

use super::Subject;
use super::build::*;
use super::channels::membership;
use super::contacts::befriend;
use crate::accounts::User;
use crate::channels::{Channel, Member, Membership, SeatChange, SeatOutcome};
use crate::contacts::Relation;
use crate::group_invitations::{Ending, GroupInvitation, GroupInvitationLimits, GroupInvitationState};
use crate::log::ChannelState;
use crate::{Spans, Store};

const LIMITS: GroupInvitationLimits = GroupInvitationLimits { waiting: 3, by_one: 2, declined: 2 };
const ALL: usize = 99;

/// A group with `members`, each with whether they have accepted. The first one is the owner.
async fn group(store: &Arc<dyn Store>, id: u64, members: &[(u64, bool)]) {
    let card = ChannelCard::new(channel(id), ChannelKind::Group, Some(format!("Tea {id}")), None);
    store.create_channel(&Channel::new(card, user(1), at(1), 500)).await.unwrap();
    put(store, id, members, &Spans::since(seq(1))).await;
}

async fn put(store: &Arc<dyn Store>, id: u64, members: &[(u64, bool)], spans: &Spans) {
    let seats = store.seats(channel(id)).await.unwrap();
    let rows: Vec<Member> = members
        .iter()
        .enumerate()
        .map(|(index, &(who, has_accepted))| Member {
            user_id: user(who),
            role: if index == 0 { Role::Owner } else { Role::Member },
            joined_at: at(1),
            spans: spans.clone(),
            has_accepted,
            muted: None,
            banned: None,
            pending: None,
        })
        .collect();
    let memberships: Vec<Membership> = rows
        .iter()
        .map(|row| Membership {
            has_accepted: row.has_accepted,
            role: row.role,
            ..membership(row.user_id.raw(), id, spans)
        })
        .collect();
    let count = members.len() as u32;
    let change = SeatChange { channel: channel(id), if_rev: seats.rev, count, members: rows };
    let outcome = store.change_seats(change, &memberships).await;
    assert!(matches!(outcome, Ok(SeatOutcome::Changed(_))), "{outcome:?}");
}

async fn invite(store: &Arc<dyn Store>, to: u64, by: u64, who: u64, when: u64) -> Vec<GroupInvitation> {
    store.invite(channel(to), user(by), &[user(who)], at(when), LIMITS).await.unwrap()
}

async fn open(store: &Arc<dyn Store>, who: u64) -> Vec<u64> {
    let found = store.open_invitations(user(who), None, ALL).await.unwrap();
    found.iter().map(|open| open.invitation.channel_id.raw()).collect()
}

async fn settle(store: &Arc<dyn Store>) {
    for untold in store.due_invitations(ALL).await.unwrap() {
        let settled = store.settle_invitation(untold.user_id, untold.channel_id, untold.rev).await;
        assert_eq!(settled, Ok(true));
    }
}

pub(super) async fn a_member_who_has_not_accepted_is_in_no_circle(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    group(&store, 1, &[(1, true), (2, true), (3, false)]).await;
    assert_eq!(store.circle(user(1), 100, ALL).await, Ok(vec![user(2)]));
    assert_eq!(
        store.circle(user(3), 100, ALL).await,
        Ok(Vec::new()),
        "and does not watch other members either"
    );
    let others = [user(1), user(2), user(3)];
    assert_eq!(store.acquainted(user(1), &others[1..]).await, Ok(vec![user(2)]));
    assert_eq!(store.acquainted(user(3), &others[..2]).await, Ok(Vec::new()));
    store.accept_stay(user(3), channel(1)).await.unwrap();
    drop(store);
    let store = subject.open().await;
    assert_eq!(store.circle(user(3), 100, ALL).await.unwrap().len(), 2);
    assert_eq!(store.acquainted(user(1), &others[1..]).await, Ok(others[1..].to_vec()));
}

pub(super) async fn acceptance_lasts_for_the_stay(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    group(&store, 1, &[(1, true), (2, false)]).await;
    store.accept_stay(user(9), channel(1)).await.unwrap();
    assert_eq!(
        store.membership(user(9), channel(1)).await,
        Ok(None),
        "a user who is not a member cannot accept"
    );
    store.accept_stay(user(2), channel(1)).await.unwrap();
    let accepted = || async {
        let member = store.members_of(channel(1), &[user(2)]).await.unwrap().remove(0).unwrap();
        let row = store.membership(user(2), channel(1)).await.unwrap().unwrap();
        assert_eq!(member.has_accepted, row.has_accepted);
        row.has_accepted
    };
    let mut spans = Spans::since(seq(1));
    // A writer that does not know about the acceptance, such as a home that changes a role.
    put(&store, 1, &[(1, true), (2, false)], &spans).await;
    assert!(accepted().await);
    spans.close(seq(4));
    put(&store, 1, &[(1, true), (2, false)], &spans).await;
    spans.open(seq(9));
    put(&store, 1, &[(1, true), (2, false)], &spans).await;
    assert!(!accepted().await, "a new stay must be accepted again");
}

pub(super) async fn a_relation_is_a_contact_or_a_group_that_both_accepted(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    befriend(&store, 1, 2).await;
    group(&store, 1, &[(1, true), (3, true), (4, false)]).await;
    group(&store, 2, &[(5, true), (1, false)]).await;
    group(&store, 3, &[(1, true), (7, true)]).await;
    store.block(user(1), user(6), at(1)).await.unwrap();
    store.block(user(7), user(1), at(1)).await.unwrap();
    let others: Vec<_> = (2..=8).map(user).collect();
    let found = store.relations(user(1), &others, 20).await.unwrap();
    let none = Relation::default();
    let shares = Relation { shares_group: true, ..none };
    let expected = [
        Relation { is_contact: true, ..none },
        shares,
        none,
        none,
        Relation { is_blocked: true, ..none },
        Relation { blocks: true, ..shares },
        none,
    ];
    assert_eq!(found.of, expected);
    // The latest group is examined first, and groups beyond the limit are not examined.
    let found = store.relations(user(1), &[user(3), user(7)], 2).await.unwrap();
    assert_eq!(found.looked_at, 2);
    assert_eq!(found.of.iter().map(|it| it.shares_group).collect::<Vec<_>>(), [false, true]);
    let nothing = store.relations(user(1), &[user(3)], 0).await.unwrap();
    assert_eq!((nothing.of, nothing.looked_at), (vec![none], 0));
}

pub(super) async fn audiences_are_kept(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    let ada = User::new(user(1), "ada".into(), "Ada".into(), at(1));
    store.create_user(&ada, "hash", None).await.unwrap();
    let audiences = || async {
        let found = store.users(&[user(1)]).await.unwrap().remove(0).unwrap();
        (found.may_add, found.may_write)
    };
    assert_eq!(audiences().await, (None, None));
    store.set_audiences(user(1), Some(Audience::Contacts), None).await.unwrap();
    assert_eq!(audiences().await, (Some(Audience::Contacts), None));
    store.set_audiences(user(1), None, Some(Audience::SharedChannel)).await.unwrap();
    store.set_audiences(user(1), Some(Audience::Everybody), None).await.unwrap();
    assert_eq!(audiences().await, (Some(Audience::Everybody), Some(Audience::SharedChannel)));
}

pub(super) async fn an_invitation_waits_once(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    group(&store, 1, &[(1, true), (8, true)]).await;
    let first = invite(&store, 1, 1, 5, 10).await;
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].rev, first[0].state), (1, GroupInvitationState::Waiting));
    assert_eq!(invite(&store, 1, 1, 5, 11).await, first, "a repeated call returns the unsettled invitation");
    settle(&store).await;
    assert_eq!(invite(&store, 1, 1, 5, 12).await, []);
    assert_eq!(invite(&store, 1, 8, 5, 12).await, [], "a second inviter does not repeat it");
    drop(store);
    let store = subject.open().await;
    let found = store.open_invitations(user(5), None, ALL).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].name.as_str(), found[0].members), ("Tea 1", 2));
    assert_eq!(found[0].invitation, GroupInvitation { is_recorded: true, ..first[0] });
    assert_eq!(store.open_invitations(user(5), Some(channel(1)), ALL).await, Ok(Vec::new()));
    assert_eq!(store.membership(user(5), channel(1)).await, Ok(None));
    put(&store, 1, &[(1, true), (8, true), (5, true)], &Spans::since(seq(1))).await;
    assert_eq!(
        store.group_invitation(user(5), channel(1)).await,
        Ok(None),
        "it is removed when the user joins"
    );
}

pub(super) async fn a_declined_invitation_is_not_repeated(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for id in 1..=4 {
        group(&store, id, &[(1, true), (2, true)]).await;
    }
    assert_eq!(store.decline_invitation(user(5), channel(1), 2).await, Ok(None));
    for id in 1..=3 {
        invite(&store, id, 1, 5, id).await;
        settle(&store).await;
        let declined = store.decline_invitation(user(5), channel(id), LIMITS.declined).await.unwrap();
        assert_eq!(declined.map(|it| it.state), Some(GroupInvitationState::Declined));
        settle(&store).await;
        assert_eq!(store.decline_invitation(user(5), channel(id), LIMITS.declined).await, Ok(None));
    }
    assert_eq!(open(&store, 5).await, [0; 0]);
    assert_eq!(invite(&store, 3, 1, 5, 20).await, []);
    assert_eq!(store.due_invitations(ALL).await, Ok(Vec::new()), "no notification is due");
    assert_eq!(invite(&store, 1, 1, 5, 20).await.len(), 1, "the oldest was forgotten");
    assert_eq!(invite(&store, 3, 2, 5, 21).await.len(), 1, "another user may invite");
}

pub(super) async fn a_blocked_inviter_leaves_no_trace(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for id in 1..=2 {
        group(&store, id, &[(2, true), (1, true)]).await;
    }
    store.block(user(5), user(1), at(1)).await.unwrap();
    store.block(user(1), user(6), at(1)).await.unwrap();
    assert_eq!(invite(&store, 1, 1, 5, 2).await, []);
    assert_eq!(invite(&store, 1, 1, 6, 2).await, []);
    assert_eq!((open(&store, 5).await, open(&store, 6).await), (vec![], vec![]));
    assert_eq!(store.due_invitations(ALL).await, Ok(Vec::new()));
    invite(&store, 1, 2, 5, 3).await;
    assert_eq!(open(&store, 5).await, [1]);
    assert_eq!(invite(&store, 1, 1, 5, 4).await.len(), 1, "the invitation of the other inviter is unchanged");
    let found = store.group_invitation(user(5), channel(1)).await.unwrap();
    assert_eq!(found.map(|it| it.by), Some(user(2)));
}

pub(super) async fn a_blocked_inviter_displaces_no_declines_of_others(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    group(&store, 1, &[(1, true)]).await;
    invite(&store, 1, 1, 5, 1).await;
    settle(&store).await;
    store.decline_invitation(user(5), channel(1), LIMITS.declined).await.unwrap();
    settle(&store).await;
    store.block(user(5), user(2), at(1)).await.unwrap();
    for id in 2..=101 {
        group(&store, id, &[(2, true)]).await;
        assert_eq!(invite(&store, id, 2, 5, id).await, []);
    }
    assert_eq!(invite(&store, 1, 1, 5, 200).await, [], "the decline is remembered");
    let mut silent = Vec::new();
    for id in 2..=101 {
        silent.extend(store.group_invitation(user(5), channel(id)).await.unwrap());
    }
    let silent: Vec<u64> = silent.iter().map(|it| it.channel_id.raw()).collect();
    assert_eq!(silent, [101], "only the latest decline of the other inviter is kept");
}

pub(super) async fn the_oldest_invitation_makes_room(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for id in 1..=6 {
        let owner = if id == 1 { 2 } else { 1 };
        group(&store, id, &[(owner, true)]).await;
    }
    // Invitations of one inviter evict each other, even if there is room for more.
    invite(&store, 1, 2, 5, 1).await;
    for id in 2..=4 {
        invite(&store, id, 1, 5, id).await;
    }
    assert_eq!(open(&store, 5).await, [1, 3, 4]);
    let ended = store.group_invitation(user(5), channel(2)).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.is_recorded), (GroupInvitationState::Ended, false));
    settle(&store).await;
    assert_eq!(store.group_invitation(user(5), channel(2)).await, Ok(None));
    // The limit for all inviters is reached, and another user invites.
    let changed = invite(&store, 5, 9, 5, 5).await;
    let changed: Vec<_> = changed.iter().map(|it| (it.channel_id.raw(), it.state)).collect();
    assert_eq!(changed, [(1, GroupInvitationState::Ended), (5, GroupInvitationState::Waiting)]);
}

pub(super) async fn invitations_hold_while_their_inviter_may_add(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for id in 1..=4 {
        group(&store, id, &[(1, true), (2, true)]).await;
    }
    invite(&store, 1, 1, 5, 1).await;
    invite(&store, 2, 2, 5, 1).await;
    invite(&store, 3, 1, 5, 1).await;
    assert_eq!(
        open(&store, 5).await,
        [1, 3],
        "the invitation of a member without the right to add is hidden"
    );
    let mut spans = Spans::since(seq(1));
    spans.close(seq(3));
    put(&store, 1, &[(1, true)], &spans).await;
    assert_eq!(open(&store, 5).await, [3], "the inviter has left");
    put(&store, 3, &[(1, true), (2, true), (5, false)], &Spans::since(seq(1))).await;
    assert_eq!(open(&store, 5).await, [0; 0], "the user is a member");
    let mut card = ChannelCard::new(channel(7), ChannelKind::Group, Some("Old".into()), None);
    card.topic = "gone".into();
    let archived = Channel { state: ChannelState::Archived, ..Channel::new(card, user(1), at(1), 9) };
    store.create_channel(&archived).await.unwrap();
    put(&store, 7, &[(1, true)], &Spans::since(seq(1))).await;
    invite(&store, 7, 1, 5, 1).await;
    assert_eq!(open(&store, 5).await, [0; 0], "an archived group cannot be joined");
}

pub(super) async fn invitations_end_together(subject: Arc<dyn Subject>) {
    let store = subject.open().await;
    for id in 1..=4 {
        group(&store, id, &[(1, true), (2, true)]).await;
    }
    let refill = || async {
        for who in [5, 6] {
            store.forget_group_invitations(user(who)).await.unwrap();
        }
        for (to, by, who) in [(1, 1, 5), (2, 2, 5), (1, 1, 6), (3, 1, 6)] {
            invite(&store, to, by, who, 1).await;
        }
        settle(&store).await;
    };
    let ways = [
        (Ending::One(user(5), channel(1)), vec![(5, 1)]),
        (Ending::Between { user: user(6), by: user(1) }, vec![(6, 1), (6, 3)]),
        (Ending::By(user(1)), vec![(5, 1), (6, 1), (6, 3)]),
        (Ending::To(channel(1)), vec![(5, 1), (6, 1)]),
        (Ending::By(user(9)), vec![]),
    ];
    for (which, expected) in ways {
        refill().await;
        let mut ended = Vec::new();
        loop {
            let some = store.end_invitations(which, 2).await.unwrap();
            if some.is_empty() {
                break;
            }
            assert!(some.len() <= 2);
            ended.extend(some.iter().map(|it| (it.user_id.raw(), it.channel_id.raw())));
        }
        ended.sort_unstable();
        assert_eq!(ended, expected, "{which:?}");
        assert_eq!(store.due_invitations(ALL).await.unwrap().len(), expected.len());
        settle(&store).await;
    }
    refill().await;
    store.forget_group_invitations(user(6)).await.unwrap();
    assert_eq!(store.end_invitations(Ending::To(channel(3)), ALL).await, Ok(Vec::new()));
}

pub(super) async fn a_change_of_an_invitation_is_settled_unless_there_was_a_later_one(
    subject: Arc<dyn Subject>,
) {
    let store = subject.open().await;
    group(&store, 1, &[(1, true)]).await;
    let first = invite(&store, 1, 1, 5, 1).await.remove(0);
    let ended = store.end_invitations(Ending::To(channel(1)), 1).await.unwrap().remove(0);
    assert!(ended.rev > first.rev);
    assert_eq!(store.settle_invitation(user(5), channel(1), first.rev).await, Ok(false));
    assert_eq!(store.due_invitations(ALL).await, Ok(vec![ended]));
    let again = invite(&store, 1, 1, 5, 2).await.remove(0);
    assert!(again.rev > ended.rev, "a new invitation is a later change");
    assert_eq!(store.settle_invitation(user(5), channel(1), ended.rev).await, Ok(false));
    assert_eq!(store.settle_invitation(user(5), channel(1), again.rev).await, Ok(true));
    assert_eq!(store.settle_invitation(user(5), channel(2), 1).await, Ok(false));
    assert_eq!(open(&store, 5).await, [1]);
}
