//! Channels and own logs to which a case appends as the chat server does, and the rows that each user must receive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use madang_engine::spans::Spans;
use madang_ids::{ChannelId, ClientMsgId, LogId, MessageId, Millis, Seq, UserId};
use madang_proto::{Body, ChannelCard, ChannelKind, Content, Entry, Message, Role};
use madang_store::{
    Append, AppendOutcome, BodyHash, Channel, Head, Member, Membership, Pending, PendingChange, Row, RowKey,
    SeatChange, SeatOutcome, Store,
};

use super::{Opened, Subject};
use crate::inbox::Inbox;

/// The log and the seq of a row.
pub(super) type Place = (LogId, Seq);

pub(super) fn user(id: u64) -> UserId {
    UserId::from_raw(id)
}

pub(super) fn log(channel: u64) -> LogId {
    LogId::Channel(ChannelId::from_raw(channel))
}

pub(super) fn own_log(id: u64) -> LogId {
    LogId::User(user(id))
}

/// Logs that have one writer.
pub(super) struct Workload {
    pub(super) store: Arc<dyn Store>,
    pub(super) inbox: Arc<dyn Inbox>,
    heads: BTreeMap<LogId, Head>,
    spans: BTreeMap<(UserId, LogId), Spans>,
    open: BTreeSet<LogId>,
    /// Every row, in the order of the appends.
    rows: Vec<Place>,
}

impl Workload {
    pub(super) fn new(opened: &Opened) -> Self {
        Self::over(Arc::clone(&opened.store), Arc::clone(&opened.inbox))
    }

    fn over(store: Arc<dyn Store>, inbox: Arc<dyn Inbox>) -> Self {
        Self {
            store,
            inbox,
            heads: BTreeMap::new(),
            spans: BTreeMap::new(),
            open: BTreeSet::new(),
            rows: Vec::new(),
        }
    }

    /// The same logs after a restart.
    pub(super) async fn restart(self, opened: Opened, subject: &Arc<dyn Subject>) -> (Opened, Self) {
        let Self { store, inbox, heads, spans, open, rows } = self;
        drop((store, inbox));
        opened.close().await;
        let opened = subject.open().await;
        let (store, inbox) = (Arc::clone(&opened.store), Arc::clone(&opened.inbox));
        (opened, Self { store, inbox, heads, spans, open, rows })
    }

    /// Splits off a workload that continues with one channel of this one.
    pub(super) fn split(&mut self, channel: u64) -> Self {
        let mut other = Self::over(Arc::clone(&self.store), Arc::clone(&self.inbox));
        other.heads.extend(self.heads.remove_entry(&log(channel)));
        let moved = self.spans.extract_if(.., |(_, log), _| *log == self::log(channel));
        other.spans.extend(moved);
        other
    }

    /// Joins a workload that was split off.
    pub(super) fn join_up(&mut self, other: Self) {
        self.heads.extend(other.heads);
        self.spans.extend(other.spans);
        self.rows.extend(other.rows);
    }

    /// Makes the channel an open one.
    pub(super) async fn make_open(&mut self, channel: u64) {
        let card = ChannelCard::new(ChannelId::from_raw(channel), ChannelKind::Open, None, None);
        let (created_by, created_at) = (user(1), Millis::new(1));
        let row = Channel::new(card, created_by, created_at, 100_000);
        self.store.create_channel(&row).await.unwrap();
        self.open.insert(log(channel));
    }

    /// Appends, and brings the rows to the inboxes. Returns the place of the first row.
    pub(super) async fn append(&mut self, log: LogId, contents: Vec<Content>) -> Seq {
        let rows = self.append_unheard(log, contents).await;
        self.inbox.moved(log, &rows).await.unwrap();
        rows[0].entry.seq
    }

    /// Appends like a home that dies before the fan-out.
    async fn append_unheard(&mut self, log: LogId, contents: Vec<Content>) -> Arc<[Row]> {
        let expected = match self.heads.get(&log) {
            Some(head) => *head,
            None => self.store.heads(&[log]).await.unwrap()[0],
        };
        let rows: Arc<[Row]> = rows(expected, contents).into();
        let append = Append::of(log, expected, Arc::clone(&rows));
        let head = append.head();
        assert_eq!(self.store.append(append).await, Ok(AppendOutcome::Appended));
        self.heads.insert(log, head);
        self.rows.extend(rows.iter().map(|row| (log, row.entry.seq)));
        rows
    }

    /// Sends several messages of one user in one append.
    pub(super) async fn say(&mut self, channel: u64, sender: u64, count: usize) {
        self.append(log(channel), said(sender, count)).await;
    }

    /// The same, but the home dies before the fan-out.
    pub(super) async fn say_unheard(&mut self, channel: u64, sender: u64, count: usize) {
        self.append_unheard(log(channel), said(sender, count)).await;
    }

    /// Appends an entry to a user's own log.
    pub(super) async fn note(&mut self, id: u64) {
        self.append(own_log(id), vec![Content::Blocked { user_id: user(99) }]).await;
    }

