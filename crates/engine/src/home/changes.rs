//! Edits, deletions and details: changes of a message or of the channel, each with an entry of its own.
//!
//! The store changes the row first and appends the entry next, and a crash may come in between. A command that finds the row
//! already changed, and no entry about it among the last ones, only appends the entry.

use std::collections::{HashMap, HashSet};

use madang_ids::{Millis, Seq, UserId};
use madang_proto::{
    Body, Change, ChannelKind, Content, DeletionMark, EditMark, ErrorBody, ErrorCode, Message, Role, limits,
};

use crate::consequences::{Deleted, mentioned};
use crate::home::command::{ChangeRequest, Command, DetailChange, MessageChange, Reply};
use crate::home::plan::refuse_stranger;
use crate::home::{Home, Scope};
use crate::log::{ChannelState, Details, Row, RowChange};
use crate::now::Now;
use crate::seats::Member;

/// The result of checking a command.
pub(super) enum Judged {
    /// Append this entry.
    Append(Content),
    /// The requested state is already durable: answer without an entry.
    Unchanged(Reply),
    /// The requested state is there, either durably or with an earlier entry of the same batch. In the second case the answer
    /// waits for that entry, which is equal to this one.
    UnchangedWith(Content),
}

/// The messages and details that a batch changes, as they are after the commands judged so far.
pub(super) struct Sheet {
    targets: HashMap<Seq, Option<Row>>,
    details: Details,
    /// The time of the batch's rows.
    at: Millis,
    /// Mutes and bans end by the wall clock, and the log's time may be ahead of it.
    now: Now,
    /// Members who edit in this batch; slow mode allows one edit each.
    edits: HashSet<UserId>,
    /// The row changes of the append.
    pub(super) changes: Vec<RowChange>,
    /// The messages that the batch deletes.
    pub(super) deleted: Vec<Deleted>,
}

impl Sheet {
    pub(super) fn new(targets: HashMap<Seq, Option<Row>>, details: Details, at: Millis, now: Now) -> Self {
        Self { targets, details, at, now, edits: HashSet::new(), changes: Vec::new(), deleted: Vec::new() }
    }

    /// Whether a command of the batch changed something on which the result of later commands may depend.
    pub(super) fn is_changed(&self, before: &Details) -> bool {
        !self.changes.is_empty() || self.details != *before
    }

    pub(super) fn details_if_changed(&self, before: &Details) -> Option<Details> {
        (self.details != *before).then(|| self.details.clone())
    }

    /// The message at `target`, if `member` may read it.
    fn message(&self, target: Seq, member: &Member, kind: ChannelKind) -> Result<Message, ErrorBody> {
        let may_read = kind == ChannelKind::Open || member.spans.contains(target);
        let row = self.targets.get(&target).and_then(Option::as_ref).filter(|_| may_read);
        row.and_then(|row| row.entry.content.message()).cloned().ok_or_else(|| {
            let message = format!("seq {target} is not a message of this channel that you may read");
            ErrorBody::field(ErrorCode::NotFound, "seq", message)
        })
    }

    /// As [`Self::message`], for a deletion. A damaged message has an empty stand-in, so that it can be deleted.
    fn deletable(&self, target: Seq, member: &Member, kind: ChannelKind) -> Result<Message, ErrorBody> {
        let may_read = kind == ChannelKind::Open || member.spans.contains(target);
        let row = self.targets.get(&target).and_then(Option::as_ref).filter(|_| may_read);
        row.and_then(Row::lost_message).map_or_else(|| self.message(target, member, kind), Ok)
    }

    /// Replaces a message by its next version, for the store and for the commands that follow in the batch.
    fn replace(&mut self, target: Seq, mut message: Message) -> Message {
        let if_version = message.version;
        message.version += 1;
        let content = Content::Message(Box::new(message.clone()));
        if let Some(Some(row)) = self.targets.get_mut(&target) {
            let before = std::mem::replace(&mut row.entry.content, content.clone());
            if let (Some(before), Some(_)) = (before.message(), &message.deleted) {
                self.deleted.push(Deleted { target, mentioned: mentioned(before).collect() });
            }
        }
        self.changes.push(RowChange { target, if_version, content });
        message
    }
}

