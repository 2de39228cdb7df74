//! Notes mentions of and answers to a user in an open channel in that user's own log, because entries of open channels are in no
//! inbox.
//!
//! The ack does not wait for this. A message causes up to 51 notes, each an append to another user's log. A task of the channel
//! makes them at a bounded rate. What could not be noted, because the disk was full or the user's log had no room, is noted
//! later. Notes that a process owed when it died are made by the next home of the channel ([`super::lane`]).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures_util::future::join_all;
use madang_engine::log::Row;
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::Content;
use madang_store::StoreResult;

use super::Homes;

/// The pause between two attempts to make notes that failed, and the number of attempts: ten minutes in all.
const AGAIN: Duration = Duration::from_secs(5);
const TRIES: u32 = 120;
/// Messages of this node whose mentions wait. Each keeps at most 50 ids, so all of them take about 2 MiB. Above it mentions are
/// counted in the channel and not noted.
const OWED: usize = 4_096;
/// The memory of all of them in bytes, with the 50 ids and the places of each.
pub(super) const OWED_BYTES: u64 = OWED as u64 * 768;
/// Notes that the messages of one channel cause in a second: two messages that mention 50 users each. Each note is an append to a
/// user's log, so this bounds what one open channel costs the writer of the store.
const NOTES_A_SECOND: u32 = 100;

/// Bytes of answered messages that are read at once to find their senders.
const READ_BYTES: usize = 1024 * 1024;

/// Messages of which some users have not been notified yet.
#[derive(Debug, Default)]
pub(super) struct OwedMentions {
    /// Messages that were just appended. A channel is in the map exactly while its task runs.
    fresh: HashMap<ChannelId, VecDeque<MentioningMessage>>,
    /// The number of messages in `fresh`, over all channels.
    count: usize,
    /// Messages of which an earlier attempt failed.
    late: VecDeque<LateMention>,
    is_retried: bool,
}

/// A message, and the users that it may concern.
#[derive(Debug)]
struct MentioningMessage {
    seq: Seq,
    by: UserId,
    mentions: Vec<UserId>,
    reply_to: Option<Seq>,
}

#[derive(Debug)]
struct LateMention {
    channel: ChannelId,
    seq: Seq,
    tries: u32,
}

