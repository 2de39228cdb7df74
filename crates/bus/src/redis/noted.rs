//! What rows that are brought to inboxes say to the queue of alerts.

use std::ops::RangeInclusive;

use madang_engine::alerts::{Fold, Folded, withdrawn_at};
use madang_engine::log::Row;
use madang_ids::{ChannelId, Cursor, Epoch, LogId, Millis, Position, Seq, UserId};
use madang_proto::Content;
use madang_store::{AlertQueue, StoreResult};
use redis::Pipeline;

use super::RedisBus;
use super::alerts::moved_keys;
use super::inbox::{Brought, flag, log_name};
use super::scripts::{self, call};
use crate::roster::Part;

/// Bytes of a user's own rows that are read again when they are brought again.
const ROWS_BYTES: usize = 256 * 1024;

/// What happened in the rows of one call.
pub(super) enum AlertEvents {
    /// Alerts are off, or an own log says nothing about them.
    None,
    /// Messages of a channel and their senders; `None` if the rows are not at hand: each may be a message.
    Messages(ChannelId, Option<Vec<(Seq, UserId)>>),
    /// Rows of a user's own log.
    Own(Vec<OwnEvent>),
}

/// What a row of a user's own log says.
pub(super) enum OwnEvent {
    /// A message of an open channel mentions the user.
    Mentioned { row: Seq, channel: ChannelId, seq: Seq },
    /// The user has read a channel up to here.
    Read { channel: ChannelId, seq: Seq, at: Millis },
}

/// Rows of a user's own log that came late.
pub(super) struct Missing {
    user: UserId,
    range: RangeInclusive<Seq>,
    /// The position before them.
    previous: Position,
}

impl OwnEvent {
    fn of(row: &Row) -> Option<Self> {
        match row.entry.content {
            Content::Mentioned { channel_id: channel, seq, .. } => {
                Some(Self::Mentioned { row: row.entry.seq, channel, seq })
            }
            Content::Read { channel_id: channel, seq, .. } => {
                Some(Self::Read { channel, seq, at: row.entry.at })
            }
            _ => None,
        }
    }

    const fn mentioned_in(&self) -> Option<ChannelId> {
        match self {
            Self::Mentioned { channel, .. } => Some(*channel),
            Self::Read { .. } => None,
        }
    }
}

impl AlertEvents {
    /// The arguments of the script for one user; nothing if there is nothing to note.
    fn arguments(&self, part: &Part) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Messages(channel, messages) => {
                let (first, last) = of_others(messages.as_deref(), part);
                ["m".to_owned(), channel.to_string(), first.to_string(), last.to_string(), first.to_string()]
                    .to_vec()
            }
            Self::Own(events) => events.iter().flat_map(own_arguments).collect(),
        }
    }

    /// The channels with messages.
    fn channels(&self) -> Vec<ChannelId> {
        match self {
            Self::None => Vec::new(),
            Self::Messages(channel, _) => vec![*channel],
            Self::Own(events) => events.iter().filter_map(OwnEvent::mentioned_in).collect(),
        }
    }
}

/// The first and the last message of others that a user may see. If there is none, a range without a message: rows before it that an
/// earlier call should have brought are messages perhaps.
fn of_others(messages: Option<&[(Seq, UserId)]>, part: &Part) -> (Seq, Seq) {
    let (from, to) = part.range.clone().into_inner();
    let Some(messages) = messages else { return (from, to) };
    let concerns = |(seq, sender): &&(Seq, UserId)| part.range.contains(seq) && *sender != part.user;
    let mut concerning = messages.iter().filter(concerns).map(|(seq, _)| *seq);
    concerning.next().map_or((to.next(), to), |first| (first, concerning.next_back().unwrap_or(first)))
}

fn own_arguments(event: &OwnEvent) -> [String; 5] {
    match *event {
        OwnEvent::Mentioned { row, channel, seq } => {
            ["m".to_owned(), channel.to_string(), seq.to_string(), seq.to_string(), row.to_string()]
        }
        OwnEvent::Read { channel, seq, at } => [
            "r".to_owned(),
            channel.to_string(),
            seq.to_string(),
            at.to_string(),
            withdrawn_at(at).to_string(),
        ],
    }
}

impl RedisBus {
    /// What happened in rows that are about to be brought. Those of an own log that are not at hand are read: a crash may have left them
    /// unsaid, and only they name the channels.
    pub(super) async fn alert_events(
        &self,
        log: LogId,
        parts: &[Part],
        rows: Option<&std::sync::Arc<[Row]>>,
    ) -> StoreResult<AlertEvents> {
        if self.alerts.is_none() {
            return Ok(AlertEvents::None);
        }
        let LogId::User(_) = log else {
            let LogId::Channel(channel) = log else { return Ok(AlertEvents::None) };
            let messages = rows.map(|rows| rows.iter().filter_map(message_of).collect());
            return Ok(AlertEvents::Messages(channel, messages));
        };
        let events: Vec<OwnEvent> = match rows {
            Some(rows) => rows.iter().filter_map(OwnEvent::of).collect(),
            None => {
                let mut events = Vec::new();
                for part in parts {
                    events.extend(self.own_events(log, part.range.clone()).await?);
                }
                events
            }
        };
        Ok(if events.is_empty() { AlertEvents::None } else { AlertEvents::Own(events) })
    }

