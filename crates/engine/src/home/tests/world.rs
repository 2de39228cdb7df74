//! A store in memory that carries out a home's effects, one stage at a time, so that others come in between.
#![expect(clippy::result_large_err, reason = "the other variant is the outcome of an effect, not an error")]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use madang_ids::{ClientMsgId, LogId, MessageId, Seq, UserId};
use madang_proto::{Body, Content, Entry, ErrorBody, Message, Reaction};

use crate::home::{Between, Effect, Failure, Found, Home, Loaded, Lookup, WINDOW_ROWS};
use crate::log::{
    Append, AppendOutcome, BodyHash, Details, Head, MAX_APPEND_BYTES, MAX_APPEND_ROWS, ReactionChange, Row,
    RowKey, SendRecord, Tail,
};
use crate::seats::{Member, SeatChange, SeatOutcome, Seats};

/// The kinds of effects of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Load,
    Find,
    FindSends,
    FindRows,
    React,
    Change,
    Record,
    LookUp,
    Append,
    ChangeSeats,
    Memberships,
    Settle,
}

/// The fate of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    Unavailable,
    UnknownDone,
    UnknownLost,
    /// An append that happens later, or never, as long as no other append of the log comes first.
    UnknownLate,
}

/// A small generator of numbers (xorshift; Marsaglia 2003).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// An effect of the store that is out.
#[derive(Debug)]
pub(super) enum Out {
    Load { lookup: Lookup, tail: Option<Tail>, seats: Option<Seats> },
    FindRows(Vec<Seq>),
    React(Vec<(Seq, Vec<ReactionChange>)>),
    Find(Lookup),
    FindSends(Vec<(UserId, ClientMsgId)>),
    Append(Append),
    ChangeSeats { change: SeatChange, changed: Option<Seats> },
    Settle { members: Vec<Member>, is_written: bool },
}

impl Out {
    /// The store's part of an effect; `None` for replies and fan-outs.
    pub(super) fn new(effect: Effect) -> Result<Self, Effect> {
        match effect {
            Effect::Load { lookup, .. } => Ok(Self::Load { lookup, tail: None, seats: None }),
            Effect::Find(lookup) => Ok(Self::Find(lookup)),
            Effect::FindSends { keys } => Ok(Self::FindSends(keys)),
            Effect::FindRows { seqs, .. } => Ok(Self::FindRows(seqs)),
            Effect::React { changes } => Ok(Self::React(changes)),
            Effect::Append(append) => Ok(Self::Append(append)),
            Effect::ChangeSeats(change) => Ok(Self::ChangeSeats { change, changed: None }),
            Effect::Settle { members } => Ok(Self::Settle { members, is_written: false }),
            other => Err(other),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Load { .. } => Kind::Load,
            Self::Find(_) => Kind::Find,
            Self::FindSends(_) => Kind::FindSends,
            Self::FindRows(_) => Kind::FindRows,
            Self::React(_) => Kind::React,
            Self::Append(append) if !append.records.is_empty() => Kind::Record,
            Self::Append(append) if append.looks_up_keys => Kind::LookUp,
            Self::Append(append) if !append.changes.is_empty() => Kind::Change,
            Self::Append(_) => Kind::Append,
            Self::ChangeSeats { changed: None, .. } => Kind::ChangeSeats,
            Self::ChangeSeats { .. } | Self::Settle { is_written: false, .. } => Kind::Memberships,
            Self::Settle { .. } => Kind::Settle,
        }
    }
}

/// The outcome of an effect.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Loaded(Result<Loaded, Failure>),
    Rows(Result<Vec<(Seq, Option<Row>)>, Failure>),
    Reacted(Result<Vec<Vec<Reaction>>, Failure>),
    Found(Result<Found, Failure>),
    Sends(Result<Vec<Option<SendRecord>>, Failure>),
    Appended(Result<AppendOutcome, Failure>),
    Seated(Result<SeatOutcome, Failure>),
    Settled(Result<Vec<UserId>, Failure>),
}

