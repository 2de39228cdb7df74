//! The home's protocol, line by line: effects, outcomes and replies.

use std::time::Duration;

use madang_ids::{LogId, UserId};
use madang_proto::{ChannelKind, Content};

use super::invariants::check_at_rest;
use super::stage::{Stage, delete, detail, edit, react, reply_text, restrict, seats, send, user};
use super::world::{Fate, Kind, Out, World};
use crate::home::{Command, DetailChange, MessageChange, QUEUE_BYTES, QUEUE_COMMANDS, Reply, Scope, Ticket};

pub(super) const ANNA: u64 = 1;
pub(super) const BERT: u64 = 2;
pub(super) const CARL: u64 = 3;
pub(super) const DORA: u64 = 4;

pub(super) fn script(stage: &mut Stage, kind: Kind, fate: Fate) {
    stage.world.scripted.push_back((kind, fate));
}

pub(super) fn text(stage: &Stage, ticket: Ticket) -> String {
    stage.answer(ticket).map(reply_text).unwrap_or_default()
}

#[test]
fn a_group_is_made_and_speaks() {
    let mut stage = Stage::empty(1, 10, 1);
    stage.create(&[ANNA, BERT]);
    stage.expect(
        "
        0 load
        0 head 0, 0 seats taken, 0 half-way
        0 change seats to 2 if rev 0
        0 changed
        0 append 1–3 (created, 1 joined, 2 joined)
        0 appended
        0 fans out 1–3 (created, 1 joined, 2 joined)
        0 settle 1 2
        0 ok
        0 answers 1: seated [1 2]
        ",
    );
    stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.run();
    stage.expect(
        "
        0 append 4 (hello)
        0 appended
        0 answers 2: sent 4
        0 fans out 4 (hello)
        ",
    );
}

#[test]
fn what_comes_during_an_append_is_the_next_batch() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    stage.ask(0, send(None, ANNA, 1, "one"));
    stage.step(0);
    stage.ask(0, send(None, ANNA, 2, "two"));
    stage.ask(0, send(None, BERT, 3, "three"));
    stage.run();
    stage.expect(
        "
        0 append 4 (one)
        0 appended
        0 answers 2: sent 4
        0 fans out 4 (one)
        0 append 5–6 (two, three)
        0 appended
        0 answers 3: sent 5
        0 answers 4: sent 6
        0 fans out 5–6 (two, three)
        ",
    );
}

#[test]
fn a_retry_has_the_first_ack_and_another_body_is_a_conflict() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    for (sender, words) in [(ANNA, "hello"), (ANNA, "hello"), (ANNA, "bye"), (BERT, "hello")] {
        stage.ask(0, send(None, sender, 1, words));
        stage.run();
    }
    stage.expect(
        "
        0 append 4 (hello)
        0 appended
        0 answers 2: sent 4
        0 fans out 4 (hello)
        0 answers 3: sent 4 before
        0 redrives 4
        0 answers 4: conflict
        0 append 5 (hello)
        0 appended
        0 answers 5: sent 5
        0 fans out 5 (hello)
        ",
    );
}

#[test]
fn one_key_twice_in_a_batch_is_one_row() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.ask(0, send(None, BERT, 1, "hi"));
    stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.ask(0, send(None, ANNA, 1, "bye"));
    stage.run();
    stage.expect(
        "
        0 append 4–5 (hello, hi)
        0 appended
        0 answers 2: sent 4
        0 answers 4: sent 4 before
        0 answers 5: conflict
        0 answers 3: sent 5
        0 fans out 4–5 (hello, hi)
        ",
    );
}

#[test]
fn a_conflict_is_answered_only_once_the_first_is_durable() {
    let mut stage = Stage::group(1, 10, &[ANNA]);
    script(&mut stage, Kind::Append, Fate::Unavailable);
    stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.ask(0, send(None, ANNA, 1, "bye"));
    stage.run();
    stage.expect(
        "
        0 append 3 (hello)
        0 unavailable
        0 answers 2: unavailable
        0 answers 3: unavailable
        ",
    );
}

#[test]
fn a_seats_command_between_sends_splits_the_batch() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    stage.ask(0, send(None, BERT, 1, "before"));
    stage.ask(0, seats(ANNA, &[], &[BERT]));
    stage.ask(0, send(None, BERT, 2, "after"));
    stage.ask(0, send(None, ANNA, 3, "alone"));
    stage.run();
    stage.expect(
        "
        0 append 4 (before)
        0 appended
        0 answers 2: sent 4
        0 fans out 4 (before)
        0 change seats to 1 if rev 1
        0 changed
        0 append 5 (2 left)
        0 appended
        0 fans out 5 (2 left)
        0 settle 2
        0 ok
        0 answers 3: seated [2]
        0 find 2
        0 ok
        0 append 6 (alone)
        0 appended
        0 answers 4: forbidden
        0 answers 5: sent 6
        0 fans out 6 (alone)
        ",
    );
    check_at_rest(&stage);
}