fn change(target: Seq, by: UserId, message: Message) -> Change {
    Change { target, version: message.version, by, message: Some(Box::new(message)) }
}

impl Home {
    /// Checks a change of a message or of the details. The caller's membership was looked up before.
    pub(super) fn judge(&self, sheet: &mut Sheet, command: &Command) -> Result<Judged, ErrorBody> {
        let (Scope::Channel { kind, .. }, Some(by)) = (&self.scope, command.by()) else {
            return Err(ErrorBody::not_found("channel_id"));
        };
        match command {
            Command::Change(request) => self.judge_change(sheet, request, *kind),
            Command::Detail { change, .. } => self.judge_detail(sheet, by, change, *kind),
            // Unreachable: sends and notes need no judgement, the others have steps of their own.
            _ => Err(ErrorBody::new(ErrorCode::Internal, "internal server error")),
        }
    }

    fn judge_change(
        &self,
        sheet: &mut Sheet,
        request: &ChangeRequest,
        kind: ChannelKind,
    ) -> Result<Judged, ErrorBody> {
        let ChangeRequest { by, target, change } = request;
        let (role, member) = self.check_member(*by, kind, sheet.now.at)?;
        self.check_not_deleted()?;
        let message = match change {
            MessageChange::Edit { .. } => sheet.message(*target, member, kind)?,
            MessageChange::Delete => sheet.deletable(*target, member, kind)?,
        };
        match change {
            MessageChange::Edit { body, if_version } => {
                self.check_speaks(*by, kind, sheet.now.at)?;
                self.judge_edit(sheet, request, role, message, body, *if_version)
            }
            MessageChange::Delete => self.judge_delete(sheet, request, message, role, kind),
        }
    }

    fn judge_edit(
        &self,
        sheet: &mut Sheet,
        &ChangeRequest { by, target, .. }: &ChangeRequest,
        role: Role,
        message: Message,
        body: &Body,
        if_version: Option<u32>,
    ) -> Result<Judged, ErrorBody> {
        if message.sender_id != by {
            return Err(ErrorBody::forbidden("only its sender can edit a message"));
        }
        if message.deleted.is_some() {
            return Err(ErrorBody::forbidden("the message is deleted"));
        }
        if body.reply_to.is_some() && body.reply_to != message.body.reply_to {
            let error = "body.reply_to of a message cannot be changed; leave it out";
            return Err(ErrorBody::invalid("body.reply_to", error));
        }
        // Mentions are fixed when a message is sent: they were counted and notified then.
        let Body { reply_to, mentions_everyone, ref mentions, .. } = message.body;
        let body = Body { reply_to, mentions_everyone, mentions: mentions.clone(), ..body.clone() };
        let present = message.edited.map_or(1, |mark| mark.version);
        // Before the check of the version: a retry of this very edit names the version before it, and would conflict with itself.
        if body == message.body {
            return Ok(self.unchanged(target, by, message, present, Content::Edited));
        }
        if if_version.is_some_and(|version| version < present) {
            let error = format!("version is out of date: the message was edited and has version {present}");
            return Err(ErrorBody::field(ErrorCode::Conflict, "version", error));
        }
        self.pace.check_edit(by, role, self.slow_mode_seconds(), sheet.now, &mut sheet.edits)?;
        let edited = Some(EditMark { at: sheet.at, version: message.version + 1 });
        let message = sheet.replace(target, Message { body, edited, ..message });
        Ok(Judged::Append(Content::Edited(change(target, by, message))))
    }

    fn judge_delete(
        &self,
        sheet: &mut Sheet,
        &ChangeRequest { by, target, .. }: &ChangeRequest,
        message: Message,
        role: Role,
        kind: ChannelKind,
    ) -> Result<Judged, ErrorBody> {
        if message.sender_id != by && (kind == ChannelKind::Direct || !role.is_admin()) {
            return Err(ErrorBody::forbidden("only its sender or an admin can delete a message"));
        }
        let was_pinned = sheet.details.pins.contains(&target);
        sheet.details.pins.retain(|pin| *pin != target);
        if message.deleted.is_some() {
            let version = message.version;
            // A crash came between the change of the row and the append. The details are written with the append, so a pin that
            // is still there proves that the entry is not in the log: append it, however old the deletion is.
            return Ok(match was_pinned {
                true => Judged::Append(Content::Deleted(change(target, by, message))),
                false => self.unchanged(target, by, message, version, Content::Deleted),
            });
        }
        let deleted = Some(DeletionMark { at: sheet.at, by });
        let (body, edited, reactions) = (Body::default(), None, Vec::new());
        let message = sheet.replace(target, Message { body, edited, deleted, reactions, ..message });
        Ok(Judged::Append(Content::Deleted(change(target, by, message))))
    }