impl Outcome {
    pub(super) fn hand_to(self, home: &mut Home, now: crate::now::Now) {
        match self {
            Self::Loaded(loaded) => home.handle_loaded(loaded, now),
            Self::Rows(rows) => home.handle_rows(rows, now),
            Self::Reacted(reacted) => home.handle_reacted(reacted, now),
            Self::Found(found) => home.handle_found(found, now),
            Self::Sends(sends) => home.handle_sends(sends, now),
            Self::Appended(outcome) => home.handle_appended(outcome, now),
            Self::Seated(outcome) => home.handle_seated(outcome, now),
            Self::Settled(settled) => home.handle_settled(settled, now),
        }
    }
}

/// The store.
#[derive(Debug)]
pub(super) struct World {
    pub(super) log: LogId,
    pub(super) capacity: u32,
    pub(super) rows: Vec<Row>,
    pub(super) details: Details,
    pub(super) reactions: BTreeMap<(Seq, String), BTreeSet<UserId>>,
    /// The times of the last changes.
    pub(super) reacted: BTreeMap<(Seq, String, UserId), u64>,
    /// Messages whose rows may be behind their sets, since nobody may react to them.
    pub(super) behind: BTreeSet<Seq>,
    pub(super) head: Head,
    pub(super) seats: Seats,
    pub(super) members: BTreeMap<UserId, Member>,
    pub(super) recorded: HashMap<(UserId, ClientMsgId), SendRecord>,
    pub(super) is_blocked: bool,
    /// In a direct channel, users whose messages the other user does not take.
    pub(super) unwanted: Vec<UserId>,
    /// Appends of unknown outcome that may still happen.
    late: Vec<Append>,
    /// Planned fates of the next effects of a kind. They take precedence over random ones.
    pub(super) scripted: VecDeque<(Kind, Fate)>,
    /// The most rows of one look-up, as if the others had no room.
    pub(super) find_rows: usize,
    /// Users whose own partitions cannot be written.
    pub(super) gone: BTreeSet<UserId>,
    /// The percentage of effects that fail.
    pub(super) percent: u64,
    dice: Dice,
}

impl World {
    pub(super) fn new(log: LogId, capacity: u32, seed: u64) -> Self {
        Self {
            log,
            capacity,
            rows: Vec::new(),
            details: Details::default(),
            reactions: BTreeMap::new(),
            reacted: BTreeMap::new(),
            behind: BTreeSet::new(),
            head: Head::default(),
            seats: Seats::default(),
            members: BTreeMap::new(),
            recorded: HashMap::new(),
            is_blocked: false,
            unwanted: Vec::new(),
            late: Vec::new(),
            scripted: VecDeque::new(),
            find_rows: if seed % 3 == 2 { 1 + seed as usize % 2 } else { usize::MAX },
            gone: BTreeSet::new(),
            percent: 0,
            dice: Dice::new(seed),
        }
    }

    fn fate(&mut self, kind: Kind) -> Fate {
        if self.scripted.front().is_some_and(|(scripted, _)| *scripted == kind) {
            return self.scripted.pop_front().map_or(Fate::Done, |(_, fate)| fate);
        }
        if self.percent == 0 || self.dice.below(100) >= self.percent {
            return Fate::Done;
        }
        let is_read =
            matches!(kind, Kind::Load | Kind::Find | Kind::FindSends | Kind::FindRows | Kind::LookUp);
        match self.dice.below(5) {
            0 | 1 => Fate::Unavailable,
            _ if is_read => Fate::Unavailable,
            2 => Fate::UnknownDone,
            3 => Fate::UnknownLost,
            _ => Fate::UnknownLate,
        }
    }