    async fn own_events(&self, log: LogId, range: RangeInclusive<Seq>) -> StoreResult<Vec<OwnEvent>> {
        let rows = self.store.rows(log, range, ROWS_BYTES).await?;
        Ok(rows.iter().filter_map(OwnEvent::of).collect())
    }

    /// Rows of a user's own log that an earlier call should have brought: the script does not know what they say.
    pub(super) fn missing(&self, log: LogId, part: &Part, brought: &Brought) -> Option<Missing> {
        let is_missing =
            self.alerts.is_some() && log == LogId::User(part.user) && brought.from < *part.range.start();
        let range = brought.from..=Seq::new(part.range.start().get().saturating_sub(1));
        is_missing.then_some(Missing { user: part.user, range, previous: brought.previous })
    }

    /// Notes what they say. If this fails, a mention may remain without an alert: the call before has failed too.
    pub(super) async fn note_missing(&self, epoch: Epoch, missing: Vec<Missing>) -> StoreResult<()> {
        let Some((times, alerts)) = &self.alerts else { return Ok(()) };
        let mut folds = Vec::new();
        for Missing { user, range, previous } in missing {
            let first = *range.start();
            for row in self.store.rows(LogId::User(user), range, ROWS_BYTES).await? {
                let position = Position::new(previous.get() + row.entry.seq.get() + 1 - first.get());
                let (due_at, at) = (row.entry.at, Cursor { epoch, position });
                let (channel, what) = match OwnEvent::of(&row) {
                    Some(OwnEvent::Mentioned { channel, seq, .. }) => {
                        let expires_at = due_at.plus(times.kept_ms);
                        (channel, Folded::Message { seq, at, due_at, expires_at })
                    }
                    Some(OwnEvent::Read { channel, seq, at }) => (channel, Folded::Read { seq, at }),
                    None => continue,
                };
                folds.push(Fold { user, channel, what });
            }
        }
        alerts.fold_alerts(&folds).await
    }

    /// The calls that bring rows.
    pub(super) fn moved(&self, log: LogId, parts: &[Part], is_live: bool, events: &AlertEvents) -> Pipeline {
        let name = log_name(log);
        let times = self
            .alerts
            .as_ref()
            .map(|(times, _)| [times.delay_ms, self.hold_ms(events), times.kept_ms].map(|ms| ms.to_string()));
        let mut pipeline = Pipeline::with_capacity(parts.len());
        for part in parts {
            let [heads, items, nodes, alerts] = moved_keys(part.user);
            let [from, to, stay] =
                [*part.range.start(), *part.range.end(), part.stay_from].map(|seq| seq.to_string());
            let events = events.arguments(part);
            let mut arguments =
                [&name, &from, &to, &stay, flag(is_live), flag(part.is_open)].map(str::as_bytes).to_vec();
            if let Some(times) = times.as_ref().filter(|_| !events.is_empty()) {
                arguments.extend(times.iter().chain(&events).map(String::as_bytes));
            }
            pipeline.add_command(call(&scripts::MOVED, &[&heads, &items, &nodes, &alerts], &arguments));
        }
        pipeline
    }

    /// By how many milliseconds alerts of these events wait longer. Mentions in several channels wait for the slowest of them.
    fn hold_ms(&self, events: &AlertEvents) -> u64 {
        let Some(holds) = self.alert_holds.get() else { return 0 };
        events.channels().into_iter().map(holds).max().unwrap_or(0)
    }
}

fn message_of(row: &Row) -> Option<(Seq, UserId)> {
    row.entry.content.message().map(|message| (row.entry.seq, message.sender_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_of_others_are_noted() {
        let (anna, ben) = (UserId::from_raw(1), UserId::from_raw(2));
        let seq = Seq::new;
        let part = |user, range| Part { user, range, stay_from: seq(1), is_open: true, sees_all: true };
        let messages = [(seq(5), anna), (seq(6), ben), (seq(8), ben), (seq(9), anna)];
        let range = |user, from, to| of_others(Some(&messages), &part(user, seq(from)..=seq(to)));
        assert_eq!(range(anna, 5, 9), (seq(6), seq(8)));
        assert_eq!(range(ben, 5, 9), (seq(5), seq(9)));
        assert_eq!(range(ben, 6, 9), (seq(9), seq(9)));
        assert_eq!(range(anna, 9, 9), (seq(10), seq(9)), "nothing, but what is missing before");
        assert_eq!(of_others(None, &part(anna, seq(5)..=seq(9))), (seq(5), seq(9)));
    }
}