#[test]
fn a_writer_that_paused_checks_again() {
    let mut stage = Stage::group(2, 10, &[ANNA, BERT]);
    stage.ask(0, send(None, BERT, 1, "late"));
    stage.step(0);
    stage.expect("0 append 4 (late)");
    let (ticket, other) = (Ticket(2), stage.ask(1, seats(ANNA, &[], &[BERT])));
    while stage.step(1) {}
    assert_eq!(text(&stage, other), "seated [2]");
    stage.lines.clear();
    stage.run();
    stage.expect(
        "
        0 moved
        0 load
        0 head 4, 1 seats taken, 0 half-way
        0 answers 2: forbidden
        ",
    );
    assert_eq!(text(&stage, ticket), "forbidden");
    check_at_rest(&stage);
}

#[test]
fn an_unknown_append_that_happened_is_acked() {
    let mut stage = Stage::group(1, 10, &[ANNA]);
    script(&mut stage, Kind::Append, Fate::UnknownDone);
    stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.run();
    stage.expect(
        "
        0 append 3 (hello)
        0 unknown
        0 load
        0 head 3, 1 seats taken, 0 half-way
        0 redrives 1–3
        0 answers 2: sent 3 before
        0 redrives 3
        ",
    );
}

#[test]
fn an_unknown_append_that_did_not_happen_is_made_again() {
    let mut stage = Stage::group(1, 10, &[ANNA]);
    script(&mut stage, Kind::Append, Fate::UnknownLost);
    stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.run();
    stage.expect(
        "
        0 append 3 (hello)
        0 unknown
        0 load
        0 head 2, 1 seats taken, 0 half-way
        0 redrives 1–2
        0 append 3 (hello)
        0 appended
        0 answers 2: sent 3
        0 fans out 3 (hello)
        ",
    );
}

#[test]
fn an_outcome_that_stays_unknown_is_refused_in_the_end() {
    let mut stage = Stage::group(1, 10, &[ANNA]);
    (0..4).for_each(|_| script(&mut stage, Kind::Append, Fate::UnknownLost));
    let ticket = stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.run();
    assert_eq!(text(&stage, ticket), "unavailable");
    let again = stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.run();
    assert_eq!(text(&stage, again), "sent 3");
}

#[test]
fn a_store_that_cannot_be_read_refuses_everything_that_waits() {
    let mut stage = Stage::empty(1, 10, 1);
    for _ in 0..3 {
        script(&mut stage, Kind::Load, Fate::Unavailable);
        let one = stage.ask(0, send(Some(1), ANNA, 1, "hello"));
        let other = stage.ask(0, seats(ANNA, &[BERT], &[]));
        stage.run();
        assert_eq!((text(&stage, one), text(&stage, other)), ("unavailable".into(), "unavailable".into()));
    }
}

#[test]
fn a_full_queue_refuses() {
    let mut stage = Stage::group(1, 10, &[ANNA]);
    let first = stage.ask(0, send(None, ANNA, 0, "0"));
    for key in 1..=QUEUE_COMMANDS as u64 {
        stage.ask(0, send(None, ANNA, key, "more"));
    }
    stage.run();
    let answers: Vec<String> = stage.asked.keys().skip(1).map(|&ticket| text(&stage, ticket)).collect();
    assert_eq!(text(&stage, first), "sent 3");
    assert_eq!(answers.iter().filter(|answer| *answer == "unavailable").count(), 1);
    assert_eq!(answers.last().map(String::as_str), Some("unavailable"));
    check_at_rest(&stage);
}

#[test]
fn a_queue_full_of_bytes_refuses() {
    let mut stage = Stage::group(1, 10, &[ANNA]);
    let (long, fits) = ("x".repeat(100_000), QUEUE_BYTES as u64 / 101_000);
    let first = stage.ask(0, send(None, ANNA, 0, "0"));
    stage.step(0);
    let tickets: Vec<Ticket> = (1..=fits + 4).map(|key| stage.ask(0, send(None, ANNA, key, &long))).collect();
    stage.run();
    let answers: Vec<String> = tickets.iter().map(|&ticket| text(&stage, ticket)).collect();
    let (sent, refused) = answers.split_at(fits as usize);
    assert_eq!(text(&stage, first), "sent 3");
    assert!(sent.iter().all(|answer| answer.starts_with("sent")), "{answers:?}");
    assert_eq!(refused.last().map(String::as_str), Some("unavailable"), "{answers:?}");
    let again = stage.ask(0, send(None, ANNA, 999, &long));
    stage.run();
    assert!(text(&stage, again).starts_with("sent"), "there is room again");
}