    /// For a message that is as requested since its version `since`: appends the entry if none of the last entries has that
    /// version. An entry that has left the window is appended again, which tells readers nothing new; a missing one would never
    /// reach them.
    fn unchanged(
        &self,
        target: Seq,
        by: UserId,
        message: Message,
        since: u32,
        entry: impl FnOnce(Change) -> Content,
    ) -> Judged {
        let version = message.version;
        match self.window.change_at(target, since) {
            // Version 1 is the message as it was sent: its own row is its entry.
            _ if since == 1 => {
                Judged::Unchanged(Reply::Changed { target, version, seq: None, caused_bytes: 0 })
            }
            Some(seq) => {
                Judged::Unchanged(Reply::Changed { target, version, seq: Some(seq), caused_bytes: 0 })
            }
            None => Judged::Append(entry(Change { version: since, ..change(target, by, message) })),
        }
    }

    fn judge_detail(
        &self,
        sheet: &mut Sheet,
        by: UserId,
        change: &DetailChange,
        kind: ChannelKind,
    ) -> Result<Judged, ErrorBody> {
        if let DetailChange::State(state) = change {
            return self.judge_state(sheet, by, *state, kind);
        }
        let role = self.check_speaks(by, kind, sheet.now.at)?;
        let is_pin = matches!(change, DetailChange::Pin(_) | DetailChange::Unpin(_));
        if kind == ChannelKind::Direct && !is_pin {
            return Err(ErrorBody::forbidden("a direct channel has no name, topic, picture or slow mode"));
        }
        if kind != ChannelKind::Direct && !role.is_admin() {
            return Err(ErrorBody::forbidden("only the owner and admins may do this"));
        }
        if let DetailChange::Pin(target) = change {
            let (_, member) = self.check_member(by, kind, sheet.now.at)?;
            if sheet.message(*target, member, kind)?.deleted.is_some() {
                return Err(ErrorBody::forbidden("the message is deleted"));
            }
        }
        let before = sheet.details.clone();
        let content = sheet.details.apply(by, change)?;
        // An earlier command of the batch may have made the same change; then the answer must wait until that one is durable.
        if sheet.details == before {
            return Ok(Judged::UnchangedWith(content));
        }
        Ok(Judged::Append(content))
    }

    /// Archives, reactivates or deletes the channel. Only the owner may, and a deletion is final.
    fn judge_state(
        &self,
        sheet: &mut Sheet,
        by: UserId,
        state: ChannelState,
        kind: ChannelKind,
    ) -> Result<Judged, ErrorBody> {
        let (role, _) = self.check_member(by, kind, sheet.at)?;
        if kind == ChannelKind::Direct {
            return Err(ErrorBody::forbidden(
                "a direct channel cannot be archived or deleted; hide it instead",
            ));
        }
        if role != Role::Owner {
            return Err(ErrorBody::forbidden("only the owner can archive or delete a channel"));
        }
        if self.details.state == state {
            let seq = self.head.map(|head| head.seq).unwrap_or_default();
            return Ok(Judged::Unchanged(Reply::Noted { seq }));
        }
        self.check_not_deleted()?;
        sheet.details.state = state;
        Ok(Judged::Append(match state {
            ChannelState::Active => Content::Unarchived { by },
            ChannelState::Archived => Content::Archived { by },
            ChannelState::Deleted => Content::ChannelDeleted { by },
        }))
    }

    pub(super) fn check_not_deleted(&self) -> Result<(), ErrorBody> {
        match self.details.state {
            ChannelState::Deleted => Err(deleted_channel()),
            ChannelState::Active | ChannelState::Archived => Ok(()),
        }
    }

