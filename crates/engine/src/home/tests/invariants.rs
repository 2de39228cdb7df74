//! The invariants of every run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use madang_ids::{ClientMsgId, Ordinal, Origin, Seq, UserId};
use madang_proto::{Content, ErrorCode, Role};

use super::stage::{Asked, Stage};
use super::world::World;
use crate::home::gate::SHUT;
use crate::home::{Command, Reply, Ticket};
use crate::log::Row;
use crate::seats::Member;
use crate::spans::Spans;

/// All invariants of logs and answers.
pub(super) fn check(stage: &Stage) {
    places_are_dense(&stage.world);
    a_key_has_one_row(&stage.world);
    only_members_speak(&stage.world);
    changes_have_entries(stage);
    seats_are_never_too_few(&stage.world);
    own_changes_tell_of_nobody_else(stage);
    answers_are_true(stage);
    connections_keep_their_order(stage);
}

/// The invariants at rest: every home is idle, and one has loaded since the last fault.
pub(super) fn check_at_rest(stage: &Stage) {
    check(stage);
    assert!(stage.drivers.iter().all(|driver| driver.home.is_idle()), "a home has work and does none");
    for (ticket, asked) in &stage.asked {
        let is_alive = stage.drivers[asked.home].life == asked.life;
        assert!(asked.answer.is_some() || !is_alive, "{ticket:?} was never answered: {asked:?}");
    }
    let half_way: Vec<_> = stage.world.members.values().filter(|member| member.pending.is_some()).collect();
    assert!(half_way.is_empty(), "members are half-way: {half_way:?}");
    let told = spans_by_the_log(&stage.world);
    for (user, member) in &stage.world.members {
        let told = told.get(user).map(|spans| as_founder(spans, member, &stage.world));
        assert_eq!(
            told.as_ref(),
            Some(&member.spans),
            "the spans of {user} by the log, and by the member's row"
        );
    }
    let open = stage.world.members.values().filter(|member| member.spans.is_open()).count();
    assert_eq!(open, stage.world.seats.count as usize);
    rows_are_as_their_sets(&stage.world);
}

/// After an acknowledged change of a message, the row has at least that version and the entry is in the log; no other row has one.
fn changes_have_entries(stage: &Stage) {
    let world = &stage.world;
    for (ticket, asked) in &stage.asked {
        let Some((_, Reply::Changed { target, version, seq, .. })) = &asked.answer else { continue };
        let Some(message) = world.row(*target).entry.content.message() else {
            panic!("{ticket:?} changed an entry that is no message")
        };
        assert!(message.version >= *version, "{ticket:?} was acknowledged with a version that is not there");
        if let Some(seq) = seq {
            let told = world.row(*seq).entry.content.change().map(|change| (change.target, change.version));
            assert!(
                told.is_some_and(|(told, at)| told == *target && at <= *version),
                "{ticket:?}: the entry at {seq} is about {told:?}"
            );
        }
    }
    for row in &world.rows {
        let Some(change) = row.entry.content.change() else { continue };
        assert!(!row.entry.content.is_carrying(), "a change is kept with its message");
        let target = world.row(change.target).entry.content.message();
        let version = target.map_or(0, |message| message.version);
        assert!(change.target < row.entry.seq && change.version <= version, "{change:?} tells what is not");
    }
}

/// At rest each message has the reactions of its set, unless it was deleted.
fn rows_are_as_their_sets(world: &World) {
    for row in &world.rows {
        let Some(message) = row.entry.content.message() else { continue };
        if message.deleted.is_some() {
            assert!(message.reactions.is_empty() && message.body.text.is_empty());
            continue;
        }
        let seq = row.entry.seq;
        if world.behind.contains(&seq) {
            continue;
        }
        assert_eq!(message.reactions, world.reactions_to(row.entry.seq), "reactions to {}", row.entry.seq);
        // Readers learn of a change by its entry. An edit whose entry is missing waits for the retry of its sender.
        let is_of_reactions = message.edited.is_none_or(|mark| mark.version < message.version);
        let is_it = |row: &Row| {
            row.entry.content.change().is_some_and(|it| (it.target, it.version) == (seq, message.version))
        };
        assert!(
            message.version == 1 || !is_of_reactions || world.rows.iter().any(is_it),
            "no entry tells version {} of {seq}",
            message.version
        );
    }
}

