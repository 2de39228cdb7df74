//! A message that cannot be read does not affect other messages.

use madang_proto::Content;

use super::changes::{message, stage};
use super::stage::{Stage, delete, edit, react, send};
use super::transcripts::{ANNA, BERT, CARL, text};

/// The message at 5 as a store serves it that cannot read it.
fn lose(stage: &mut Stage) {
    let row = &mut stage.world.rows[4];
    let (sender_id, ordinal) = (row.key.map(|key| key.sender), Some(row.ordinal));
    row.entry.content = Content::Unreadable(madang_proto::Unreadable { sender_id, ordinal, version: 1 });
}

#[test]
fn a_message_that_cannot_be_read_is_deleted_by_its_sender_or_an_admin_and_by_nobody_else() {
    for (by, expected) in [(BERT, "changed 5 to 2 at 6"), (ANNA, "changed 5 to 2 at 6"), (CARL, "forbidden")]
    {
        let mut stage = stage();
        lose(&mut stage);
        let asked = stage.ask(1, delete(by, 5));
        stage.run();
        assert_eq!(text(&stage, asked), expected);
        if expected != "forbidden" {
            assert!(message(&stage).deleted.is_some() && message(&stage).body.text.is_empty());
            let again = stage.ask(1, delete(by, 5));
            stage.run();
            assert_eq!(text(&stage, again), expected);
        }
    }
}

#[test]
fn a_home_goes_on_around_a_message_that_cannot_be_read() {
    let mut stage = stage();
    lose(&mut stage);
    // The other home knows nothing yet and loads the log.
    let asked = [edit(BERT, 5, "coffee", None), react(ANNA, 5, "+1", true), send(None, CARL, 2, "more tea")];
    let tickets = asked.map(|command| stage.ask(1, command));
    stage.run();
    assert_eq!(tickets.map(|ticket| text(&stage, ticket)), ["not_found", "not_found", "sent 6"]);
    let later = stage.ask(1, edit(CARL, 6, "water", None));
    stage.run();
    assert_eq!(text(&stage, later), "changed 6 to 2 at 7");
}