    /// Refuses messages and their changes in a channel that is archived or deleted.
    fn check_takes_messages(&self) -> Result<(), ErrorBody> {
        match self.details.state {
            ChannelState::Active => Ok(()),
            ChannelState::Archived => Err(ErrorBody::forbidden("the channel is archived")),
            ChannelState::Deleted => Err(deleted_channel()),
        }
    }

    /// The role and the row of a present member.
    pub(super) fn check_member(
        &self,
        user: UserId,
        kind: ChannelKind,
        now: Millis,
    ) -> Result<(Role, &Member), ErrorBody> {
        let member = self.members.member(user);
        if let Some(found) = self.role_of(user).zip(member) {
            return Ok(found);
        }
        // A former member knows that the channel exists. To others it does not exist, also if they are banned.
        let was_here = |member: &&Member| kind == ChannelKind::Open || member.spans.last().is_some();
        Err(match member.filter(was_here) {
            Some(member) if member.is_banned(now) => ErrorBody::forbidden("you are banned from this channel"),
            None => refuse_stranger(kind),
            Some(_) => ErrorBody::forbidden("you are no longer a member of this channel"),
        })
    }

    /// The role of a member who may write now.
    pub(super) fn check_speaks(
        &self,
        user: UserId,
        kind: ChannelKind,
        now: Millis,
    ) -> Result<Role, ErrorBody> {
        let (role, member) = self.check_member(user, kind, now)?;
        self.check_takes_messages()?;
        if kind == ChannelKind::Direct && self.members.is_blocked() {
            return Err(ErrorBody::forbidden(
                "one of the two users has blocked the other, or deleted the account",
            ));
        }
        if kind == ChannelKind::Direct && self.members.is_unwanted(user) {
            return Err(ErrorBody::forbidden(
                "the other user accepts no messages from strangers; send a contact request first",
            ));
        }
        if member.is_muted(now) {
            return Err(ErrorBody::forbidden("you are muted in this channel"));
        }
        Ok(role)
    }

    pub(super) fn check_everyone(&self, body: &Body, role: Role, kind: ChannelKind) -> Result<(), ErrorBody> {
        if body.mentions_everyone && kind == ChannelKind::Open && !role.is_admin() {
            let error = "body.mentions_everyone: only admins can mention everyone in an open channel";
            return Err(ErrorBody::field(ErrorCode::Forbidden, "body.mentions_everyone", error));
        }
        Ok(())
    }
}

impl Details {
    /// Applies a change and returns its entry.
    fn apply(&mut self, by: UserId, change: &DetailChange) -> Result<Content, ErrorBody> {
        Ok(match change.clone() {
            DetailChange::Name(name) => {
                self.name = Some(name.clone());
                Content::Renamed { name, by }
            }
            DetailChange::Topic(topic) => {
                self.topic.clone_from(&topic);
                Content::TopicChanged { topic, by }
            }
            DetailChange::Avatar(avatar) => {
                self.avatar.clone_from(&avatar);
                Content::AvatarChanged { avatar, by }
            }
            DetailChange::SlowMode(seconds) => {
                self.slow_mode_seconds = seconds;
                Content::SlowModeChanged { seconds, by }
            }
            DetailChange::Pin(target) => {
                let is_new = !self.pins.contains(&target);
                if is_new && self.pins.len() >= limits::PINS {
                    let error = format!("the channel has {} pinned messages, the limit", limits::PINS);
                    return Err(ErrorBody::new(ErrorCode::Full, error));
                }
                if is_new {
                    self.pins.insert(0, target);
                }
                Content::Pinned { target, by }
            }
            DetailChange::Unpin(target) => {
                self.pins.retain(|pin| *pin != target);
                Content::Unpinned { target, by }
            }
            // Unreachable: `judge_state` handles it.
            DetailChange::State(_) => {
                return Err(ErrorBody::new(ErrorCode::Internal, "internal server error"));
            }
        })
    }
}

/// The refusal of a request to a deleted channel.
#[must_use]
pub fn deleted_channel() -> ErrorBody {
    ErrorBody::field(ErrorCode::NotFound, "channel_id", "the channel was deleted by its owner")
}
