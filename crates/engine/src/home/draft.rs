//! The rows of one append: mints them from the commands of a batch, and finds those commands that need no row.

use std::sync::Arc;

use madang_ids::{MessageId, MintedIds, Ordinal, Seq};
use madang_proto::{Content, Entry, Message};

use crate::consequences::Deleted;
use crate::home::Home;
use crate::home::batch::{Batch, Item};
use crate::home::changes::{Judged, Sheet};
use crate::home::command::{Command, Reply};
use crate::home::notes::NoteId;
use crate::log::{Details, Head, Row, RowChange, RowKey};
use crate::now::Now;

/// The content of one append.
pub(super) struct Draft {
    pub(super) rows: Arc<[Row]>,
    pub(super) changes: Vec<RowChange>,
    pub(super) details: Option<Details>,
    pub(super) deleted: Vec<Deleted>,
}

/// The result of one command in a draft.
enum Drafted {
    /// A row of its own.
    Row(Content, Option<RowKey>),
    /// The row at this index has the same effect: the command is answered when that row is durable.
    Behind(usize),
    /// An answer without a row.
    Answered(Reply),
}

impl Home {
    /// The rows, one for each item. A command without a row (nothing to change, or refused) is answered and leaves the
    /// batch. `None` if no row is left.
    pub(super) fn draft(
        &mut self,
        batch: &mut Batch,
        head: Head,
        now: Now,
        minted: MintedIds,
    ) -> Option<Draft> {
        let targets = batch.targets.take().unwrap_or_default();
        let mut sheet = Sheet::new(targets, self.details.clone(), minted.at, now);
        let (mut rows, mut kept): (Vec<Row>, Vec<Item>) = (Vec::new(), Vec::new());
        let (mut seq, mut ordinal): (Seq, Ordinal) = (head.seq, head.ordinal);
        for item in std::mem::take(&mut batch.items) {
            let next = (minted.message(kept.len() as u64), ordinal.next());
            let (content, key) = match self.draft_one(&mut sheet, &item.waiting.command, &rows, next) {
                Drafted::Row(content, key) => (content, key),
                Drafted::Behind(first) => {
                    kept[first].followers.push(item.waiting);
                    continue;
                }
                // An earlier command of the batch may be the reason of this answer (the message is deleted, the pin is there). If the
                // append fails, that reason never existed: so the answer waits for the append.
                Drafted::Answered(reply) if sheet.is_changed(&self.details) => {
                    batch.resting.push((item.waiting, reply));
                    continue;
                }
                Drafted::Answered(reply) => {
                    self.reply(item.waiting.ticket, reply);
                    continue;
                }
            };
            if key.is_some() {
                ordinal = ordinal.next();
            }
            seq = seq.next();
            rows.push(Row { entry: Entry { seq, at: minted.at, content }, ordinal, key });
            kept.push(item);
        }
        batch.items = kept;
        let details = sheet.details_if_changed(&self.details);
        let Sheet { changes, deleted, .. } = sheet;
        (!rows.is_empty()).then(|| Draft { rows: rows.into(), changes, details, deleted })
    }

    /// The result of a command behind the rows drafted so far. `next` has the id and the ordinal for a message.
    fn draft_one(
        &self,
        sheet: &mut Sheet,
        command: &Command,
        rows: &[Row],
        next: (MessageId, Ordinal),
    ) -> Drafted {
        match command {
            Command::Send { key, body, .. } => {
                let (message_id, ordinal) = next;
                let message = Message::new(message_id, ordinal, key.sender, key.client_msg_id, body.clone());
                Drafted::Row(Content::Message(Box::new(message)), Some(*key))
            }
            Command::Note { content } => self.draft_note(content, rows),
            command => match self.judge(sheet, command) {
                // Two equal changes in one batch: the second one finds the first one's version, and shares its entry.
                Ok(Judged::Append(content)) => {
                    match same(rows, &content).filter(|_| content.change().is_some()) {
                        Some(first) => Drafted::Behind(first),
                        None => Drafted::Row(content, None),
                    }
                }
                Ok(Judged::UnchangedWith(content)) => match same(rows, &content) {
                    Some(first) => Drafted::Behind(first),
                    None => {
                        let seq = self.head.map(|head| head.seq).unwrap_or_default();
                        Drafted::Answered(Reply::Noted { seq })
                    }
                },
                Ok(Judged::Unchanged(reply)) => Drafted::Answered(reply),
                Err(error) => Drafted::Answered(Reply::Refused(error)),
            },
        }
    }

    /// A note that the log has already is not appended again. Neither is a read marker below one that the log has: markers never
    /// go back, and two devices may send theirs in either order.
    fn draft_note(&self, content: &Content, rows: &[Row]) -> Drafted {
        if let Some(id) = NoteId::of(content) {
            let is_same_note = |row: &Row| NoteId::of(&row.entry.content) == Some(id);
            return match (self.window.noted(id), rows.iter().position(is_same_note)) {
                (Some(seq), _) => Drafted::Answered(Reply::Noted { seq }),
                (None, Some(first)) => Drafted::Behind(first),
                (None, None) => Drafted::Row(content.clone(), None),
            };
        }
        let Content::Read { channel_id, seq: wanted, .. } = content else {
            return Drafted::Row(content.clone(), None);
        };
        if let Some(seq) = self.window.noted_read(*channel_id, *wanted) {
            return Drafted::Answered(Reply::Noted { seq });
        }
        let covers = |row: &Row| match &row.entry.content {
            Content::Read { channel_id: channel, seq, .. } => channel == channel_id && seq >= wanted,
            _ => false,
        };
        match rows.iter().rposition(covers) {
            Some(first) => Drafted::Behind(first),
            None => Drafted::Row(content.clone(), None),
        }
    }
}

/// The index of the last row with the same effect: the same version of a message, or the same detail of the channel.
fn same(rows: &[Row], content: &Content) -> Option<usize> {
    let version = |content: &Content| content.change().map(|change| (change.target, change.version));
    let pin = |content: &Content| match content {
        Content::Pinned { target, .. } | Content::Unpinned { target, .. } => Some(*target),
        _ => None,
    };
    rows.iter().rposition(|row| {
        let other = &row.entry.content;
        std::mem::discriminant(other) == std::mem::discriminant(content)
            && version(other) == version(content)
            && pin(other) == pin(content)
    })
}
