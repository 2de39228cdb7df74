//! One append's worth of sends, changes and notes: *check*, mint, append unless a key was sent before, answer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use madang_ids::{ClientMsgId, MessageId, Ordinal, Seq, Snowflakes, UserId};
use madang_proto::{ChangeOf, ChannelKind, Content, Entry, ErrorBody, ErrorCode, Message};

use crate::body;
use crate::consequences::Deleted;
use crate::home::changes::{Judged, Sheet};
use crate::home::command::{ChangeRequest, Command, Effect, MessageChange, Reply, Sent};
use crate::home::notes::NoteId;
use crate::home::queue::{Queue, Turn, Waiting};
use crate::home::{FIND_BYTES, Flight, Home, Scope, Step};
use crate::log::{
    Append, Details, Head, MAX_APPEND_BYTES, MAX_APPEND_ROWS, Row, RowChange, RowKey, SendRecord,
};
use crate::now::Now;

#[derive(Debug)]
pub(super) struct Batch {
    items: Vec<Item>,
    /// The rows that are out to be appended, one for each item.
    rows: Option<Arc<[Row]>>,
    /// What the channel's details are once the rows are appended, if they change.
    details: Option<Details>,
    /// The messages that are deleted with them.
    deleted: Vec<Deleted>,
    /// The messages that its commands are about, as they are in the store.
    pub(super) targets: Option<HashMap<Seq, Option<Row>>>,
    /// Who may not speak, and how she is refused unless she sent the same before.
    refused: Vec<(Waiting, RowKey, ErrorBody)>,
    /// Answers that rest on a change of this batch: true once it is durable, and judged again if it fails.
    resting: Vec<(Waiting, Reply)>,
}

/// What is to be appended.
struct Draft {
    rows: Arc<[Row]>,
    changes: Vec<RowChange>,
    details: Option<Details>,
    deleted: Vec<Deleted>,
}

/// What one command comes to in a draft.
enum Drafted {
    /// A row of its own.
    Row(Content, Option<RowKey>),
    /// The row at this index says it already: answered when that one is durable.
    Behind(usize),
    /// No row.
    Answered(Reply),
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) waiting: Waiting,
    /// Commands of the same batch that ask for the same: sends with the same key, equal changes, overtaken notes. They
    /// are answered when it is durable.
    followers: Vec<Waiting>,
}

impl Item {
    fn key(&self) -> Option<RowKey> {
        self.waiting.command.key()
    }
}

impl Batch {
    /// Takes sends and notes from the front of the queue, up to the bounds of an append.
    pub(super) fn take(queue: &mut Queue) -> Self {
        let (mut items, mut bytes): (Vec<Item>, usize) = (Vec::new(), 0);
        while let Some(front) = queue.front(Turn::Talk) {
            bytes += front.size_bytes;
            let is_full = items.len() == MAX_APPEND_ROWS || (bytes > MAX_APPEND_BYTES && !items.is_empty());
            if is_full {
                break;
            }
            let Some(waiting) = queue.pop_front(Turn::Talk) else { break };
            let ends_batch = waiting.command.changes_state();
            items.push(Item { waiting, followers: Vec::new() });
            // Sends are checked against the details as they were before the batch.
            if ends_batch {
                break;
            }
        }
        Self {
            items,
            rows: None,
            details: None,
            deleted: Vec::new(),
            targets: None,
            refused: Vec::new(),
            resting: Vec::new(),
        }
    }

    /// The rows were certainly not appended. A row of the log that is equal to one of them is another one.
    pub(super) fn forget_rows(&mut self) {
        self.rows = None;
    }

    /// Puts the commands back in front of the queue, in the order in which they came.
    pub(super) fn give_back(self, queue: &mut Queue) {
        let mut commands: Vec<Waiting> = self.refused.into_iter().map(|(waiting, ..)| waiting).collect();
        commands.extend(self.resting.into_iter().map(|(waiting, _)| waiting));
        for (index, mut item) in self.items.into_iter().enumerate() {
            let row = self.rows.as_ref().and_then(|rows| rows.get(index));
            let is_note = matches!(item.waiting.command, Command::Note { .. });
            item.waiting.attempts.extend(row.filter(|_| is_note).cloned());
            commands.push(item.waiting);
            commands.append(&mut item.followers);
        }
        commands.sort_unstable_by_key(|waiting| waiting.ticket);
        commands.into_iter().rev().for_each(|waiting| queue.push_front(waiting));
    }