impl Homes {
    /// Enqueues notes for the users that `rows` mention or answer. The ack does not wait for them.
    pub(super) fn owe_mentions<'a>(&self, log: LogId, rows: impl IntoIterator<Item = &'a Row>) {
        let LogId::Channel(channel) = log else { return };
        let concerns: Vec<MentioningMessage> = rows.into_iter().filter_map(MentioningMessage::of).collect();
        if concerns.is_empty() {
            return;
        }
        let mut owed_mentions = self.0.owed_mentions.lock();
        let room = OWED.saturating_sub(owed_mentions.count).min(concerns.len());
        if room < concerns.len() {
            tracing::warn!(channel.id = %channel, messages = concerns.len() - room, "too many pending mentions: \
                 some were dropped");
        }
        owed_mentions.count += room;
        // Under the lock in which `next_owed` removes the entry: a channel has one task, and none is missing.
        let is_new = !owed_mentions.fresh.contains_key(&channel);
        owed_mentions.fresh.entry(channel).or_default().extend(concerns.into_iter().take(room));
        if is_new {
            self.0.tasks.spawn("mentions", self.clone().pay(channel));
        }
    }

    /// Makes the notes of a channel in order, at most [`NOTES_A_SECOND`] of them in a second, until none is left. It does not
    /// pause while the process drains.
    async fn pay(self, channel: ChannelId) {
        let paying = Paying { homes: &self, channel };
        while let Some(concerns) = self.next_owed(channel) {
            let count = concerns.iter().map(MentioningMessage::notes).sum::<u32>();
            let left = self.note_all(channel, &concerns).await;
            self.note_later(left.into_iter().map(|seq| LateMention { channel, seq, tries: 0 }));
            let pause = Duration::from_secs(1) * count / NOTES_A_SECOND;
            tokio::select! {
                () = self.0.clock.sleep(pause) => {}
                () = self.0.tasks.drain().draining() => {}
            }
        }
        // The entry is gone and another task may have begun for this channel, so the guard must not remove the new entry.
        std::mem::forget(paying);
    }

    /// About one second's share of the notes of a channel. `None` if nothing is left; the entry is removed then, and the task
    /// must end.
    fn next_owed(&self, channel: ChannelId) -> Option<Vec<MentioningMessage>> {
        let mut owed_mentions = self.0.owed_mentions.lock();
        let waiting = owed_mentions.fresh.get_mut(&channel)?;
        let (mut taken, mut notes) = (Vec::new(), 0);
        while let Some(next) = waiting.front().filter(|_| notes < NOTES_A_SECOND) {
            notes += next.notes();
            taken.extend(waiting.pop_front());
        }
        owed_mentions.count -= taken.len();
        if taken.is_empty() {
            owed_mentions.fresh.remove(&channel);
            return None;
        }
        Some(taken)
    }

    /// Makes the notes of one message that were not made before. Returns whether all of them exist now.
    async fn note_again(&self, channel: ChannelId, seq: Seq) -> bool {
        match self.0.logs.rows(LogId::Channel(channel), seq..=seq, 1).await {
            Ok(rows) => {
                let concerns: Vec<MentioningMessage> =
                    rows.iter().filter_map(MentioningMessage::of).collect();
                self.note_all(channel, &concerns).await.is_empty()
            }
            Err(error) => {
                tracing::warn!(channel.id = %channel, %error, "reading a message with mentions failed");
                false
            }
        }
    }

    /// Makes the notes of messages, in their order. A note that is among the last ones of its log is not repeated: the home of
    /// the log knows them. Returns the messages of which a note failed.
    async fn note_all(&self, channel: ChannelId, messages: &[MentioningMessage]) -> Vec<Seq> {
        let notes = match self.notes(channel, messages).await {
            Ok(notes) => notes,
            Err(error) => {
                tracing::warn!(channel.id = %channel, %error, "reading pending mentions failed");
                return messages.iter().map(|message| message.seq).collect();
            }
        };
        // All notes are handed to their homes in this order before the first one is awaited.
        let noted = notes.into_iter().map(|Note { to, seq, content }| async move {
            (seq, self.note_mention(to, channel, content).await)
        });
        let mut left: Vec<Seq> = join_all(noted)
            .await
            .into_iter()
            .filter_map(|(seq, is_noted)| (!is_noted).then_some(seq))
            .collect();
        left.dedup();
        left
    }

    async fn notes(&self, channel: ChannelId, messages: &[MentioningMessage]) -> StoreResult<Vec<Note>> {
        let answered = self.senders_of(channel, messages).await?;
        let concerned = messages.iter().flat_map(|message| {
            // An answer is noted as an answer, even if it also mentions the user.
            let mut users: BTreeMap<UserId, bool> =
                message.mentions.iter().map(|user| (*user, false)).collect();
            let answered = message.reply_to.and_then(|target| answered.get(&target));
            users.extend(answered.map(|user| (*user, true)));
            users.remove(&message.by);
            let &MentioningMessage { seq, by, .. } = message;
            users.into_iter().map(move |(to, is_reply)| Note {
                to,
                seq,
                content: Content::Mentioned { channel_id: channel, seq, by, is_reply },
            })
        });
        let mut notes: Vec<Note> = concerned.collect();
        let users: HashSet<UserId> = notes.iter().map(|note| note.to).collect();
        let users: Vec<UserId> = users.into_iter().collect();
        let members = self.0.store.members_of(channel, &users).await?;
        let here = users
            .into_iter()
            .zip(members)
            .filter(|(_, member)| member.as_ref().is_some_and(|member| member.spans.is_open()));
        let here: HashSet<UserId> = here.map(|(user, _)| user).collect();
        notes.retain(|note| here.contains(&note.to));
        self.leave_out_blocked(messages, &mut notes).await?;
        Ok(notes)
    }

    /// Removes notes for users who block the sender.
    async fn leave_out_blocked(
        &self,
        messages: &[MentioningMessage],
        notes: &mut Vec<Note>,
    ) -> StoreResult<()> {
        let senders: HashSet<UserId> = messages.iter().map(|message| message.by).collect();
        let by: HashMap<Seq, UserId> = messages.iter().map(|message| (message.seq, message.by)).collect();
        for sender in senders {
            let is_hers = |note: &Note| by.get(&note.seq) == Some(&sender);
            let to: Vec<UserId> = notes.iter().filter(|note| is_hers(note)).map(|note| note.to).collect();
            if to.is_empty() {
                continue;
            }
            let blocked_by = self.0.store.who_block(sender, &to).await?;
            notes.retain(|note| !is_hers(note) || !blocked_by.contains(&note.to));
        }
        Ok(())
    }

    /// The senders of the messages that are answered, by place.
    async fn senders_of(
        &self,
        channel: ChannelId,
        messages: &[MentioningMessage],
    ) -> StoreResult<BTreeMap<Seq, UserId>> {
        let targets: Vec<Seq> = messages.iter().filter_map(|message| message.reply_to).collect();
        if targets.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (log, mut senders, mut rest) = (LogId::Channel(channel), BTreeMap::new(), &targets[..]);
        while !rest.is_empty() {
            let rows = self.0.logs.rows_at(log, rest, READ_BYTES).await?;
            rest = rest.get(rows.len().max(1)..).unwrap_or_default();
            let messages = rows.iter().flatten();
            senders.extend(
                messages.filter_map(|row| Some((row.entry.seq, row.entry.content.message()?.sender_id))),
            );
        }
        Ok(senders)
    }

    /// Makes one note. Returns whether it is in the user's log.
    async fn note_mention(&self, user: UserId, channel: ChannelId, content: Content) -> bool {
        let Err(error) = self.note(user, content).await else { return true };
        tracing::warn!(channel.id = %channel, user.id = %user, %error, "a mention is not noted yet; it is tried again");
        false
    }

    fn note_later(&self, owed: impl IntoIterator<Item = LateMention>) {
        let mut owed_mentions = self.0.owed_mentions.lock();
        for owed in owed {
            if owed_mentions.late.len() == OWED || owed.tries == TRIES {
                tracing::warn!(channel.id = %owed.channel, seq = %owed.seq, "appending a mention failed; given up");
            } else {
                owed_mentions.late.push_back(owed);
            }
        }
        if !owed_mentions.late.is_empty() && !std::mem::replace(&mut owed_mentions.is_retried, true) {
            self.0.tasks.spawn("late_mentions", self.clone().retry_late());
        }
    }

    /// Makes notes that failed before, until none is left. When the process drains it makes one last attempt.
    async fn retry_late(self) {
        let _tending = Tending(&self);
        loop {
            let is_last = tokio::select! {
                () = self.0.clock.sleep(AGAIN) => false,
                () = self.0.tasks.drain().draining() => true,
            };
            let waiting = std::mem::take(&mut self.0.owed_mentions.lock().late);
            let mut left = Vec::new();
            for LateMention { channel, seq, tries } in waiting {
                if !self.note_again(channel, seq).await {
                    left.push(LateMention { channel, seq, tries: tries + 1 });
                }
            }
            self.note_later(left);
            if is_last || self.0.owed_mentions.lock().late.is_empty() {
                return;
            }
        }
    }
}

