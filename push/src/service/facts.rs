//! Reads everything that the decision about a due job depends on.

use std::collections::BTreeSet;

use madang_engine::alerts::{Job, Outstanding, Target};
use madang_ids::{Cursor, LogId, Millis, Seq, UserId};
use madang_proto::{AlertLevel, ChannelKind, Content, Message};
use madang_store::{AlertFacts, AlertMessages, Overview, StoreResult, User};

use super::{Inner, Nearby};
use crate::core::{Alert, Candidate, Decision, QuietHours, Reason, Said, Situation, Words, decide, words};

/// Bytes of messages that are read for one decision. Of longer ones the last messages are looked at.
const READ_BYTES: usize = 256 * 1024;
/// The home of an open channel notes mentions within ten minutes, and notes the last ones again when it begins anew, whenever that is. A
/// note that comes later than this was there before, and the user was alerted of it.
const NOTED_LATE_MS: u64 = 900_000;
/// What is not known.
const UNKNOWN: &str = "";

/// What was read.
pub(super) struct Facts {
    pub(super) found: AlertFacts,
    /// When the rows were noted, at the earliest.
    noted_at: Millis,
    /// All messages are older than any alert, or are mentions that were noted long before.
    is_repeated: bool,
    /// The messages that no device has received, oldest first, and their senders.
    messages: Vec<(Seq, Box<Message>)>,
    senders: Vec<User>,
    candidates: Vec<Candidate>,
}

impl Inner {
    pub(super) async fn facts(
        &self,
        record: &Outstanding,
        job: &Job,
        nearby: &dyn Nearby,
    ) -> StoreResult<Facts> {
        let mut found = self.store.alert_facts(record.user, record.channel, self.clock.now_ms()).await?;
        found.subscriptions.retain(|subscription| subscription.halted.is_none());
        let received = found.received.iter().copied().chain(nearby.received(record.user));
        let received: Vec<Cursor> = received.map(|it| self.queue.comparable(it)).collect();
        let noted_at = if job.target == Target::User { job.due_at } else { Millis::ZERO };
        let mut facts = Facts {
            found,
            noted_at,
            is_repeated: false,
            messages: Vec::new(),
            senders: Vec::new(),
            candidates: Vec::new(),
        };
        let waiting: Vec<Seq> = job.not_received(&received).collect();
        // Most of the time the decision ends here: no device to alert, or one that has received it.
        if !waiting.is_empty() && !facts.found.subscriptions.is_empty() && facts.found.overview.is_some() {
            self.read_messages(record, &waiting, &mut facts).await?;
        }
        Ok(facts)
    }

    async fn read_messages(
        &self,
        record: &Outstanding,
        waiting: &[Seq],
        facts: &mut Facts,
    ) -> StoreResult<()> {
        let (user, channel) = (record.user, record.channel);
        let read = self.store.alert_messages(user, channel, waiting, READ_BYTES).await?;
        let AlertMessages { rows, hidden, blocked, senders } = read;
        // The home of a fleet that lost its inboxes may bring rows again that are older than any alert.
        let from = self.clock.now_ms().minus(self.config.kept_hours * 3_600_000);
        let is_late = |at: Millis| at < from || (facts.is_open() && at.plus(NOTED_LATE_MS) <= facts.noted_at);
        let has_late = rows.iter().any(|row| is_late(row.entry.at));
        let mut messages: Vec<(Seq, Box<Message>)> = rows
            .into_iter()
            .filter(|row| !is_late(row.entry.at))
            .filter_map(|row| match row.entry.content {
                Content::Message(message) => Some((row.entry.seq, message)),
                _ => None,
            })
            .collect();
        messages.reverse();
        facts.is_repeated = messages.is_empty() && has_late;
        let replies = self.replies_to(user, LogId::Channel(channel), &messages, facts.is_open()).await?;
        facts.candidates = messages
            .iter()
            .map(|(seq, message)| Candidate {
                seq: *seq,
                sender: message.sender_id,
                names_user: facts.is_open() || names(message, user) || replies.contains(seq),
                is_deleted: message.deleted.is_some() || hidden.contains(seq),
                is_blocked: blocked.contains(&message.sender_id),
            })
            .collect();
        (facts.messages, facts.senders) = (messages, senders);
        Ok(())
    }

