//! Homes on one world, their commands, and their answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use madang_ids::{ChannelId, ClientMsgId, ConnectionId, LogId, Millis, Origin, Seq, Snowflakes, UserId};
use madang_proto::rest::Restriction;
use madang_proto::{Body, ChannelKind, Content, ErrorCode, Role};

use super::world::{Out, Outcome, World};
use crate::body;
use crate::home::{
    ChangeRequest, Command, DetailChange, Effect, Home, JoinRequest, Loaded, MessageChange, ReactRequest,
    Reply, RestrictRequest, RestrictionKind, Scope, SeatRequest, Ticket,
};
use crate::log::{AppendOutcome, ReactionChange, Row, RowKey};
use crate::now::Now;
use crate::seats::SeatOutcome;

/// A home and the effect of it that is out.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) home: Home,
    pub(super) ids: Snowflakes,
    pub(super) out: Option<Out>,
    /// Counts the home's crashes; commands from before a crash are lost.
    pub(super) life: u32,
}

/// A command, when it came, and the answer.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) home: usize,
    pub(super) life: u32,
    pub(super) command: Command,
    pub(super) came: u64,
    pub(super) came_at: Duration,
    /// Refused at once, and not because it waited or was tried.
    pub(super) is_turned_away: bool,
    pub(super) answer: Option<(u64, Reply)>,
    pub(super) answered_at: Option<Duration>,
}

/// Homes on one world.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) drivers: Vec<Driver>,
    pub(super) asked: BTreeMap<Ticket, Asked>,
    pub(super) now: Now,
    scope: Scope,
    moment: u64,
    /// The events of the run, as lines of a transcript.
    pub(super) lines: Vec<String>,
    /// The user of each `Accept`.
    pub(super) accepted: Vec<u64>,
}

pub(super) const START: u64 = madang_ids::EPOCH_MS + 1_000_000;

pub(super) fn user(number: u64) -> UserId {
    UserId::from_raw(number)
}

pub(super) fn client_msg_id(number: u64) -> ClientMsgId {
    ClientMsgId::from_uuid(u128::from(number) | (7 << 100))
}

pub(super) fn send(origin: Option<u64>, sender: u64, key: u64, text: &str) -> Command {
    let body = Body { text: text.to_owned(), ..Body::default() };
    let key =
        RowKey { sender: user(sender), client_msg_id: client_msg_id(key), body_hash: body::hash(&body) };
    Command::Send {
        origin: origin.map(|number| Origin::of_one_process(ConnectionId::from_raw(number))),
        key,
        body,
    }
}

pub(super) fn seats(by: u64, joins: &[u64], leaves: &[u64]) -> Command {
    let joins = joins.iter().map(|&id| JoinRequest::of(user(id), Role::Member)).collect();
    let leaves = leaves.iter().map(|&id| user(id)).collect();
    Command::Seats(SeatRequest { joins, leaves, ..SeatRequest::by(user(by)) })
}

pub(super) fn edit(by: u64, target: u64, text: &str, if_version: Option<u32>) -> Command {
    let body = Body { text: text.to_owned(), ..Body::default() };
    let change = MessageChange::Edit { body, if_version };
    Command::Change(ChangeRequest { by: user(by), target: Seq::new(target), change })
}

pub(super) fn delete(by: u64, target: u64) -> Command {
    let target = Seq::new(target);
    Command::Change(ChangeRequest { by: user(by), target, change: MessageChange::Delete })
}

/// The times of reactions: they come in the order in which a test makes them.
static REACTED: AtomicU64 = AtomicU64::new(1);

pub(super) fn react(by: u64, target: u64, emoji: &str, on: bool) -> Command {
    let change = ReactionChange {
        user_id: user(by),
        emoji: emoji.to_owned(),
        on,
        at_us: REACTED.fetch_add(1, Ordering::Relaxed),
    };
    Command::React(ReactRequest { target: Seq::new(target), change })
}

pub(super) fn restrict(by: u64, of: u64, kind: RestrictionKind, is_on: bool) -> Command {
    let restriction = is_on.then_some(Restriction { until: None });
    let restrict = Some(RestrictRequest { user_id: user(of), kind, restriction });
    Command::Seats(SeatRequest { restrict, ..SeatRequest::by(user(by)) })
}