/// Guards the task of one channel: if it panics, its messages are moved to `late` and the next message starts a new task.
struct Paying<'a> {
    homes: &'a Homes,
    channel: ChannelId,
}

impl Drop for Paying<'_> {
    fn drop(&mut self) {
        let mut owed_mentions = self.homes.0.owed_mentions.lock();
        let left = owed_mentions.fresh.remove(&self.channel).unwrap_or_default();
        owed_mentions.count -= left.len();
        let channel = self.channel;
        let room = OWED.saturating_sub(owed_mentions.late.len());
        owed_mentions.late.extend(left.into_iter().take(room).map(|concern| LateMention {
            channel,
            seq: concern.seq,
            tries: 0,
        }));
    }
}

/// Guards the task of late notes: when it ends, even by a panic, the next failure starts a new one.
struct Tending<'a>(&'a Homes);

impl Drop for Tending<'_> {
    fn drop(&mut self) {
        self.0.0.owed_mentions.lock().is_retried = false;
    }
}

impl MentioningMessage {
    /// `None` for a row that mentions and answers nobody.
    fn of(row: &Row) -> Option<Self> {
        let message = row.entry.content.message()?;
        let (mentions, reply_to) = (message.body.mentions.clone(), message.body.reply_to);
        let concerns_others = !mentions.is_empty() || reply_to.is_some();
        concerns_others.then_some(Self { seq: row.entry.seq, by: message.sender_id, mentions, reply_to })
    }

