//! Reads everything that the decision about a due job depends on.

use std::collections::BTreeSet;

use madang_engine::alerts::{Job, Outstanding, Target};
use madang_ids::{Cursor, LogId, Millis, Seq, UserId};
use madang_proto::{AlertLevel, AlertSettings, ChannelKind, Content, Message};
use madang_store::{Overview, StoreResult, Subscription, UserState};

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
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) overview: Option<Overview>,
    settings: AlertSettings,
    is_active: bool,
    /// When the rows were noted, at the earliest.
    noted_at: Millis,
    /// All messages are mentions that were noted long before.
    is_repeated: bool,
    /// The messages that no device has received, oldest first.
    messages: Vec<(Seq, Box<Message>)>,
    candidates: Vec<Candidate>,
}

impl Inner {
    pub(super) async fn facts(
        &self,
        record: &Outstanding,
        job: &Job,
        nearby: &dyn Nearby,
    ) -> StoreResult<Facts> {
        let (user, channel) = (record.user, record.channel);
        let subscriptions = self.store.subscriptions(user).await?;
        let mut facts = Facts {
            subscriptions: subscriptions.into_iter().filter(|found| found.halted.is_none()).collect(),
            overview: None,
            settings: AlertSettings::default(),
            is_active: true,
            noted_at: Millis::ZERO,
            is_repeated: false,
            messages: Vec::new(),
            candidates: Vec::new(),
        };
        // Most of the time the decision ends at one of the first reads: no device to alert, or one that has received it.
        if facts.subscriptions.is_empty() {
            return Ok(facts);
        }
        let devices = self.store.devices(user).await?;
        let stored = devices.iter().filter_map(|device| device.received);
        let received = stored.chain(nearby.received(user)).map(|it| self.queue.comparable(it));
        let received: Vec<Cursor> = received.collect();
        let waiting: Vec<Seq> = job.not_received(&received).collect();
        facts.overview = self.store.overview_of(user, channel).await?;
        if job.target == Target::User {
            facts.noted_at = job.due_at;
        }
        if waiting.is_empty() || facts.overview.is_none() {
            return Ok(facts);
        }
        facts.is_active =
            self.store.users(&[user]).await?.into_iter().flatten().any(|it| it.state == UserState::Active);
        facts.settings = self.store.alert_settings(user).await?;
        self.read_messages(record, &waiting, &mut facts).await?;
        Ok(facts)
    }

    async fn read_messages(
        &self,
        record: &Outstanding,
        waiting: &[Seq],
        facts: &mut Facts,
    ) -> StoreResult<()> {
        let (user, log) = (record.user, LogId::Channel(record.channel));
        // The last ones first: the answer ends after its bytes.
        let newest: Vec<Seq> = waiting.iter().rev().copied().collect();
        let rows = self.store.rows_at(log, &newest, READ_BYTES).await?;
        let ranges: Vec<_> = waiting.iter().map(|seq| (record.channel, *seq..=*seq)).collect();
        let hidden = self.store.hidden_messages(user, &ranges).await?;
        let mut messages: Vec<(Seq, Box<Message>)> = rows
            .into_iter()
            .flatten()
            .filter(|row| !facts.is_open() || row.entry.at.plus(NOTED_LATE_MS) > facts.noted_at)
            .filter_map(|row| match row.entry.content {
                Content::Message(message) => Some((row.entry.seq, message)),
                _ => None,
            })
            .collect();
        messages.reverse();
        facts.is_repeated = messages.is_empty() && facts.is_open();
        let blocked = self.blocked_by(user, &messages).await?;
        let replies = self.replies_to(user, log, &messages, facts.is_open()).await?;
        facts.candidates = messages
            .iter()
            .map(|(seq, message)| Candidate {
                seq: *seq,
                sender: message.sender_id,
                names_user: facts.is_open() || names(message, user) || replies.contains(seq),
                is_deleted: message.deleted.is_some() || hidden.contains(&(record.channel, *seq)),
                is_blocked: blocked.contains(&message.sender_id),
            })
            .collect();
        facts.messages = messages;
        Ok(())
    }

    /// The senders whom the user blocks.
    async fn blocked_by(
        &self,
        user: UserId,
        messages: &[(Seq, Box<Message>)],
    ) -> StoreResult<BTreeSet<UserId>> {
        let senders: BTreeSet<UserId> = messages.iter().map(|(_, message)| message.sender_id).collect();
        let mut blocked = BTreeSet::new();
        for sender in senders {
            if !self.store.who_block(sender, &[user]).await?.is_empty() {
                blocked.insert(sender);
            }
        }
        Ok(blocked)
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
    pub(super) async fn words(&self, facts: &Facts, alert: &Alert) -> StoreResult<Words> {
        let message = facts.messages.iter().find(|(seq, _)| *seq == alert.about).map(|(_, message)| message);
        let sender = match message {
            Some(message) => self.store.users(&[message.sender_id]).await?.into_iter().flatten().next(),
            None => None,
        };
        let channel = facts.overview.as_ref().map(|overview| &overview.channel.card);
        let channel = channel.filter(|card| card.kind != ChannelKind::Direct);
        Ok(words(&Said {
            preview: facts.settings.preview,
            app: &self.config.app,
            channel: channel.map(|card| card.name.as_deref().unwrap_or(UNKNOWN)),
            sender: sender.as_ref().map_or(UNKNOWN, |sender| &sender.display_name),
            text: message.map_or(UNKNOWN, |message| &message.body.text),
            count: alert.count,
        }))
    }
}

/// Whether a message mentions the user.
fn names(message: &Message, user: UserId) -> bool {
    message.body.mentions_everyone || message.body.mentions.contains(&user)
}

impl Facts {
    fn is_open(&self) -> bool {
        self.overview.as_ref().is_some_and(|overview| overview.channel.card.kind == ChannelKind::Open)
    }

    /// Whether the job is worth an alert.
    pub(super) fn decide(&self, user: UserId, now: Millis) -> Decision {
        if self.subscriptions.is_empty() {
            return Decision::Drop(Reason::NoSubscription);
        }
        let Some(overview) = &self.overview else { return Decision::Drop(Reason::Left) };
        if self.is_repeated {
            return Decision::Drop(Reason::Repeated);
        }
        let quiet = self.settings.quiet_hours.as_ref();
        // They were checked when they were set; the time zone database may have changed since.
        let quiet = quiet.and_then(|it| QuietHours::parse(&it.from, &it.until, &it.zone).ok());
        let stay = overview.membership.spans.last().filter(|stay| stay.until.is_none());
        let decision = decide(&Situation {
            now,
            user,
            is_active: self.is_active,
            member_from: stay.map(|stay| stay.from),
            kind: overview.channel.card.kind,
            level: self.level(overview),
            muted_until: overview.settings.muted_until.max(self.settings.muted_until),
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
        overview.settings.alerts.unwrap_or(self.settings.level)
    }

    fn counts_all(&self, overview: &Overview) -> bool {
        self.level(overview) == AlertLevel::All && !self.is_open()
    }
}
