//! Joins, departures, changes of name and temporary bans between the lines of a day: over REST, through kills.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use madang_client::{ClientError, Rest};
use madang_proto::rest::{ProfileChange, Restrict};
use madang_proto::{ErrorCode, limits};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::device::Device;
use super::world::{World, count, lock};
use crate::corpus::{Move, Moved, NickIndex};
use crate::judge::faults::{Fault, FaultKind};

/// Number of lines after which a ban ends, unless the banned user has a line before that.
const BAN_LINES: usize = 25;
/// Interval between two checks whether the lines of a user are answered.
const LOOK: Duration = Duration::from_millis(10);
/// Wait before a retry if the server named none.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The joins and departures of one day.
pub(super) struct Comings<'a> {
    world: &'a World,
    day: u32,
    /// Creates the channel, stays all day, and bans.
    owner: NickIndex,
    moves: VecDeque<Move>,
    here: Vec<NickIndex>,
    /// Banned users, and the line before which each ban ends.
    banned: Vec<(NickIndex, usize)>,
    was_banned: HashSet<NickIndex>,
    random: SmallRng,
}

impl<'a> Comings<'a> {
    /// `None` if the day has no members.
    pub(super) fn new(world: &'a World, day: u32) -> Option<Self> {
        let plan = world.day(day);
        let is_here = |nick: &&NickIndex| !plan.latecomers.contains(*nick);
        Some(Self {
            world,
            day,
            owner: *plan.members.first()?,
            moves: plan.moves.iter().cloned().collect(),
            here: plan.members.iter().filter(is_here).copied().collect(),
            banned: Vec::new(),
            was_banned: HashSet::new(),
            random: SmallRng::seed_from_u64(world.args.seed ^ (u64::from(day) << 16) ^ 0x6261_6e73),
        })
    }

    /// Does everything that happens before a line.
    pub(super) async fn before(&mut self, line: usize, speaker: NickIndex) {
        self.end_bans(|nick, until| nick == speaker || until <= line).await;
        while let Some(moved) = self.moves.pop_front_if(|moved| moved.before <= line) {
            self.end_bans(|nick, _| nick == moved.nick).await;
            self.apply(moved).await;
        }
        if self.random.random_bool(self.world.args.shares.bans) {
            self.ban_somebody(line, speaker).await;
        }
    }

    /// Ends the remaining bans; those users return.
    pub(super) async fn end(&mut self) {
        self.end_bans(|_, _| true).await;
    }

    async fn apply(&mut self, moved: Move) {
        let nick = moved.nick;
        match moved.what {
            Moved::Joins => {
                self.come(nick).await;
                self.here.push(nick);
            }
            Moved::Leaves => {
                self.here.retain(|known| *known != nick);
                self.leave(nick, moved.before).await;
            }
            Moved::Renames(name) => {
                let name = name.chars().take(limits::DISPLAY_NAME_CHARS).collect();
                let change = ProfileChange { display_name: Some(name), ..ProfileChange::default() };
                let device = self.device(nick);
                let done = insist(self.world, device, |rest, token| {
                    let change = change.clone();
                    async move { rest.change_me(&token, &change).await }
                });
                self.expect(nick, "renamed", done.await.map(drop));
            }
        }
    }

    /// Joins an open channel, or is added to a group.
    async fn come(&self, nick: NickIndex) {
        let (world, day) = (self.world, self.day);
        let (channel, is_open) = {
            let book = lock(&world.day(day).book);
            (book.channel, book.is_open)
        };
        // From here on entries may be meant for a member.
        self.set_away(nick, false);
        let done = if is_open {
            let join = |rest: Rest, token: String| async move { rest.join(&token, channel).await.map(drop) };
            insist(world, self.device(nick), join).await
        } else {
            let user = self.device(nick).user;
            let add = |rest: Rest, token: String| async move {
                rest.add_members(&token, channel, vec![user]).await.map(drop)
            };
            insist(world, self.device(self.owner), add).await
        };
        count(&world.counters.joins);
        self.expect(nick, "let in", done);
        if is_open {
            world.open_to(nick, day);
        }
    }