    /// Carries out one stage: the rest of the effect, or its outcome.
    pub(super) fn carry_out(&mut self, out: Out) -> Result<Out, Outcome> {
        let fate = self.fate(out.kind());
        let failure = match fate {
            Fate::Done => None,
            Fate::Unavailable => Some(Failure::Unavailable(ErrorBody::unavailable("not now", 1))),
            _ => Some(Failure::Unknown(ErrorBody::unavailable("nobody knows", 1))),
        };
        let is_done = matches!(fate, Fate::Done | Fate::UnknownDone);
        match out {
            Out::Load { lookup, tail, seats } => match failure {
                Some(failure) => Err(Outcome::Loaded(Err(failure))),
                None => self.load(lookup, tail, seats),
            },
            Out::FindRows(seqs) => {
                let row = |seq: Seq| self.rows.get(seq.get().wrapping_sub(1) as usize).cloned();
                let rows = seqs.into_iter().take(self.find_rows).map(|seq| (seq, row(seq))).collect();
                Err(Outcome::Rows(failure.map_or(Ok(rows), Err)))
            }
            Out::React(changes) => {
                if is_done {
                    changes.iter().for_each(|(target, changes)| self.react(*target, changes));
                }
                let all = changes.iter().map(|(target, _)| self.reactions_to(*target)).collect();
                Err(Outcome::Reacted(failure.map_or(Ok(all), Err)))
            }
            Out::Find(lookup) => Err(Outcome::Found(failure.map_or_else(|| Ok(self.find(&lookup)), Err))),
            Out::FindSends(keys) => {
                let sends = keys.iter().map(|key| self.recorded.get(key).copied()).collect();
                Err(Outcome::Sends(failure.map_or(Ok(sends), Err)))
            }
            Out::Append(mut append) if !append.records.is_empty() || append.looks_up_keys => {
                let records = std::mem::take(&mut append.records);
                let mut sent = Vec::new();
                if records.is_empty() {
                    append.looks_up_keys = false;
                    sent.extend(append.keys().filter_map(|key| self.recorded.get(&key)).copied());
                }
                if is_done {
                    records.into_iter().for_each(|record| self.record(record));
                }
                // No row was appended, whatever became of the records.
                match failure {
                    None if sent.is_empty() => Ok(Out::Append(append)),
                    None => Err(Outcome::Appended(Ok(AppendOutcome::SentBefore(sent)))),
                    Some(failure) => Err(Outcome::Appended(Err(Failure::Unavailable(failure.error())))),
                }
            }
            // Changes and rows are not atomic.
            Out::Append(mut append) if !append.changes.is_empty() => {
                let outcome = match fate {
                    Fate::Done | Fate::UnknownDone => self.change(&append),
                    Fate::UnknownLate => {
                        self.late.push(append.clone());
                        None
                    }
                    Fate::Unavailable | Fate::UnknownLost => None,
                };
                append.changes.clear();
                match (failure, outcome) {
                    (Some(failure), _) => Err(Outcome::Appended(Err(failure))),
                    (None, Some(refused)) => Err(Outcome::Appended(Ok(refused))),
                    (None, None) => Ok(Out::Append(append)),
                }
            }
            Out::Append(append) => {
                self.apply_late();
                let outcome = match fate {
                    Fate::Done | Fate::UnknownDone => self.append(&append),
                    Fate::UnknownLate => {
                        self.late.push(append);
                        AppendOutcome::Appended
                    }
                    Fate::Unavailable | Fate::UnknownLost => AppendOutcome::Appended,
                };
                Err(Outcome::Appended(failure.map_or(Ok(outcome), Err)))
            }
            Out::ChangeSeats { change, changed: None } => {
                let outcome = if is_done { self.change_seats(&change) } else { SeatOutcome::Moved };
                match (failure, outcome) {
                    (Some(failure), _) => Err(Outcome::Seated(Err(failure))),
                    (None, SeatOutcome::Changed(seats)) => {
                        Ok(Out::ChangeSeats { change, changed: Some(seats) })
                    }
                    (None, moved) => Err(Outcome::Seated(Ok(moved))),
                }
            }
            // The seats are taken, so memberships that could not be written leave it unknown.
            Out::ChangeSeats { changed: Some(seats), .. } => {
                let unknown = failure.map(|failure| Failure::Unknown(failure.error()));
                Err(Outcome::Seated(unknown.map_or(Ok(SeatOutcome::Changed(seats)), Err)))
            }
            Out::Settle { members, is_written: false } => match failure {
                Some(failure) => Err(Outcome::Settled(Err(failure))),
                None => Ok(Out::Settle { members, is_written: true }),
            },
            Out::Settle { members, .. } => {
                let unsettled: Vec<UserId> = members.iter().map(|member| member.user_id).collect();
                let unsettled: Vec<UserId> =
                    unsettled.into_iter().filter(|user| self.gone.contains(user)).collect();
                if is_done {
                    for member in members {
                        let is_left = unsettled.contains(&member.user_id);
                        self.settle(&member.recorded(is_left));
                    }
                }
                Err(Outcome::Settled(failure.map_or(Ok(unsettled), Err)))
            }
        }
    }