#[test]
fn a_batch_is_cut_at_its_bytes_as_json() {
    let mut stage = Stage::group(1, 10, &[ANNA]);
    // The world checks the bytes of each append.
    let texts = ["x".repeat(300_000), "\u{1}".repeat(100_000), "\"".repeat(399_999), "\n\\".repeat(199_000)];
    for key in 0..16 {
        stage.ask(0, send(Some(1), ANNA, key, &texts[key as usize / 4]));
        if key % 8 == 7 {
            stage.run();
        }
    }
    assert!(stage.asked.keys().skip(1).all(|&ticket| text(&stage, ticket).starts_with("sent")));
}

#[test]
fn a_note_of_unknown_outcome_is_there_once() {
    let log = LogId::User(user(ANNA));
    for fate in [Fate::UnknownDone, Fate::UnknownLost] {
        let mut stage = Stage::over(log, Scope::User, 1, World::new(log, 0, 1));
        script(&mut stage, Kind::Append, fate);
        stage.ask(0, Command::Note { content: Content::Blocked { user_id: UserId::from_raw(9) } });
        stage.run();
        assert_eq!(stage.world.rows.len(), 1);
        assert!(matches!(stage.answer(Ticket(1)), Some(Reply::Noted { seq }) if seq.get() == 1));
        let is_recorded = |line: &String| line.contains("fans out 1") || line.contains("redrives 1");
        assert!(stage.lines.iter().any(is_recorded), "{:?}", stage.lines);
    }
}

#[test]
fn a_block_is_seen_although_a_lookup_was_out() {
    let log = LogId::Channel(madang_ids::ChannelId::from_raw(1));
    let scope = Scope::Channel { kind: ChannelKind::Direct, capacity: 2, created_by: user(ANNA) };
    let mut stage = Stage::over(log, scope, 1, World::new(log, 2, 1));
    stage.create(&[ANNA, BERT]);
    let ticket = stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.step(0);
    // The lookup has read the store, and is on its way back.
    let home = &mut stage.drivers[0];
    let outcome =
        stage.world.carry_out(home.out.take().expect("a lookup is out")).expect_err("it has one stage");
    stage.world.is_blocked = true;
    home.home.forget_members();
    outcome.hand_to(&mut home.home, stage.now);
    stage.run();
    assert_eq!(text(&stage, ticket), "forbidden");
}

#[test]
fn a_note_of_a_marker_that_was_overtaken_is_dropped() {
    let log = LogId::User(user(ANNA));
    let mut stage = Stage::over(log, Scope::User, 2, World::new(log, 0, 1));
    let read = |channel, seq| Command::Note {
        content: Content::Read {
            channel_id: madang_ids::ChannelId::from_raw(channel),
            seq: madang_ids::Seq::new(seq),
            ordinal: madang_ids::Ordinal::new(seq),
            left: None,
        },
    };
    // In one batch, in another one, and by another home: the last note of a channel says the most.
    let first = [(7, 5), (7, 4), (8, 1), (7, 6)].map(|(channel, seq)| stage.ask(0, read(channel, seq)));
    stage.run();
    let later = [(7, 5), (7, 6), (8, 2)].map(|(channel, seq)| stage.ask(0, read(channel, seq)));
    stage.run();
    let elsewhere = [stage.ask(1, read(7, 6)), stage.ask(1, read(8, 1))];
    stage.run();
    let notes = stage.world.rows.iter().filter_map(|row| match row.entry.content {
        Content::Read { channel_id, seq, .. } => Some((channel_id.raw(), seq.get())),
        _ => None,
    });
    assert_eq!(notes.collect::<Vec<_>>(), [(7, 5), (8, 1), (7, 6), (8, 2)]);
    let texts = |tickets: &[Ticket]| tickets.iter().map(|&ticket| text(&stage, ticket)).collect::<Vec<_>>();
    assert_eq!(texts(&first), ["noted 1", "noted 1", "noted 2", "noted 3"]);
    assert_eq!(texts(&later), ["noted 3", "noted 3", "noted 4"]);
    assert_eq!(texts(&elsewhere), ["noted 3", "noted 4"]);
}