    /// The commands with their tickets, followers included.
    pub(super) fn into_waiting(self) -> VecDeque<Waiting> {
        let mut queue = Queue::default();
        self.give_back(&mut queue);
        queue.take()
    }

    /// Whose rights it takes.
    fn actors(&self) -> impl Iterator<Item = UserId> + '_ {
        self.items.iter().filter_map(|item| item.waiting.command.by())
    }

    /// Who may want what only admins may.
    fn claimants(&self) -> impl Iterator<Item = UserId> + '_ {
        let claims = |command: &Command| match command {
            Command::Send { body, .. } => body.mentions_everyone,
            Command::Change(ChangeRequest { change: MessageChange::Delete, .. }) | Command::Detail { .. } => {
                true
            }
            Command::Change(_) | Command::React(_) | Command::Note { .. } | Command::Seats(_) => false,
        };
        let commands = self.items.iter().map(|item| &item.waiting.command);
        commands.filter(move |command| claims(command)).filter_map(Command::by)
    }

    /// The messages without which it cannot be judged, in the order of its commands.
    fn wanted(&self) -> Vec<Seq> {
        let mut known = HashSet::new();
        let wanted = self.items.iter().filter_map(|item| item.waiting.command.target());
        wanted.filter(|target| known.insert(*target)).collect()
    }

    /// Puts commands back from the first one on whose message was not read, since there was no room: they are the next
    /// batch.
    fn put_back_unread(&mut self, queue: &mut Queue) {
        let Some(targets) = &self.targets else { return };
        let is_unread =
            |item: &Item| item.waiting.command.target().is_some_and(|seq| !targets.contains_key(&seq));
        let Some(first) = self.items.iter().position(is_unread) else { return };
        let rest = self.items.split_off(first);
        let mut commands: Vec<Waiting> =
            rest.into_iter().flat_map(|item| [item.waiting].into_iter().chain(item.followers)).collect();
        commands.sort_unstable_by_key(|waiting| waiting.ticket);
        commands.into_iter().rev().for_each(|waiting| queue.push_front(waiting));
    }
}

impl Home {
    pub(super) fn advance_batch(
        &mut self,
        mut batch: Batch,
        head: Head,
        now: Now,
        ids: &Snowflakes,
    ) -> Option<Effect> {
        if let Scope::Channel { kind, .. } = self.scope {
            let wants_between = kind == ChannelKind::Direct;
            batch.claimants().for_each(|user| self.roster.doubt(user));
            if let Some(lookup) = self.roster.missing(batch.actors(), wants_between, now) {
                self.flight = Flight::Out(Step::Batch(batch));
                return Some(Effect::Find(lookup));
            }
        }
        // Retries first: a message that is durable was acked, whatever became of its sender since.
        self.answer_retries(&mut batch);
        Self::join_followers(&mut batch);
        if let Scope::Channel { kind, .. } = self.scope {
            self.check(&mut batch, kind, now);
        }
        // What the window does not hold was never sent if it holds the whole log.
        let looks_up_keys = !self.window.is_whole();
        if !looks_up_keys {
            self.answer_refused(&mut batch, std::iter::repeat(None));
        }
        if !batch.refused.is_empty() {
            let keys = batch.refused.iter().map(|(_, key, _)| (key.sender, key.client_msg_id)).collect();
            self.flight = Flight::Out(Step::Batch(batch));
            return Some(Effect::FindSends { keys });
        }
        if batch.items.is_empty() {
            return None;
        }
        if batch.targets.is_none() {
            let seqs = batch.wanted();
            if !seqs.is_empty() {
                self.flight = Flight::Out(Step::Batch(batch));
                return Some(Effect::FindRows { seqs, max_bytes: FIND_BYTES });
            }
        }
        batch.put_back_unread(&mut self.queue);
        let Draft { rows, changes, details, deleted } = self.draft(&mut batch, head, now, ids)?;
        batch.rows = Some(rows.clone());
        batch.deleted = deleted;
        batch.details.clone_from(&details);
        let records = self.window.leaving(rows.len());
        self.flight = Flight::Out(Step::Batch(batch));
        let append = Append { changes, details, records, looks_up_keys, ..Append::of(self.log, head, rows) };
        Some(Effect::Append(append))
    }

