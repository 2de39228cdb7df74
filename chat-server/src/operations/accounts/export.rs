//! Exports what the server keeps about a user, as lines of JSON. A page is read from the store when the client has taken the one
//! before. So only one page is held however much there is, and no read of the store takes long.
//!
//! The messages of a user are found by reading the user's channels and stays in bounded runs of rows. An index by sender would
//! cost every send, while an export is rare.

use std::collections::{HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use madang_engine::spans::Spans;
use madang_ids::{ChannelId, DeviceId, Seq, UserId};
use madang_proto::rest::{
    ChannelMessage, ExportEnd, ExportLine, ExportedChannel, ExportedReaction, PageQuery, Stay,
};
use madang_proto::{Content, ErrorBody, ErrorCode};
use madang_store::{ChannelState, ReactionPlace, Row};
use parking_lot::Mutex;

use crate::operations::channels::view;
use crate::operations::costs::Cost;
use crate::operations::{Caller, Operations};
use crate::refusal::{OperationError, Result};

/// Rows or reactions that one read looks at.
const LOOKED_AT: u64 = 1_000;
/// Bytes of messages in one read. A single row may be larger.
const BYTES_AT_ONCE: usize = 128 * 1024;
/// Lines are collected up to this size before they are returned.
const PAGE_BYTES: usize = 32 * 1024;
const ROWS_AT_ONCE: u32 = 100;
/// The longest time that an export may take: a client that reads a byte a minute must not hold its place for ever.
const LONGEST: Duration = Duration::from_secs(4 * 3_600);
/// Attempts of one read while the store is unavailable.
const TRIES: u32 = 8;
const RETRY_MS: u64 = 10_000;

/// Users with an export in progress. Clones share the set.
#[derive(Debug, Clone, Default)]
pub struct Exports(Arc<Mutex<HashSet<UserId>>>);

/// The export of one user is in progress until this is dropped.
#[derive(Debug)]
struct Seat {
    user: UserId,
    exports: Exports,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.exports.0.lock().remove(&self.user);
    }
}

/// An export. Call [`Export::next`] until it returns `None`.
pub struct Export {
    operations: Arc<Operations>,
    caller: Caller,
    /// The device whose sign-in the export depends on. `None` for an operator's export.
    device: Option<DeviceId>,
    step: Step,
    end: ExportEnd,
    /// The cost of the last read, which the next one waits for.
    owed: Cost,
    until: Duration,
    _seat: Seat,
}

/// The next thing to read.
#[derive(Debug, Clone)]
enum Step {
    Profile,
    Devices,
    Contacts(Option<String>),
    Blocks(Option<String>),
    /// The first channel after this one.
    Channels(Option<ChannelId>),
    Messages(ChannelId, VecDeque<RangeInclusive<Seq>>),
    Reactions(ChannelId, Option<ReactionPlace>),
    End,
    Done,
}

/// The result of one read.
struct Read {
    lines: Vec<ExportLine>,
    next: Step,
    cost: Cost,
}

impl Operations {
    /// Begins an export of what the server keeps about the caller. It ends if the caller's device is revoked.
    ///
    /// # Errors
    /// `limited` while another export of the user is in progress.
    pub fn export(self: &Arc<Self>, caller: Caller) -> Result<Export, ErrorBody> {
        self.export_for(caller, Some(caller.device_id))
    }

    pub(in crate::operations) fn export_for(
        self: &Arc<Self>,
        caller: Caller,
        device: Option<DeviceId>,
    ) -> Result<Export, ErrorBody> {
        let user = caller.user_id;
        if !self.exports.0.lock().insert(user) {
            let message = "an export of this user is in progress; read it to its end or close its connection";
            return Err(ErrorBody::limited(message, RETRY_MS));
        }
        let counts = ExportEnd {
            user_id: user,
            at: self.clock.now_ms(),
            lines: 0,
            devices: 0,
            contacts: 0,
            blocks: 0,
            channels: 0,
            messages: 0,
            reactions: 0,
        };
        Ok(Export {
            operations: Arc::clone(self),
            caller,
            device,
            step: Step::Profile,
            end: counts,
            owed: Cost::default(),
            until: self.clock.elapsed() + LONGEST,
            _seat: Seat { user, exports: self.exports.clone() },
        })
    }
}

impl Export {
    /// Returns the next lines, at least one; `None` after the last. Not cancel safe: drop the export together with the future.
    ///
    /// # Errors
    /// The export is aborted: the device was revoked, it took too long, or the store was unavailable for too long.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        while text.len() < PAGE_BYTES && !matches!(self.step, Step::Done) {
            self.check_may_go_on().await?;
            self.operations.callers.pay_export(self.caller.user_id, std::mem::take(&mut self.owed)).await;
            let Read { lines, next, cost } = self.read_patiently().await?;
            let begun = text.len();
            for line in &lines {
                self.count(line);
                serde_json::to_writer(&mut text, line).map_err(|error| unwritable(&error))?;
                text.push(b'\n');
            }
            self.owed = cost.and(Cost::bytes(text.len() - begun));
            self.step = next;
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Counts of what was exported so far.
    #[must_use]
    pub const fn counts(&self) -> ExportEnd {
        self.end
    }

