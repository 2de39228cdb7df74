//! Sends, changes and notes that fit into one append: *check*, mint, append unless a retry key was used before, answer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use madang_ids::{ClientMsgId, Seq, Snowflakes, UserId};
use madang_proto::{ChangeOf, ChannelKind, ErrorBody, ErrorCode};

use crate::body;
use crate::consequences::Deleted;
use crate::home::command::{ChangeRequest, Command, Effect, MessageChange, Reply, Sent};
use crate::home::draft::Draft;
use crate::home::queue::{Queue, Turn, Waiting};
use crate::home::{FIND_BYTES, Flight, Home, Scope, Step};
use crate::log::{Append, Details, Head, MAX_APPEND_BYTES, MAX_APPEND_ROWS, Row, RowKey, SendRecord};
use crate::now::Now;

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    /// The rows that are out to be appended, one for each item.
    rows: Option<Arc<[Row]>>,
    /// The channel's details after the append, if they change.
    details: Option<Details>,
    /// The messages that the rows delete.
    deleted: Vec<Deleted>,
    /// The messages that the commands change, as they are in the store.
    pub(super) targets: Option<HashMap<Seq, Option<Row>>>,
    /// Sends of users who may not write now, with their refusals. A send that was appended before is answered as a retry instead.
    refused: Vec<(Waiting, RowKey, ErrorBody)>,
    /// Answers that depend on a change of this batch: valid once it is durable. If the append fails, the command is judged again.
    pub(super) resting: Vec<(Waiting, Reply)>,
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) waiting: Waiting,
    /// Commands of the same batch that need no row of their own: sends with the same key, equal changes, overtaken notes. They
    /// are answered when the row of this item is durable.
    pub(super) followers: Vec<Waiting>,
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
            // Sends are checked against the details as they were before the batch, so a send behind the archiving of the channel
            // must be in the next batch: in this one it would pass.
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

    /// Drops rows that were certainly not appended: an equal row in the log belongs to another append.
    pub(super) fn forget_rows(&mut self) {
        self.rows = None;
    }

    /// Puts the commands back in front of the queue, in the order in which they came.
    pub(super) fn give_back(self, queue: &mut Queue) {
        let mut commands: Vec<Waiting> = self.refused.into_iter().map(|(waiting, ..)| waiting).collect();
        commands.extend(self.resting.into_iter().map(|(waiting, _)| waiting));
        for (index, mut item) in self.items.into_iter().enumerate() {
            let row = self.rows.as_ref().and_then(|rows| rows.get(index));
            // The append of these rows has an unknown outcome. A note has no retry key, so the row itself must be looked for in the
            // tail; without it the note would be appended twice.
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

    /// The users whose membership must be known to judge the batch.
    pub(super) fn actors(&self) -> impl Iterator<Item = UserId> + '_ {
        self.items.iter().filter_map(|item| item.waiting.command.by())
    }

    /// The users who ask for something that perhaps only admins may.
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

    /// The messages that must be read to judge the batch, in the order of its commands.
    fn wanted(&self) -> Vec<Seq> {
        let mut known = HashSet::new();
        let wanted = self.items.iter().filter_map(|item| item.waiting.command.target());
        wanted.filter(|target| known.insert(*target)).collect()
    }

    /// Puts back the commands from the first one on whose message did not fit into the read. All behind it go too, so that the
    /// order stays; they are the next batch.
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
            // A promotion that another home has appended does not move the head that we know, so the cache may still refuse a new
            // admin. A refusal appends nothing, and nothing would correct it: look these users up again.
            batch.claimants().for_each(|user| self.members.doubt(user));
            if let Some(lookup) = self.members.missing(batch.actors(), wants_between, now) {
                self.flight = Flight::Out(Step::Batch(batch));
                return Some(Effect::Find(lookup));
            }
        }
        // Retries before the check: a durable message is acknowledged again, also if its sender was muted or removed since.
        self.answer_retries(&mut batch);
        Self::join_followers(&mut batch);
        if let Scope::Channel { kind, .. } = self.scope {
            self.check(&mut batch, kind, now);
        }
        // A window that holds the whole log proves that an unknown key was never used; otherwise the store looks it up.
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
        // Before the draft: the messages that were read are as of this head, and the put-back commands are judged by the next one.
        batch.put_back_unread(&mut self.queue);
        let Ok(minted) = ids.mint((now.at, now.elapsed), head.at.next(), batch.items.len() as u64) else {
            let error = ErrorBody::unavailable("this node is not registered at present; try again", 1_000);
            self.fail_step(Step::Batch(batch), &error, now);
            return None;
        };
        let Draft { rows, changes, details, deleted } = self.draft(&mut batch, head, now, minted)?;
        batch.rows = Some(rows.clone());
        batch.deleted = deleted;
        batch.details.clone_from(&details);
        let records = self.window.leaving(rows.len());
        self.flight = Flight::Out(Step::Batch(batch));
        let append = Append { changes, details, records, looks_up_keys, ..Append::of(self.log, head, rows) };
        Some(Effect::Append(append))
    }

    /// Moves the sends of users who may not write to [`Batch::refused`].
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
                self.pace.check(key.sender, role, self.slow_mode_seconds(), now, &mut speaks_now)
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
            // The first attempt may have died between its append and its fan-out, on this node or another.
            self.redrive(seq..=seq);
        } else {
            self.reply(ticket, Reply::Refused(conflict()));
        }
    }

    /// Answers the refused sends. `sends` are the records of their keys, in the order of [`Batch::refused`].
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

    /// Nothing was appended, since the store has records of these keys: their sends are answered, the others begin again.
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

    /// Of several sends with one key in one batch the first is appended, and the others follow it.
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
        // Before `take_rows`, so that slow mode counts also the messages of the batch that turned it on.
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
                // The key includes the hash of the body: another body under the same `client_msg_id` is a conflict.
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

    /// A member's first message accepts the membership. The cache remembers that, so later messages write nothing more.
    fn accept_senders(&mut self, rows: &[Row]) {
        for sender in rows.iter().filter_map(|row| row.key).map(|key| key.sender) {
            if self.members.accept(sender) {
                self.effects.push_back(Effect::Accept { user_id: sender });
            }
        }
    }

    /// Takes rows that are durable: they move the head and enter the window. The caller replies first and calls `fanout` last, so
    /// that an ack waits for no other node.
    pub(super) fn take_rows(&mut self, rows: &Arc<[Row]>, now: Now) {
        // Before the rows are pushed: it counts with the window as it was when the append took the records.
        self.window.mark_recorded(rows.len());
        rows.iter().for_each(|row| self.window.push(row));
        self.pace.note(rows, self.slow_mode_seconds(), now);
        self.head = rows.last().map(Head::after).or(self.head);
    }
}

fn conflict() -> ErrorBody {
    let message = "client_msg_id was already used in this channel with another body";
    ErrorBody::field(ErrorCode::Conflict, "client_msg_id", message)
}