    /// The largest number of notes that the message causes.
    fn notes(&self) -> u32 {
        let mentions = u32::try_from(self.mentions.len()).unwrap_or(u32::MAX);
        mentions.saturating_add(u32::from(self.reply_to.is_some()))
    }
}

/// One note for one user.
struct Note {
    to: UserId,
    seq: Seq,
    content: Content,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use madang_bus::local::LocalInbox;
    use madang_engine::home::{Command, JoinRequest, SeatRequest};
    use madang_engine::log::{Append, AppendOutcome, BodyHash, RowKey};
    use madang_ids::{ClientMsgId, MessageId, Millis, Snowflakes};
    use madang_presence::{PresenceConfig, PresenceMetrics};
    use madang_proto::{Body, ChannelCard, ChannelKind, Entry, Message, Role};
    use madang_service::{Clock, Drain, ManualClock, Metrics, Tasks};
    use madang_store::model::{Fate, Faults, Model, ModelConfig};
    use madang_store::{Channel, ChannelStore, LogStore};

    use super::*;
    use crate::consent::Consent;
    use crate::heat::Heats;
    use crate::home::HomeParts;
    use crate::metrics::ChatMetrics;
    use crate::overload::Bulkheads;

    const ANNA: UserId = UserId::from_raw(1);
    const BERT: UserId = UserId::from_raw(2);
    const CARL: UserId = UserId::from_raw(3);
    const PAUSE: Duration = Duration::from_millis(100);

    struct Stage {
        homes: Homes,
        model: Arc<Model>,
        hand: ManualClock,
        channel: Channel,
    }

    impl Stage {
        /// An open channel of Anna, Bert and Carl.
        async fn open() -> Self {
            let model = Model::new(ModelConfig { seed: 1, faults: Faults::NONE });
            let (inbox, follow) = LocalInbox::open(Arc::clone(&model)).await.unwrap();
            let (clock, hand) = Clock::manual(Millis::new(1_800_000_000_000));
            let tasks = Tasks::new(Drain::new());
            tasks.spawn("inbox", follow);
            let ids = Arc::new(Snowflakes::new(0).unwrap());
            let metrics = ChatMetrics::register(&Metrics::new());
            let counted = PresenceMetrics::register(&Metrics::new());
            let (presence, _) = madang_presence::local(PresenceConfig::default(), clock.clone(), counted);
            let (logs, store) = (Arc::clone(&model) as _, Arc::clone(&model) as _);
            let (inbox, consent) = (Arc::new(inbox), Consent::new(true));
            let homes_of_a_log = 1;
            let homes = Homes::new(HomeParts {
                bulkheads: Arc::new(Bulkheads::new(&clock, false)),
                heats: Heats::of_a_test(&clock),
                logs,
                store,
                inbox,
                ids,
                clock,
                tasks,
                metrics,
                presence,
                consent,
                homes_of_a_log,
                others: None,
            });
            let card =
                ChannelCard::new(ChannelId::from_raw(9), ChannelKind::Open, Some("tea".to_owned()), None);
            let channel = Channel::new(card, ANNA, Millis::new(1), 100);
            model.create_channel(&channel).await.unwrap();
            let joins = [(ANNA, Role::Owner), (BERT, Role::Member), (CARL, Role::Member)];
            let joins = joins.map(|(user_id, role)| JoinRequest::of(user_id, role)).to_vec();
            let request = SeatRequest { joins, is_creation: true, ..SeatRequest::by(ANNA) };
            homes.ask(&channel, Command::Seats(request)).await.unwrap();
            Self { homes, model, hand, channel }
        }

        /// Homes of another process over the same store, after this one has died.
        fn successor(&self) -> Homes {
            let inner = &self.homes.0;
            Homes::new(HomeParts {
                bulkheads: Arc::new(Bulkheads::new(&inner.clock, false)),
                heats: Heats::of_a_test(&inner.clock),
                logs: Arc::clone(&inner.logs),
                store: Arc::clone(&inner.store),
                inbox: Arc::clone(&inner.inbox),
                ids: Arc::clone(&inner.ids),
                clock: inner.clock.clone(),
                tasks: Tasks::new(Drain::new()),
                metrics: inner.metrics.clone(),
                presence: inner.presence.clone(),
                consent: inner.consent,
                homes_of_a_log: 1,
                others: None,
            })
        }