#[test]
fn a_note_that_the_log_has_is_not_written_again() {
    let log = LogId::User(user(ANNA));
    let mut stage = Stage::over(log, Scope::User, 2, World::new(log, 0, 1));
    let mention = |seq, is_reply| Command::Note {
        content: Content::Mentioned {
            channel_id: madang_ids::ChannelId::from_raw(7),
            seq: madang_ids::Seq::new(seq),
            by: user(BERT),
            is_reply,
        },
    };
    // In one batch, in another one, and by another home, as after a crash between the note and the end of what caused it.
    let tickets = [mention(5, false), mention(5, true), mention(6, false)].map(|note| stage.ask(0, note));
    stage.run();
    let later = stage.ask(0, mention(5, false));
    let elsewhere = stage.ask(1, mention(6, false));
    stage.run();
    let texts = |tickets: &[Ticket]| tickets.iter().map(|&ticket| text(&stage, ticket)).collect::<Vec<_>>();
    assert_eq!(texts(&tickets), ["noted 1", "noted 1", "noted 2"]);
    assert_eq!(texts(&[later, elsewhere]), ["noted 1", "noted 2"]);
    // A block may come again: its last note is the valid one.
    let block = || Command::Note { content: Content::Blocked { user_id: user(BERT) } };
    for _ in 0..2 {
        stage.ask(0, block());
        stage.run();
    }
    assert_eq!(stage.world.rows.len(), 4);
}

/// Two homes write equal notes at the same time and place. The second is refused, and is another note than the first.
#[test]
fn a_note_that_was_refused_is_not_taken_for_an_equal_one() {
    let log = LogId::User(user(ANNA));
    let mut stage = Stage::over(log, Scope::User, 2, World::new(log, 0, 1));
    let tickets = [0, 1].map(|home| {
        stage.ask(home, Command::Note { content: Content::ContactRemoved { user_id: user(BERT) } })
    });
    stage.run();
    assert_eq!(tickets.map(|ticket| text(&stage, ticket)), ["noted 1", "noted 2"]);
}

/// Another writer appends first each time: the home waits longer after each miss, and gives up.
#[test]
fn a_home_that_is_always_overtaken_waits_and_refuses() {
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    let began = stage.now.elapsed;
    let ticket = stage.ask(0, send(None, ANNA, 1, "hello"));
    let mut overtaken = 0;
    while stage.answer(ticket).is_none() {
        if matches!(stage.drivers[0].out.as_ref().map(Out::kind), Some(Kind::Append)) {
            overtaken += 1;
            stage.world.append_another(BERT, 1_000 + overtaken);
        }
        if !stage.step(0) {
            let wait = stage.drivers[0].home.due_in(stage.now).expect("the home waits for its turn");
            stage.now = stage.now.plus(wait);
        }
    }
    assert_eq!((text(&stage, ticket), overtaken), ("unavailable".to_owned(), 9));
    let waited = stage.now.elapsed - began;
    assert!((Duration::from_millis(400)..Duration::from_millis(1_200)).contains(&waited), "{waited:?}");
    let next = stage.ask(0, send(None, ANNA, 1, "hello"));
    stage.run();
    assert_eq!(text(&stage, next), "sent 13");
}

/// A command may be forwarded to another node, and its reply comes back.
#[test]
fn commands_and_replies_are_the_same_behind_another_node() {
    let body = madang_proto::json::read(r#"{"text":"tea?\u0000","data":{"a":1.50,"b":[]},"mentions":["7"]}"#)
        .unwrap();
    let mut edited = edit(ANNA, 5, "other", Some(2));
    if let Command::Change(request) = &mut edited {
        request.change = MessageChange::Edit { body, if_version: Some(2) };
    }
    let commands = [
        send(Some(9), ANNA, 1, "hello"),
        edited,
        delete(ANNA, 5),
        react(ANNA, 5, "+1", true),
        detail(ANNA, DetailChange::State(crate::log::ChannelState::Archived)),
        detail(ANNA, DetailChange::Pin(madang_ids::Seq::new(5))),
        Command::Note { content: Content::Blocked { user_id: user(BERT) } },
        seats(ANNA, &[BERT], &[CARL]),
        restrict(ANNA, BERT, crate::home::RestrictionKind::Ban, true),
    ];
    for command in commands {
        let json = serde_json::to_string(&command).unwrap();
        let read: Command = madang_proto::json::read(&json).unwrap();
        assert_eq!(format!("{read:?}"), format!("{command:?}"));
    }
    let mut stage = Stage::group(1, 10, &[ANNA, BERT]);
    for command in
        [send(None, ANNA, 1, "hello"), edit(ANNA, 4, "hi", None), delete(BERT, 4), seats(ANNA, &[CARL], &[])]
    {
        let ticket = stage.ask(0, command);
        stage.run();
        let reply = stage.answer(ticket).expect("an answer");
        let read: Reply = madang_proto::json::read(&serde_json::to_string(reply).unwrap()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{reply:?}"));
    }
}