    async fn check_may_go_on(&self) -> Result<()> {
        if self.operations.clock.elapsed() > self.until {
            return Err(ErrorBody::unavailable("the export took too long", RETRY_MS).into());
        }
        match self.device {
            Some(device) => self.operations.check_signed_in(self.caller.user_id, device).await,
            None => Ok(()),
        }
    }

    async fn read_patiently(&self) -> Result<Read> {
        let mut tries = 1;
        loop {
            match self.read().await {
                Err(error) if error.code() == ErrorCode::Unavailable && tries < TRIES => {
                    tracing::warn!(user.id = %self.caller.user_id, %error, "reading for an export failed; retrying");
                    tries += 1;
                    self.operations.clock.sleep(Duration::from_secs(1)).await;
                }
                read => return read,
            }
        }
    }

    async fn read(&self) -> Result<Read> {
        match &self.step {
            Step::Profile => self.profile().await,
            Step::Devices => self.devices().await,
            Step::Contacts(after) => self.contacts(after.clone()).await,
            Step::Blocks(after) => self.blocks(after.clone()).await,
            Step::Channels(after) => self.channel(*after).await,
            Step::Messages(channel, parts) => self.messages(*channel, parts.clone()).await,
            Step::Reactions(channel, after) => self.reactions(*channel, after.clone()).await,
            Step::End | Step::Done => Ok(self.last_line()),
        }
    }

    async fn profile(&self) -> Result<Read> {
        let me = self.operations.me(self.caller).await?;
        Ok(Read { lines: vec![ExportLine::Profile(me)], next: Step::Devices, cost: Cost::default() })
    }

    async fn devices(&self) -> Result<Read> {
        let devices = self.operations.devices_of(self.caller.user_id, self.device).await?.items;
        let user = self.caller.user_id;
        let subscriptions = self.operations.push_subscriptions_of(user).await?.items;
        let settings = self.operations.alert_settings(self.caller).await?;
        let lines = devices.into_iter().map(ExportLine::Device);
        let lines = lines.chain(subscriptions.into_iter().map(ExportLine::PushSubscription));
        let lines = lines.chain([ExportLine::AlertSettings(settings)]).collect();
        Ok(Read { lines, next: Step::Contacts(None), cost: Cost::default() })
    }

    async fn contacts(&self, after: Option<String>) -> Result<Read> {
        let query = PageQuery { after, limit: Some(ROWS_AT_ONCE) };
        let page = self.operations.contacts(self.caller, query).await?;
        let next = page.next.map_or(Step::Blocks(None), |next| Step::Contacts(Some(next)));
        let lines = page.items.into_iter().map(ExportLine::Contact).collect();
        Ok(Read { lines, next, cost: Cost::default() })
    }

    async fn blocks(&self, after: Option<String>) -> Result<Read> {
        let query = PageQuery { after, limit: Some(ROWS_AT_ONCE) };
        let page = self.operations.blocks(self.caller, query).await?;
        let next = page.next.map_or(Step::Channels(None), |next| Step::Blocks(Some(next)));
        let lines = page.items.into_iter().map(ExportLine::Block).collect();
        Ok(Read { lines, next, cost: Cost::default() })
    }

    /// Reads the next channel that the user was ever a member of. A deleted channel has no messages any more.
    async fn channel(&self, after: Option<ChannelId>) -> Result<Read> {
        let (user, store) = (self.caller.user_id, &self.operations.store);
        let next = store.memberships(user, after, 1).await?;
        let Some(membership) = next.into_iter().next() else {
            return Ok(Read { lines: Vec::new(), next: Step::End, cost: Cost::default() });
        };
        let channel = membership.channel_id;
        let cost = Cost::rows(ROWS_AT_ONCE as usize);
        let overview = match self.operations.overview_of(user, channel).await {
            Ok(overview) if overview.channel.state != ChannelState::Deleted => overview,
            Err(error) if error.code() == ErrorCode::Unavailable => return Err(error),
            other => {
                if let Err(OperationError::Store(error)) = other {
                    tracing::error!(channel.id = %channel, %error, "a channel was left out of an export");
                }
                return Ok(Read { lines: Vec::new(), next: Step::Channels(Some(channel)), cost });
            }
        };
        let parts = runs(&membership.spans, overview.head.seq);
        let stays = membership.spans.iter().map(|span| Stay { from_seq: span.from, until_seq: span.until });
        let line = ExportedChannel { stays: stays.collect(), view: view(overview) };
        Ok(Read {
            lines: vec![ExportLine::Channel(Box::new(line))],
            next: Step::Messages(channel, parts),
            cost,
        })
    }