    /// Some of the appends of unknown outcome happen now, if their head still stands. Nothing settles the others.
    fn apply_late(&mut self) {
        for append in std::mem::take(&mut self.late) {
            match self.dice.below(3) {
                0 if self.change(&append).is_none() => drop(self.append(&append)),
                0 => {}
                1 if append.expected == self.head => self.late.push(append),
                _ => {}
            }
        }
    }

    /// Tail, seats and members are three reads; others come in between.
    fn load(&mut self, lookup: Lookup, tail: Option<Tail>, seats: Option<Seats>) -> Result<Out, Outcome> {
        match (tail, seats) {
            (None, _) => {
                self.apply_late();
                let from = self.rows.len().saturating_sub(WINDOW_ROWS);
                let rows = self.rows[from..].iter().cloned().map(Row::without_body).collect();
                let tail = Tail { head: self.head, rows };
                Ok(Out::Load { lookup, tail: Some(tail), seats: None })
            }
            (Some(tail), None) => Ok(Out::Load { lookup, tail: Some(tail), seats: Some(self.seats) }),
            (Some(tail), Some(seats)) => {
                let pending =
                    self.members.values().filter(|member| member.pending.is_some()).cloned().collect();
                let details = self.details.clone();
                let found = self.find(&lookup);
                Err(Outcome::Loaded(Ok(Loaded { tail, seats, pending, details, found })))
            }
        }
    }

    /// Changes rows, unless the head or a version is another.
    fn change(&mut self, append: &Append) -> Option<AppendOutcome> {
        if append.changes.is_empty() {
            return None;
        }
        if append.expected != self.head {
            return Some(AppendOutcome::Moved);
        }
        for change in &append.changes {
            let row = &mut self.rows[change.target.get() as usize - 1];
            let version = match &row.entry.content {
                Content::Message(message) => message.version,
                Content::Unreadable(unreadable) => unreadable.version,
                _ => 0,
            };
            if version != change.if_version {
                return Some(AppendOutcome::Stale);
            }
            let after = change.content.message().map_or(0, |message| message.version);
            assert_eq!(after, version + 1, "a change skips a version");
            row.entry.content = change.content.clone();
        }
        None
    }

    fn react(&mut self, target: Seq, changes: &[ReactionChange]) {
        for change in changes {
            let last_us = self.reacted.entry((target, change.emoji.clone(), change.user_id)).or_default();
            if change.at_us < *last_us {
                continue;
            }
            *last_us = change.at_us;
            let users = self.reactions.entry((target, change.emoji.clone())).or_default();
            let _ = if change.on { users.insert(change.user_id) } else { users.remove(&change.user_id) };
        }
    }

    pub(super) fn reactions_to(&self, target: Seq) -> Vec<Reaction> {
        let of_target = self.reactions.iter().filter(|((to, _), users)| *to == target && !users.is_empty());
        let reaction = |((_, emoji), users): (&(Seq, String), &BTreeSet<UserId>)| Reaction {
            emoji: emoji.clone(),
            count: users.len() as u32,
            users: users.iter().copied().collect(),
        };
        of_target.map(reaction).collect()
    }

    fn find(&self, lookup: &Lookup) -> Found {
        let members = lookup.users.iter().map(|user| (*user, self.members.get(user).cloned())).collect();
        let unwanted = self.unwanted.clone();
        let between = lookup.between.then_some(Between { is_blocked: self.is_blocked, unwanted });
        Found { members, between }
    }

    fn record(&mut self, record: SendRecord) {
        self.recorded.entry((record.key.sender, record.key.client_msg_id)).or_insert(record);
    }