        async fn say(&self, number: u64, body: Body) -> Seq {
            let client_msg_id = ClientMsgId::from_uuid(u128::from(number));
            let key = RowKey { sender: ANNA, client_msg_id, body_hash: BodyHash([0; 16]) };
            let command = Command::Send { origin: None, key, body };
            match self.homes.ask(&self.channel, command).await {
                Ok(madang_engine::home::Reply::Sent(sent)) => sent.seq,
                other => panic!("{other:?}"),
            }
        }

        /// Moves the clock on in steps until no note is owed.
        async fn settle(&self, step: Duration) {
            for _ in 0..1_000 {
                let is_done = {
                    let owed_mentions = self.homes.0.owed_mentions.lock();
                    !owed_mentions.is_retried && owed_mentions.fresh.is_empty()
                };
                if is_done {
                    return;
                }
                self.hand.advance(step);
                tokio::task::yield_now().await;
            }
            panic!("mentions are still owed");
        }

        /// The messages that are noted in a user's log.
        async fn noted_mentions(&self, user: UserId) -> Vec<Seq> {
            let tail = self.model.tail(LogId::User(user), 100).await.unwrap();
            let seqs = tail.rows.iter().filter_map(|row| match row.entry.content {
                Content::Mentioned { seq, .. } => Some(seq),
                _ => None,
            });
            seqs.collect()
        }
    }

    fn mention(users: &[UserId]) -> Body {
        Body { text: "tea?".to_owned(), mentions: users.to_vec(), ..Body::default() }
    }

    #[tokio::test]
    async fn failed_notes_are_made_later_and_once() {
        let stage = Stage::open().await;
        let first = stage.say(1, mention(&[BERT, CARL])).await;
        for _ in 0..2 {
            stage.model.script(LogId::User(BERT), Fate::Unavailable);
        }
        let second = stage.say(2, mention(&[BERT, CARL])).await;
        let third = stage.say(3, mention(&[CARL])).await;
        stage.settle(AGAIN).await;
        assert_eq!(stage.noted_mentions(BERT).await, [first, second]);
        assert_eq!(stage.noted_mentions(CARL).await, [first, second, third]);
    }

    #[tokio::test]
    async fn messages_of_one_append_are_noted_in_their_order() {
        let stage = Stage::open().await;
        let body = || mention(&[BERT]);
        let (one, two, three) =
            tokio::join!(stage.say(1, body()), stage.say(2, body()), stage.say(3, body()));
        stage.settle(PAUSE).await;
        assert_eq!(stage.noted_mentions(BERT).await, [one, two, three]);
        let answer = Body { reply_to: Some(two), ..mention(&[]) };
        stage.say(4, answer).await;
        stage.settle(PAUSE).await;
        assert_eq!(stage.noted_mentions(ANNA).await, [], "an answer to oneself is not noted");
    }

    #[tokio::test]
    async fn owed_notes_are_tried_once_more_in_a_drain() {
        let stage = Stage::open().await;
        stage.model.script(LogId::User(BERT), Fate::Unavailable);
        let first = stage.say(1, mention(&[BERT])).await;
        assert_eq!(stage.noted_mentions(BERT).await, []);
        stage.homes.0.tasks.drain().begin();
        stage.settle(Duration::ZERO).await;
        assert_eq!(stage.noted_mentions(BERT).await, [first]);
    }

    /// The message is acknowledged although no note can be made, and the notes of a channel keep to their rate.
    #[tokio::test]
    async fn the_ack_does_not_wait_for_the_notes_and_these_are_paced() {
        let stage = Stage::open().await;
        let everybody: Vec<UserId> = (2..52).map(UserId::from_raw).collect();
        let mut said = Vec::new();
        for number in 1..=8 {
            said.push(stage.say(number, mention(&everybody)).await);
        }
        // 400 notes are owed and the clock stands still.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let at_once = stage.noted_mentions(BERT).await;
        assert!(at_once.len() <= 3, "{} messages were noted at once", at_once.len());
        stage.settle(PAUSE).await;
        assert_eq!(stage.noted_mentions(BERT).await, said);
    }