fn places_are_dense(world: &World) {
    let mut ordinal = Ordinal::ZERO;
    let mut last_id = None;
    for (row, place) in world.rows.iter().zip(1..) {
        assert_eq!(row.entry.seq, Seq::new(place));
        if let Some(message) = row.entry.content.message() {
            ordinal = ordinal.next();
            assert_eq!(message.ordinal, ordinal);
            assert!(last_id < Some(message.message_id), "ids rise with seq");
            last_id = Some(message.message_id);
        }
        assert_eq!(row.ordinal, ordinal);
    }
    assert!(world.rows.is_sorted_by(|one, next| one.entry.at <= next.entry.at), "time rises with seq");
    assert_eq!((world.head.seq.get(), world.head.ordinal), (world.rows.len() as u64, ordinal));
}

fn a_key_has_one_row(world: &World) {
    let mut seen = HashSet::new();
    for key in world.rows.iter().filter_map(|row| row.key) {
        assert!(seen.insert((key.sender, key.client_msg_id)), "{key:?} has two rows");
    }
}

fn only_members_speak(world: &World) {
    let (mut members, mut muted) = (HashSet::new(), HashSet::new());
    for row in &world.rows {
        match &row.entry.content {
            Content::Joined { user_id, .. } => {
                if members.is_empty() {
                    muted.remove(user_id);
                }
                members.insert(*user_id);
            }
            Content::Left { user_id, .. } | Content::Banned { user_id, .. } => {
                members.remove(user_id);
            }
            // No owner is muted.
            Content::RoleChanged { user_id, role: Role::Owner, .. } => drop(muted.remove(user_id)),
            Content::Muted { user_id, .. } => drop(muted.insert(*user_id)),
            Content::Unmuted { user_id, .. } => drop(muted.remove(user_id)),
            Content::Message(message) => {
                assert!(members.contains(&message.sender_id), "no member speaks at {}", row.entry.seq);
                assert!(!muted.contains(&message.sender_id), "somebody muted speaks at {}", row.entry.seq);
            }
            _ => {}
        }
    }
}

/// In the order of the log there are never more members than seats (G10).
fn seats_are_never_too_few(world: &World) {
    let mut members = HashSet::new();
    for row in &world.rows {
        match &row.entry.content {
            Content::Joined { user_id, .. } => drop(members.insert(*user_id)),
            Content::Left { user_id, .. } | Content::Banned { user_id, .. } => {
                members.remove(user_id);
            }
            _ => {}
        }
        assert!(members.len() <= world.capacity as usize, "too many at {}", row.entry.seq);
    }
}

fn own_changes_tell_of_nobody_else(stage: &Stage) {
    for asked in stage.asked.values() {
        let Command::Seats(request) = &asked.command else { continue };
        if let (Some(user), Some((_, Reply::Seated { members }))) = (request.own_change(), &asked.answer) {
            assert!(members.iter().all(|member| member.user_id == user), "{asked:?}");
        }
    }
}

/// Founders read the log from its beginning, whichever append has their entries. A user who was added right behind them cannot be
/// distinguished by the log.
fn as_founder(told: &Spans, member: &Member, world: &World) -> Spans {
    let first = |spans: &Spans| spans.iter().next().map_or(Seq::ZERO, |span| span.from);
    let came = first(told);
    let begins = |row: &Row| matches!(row.entry.content, Content::Created { .. } | Content::Joined { .. });
    let may_found = world.rows.iter().take_while(|row| row.entry.seq < came).all(begins);
    if !may_found || first(&member.spans) != Seq::new(1) {
        return told.clone();
    }
    let mut spans = Spans::default();
    for span in told.iter() {
        spans.open(if span.from == came { Seq::new(1) } else { span.from });
        span.until.into_iter().for_each(|until| spans.close(until));
    }
    spans
}