    /// The messages that reply to one of the user's.
    async fn replies_to(
        &self,
        user: UserId,
        log: LogId,
        messages: &[(Seq, Box<Message>)],
        is_open: bool,
    ) -> StoreResult<BTreeSet<Seq>> {
        let replies: Vec<(Seq, Seq)> = messages
            .iter()
            .filter(|(_, message)| !is_open && !names(message, user))
            .filter_map(|(seq, message)| Some((*seq, message.body.reply_to?)))
            .collect();
        if replies.is_empty() {
            return Ok(BTreeSet::new());
        }
        let targets: Vec<Seq> = replies.iter().map(|(_, target)| *target).collect();
        let rows = self.store.rows_at(log, &targets, READ_BYTES).await?;
        let is_own = |row: &Option<madang_store::Row>| {
            let message = row.as_ref().and_then(|row| row.entry.content.message());
            message.is_some_and(|message| message.sender_id == user)
        };
        Ok(replies.iter().zip(&rows).filter(|(_, row)| is_own(row)).map(|((seq, _), _)| *seq).collect())
    }

    /// The lines of an alert.
    pub(super) fn words(&self, facts: &Facts, alert: &Alert) -> Words {
        let message = facts.messages.iter().find(|(seq, _)| *seq == alert.about).map(|(_, message)| message);
        let sender_id = message.map(|message| message.sender_id);
        let sender = facts.senders.iter().find(|sender| Some(sender.id) == sender_id);
        let channel = facts.found.overview.as_ref().map(|overview| &overview.channel.card);
        let channel = channel.filter(|card| card.kind != ChannelKind::Direct);
        words(&Said {
            preview: facts.found.settings.preview,
            app: &self.config.app,
            channel: channel.map(|card| card.name.as_deref().unwrap_or(UNKNOWN)),
            sender: sender.map_or(UNKNOWN, |sender| &sender.display_name),
            text: message.map_or(UNKNOWN, |message| &message.body.text),
            count: alert.count,
        })
    }
}

/// Whether a message mentions the user.
fn names(message: &Message, user: UserId) -> bool {
    message.body.mentions_everyone || message.body.mentions.contains(&user)
}

impl Facts {
    fn is_open(&self) -> bool {
        self.found.overview.as_ref().is_some_and(|overview| overview.channel.card.kind == ChannelKind::Open)
    }

    /// Whether the job is worth an alert.
    pub(super) fn decide(&self, user: UserId, now: Millis) -> Decision {
        if self.found.subscriptions.is_empty() {
            return Decision::Drop(Reason::NoSubscription);
        }
        let Some(overview) = &self.found.overview else { return Decision::Drop(Reason::Left) };
        if self.is_repeated {
            return Decision::Drop(Reason::Repeated);
        }
        let quiet = self.found.settings.quiet_hours.as_ref();
        // They were checked when they were set; the time zone database may have changed since.
        let quiet = quiet.and_then(|it| QuietHours::parse(&it.from, &it.until, &it.zone).ok());
        let stay = overview.membership.spans.last().filter(|stay| stay.until.is_none());
        let decision = decide(&Situation {
            now,
            user,
            is_active: self.found.is_active,
            member_from: stay.map(|stay| stay.from),
            kind: overview.channel.card.kind,
            level: self.level(overview),
            muted_until: overview.settings.muted_until.max(self.found.settings.muted_until),
            quiet: quiet.as_ref(),
            read: overview.marker.seq,
            candidates: &self.candidates,
        });
        match decision {
            // The notification takes the place of the one before, so it stands for everything that is unread.
            Decision::Alert(alert) if self.counts_all(overview) => {
                let unread = overview.head.ordinal.get().saturating_sub(overview.marker.ordinal.get());
                let unread = usize::try_from(unread).unwrap_or(usize::MAX);
                Decision::Alert(Alert { count: alert.count.max(unread), ..alert })
            }
            decision => decision,
        }
    }

    fn level(&self, overview: &Overview) -> AlertLevel {
        overview.settings.alerts.unwrap_or(self.found.settings.level)
    }

    fn counts_all(&self, overview: &Overview) -> bool {
        self.level(overview) == AlertLevel::All && !self.is_open()
    }
}