pub(super) fn role(by: u64, of: u64, role: Role) -> Command {
    let role = Some(JoinRequest::of(user(of), role));
    Command::Seats(SeatRequest { role, ..SeatRequest::by(user(by)) })
}

pub(super) fn detail(by: u64, change: DetailChange) -> Command {
    Command::Detail { by: user(by), change }
}

impl Stage {
    /// `homes` homes of one group, which is empty.
    pub(super) fn empty(homes: u16, capacity: u32, seed: u64) -> Self {
        Self::of(ChannelKind::Group, homes, capacity, seed)
    }

    /// `homes` homes of one channel, which is empty.
    pub(super) fn of(kind: ChannelKind, homes: u16, capacity: u32, seed: u64) -> Self {
        let log = LogId::Channel(ChannelId::from_raw(1));
        let scope = Scope::Channel { kind, capacity, created_by: user(1) };
        Self::over(log, scope, homes, World::new(log, capacity, seed))
    }

    /// `homes` homes of an open channel that the first user made; the lines of that are dropped.
    pub(super) fn open(homes: u16, capacity: u32, seed: u64) -> Self {
        let mut stage = Self::of(ChannelKind::Open, homes, capacity, seed);
        stage.create(&[1]);
        stage.lines.clear();
        stage
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.scope, Scope::Channel { kind: ChannelKind::Open, .. })
    }

    pub(super) fn over(log: LogId, scope: Scope, homes: u16, world: World) -> Self {
        let driver = |worker| Driver {
            home: Home::new(log, scope.clone()),
            ids: Snowflakes::new(worker).expect("a worker below 1024"),
            out: None,
            life: 0,
        };
        let drivers = (0..homes).map(driver).collect();
        let now = Now { at: Millis::new(START), elapsed: Duration::from_secs(1) };
        Self {
            world,
            drivers,
            asked: BTreeMap::new(),
            now,
            scope,
            moment: 0,
            lines: Vec::new(),
            accepted: Vec::new(),
        }
    }

    /// A group that the first user made with the others; the lines of that are dropped.
    pub(super) fn group(homes: u16, capacity: u32, members: &[u64]) -> Self {
        let mut stage = Self::empty(homes, capacity, 1);
        stage.create(members);
        stage.lines.clear();
        stage
    }

    pub(super) fn create(&mut self, members: &[u64]) {
        let role = |id| if id == 1 { Role::Owner } else { Role::Member };
        let joins = members.iter().map(|&id| JoinRequest::of(user(id), role(id))).collect();
        let request = SeatRequest { joins, is_creation: true, ..SeatRequest::by(user(1)) };
        self.ask(0, Command::Seats(request));
        self.run();
    }

    pub(super) fn ask(&mut self, home: usize, command: Command) -> Ticket {
        self.moment += 1;
        let ticket = Ticket(self.asked.len() as u64 + 1);
        let life = self.drivers[home].life;
        let replies = self.drivers[home].home.effects.len();
        self.drivers[home].home.handle_command(ticket, command.clone(), self.now);
        let is_turned_away = self.drivers[home].home.effects.len() > replies;
        let (came, came_at) = (self.moment, self.now.elapsed);
        let asked =
            Asked { home, life, command, came, came_at, is_turned_away, answer: None, answered_at: None };
        self.asked.insert(ticket, asked);
        ticket
    }

    pub(super) fn answer(&self, ticket: Ticket) -> Option<&Reply> {
        self.asked[&ticket].answer.as_ref().map(|(_, reply)| reply)
    }

    /// One stage of a home's work. `false` if it has none.
    pub(super) fn step(&mut self, home: usize) -> bool {
        let Some(out) = self.drivers[home].out.take() else {
            self.take_effects(home);
            return self.drivers[home].out.is_some();
        };
        match self.world.carry_out(out) {
            Ok(more) => self.drivers[home].out = Some(more),
            Err(outcome) => {
                self.note_outcome(home, &outcome);
                outcome.hand_to(&mut self.drivers[home].home, self.now);
                self.take_effects(home);
            }
        }
        true
    }

    /// Several stages of a home's work.
    pub(super) fn steps(&mut self, home: usize, count: usize) {
        for _ in 0..count {
            self.step(home);
        }
    }

    /// Polls the home until an effect of the store is out.
    fn take_effects(&mut self, home: usize) {
        loop {
            let driver = &mut self.drivers[home];
            let Some(effect) = driver.home.poll(self.now, &driver.ids) else { return };
            self.moment += 1;
            match Out::new(effect) {
                Ok(out) => {
                    self.note_effect(home, &out);
                    self.drivers[home].out = Some(out);
                    return;
                }
                Err(Effect::Reply { ticket, reply }) => {
                    self.lines.push(format!("{home} answers {}: {}", ticket.0, reply_text(&reply)));
                    let asked = self.asked.get_mut(&ticket).expect("a command that was asked");
                    assert!(asked.answer.is_none(), "{asked:?} is answered again: {reply:?}");
                    asked.answer = Some((self.moment, reply));
                    asked.answered_at = Some(self.now.elapsed);
                }
                Err(Effect::Fanout { rows, .. }) => {
                    self.lines.push(format!("{home} fans out {}", range_text(&rows)));
                }
                Err(Effect::Redrive { range, .. }) => {
                    let (first, last) = (range.start(), range.end());
                    let rows = if first == last { first.to_string() } else { format!("{first}–{last}") };
                    self.lines.push(format!("{home} redrives {rows}"));
                }
                Err(Effect::Accept { user_id }) => {
                    self.accepted.push(user_id.raw());
                    self.world.accept(user_id);
                }
                Err(other) => panic!("{other:?} is an effect of the store"),
            }
        }
    }

    /// Runs all homes, in turn, until nothing is left to do.
    pub(super) fn run(&mut self) {
        for _ in 0..200_000 {
            let mut has_worked = false;
            for home in 0..self.drivers.len() {
                has_worked |= self.step(home);
            }
            let due = self.drivers.iter().filter(|driver| driver.out.is_none());
            let due = due.filter_map(|driver| driver.home.due_in(self.now)).min();
            match due {
                _ if has_worked => {}
                Some(wait) => self.now = self.now.plus(wait),
                None => return,
            }
        }
        panic!("the homes never end");
    }

    /// The home's process dies, and another one takes over. The effect that was out may have happened.
    pub(super) fn crash(&mut self, home: usize, is_done: bool) {
        let driver = &mut self.drivers[home];
        driver.home = Home::new(self.world.log, self.scope.clone());
        driver.life += 1;
        if let Some(out) = driver.out.take().filter(|_| is_done) {
            let _ = self.world.carry_out(out);
        }
        self.lines.push(format!("{home} crashes"));
    }

    fn note_effect(&mut self, home: usize, out: &Out) {
        let what = match out {
            Out::Load { .. } => "load".to_owned(),
            Out::Find(lookup) => {
                let users: Vec<String> = lookup.users.iter().map(ToString::to_string).collect();
                format!("find {}{}", users.join(" "), if lookup.between { " and blocks" } else { "" })
            }
            Out::FindSends(keys) => format!("find {} sends", keys.len()),
            Out::FindRows(seqs) => format!("find rows {}", joined(seqs)),
            Out::React(changes) => {
                let targets: Vec<_> = changes.iter().map(|(target, _)| *target).collect();
                format!("react to {}", joined(&targets))
            }
            Out::Append(append) => {
                let records = match append.records.len() {
                    0 => String::new(),
                    count => format!("record {count}, "),
                };
                let condition = if append.looks_up_keys { " if unsent" } else { "" };
                let targets: Vec<_> = append.changes.iter().map(|change| change.target).collect();
                let changes =
                    if targets.is_empty() { String::new() } else { format!("change {}, ", joined(&targets)) };
                format!("{records}{changes}append {}{condition}", range_text(&append.rows))
            }
            Out::ChangeSeats { change, .. } => {
                format!("change seats to {} if rev {}", change.count, change.if_rev)
            }
            Out::Settle { members, .. } => {
                let users: Vec<String> = members.iter().map(|member| member.user_id.to_string()).collect();
                format!("settle {}", users.join(" "))
            }
        };
        self.lines.push(format!("{home} {}", what.trim()));
    }

    fn note_outcome(&mut self, home: usize, outcome: &Outcome) {
        let failed = |failure: &crate::home::Failure| match failure {
            crate::home::Failure::Unavailable(_) => "unavailable".to_owned(),
            crate::home::Failure::Unknown(_) => "unknown".to_owned(),
        };
        let what = match outcome {
            Outcome::Loaded(Ok(Loaded { tail, seats, pending, .. })) => {
                format!("head {}, {} seats taken, {} half-way", tail.head.seq, seats.count, pending.len())
            }
            Outcome::Settled(Ok(unsettled)) if !unsettled.is_empty() => {
                format!("{} are left", unsettled.len())
            }
            Outcome::Found(Ok(_)) | Outcome::Sends(Ok(_)) | Outcome::Settled(Ok(_)) => "ok".to_owned(),
            Outcome::Rows(Ok(_)) | Outcome::Reacted(Ok(_)) => "ok".to_owned(),
            Outcome::Appended(Ok(AppendOutcome::Appended)) => "appended".to_owned(),
            Outcome::Appended(Ok(AppendOutcome::SentBefore(sent))) => format!("{} sent before", sent.len()),
            Outcome::Appended(Ok(_)) | Outcome::Seated(Ok(SeatOutcome::Moved)) => "moved".to_owned(),
            Outcome::Seated(Ok(SeatOutcome::Changed(_))) => "changed".to_owned(),
            Outcome::Loaded(Err(failure))
            | Outcome::Rows(Err(failure))
            | Outcome::Reacted(Err(failure))
            | Outcome::Found(Err(failure))
            | Outcome::Sends(Err(failure))
            | Outcome::Appended(Err(failure))
            | Outcome::Seated(Err(failure))
            | Outcome::Settled(Err(failure)) => failed(failure),
        };
        self.lines.push(format!("{home}   {what}"));
    }

    /// Takes the lines since the last call.
    #[track_caller]
    pub(super) fn expect(&mut self, transcript: &str) {
        let expected: Vec<&str> = transcript.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let happened: Vec<String> = std::mem::take(&mut self.lines);
        let happened: Vec<String> = happened.iter().map(|line| line.replace("   ", " ")).collect();
        assert_eq!(happened, expected, "\n{}", happened.join("\n"));
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn range_text(rows: &[Row]) -> String {
    let text = |row: &Row| match &row.entry.content {
        Content::Message(message) if message.body.text.len() < 20 => message.body.text.clone(),
        Content::Message(_) => "…".to_owned(),
        Content::Created { .. } => "created".to_owned(),
        Content::Joined { user_id, .. } => format!("{user_id} joined"),
        Content::Left { user_id, .. } => format!("{user_id} left"),
        Content::Edited(change) => format!("{} edited", change.target),
        Content::Deleted(change) => format!("{} deleted", change.target),
        Content::Reactions(change) => format!("reactions to {}", change.target),
        Content::RoleChanged { user_id, .. } => format!("{user_id} has a role"),
        Content::Banned { user_id, .. } => format!("{user_id} banned"),
        Content::Unbanned { user_id, .. } => format!("{user_id} unbanned"),
        Content::Muted { user_id, .. } => format!("{user_id} muted"),
        Content::Unmuted { user_id, .. } => format!("{user_id} unmuted"),
        _ => "note".to_owned(),
    };
    match rows {
        [row] => format!("{} ({})", row.entry.seq, text(row)),
        [first, .., last] if rows.len() <= 4 => {
            let texts: Vec<String> = rows.iter().map(text).collect();
            format!("{}–{} ({})", first.entry.seq, last.entry.seq, texts.join(", "))
        }
        [first, .., last] => format!("{}–{}", first.entry.seq, last.entry.seq),
        [] => "nothing".to_owned(),
    }
}

pub(super) fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Sent(sent) if sent.by_retry => format!("sent {} before", sent.seq),
        Reply::Sent(sent) => format!("sent {}", sent.seq),
        Reply::Noted { seq } => format!("noted {seq}"),
        Reply::Changed { target, version, seq: Some(seq), .. } => {
            format!("changed {target} to {version} at {seq}")
        }
        Reply::Changed { target, version, seq: None, .. } => format!("{target} has {version}"),
        Reply::Seated { members } => {
            let users: Vec<String> = members.iter().map(|member| member.user_id.to_string()).collect();
            format!("seated [{}]", users.join(" "))
        }
        Reply::Refused(error) => code_text(error.code),
    }
}

fn code_text(code: ErrorCode) -> String {
    serde_json::to_string(&code).map_or_else(|_| String::new(), |text| text.trim_matches('"').to_owned())
}