    /// Appends, and checks what holds of every append.
    pub(super) fn append(&mut self, append: &Append) -> AppendOutcome {
        let rows: &Arc<[Row]> = &append.rows;
        assert!((1..=MAX_APPEND_ROWS).contains(&rows.len()), "an append has {} rows", rows.len());
        let text = |row: &Row| row.entry.content.message().map_or(0, |message| message.body.text.len());
        // Only long texts can be too much.
        let bytes: usize = match rows.iter().map(text).sum() {
            0..100_000 => 0,
            _ => {
                rows.iter().map(|row| serde_json::to_string(&row.entry).map_or(0, |entry| entry.len())).sum()
            }
        };
        assert!(bytes <= MAX_APPEND_BYTES || rows.len() == 1, "an append has {bytes} bytes");
        if append.expected != self.head {
            return AppendOutcome::Moved;
        }
        let seqs = rows.iter().map(|row| row.entry.seq.get());
        assert!(seqs.eq(self.head.seq.get() + 1..=append.head().seq.get()), "an append has a hole");
        assert!(rows.iter().all(|row| row.entry.at > self.head.at), "time does not rise with seq");
        let left = (self.rows.len() + rows.len()).saturating_sub(WINDOW_ROWS);
        let leaves =
            (self.rows.len().saturating_sub(WINDOW_ROWS)..left).filter_map(|index| self.rows[index].key);
        for key in leaves {
            let record = self.recorded.get(&(key.sender, key.client_msg_id));
            assert_eq!(record.map(|record| record.key), Some(key), "a row leaves the window unrecorded");
        }
        self.rows.extend(rows.iter().cloned().map(without_carried));
        self.head = append.head();
        if let Some(details) = &append.details {
            self.details.clone_from(details);
        }
        AppendOutcome::Appended
    }

    /// Another writer, unknown to the homes, appends a message.
    pub(super) fn append_another(&mut self, sender: u64, number: u64) {
        let key = RowKey {
            sender: UserId::from_raw(sender),
            client_msg_id: ClientMsgId::from_uuid(u128::from(number) | (9 << 100)),
            body_hash: BodyHash([0; 16]),
        };
        let Head { seq, ordinal, at } = self.head;
        let (id, ordinal, at) = (MessageId::from_raw(number), ordinal.next(), at.next());
        let message = Message::new(id, ordinal, key.sender, key.client_msg_id, Body::default());
        let entry = Entry { seq: seq.next(), at, content: Content::Message(Box::new(message)) };
        let row = Row { entry, ordinal, key: Some(key) };
        let outcome = self.append(&Append::of(self.log, self.head, [row].into()));
        assert_eq!(outcome, AppendOutcome::Appended);
    }

    fn change_seats(&mut self, change: &SeatChange) -> SeatOutcome {
        if change.if_rev != self.seats.rev {
            return SeatOutcome::Moved;
        }
        self.seats = Seats { count: change.count, rev: self.seats.rev + 1 };
        self.members.extend(change.members.iter().map(|member| (member.user_id, member.clone())));
        let seated = self.members.values().filter(|member| member.spans.is_open()).count();
        assert_eq!(seated, self.seats.count as usize, "the count is not that of the members");
        assert!(self.seats.count <= self.capacity, "more members than seats");
        SeatOutcome::Changed(self.seats)
    }

    fn settle(&mut self, settled: &Member) {
        let found = self.members.get_mut(&settled.user_id);
        if let Some(found) = found.filter(|found| found.is_settled_by(settled)) {
            found.spans = settled.spans.clone();
            found.pending = settled.pending.filter(|pending| pending.is_recorded);
        }
    }

    pub(super) fn accept(&mut self, user: UserId) {
        let member = self.members.get_mut(&user).filter(|member| member.spans.is_open());
        member.into_iter().for_each(|member| member.has_accepted = true);
    }

    pub(super) fn row(&self, seq: Seq) -> &Row {
        &self.rows[seq.get() as usize - 1]
    }
}

/// A row as it is kept: a change without the message that it carries.
fn without_carried(mut row: Row) -> Row {
    row.entry.content.carry(None);
    row
}