fn spans_by_the_log(world: &World) -> BTreeMap<UserId, Spans> {
    let mut spans = BTreeMap::<UserId, Spans>::new();
    for appended in world.rows.chunk_by(|one, next| one.entry.at == next.entry.at) {
        for row in appended {
            match row.entry.content {
                Content::Joined { user_id, .. } => {
                    spans.entry(user_id).or_default().open(appended[0].entry.seq);
                }
                Content::Left { user_id, .. } | Content::Banned { user_id, .. } => {
                    spans.entry(user_id).or_default().close(row.entry.seq);
                }
                _ => {}
            }
        }
    }
    spans
}

fn answers_are_true(stage: &Stage) {
    let world = &stage.world;
    let by_key: HashMap<(UserId, ClientMsgId), usize> = world
        .rows
        .iter()
        .enumerate()
        .filter_map(|(index, row)| row.key.map(|key| ((key.sender, key.client_msg_id), index)))
        .collect();
    for (ticket, asked) in &stage.asked {
        let Some(key) = asked.command.key() else { continue };
        let found = by_key.get(&(key.sender, key.client_msg_id)).map(|&index| &world.rows[index]);
        match asked.answer.as_ref().map(|(_, reply)| reply) {
            Some(Reply::Sent(sent)) => {
                let row = world.row(sent.seq);
                assert_eq!(row.key, Some(key), "{ticket:?} was acked with another's place");
                let id = row.entry.content.message().map(|message| message.message_id);
                assert_eq!((id, row.entry.at), (Some(sent.message_id), sent.at));
            }
            Some(Reply::Refused(error)) if error.code == ErrorCode::Conflict => {
                let other = found.and_then(|row| row.key).map(|key| key.body_hash);
                assert!(other.is_some_and(|hash| hash != key.body_hash), "{ticket:?} is no conflict");
            }
            _ => {}
        }
    }
}

/// Sends of one connection are appended in the order of their arrival; and while one that may be retried fails,
/// those that came behind it fail too, and those that come in the next two seconds, unless it comes again.
fn connections_keep_their_order(stage: &Stage) {
    let mut tries = HashMap::new();
    for key in stage.asked.values().filter_map(|asked| asked.command.key()) {
        *tries.entry((key.sender, key.client_msg_id)).or_insert(0) += 1;
    }
    let is_first =
        |asked: &Asked| asked.command.key().is_some_and(|key| tries[&(key.sender, key.client_msg_id)] == 1);
    let mut by_origin = BTreeMap::<(usize, u32, Origin), Vec<(&Ticket, &Asked)>>::new();
    for (ticket, asked) in &stage.asked {
        if let Command::Send { origin: Some(origin), .. } = asked.command {
            by_origin.entry((asked.home, asked.life, origin)).or_default().push((ticket, asked));
        }
    }
    for sends in by_origin.values() {
        let mut last = Seq::ZERO;
        let mut failed_at = 0;
        let mut failed = Vec::new();
        for (ticket, asked) in sends {
            if asked.is_turned_away {
                let is_cause =
                    |at: &Duration| asked.came_at.checked_sub(*at).is_some_and(|since| since < SHUT);
                assert!(
                    failed.iter().any(is_cause),
                    "{ticket:?} was turned away though nothing before it failed"
                );
                continue;
            }
            match &asked.answer {
                Some((_, Reply::Sent(sent))) if !sent.by_retry || is_first(asked) => {
                    assert!(sent.seq > last, "{ticket:?} was appended before what came first");
                    assert!(asked.came > failed_at, "{ticket:?} was appended though one before it failed");
                    last = sent.seq;
                }
                Some((at, Reply::Refused(error))) if error.retryable => {
                    failed_at = failed_at.max(*at);
                    failed.extend(asked.answered_at);
                }
                _ => {}
            }
        }
    }
}