    #[tokio::test]
    async fn the_number_of_owed_messages_is_bounded() {
        let stage = Stage::open().await;
        let log = LogId::Channel(stage.channel.card.id);
        let message = stage.say(1, mention(&[BERT])).await;
        let rows = stage.model.rows_at(log, &[message], usize::MAX).await.unwrap();
        let row = rows.into_iter().flatten().next().unwrap();
        let rows = vec![row; 2 * OWED];
        stage.homes.owe_mentions(log, &rows);
        assert!(stage.homes.0.owed_mentions.lock().count <= OWED);
    }

    /// Another task takes over the messages of a task that has panicked.
    #[tokio::test]
    async fn a_task_that_ends_early_leaves_what_it_owes_to_the_next() {
        let stage = Stage::open().await;
        let channel = stage.channel.card.id;
        let first = stage.say(1, mention(&[BERT])).await;
        stage.settle(PAUSE).await;
        {
            let mut owed_mentions = stage.homes.0.owed_mentions.lock();
            let owed = MentioningMessage { seq: first, by: ANNA, mentions: vec![CARL], reply_to: None };
            owed_mentions.fresh.insert(channel, VecDeque::from([owed]));
            owed_mentions.count += 1;
        }
        drop(Paying { homes: &stage.homes, channel });
        assert_eq!(stage.homes.0.owed_mentions.lock().count, 0);
        stage.homes.note_later([LateMention { channel, seq: first, tries: 0 }]);
        drop(Tending(&stage.homes));
        assert!(!stage.homes.0.owed_mentions.lock().is_retried);
        stage.settle(AGAIN).await;
    }

    /// Waits until `is_so` is true, without time passing.
    async fn eventually(is_so: impl AsyncFn() -> bool) {
        for _ in 0..10_000 {
            if is_so().await {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("it does not come true");
    }

    /// A process dies between the ack and the note of a mention.
    #[tokio::test]
    async fn the_next_home_of_a_channel_notes_what_a_dead_process_owed() {
        let mut stage = Stage::open().await;
        stage.model.script(LogId::User(BERT), Fate::Unavailable);
        let first = stage.say(1, mention(&[BERT])).await;
        eventually(async || !stage.homes.0.owed_mentions.lock().late.is_empty()).await;
        assert_eq!(stage.noted_mentions(BERT).await, []);
        // The clock stands still, so the first process does not try again.
        stage.homes = stage.successor();
        let second = stage.say(2, mention(&[CARL])).await;
        eventually(async || {
            stage.noted_mentions(BERT).await == [first] && stage.noted_mentions(CARL).await == [second]
        })
        .await;
    }

    /// A process dies between an append and its consequences.
    #[tokio::test]
    async fn the_next_home_of_a_channel_applies_the_consequences_that_a_dead_process_owed() {
        let mut stage = Stage::open().await;
        let id = stage.channel.card.id;
        let head = stage.model.heads(&[LogId::Channel(id)]).await.unwrap()[0];
        let (client_msg_id, ordinal) = (ClientMsgId::from_uuid(77), head.ordinal.next());
        let message = Message::new(MessageId::from_raw(1), ordinal, BERT, client_msg_id, mention(&[]));
        let entry =
            Entry { seq: head.seq.next(), at: head.at.next(), content: Content::Message(Box::new(message)) };
        let key = Some(RowKey { sender: BERT, client_msg_id, body_hash: BodyHash([0; 16]) });
        let row = Row { entry, ordinal, key };
        let outcome = stage.model.append(Append::of(LogId::Channel(id), head, [row].into())).await;
        assert_eq!(outcome, Ok(AppendOutcome::Appended));
        let marker = async || stage.model.markers(id, &[BERT]).await.unwrap()[0].seq;
        assert!(marker().await < head.seq.next(), "the append moves no marker");
        stage.homes = stage.successor();
        stage.say(1, mention(&[])).await;
        let marker = async || stage.model.markers(id, &[BERT]).await.unwrap()[0].seq;
        eventually(async || marker().await == head.seq.next()).await;
    }
}