    async fn leave(&self, nick: NickIndex, line: usize) {
        self.wait_until_answered(nick, line).await;
        self.set_away(nick, true);
        let (world, device) = (self.world, self.device(nick));
        let channel = lock(&world.day(self.day).book).channel;
        let user = device.user;
        let remove =
            |rest: Rest, token: String| async move { rest.remove_member(&token, channel, user).await };
        let done = insist(world, device, remove).await;
        count(&world.counters.leaves);
        // An earlier attempt whose answer was lost in a kill may have succeeded.
        let is_gone =
            |body: &madang_proto::ErrorBody| matches!(body.code, ErrorCode::NotFound | ErrorCode::Forbidden);
        let done = match done {
            Err(ClientError::Refused(body)) if is_gone(&body) => Ok(()),
            done => done,
        };
        self.expect(nick, "let go", done);
        world.close_to(nick, self.day);
    }

    async fn ban_somebody(&mut self, line: usize, speaker: NickIndex) {
        let may =
            |nick: &&NickIndex| **nick != speaker && **nick != self.owner && !self.was_banned.contains(*nick);
        let candidates: Vec<NickIndex> = self.here.iter().filter(may).copied().collect();
        if candidates.is_empty() {
            return;
        }
        let nick = candidates[self.random.random_range(0..candidates.len())];
        self.was_banned.insert(nick);
        self.banned.push((nick, line + BAN_LINES));
        self.wait_until_answered(nick, line).await;
        // The user's devices keep their subscriptions: the server must end them.
        self.set_away(nick, true);
        let channel = lock(&self.world.day(self.day).book).channel;
        let user = self.device(nick).user;
        let done = insist(self.world, self.device(self.owner), |rest, token| async move {
            rest.ban(&token, channel, user, &Restrict::default()).await
        });
        self.expect(nick, "banned", done.await);
        count(&self.world.counters.bans);
    }

    async fn end_bans(&mut self, is_over: impl Fn(NickIndex, usize) -> bool) {
        let (over, banned) = self.banned.drain(..).partition(|(nick, until)| is_over(*nick, *until));
        self.banned = banned;
        let over: Vec<(NickIndex, usize)> = over;
        for (nick, _) in over {
            let channel = lock(&self.world.day(self.day).book).channel;
            let user = self.device(nick).user;
            let done = insist(self.world, self.device(self.owner), |rest, token| async move {
                rest.unban(&token, channel, user).await
            });
            self.expect(nick, "unbanned", done.await);
            self.world.close_to(nick, self.day);
            self.come(nick).await;
        }
    }

    /// Waits until none of the user's earlier lines is in flight: the server would be right to refuse it.
    async fn wait_until_answered(&self, nick: NickIndex, line: usize) {
        let give_up = self.world.patience_ends();
        while self.is_under_way(nick, line) && self.world.uptime.now() < give_up {
            sleep(LOOK).await;
        }
    }

    fn is_under_way(&self, nick: NickIndex, line: usize) -> bool {
        let book = lock(&self.world.day(self.day).book);
        let mut said = book.lines.iter().take(line);
        said.any(|line| line.nick == nick.0 && line.acked.is_none() && !line.is_refused)
    }

    fn set_away(&self, nick: NickIndex, is_away: bool) {
        for device in &self.world.devices[nick.get()] {
            lock(&device.memory).records.entry(self.day).or_default().set_away(is_away);
        }
    }

    fn device(&self, nick: NickIndex) -> &'a Arc<Device> {
        &self.world.devices[nick.get()][0]
    }

    fn expect(&self, nick: NickIndex, what: &str, done: Result<(), ClientError>) {
        if let Err(error) = done {
            let what = format!("could not be {what}: {error}");
            let fault = lock(&self.world.day(self.day).book).fault(0, what);
            let device = Some(self.device(nick).name.clone());
            self.world.faults.note(FaultKind::Conflict, Fault { device, ..fault });
        }
    }
}

/// Repeats a call until it is answered, through kills and expired tokens.
pub(super) async fn insist<T, F>(
    world: &World,
    device: &Device,
    call: impl Fn(Rest, String) -> F,
) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let give_up = world.patience_ends();
    let mut has_renewed = false;
    loop {
        world.server_is_up().await;
        match call(world.rest_of(device).clone(), device.access_token()).await {
            Err(ClientError::Refused(body)) if body.code == ErrorCode::Unauthorized && !has_renewed => {
                has_renewed = true;
                // If the renewal failed, the next attempt shows it.
                let _ = device.renew(world).await;
            }
            Err(error) if error.is_retryable() && world.uptime.now() < give_up => {
                let wait = error.refusal().and_then(|body| body.retry_after_ms);
                sleep(wait.map_or(RETRY_AFTER, Duration::from_millis)).await;
            }
            done => return done,
        }
    }
}
