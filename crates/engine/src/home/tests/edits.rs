//! Edits, deletions and details that come twice at once, wait, or are too large.

use std::time::Duration;

use madang_ids::Seq;

use super::invariants::check_at_rest;
use super::stage::{Stage, delete, detail, edit, send, user};
use super::transcripts::{ANNA, BERT, CARL, text};
use crate::home::{ChangeRequest, Command, DetailChange, MessageChange};

/// A group of three in which Bert has said something at place 5.
fn stage() -> Stage {
    let mut stage = Stage::group(2, 10, &[ANNA, BERT, CARL]);
    stage.ask(0, send(None, BERT, 1, "tea"));
    stage.run();
    stage.lines.clear();
    stage
}

#[test]
fn what_is_asked_twice_at_once_is_one_entry() {
    let mut stage = stage();
    // The first keeps the home busy, so that the others are one batch.
    stage.ask(0, send(None, BERT, 2, "and milk"));
    stage.step(0);
    let edits = [stage.ask(0, edit(BERT, 5, "coffee", None)), stage.ask(0, edit(BERT, 5, "coffee", None))];
    stage.run();
    assert_eq!(edits.map(|ticket| text(&stage, ticket)), ["changed 5 to 2 at 7"; 2]);

    stage.ask(0, send(None, BERT, 3, "and honey"));
    stage.step(0);
    let deletions = [ANNA, BERT, ANNA].map(|by| stage.ask(0, delete(by, 5)));
    let name = || DetailChange::Name("Tea".to_owned());
    let names = [(); 2].map(|()| stage.ask(0, detail(ANNA, name())));
    stage.run();
    assert_eq!(deletions.map(|ticket| text(&stage, ticket)), ["changed 5 to 3 at 9"; 3]);
    assert_eq!(names.map(|ticket| text(&stage, ticket)), ["noted 10"; 2]);
    assert_eq!(stage.world.rows.len(), 10, "one entry each");
    check_at_rest(&stage);
}

#[test]
fn slow_mode_holds_edits_apart_from_messages() {
    let mut stage = stage();
    stage.ask(0, detail(ANNA, DetailChange::SlowMode(10)));
    stage.run();
    let own = stage.ask(0, edit(BERT, 5, "coffee", None));
    let more = stage.ask(0, edit(BERT, 5, "water", None));
    stage.run();
    let says = stage.ask(0, send(None, BERT, 2, "and milk"));
    stage.run();
    assert_eq!(
        [own, more, says].map(|ticket| text(&stage, ticket)),
        ["changed 5 to 2 at 7", "limited", "sent 8"]
    );
    // A repeated edit changes nothing and waits for nothing; admins do not wait.
    let again = stage.ask(0, edit(BERT, 5, "coffee", None));
    stage.ask(0, send(None, ANNA, 3, "honey"));
    stage.run();
    let by_admin = ["tea", "rum", "tea"].map(|word| {
        let ticket = stage.ask(0, edit(ANNA, 9, word, None));
        stage.run();
        text(&stage, ticket)
    });
    assert_eq!(text(&stage, again), "changed 5 to 2 at 7");
    assert_eq!(by_admin, ["changed 9 to 2 at 10", "changed 9 to 3 at 11", "changed 9 to 4 at 12"]);
    // A home that begins anew knows it from the log.
    stage.crash(0, false);
    let early = stage.ask(0, edit(BERT, 5, "water", None));
    stage.run();
    stage.now = stage.now.plus(Duration::from_secs(10));
    let later = stage.ask(0, edit(BERT, 5, "water", None));
    stage.run();
    assert_eq!([early, later].map(|ticket| text(&stage, ticket)), ["limited", "changed 5 to 3 at 13"]);
    check_at_rest(&stage);
}

#[test]
fn an_edit_leaves_the_mentions_as_they_were_sent() {
    let mut stage = stage();
    let body = |text: &str, mentions: &[u64]| madang_proto::Body {
        text: text.to_owned(),
        mentions: mentions.iter().map(|&id| user(id)).collect(),
        ..madang_proto::Body::default()
    };
    let key = crate::log::RowKey {
        sender: user(BERT),
        client_msg_id: super::stage::client_msg_id(7),
        body_hash: crate::log::BodyHash([7; 16]),
    };
    stage.ask(0, Command::Send { origin: None, key, body: body("tea?", &[CARL]) });
    stage.run();
    for mentions in [&[][..], &[ANNA]] {
        let change =
            MessageChange::Edit { body: body(&format!("coffee {mentions:?}"), mentions), if_version: None };
        stage.ask(0, Command::Change(ChangeRequest { by: user(BERT), target: Seq::new(6), change }));
        stage.run();
        let message = stage.world.row(Seq::new(6)).entry.content.message().expect("a message");
        assert_eq!(message.body.mentions, [user(CARL)]);
    }
    assert_eq!(stage.world.rows.len(), 8, "both were edits");
}