    /// Members join and leave, in the steps of the chat server: seats, memberships, the log, memberships, own logs, and
    /// finally the settlement of the seats.
    pub(super) async fn change(&mut self, channel: u64, joins: &[u64], leaves: &[u64]) {
        let channel_id = ChannelId::from_raw(channel);
        let head = self.store.heads(&[log(channel)]).await.unwrap()[0];
        let mut contents = Vec::new();
        let mut members = Vec::new();
        for &id in joins {
            let spans = self.spans.entry((user(id), log(channel))).or_default();
            spans.open(head.seq.next());
            contents.push(Content::Joined { user_id: user(id), by: user(id) });
            members.push(member(id, spans));
        }
        for &id in leaves {
            let spans = self.spans.entry((user(id), log(channel))).or_default();
            contents.push(Content::Left { user_id: user(id), by: user(id) });
            spans.close(head.seq.plus(contents.len() as u64));
            members.push(member(id, spans));
        }
        let seats = self.store.seats(channel_id).await.unwrap();
        let count = seats.count + joins.len() as u32 - leaves.len() as u32;
        let change = SeatChange { channel: channel_id, if_rev: seats.rev, count, members: members.clone() };
        let memberships = self.memberships(channel_id, &members);
        let outcome = self.store.change_seats(change, &memberships).await;
        assert!(matches!(outcome, Ok(SeatOutcome::Changed(_))));
        self.append(log(channel), contents).await;
        self.store.put_memberships(&memberships).await.unwrap();
        for member in &members {
            let content = settled_note(channel_id, member);
            self.append(LogId::User(member.user_id), vec![content]).await;
        }
        self.store.settle_members(channel_id, &members).await.unwrap();
    }

    fn memberships(&self, channel_id: ChannelId, members: &[Member]) -> Vec<Membership> {
        let membership = |member: &Member| Membership {
            user_id: member.user_id,
            channel_id,
            role: member.role,
            spans: member.spans.clone(),
            version: member.version(),
            in_inbox: !self.open.contains(&log(channel_id.raw())),
            has_accepted: member.has_accepted,
        };
        members.iter().map(membership).collect()
    }

    /// The rows that a user must receive, in the order of the appends.
    pub(super) fn expected_of(&self, id: u64) -> Vec<Place> {
        let is_theirs = |(log, seq): &Place| match *log {
            LogId::User(owner) => owner == user(id),
            LogId::Channel(_) => self.spans.get(&(user(id), *log)).is_some_and(|spans| spans.contains(*seq)),
        };
        self.rows.iter().filter(|place| is_theirs(place)).copied().collect()
    }
}

fn member(id: u64, spans: &Spans) -> Member {
    let (user_id, role) = (user(id), Role::Member);
    let pending = Some(Pending {
        by: user_id,
        place: spans.edge().unwrap_or_default(),
        change: PendingChange::Seat,
        is_recorded: false,
    });
    Member {
        user_id,
        role,
        joined_at: Millis::new(1),
        spans: spans.clone(),
        has_accepted: true,
        muted: None,
        banned: None,
        pending,
    }
}

fn settled_note(channel_id: ChannelId, member: &Member) -> Content {
    let span = member.spans.last().expect("a member has been there");
    match span.until {
        None => Content::ChannelJoined {
            channel: ChannelCard::new(channel_id, ChannelKind::Group, None, None),
            from_seq: span.from,
            had_stays: false,
            state: None,
        },
        Some(until_seq) => Content::ChannelLeft { channel_id, until_seq },
    }
}

/// Rows after `head`. Messages get their ids here.
fn rows(mut head: Head, contents: Vec<Content>) -> Vec<Row> {
    let at = head.at.plus(10);
    let mut rows = Vec::new();
    for mut content in contents {
        let seq = head.seq.next();
        let mut key = None;
        let mut ordinal = head.ordinal;
        if let Content::Message(message) = &mut content {
            ordinal = ordinal.next();
            message.ordinal = ordinal;
            message.message_id = MessageId::from_raw((at.get() << 12) + seq.get());
            message.client_msg_id = ClientMsgId::from_uuid(u128::from(seq.get()) | (7 << 100));
            let client_msg_id = message.client_msg_id;
            key = Some(RowKey { sender: message.sender_id, client_msg_id, body_hash: BodyHash([1; 16]) });
        }
        let row = Row { entry: Entry { seq, at, content }, ordinal, key };
        head = Head::after(&row);
        rows.push(row);
    }
    rows
}

/// Messages of one sender.
fn said(sender: u64, count: usize) -> Vec<Content> {
    let (id, key) = (MessageId::from_raw(0), ClientMsgId::from_uuid(0));
    let body = Body { text: "hello".into(), ..Body::default() };
    let message = Message::new(id, madang_ids::Ordinal::ZERO, user(sender), key, body);
    let content = Content::Message(Box::new(message));
    vec![content; count]
}