    async fn messages(&self, channel: ChannelId, mut parts: VecDeque<RangeInclusive<Seq>>) -> Result<Read> {
        let Some((first, last)) = parts.pop_front().map(RangeInclusive::into_inner) else {
            return Ok(Read {
                lines: Vec::new(),
                next: Step::Reactions(channel, None),
                cost: Cost::default(),
            });
        };
        let end = last.min(first.plus(LOOKED_AT - 1));
        let (user, logs) = (self.caller.user_id, &self.operations.logs);
        let sent = logs.rows_by(channel, user, first..=end, BYTES_AT_ONCE).await?;
        if sent.upto < last {
            parts.push_front(sent.upto.next()..=last);
        }
        let looked_at = usize::try_from(sent.upto.get() + 1 - first.get()).unwrap_or(usize::MAX);
        let lines = sent.rows.into_iter().filter_map(|row| message(channel, row)).collect();
        Ok(Read { lines, next: Step::Messages(channel, parts), cost: Cost::looked_at(looked_at) })
    }

    async fn reactions(&self, channel: ChannelId, after: Option<ReactionPlace>) -> Result<Read> {
        let (user, scan) = (self.caller.user_id, LOOKED_AT as usize);
        let own = self.operations.logs.reactions_by(channel, user, after, scan).await?;
        let reaction = |(target, emoji)| ExportedReaction { channel_id: channel, target, emoji };
        let lines = own.found.into_iter().map(|found| ExportLine::Reaction(reaction(found))).collect();
        let (next, cost) = match own.next {
            Some(place) => (Step::Reactions(channel, Some(place)), Cost::looked_at(scan)),
            None => (Step::Channels(Some(channel)), Cost::default()),
        };
        Ok(Read { lines, next, cost })
    }

    fn last_line(&self) -> Read {
        let end = ExportEnd { at: self.operations.clock.now_ms(), ..self.end };
        Read { lines: vec![ExportLine::End(end)], next: Step::Done, cost: Cost::default() }
    }

    const fn count(&mut self, line: &ExportLine) {
        let count = match line {
            ExportLine::Profile(_) | ExportLine::PushSubscription(_) | ExportLine::AlertSettings(_) => None,
            ExportLine::Device(_) => Some(&mut self.end.devices),
            ExportLine::Contact(_) => Some(&mut self.end.contacts),
            ExportLine::Block(_) => Some(&mut self.end.blocks),
            ExportLine::Channel(_) => Some(&mut self.end.channels),
            ExportLine::Message(_) => Some(&mut self.end.messages),
            ExportLine::Reaction(_) => Some(&mut self.end.reactions),
            ExportLine::End(_) => return,
        };
        if let Some(count) = count {
            *count += 1;
        }
        self.end.lines += 1;
    }
}

/// The ranges of a log in which a user may have written. If the list of stays is full, older stays were dropped from it, and the
/// whole log before them is included.
fn runs(spans: &Spans, head: Seq) -> VecDeque<RangeInclusive<Seq>> {
    let mut parts: VecDeque<_> = spans.clip(Seq::new(1)..=head).collect();
    let first = parts.front().map(|part| *part.start()).filter(|first| *first > Seq::new(1));
    if let Some(first) = first.filter(|_| spans.iter().count() == Spans::MAX) {
        parts.push_front(Seq::new(1)..=first.minus(1));
    }
    parts
}

fn message(channel_id: ChannelId, row: Row) -> Option<ExportLine> {
    let entry = row.entry;
    matches!(entry.content, Content::Message(_) | Content::Unreadable(_))
        .then(|| ExportLine::Message(Box::new(ChannelMessage { channel_id, entry })))
}

fn unwritable(error: &serde_json::Error) -> ErrorBody {
    tracing::error!(%error, "encoding a line of an export failed");
    ErrorBody::new(ErrorCode::Internal, "internal server error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_before_the_oldest_remembered_stay_are_included() {
        let mut spans = Spans::since(Seq::new(5));
        spans.close(Seq::new(7));
        let places = |spans: &Spans| -> Vec<(u64, u64)> {
            let runs = runs(spans, Seq::new(500));
            runs.into_iter().map(|part| (part.start().get(), part.end().get())).collect()
        };
        assert_eq!(places(&spans), [(5, 7)]);
        for stay in 1..=Spans::MAX as u64 {
            spans.open(Seq::new(stay * 10));
            spans.close(Seq::new(stay * 10 + 1));
        }
        assert_eq!(places(&spans)[..2], [(1, 9), (10, 11)]);
    }
}