    /// Mints the rows, one for each item. A command that asks for what is so already, or may not be, is answered and leaves
    /// the batch; behind a change of the same batch its answer waits until that is durable. `None` if nothing is left.
    fn draft(&mut self, batch: &mut Batch, head: Head, now: Now, ids: &Snowflakes) -> Option<Draft> {
        let minted = ids.mint(now.at, head.at.next(), batch.items.len() as u64);
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

    /// What a command comes to, behind the rows that are drafted already. `next` is for a message.
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
                // Asked twice at once: one entry says so and answers both.
                Ok(Judged::Tell(content)) => {
                    match same(rows, &content).filter(|_| content.change().is_some()) {
                        Some(first) => Drafted::Behind(first),
                        None => Drafted::Row(content, None),
                    }
                }
                Ok(Judged::IsSoWith(content)) => match same(rows, &content) {
                    Some(first) => Drafted::Behind(first),
                    None => {
                        let seq = self.head.map(|head| head.seq).unwrap_or_default();
                        Drafted::Answered(Reply::Noted { seq })
                    }
                },
                Ok(Judged::IsSo(reply)) => Drafted::Answered(reply),
                Err(error) => Drafted::Answered(Reply::Refused(error)),
            },
        }
    }

    /// A note that the log has already is not written again; nor is a read marker that was overtaken on its way here, since
    /// markers never go back.
    fn draft_note(&self, content: &Content, rows: &[Row]) -> Drafted {
        if let Some(id) = NoteId::of(content) {
            let is_it = |row: &Row| NoteId::of(&row.entry.content) == Some(id);
            return match (self.window.noted(id), rows.iter().position(is_it)) {
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

    /// Puts aside who may not speak.
    fn check(&self, batch: &mut Batch, kind: ChannelKind, now: Now) {
        let mut kept = Vec::with_capacity(batch.items.len());
        let mut speaks_now = HashSet::new();
        for item in std::mem::take(&mut batch.items) {
            let Command::Send { key, body, .. } = &item.waiting.command else {
                kept.push(item);
                continue;
            };
            let key = *key;
            let allowed = self.check_speaks(key.sender, kind, now.at).and_then(|role| {
                self.check_everyone(body, role, kind)?;
                self.pace.check(key.sender, role, &self.details, now, &mut speaks_now)
            });
            match allowed {
                Err(error) => {
                    batch.refused.push((item.waiting, key, error.clone()));
                    let followers = item.followers.into_iter();
                    batch.refused.extend(followers.filter_map(|follower| {
                        let key = follower.command.key()?;
                        Some((follower, key, error.clone()))
                    }));
                }
                Ok(()) => kept.push(item),
            }
        }
        batch.items = kept;
    }

    /// Answers sends whose key is in the window.
    fn answer_retries(&mut self, batch: &mut Batch) {
        let mut kept = Vec::with_capacity(batch.items.len());
        for item in std::mem::take(&mut batch.items) {
            let known = item.key().and_then(|key| self.window.find((key.sender, key.client_msg_id)).copied());
            match known {
                Some(record) => self.answer_retry(&item.waiting, &record),
                None => kept.push(item),
            }
        }
        batch.items = kept;
    }

    fn answer_retry(&mut self, Waiting { ticket, command, .. }: &Waiting, record: &SendRecord) {
        let ticket = *ticket;
        if matches!(command, Command::Send { body, .. } if body::is_hash_of(record.key.body_hash, body)) {
            let SendRecord { seq, message_id, at, .. } = *record;
            self.reply(ticket, Reply::Sent(Sent { message_id, seq, at, by_retry: true }));
            self.redrive(seq..=seq);
        } else {
            self.reply(ticket, Reply::Refused(conflict()));
        }
    }

    /// Answers those who may not speak: the records of what they sent before, in the order of [`Batch::refused`].
    pub(super) fn answer_refused(
        &mut self,
        batch: &mut Batch,
        sends: impl IntoIterator<Item = Option<SendRecord>>,
    ) {
        for ((waiting, _, error), record) in batch.refused.drain(..).zip(sends) {
            match record {
                Some(record) => self.answer_retry(&waiting, &record),
                None => self.reply(waiting.ticket, Reply::Refused(error)),
            }
        }
    }

    /// Nothing was appended, since these were sent before: they are answered, and the rest begins again.
    pub(super) fn learn_sent(&mut self, batch: Batch, sent: &[SendRecord]) {
        let by_key: HashMap<(UserId, ClientMsgId), &SendRecord> =
            sent.iter().map(|record| ((record.key.sender, record.key.client_msg_id), record)).collect();
        let mut rest = Vec::new();
        for waiting in (Batch { rows: None, details: None, ..batch }).into_waiting() {
            let key = waiting.command.key();
            match key.and_then(|key| by_key.get(&(key.sender, key.client_msg_id))) {
                Some(record) => self.answer_retry(&waiting, record),
                None => rest.push(waiting),
            }
        }
        rest.into_iter().rev().for_each(|waiting| self.queue.push_front(waiting));
    }

    /// Of several sends with one key in one batch the first is appended.
    fn join_followers(batch: &mut Batch) {
        let mut first: HashMap<(UserId, ClientMsgId), usize> = HashMap::new();
        let mut kept: Vec<Item> = Vec::with_capacity(batch.items.len());
        for item in std::mem::take(&mut batch.items) {
            let Some(key) = item.key() else {
                kept.push(item);
                continue;
            };
            match first.get(&(key.sender, key.client_msg_id)) {
                Some(&index) => kept[index].followers.push(item.waiting),
                None => {
                    first.insert((key.sender, key.client_msg_id), kept.len());
                    kept.push(item);
                }
            }
        }
        batch.items = kept;
    }

    pub(super) fn finish_batch(&mut self, batch: Batch, now: Now) {
        let Some(rows) = batch.rows else { return };
        // First, so that slow mode counts what was said in the batch that began it.
        if let Some(details) = batch.details {
            self.details = details;
        }
        self.take_rows(&rows, now);
        self.accept_senders(&rows);
        for (item, row) in batch.items.into_iter().zip(rows.iter()) {
            let (seq, at) = (row.entry.seq, row.entry.at);
            let Some(message) = row.entry.content.message() else {
                let reply = match row.entry.content.change() {
                    Some(ChangeOf { target, version }) => {
                        let caused_bytes = body::entry_bytes(&row.entry.content);
                        Reply::Changed { target, version, seq: Some(seq), caused_bytes }
                    }
                    None => Reply::Noted { seq },
                };
                for Waiting { ticket, .. } in item.followers {
                    self.reply(ticket, reply.clone());
                }
                self.reply(item.waiting.ticket, reply);
                continue;
            };
            let message_id = message.message_id;
            self.reply(item.waiting.ticket, Reply::Sent(Sent { message_id, seq, at, by_retry: false }));
            for Waiting { ticket, command, .. } in item.followers {
                let is_same = command.key() == row.key;
                let sent = Sent { message_id, seq, at, by_retry: true };
                self.reply(ticket, if is_same { Reply::Sent(sent) } else { Reply::Refused(conflict()) });
            }
        }
        for (waiting, reply) in batch.resting {
            self.reply(waiting.ticket, reply);
        }
        self.fanout(rows, &batch.deleted);
    }

    /// Somebody who writes accepts the stay. The roster knows those who have, so their messages cost nothing more.
    fn accept_senders(&mut self, rows: &[Row]) {
        for sender in rows.iter().filter_map(|row| row.key).map(|key| key.sender) {
            if self.roster.accept(sender) {
                self.effects.push_back(Effect::Accept { user_id: sender });
            }
        }
    }

    /// Rows of ours are durable: they move the head and enter the window. The caller replies, and fans them out behind the
    /// replies: an ack waits for no other node.
    pub(super) fn take_rows(&mut self, rows: &Arc<[Row]>, now: Now) {
        self.window.mark_recorded(rows.len());
        rows.iter().for_each(|row| self.window.push(row));
        self.pace.note(rows, &self.details, now);
        self.head = rows.last().map(Head::after).or(self.head);
    }
}

/// The last of the rows that says the same: the same version of a message, or the same detail of the channel.
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

fn conflict() -> ErrorBody {
    let message = "client_msg_id was already used in this channel with another body";
    ErrorBody::field(ErrorCode::Conflict, "client_msg_id", message)
}
