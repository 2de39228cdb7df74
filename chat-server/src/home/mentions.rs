//! Mentions and answers in open channels, told in the own logs of those whom they concern: an open channel comes to nobody
//! by itself.
//!
//! It is done before the ack leaves: if the process dies before, the message was not acked, and its retry does it. What
//! could not be told, since the disk was full or somebody's own log had no room, is told later, unless the process ends
//! first; `mentions` of the channel counts it all the same.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use futures_util::future::join_all;
use madang_engine::log::Row;
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::{Content, Message};
use madang_store::StoreResult;

use super::Homes;

/// What could not be told is tried again after so long, so often.
const AGAIN: Duration = Duration::from_secs(5);
const TRIES: u32 = 120;
/// Messages that wait to be told; above it they are not.
const UNTOLD: usize = 4_096;

/// Messages of which not everybody was told whom they concern.
#[derive(Debug, Default)]
pub(super) struct Untold {
    waiting: VecDeque<Owed>,
    is_tended: bool,
}

#[derive(Debug)]
struct Owed {
    channel: ChannelId,
    seq: Seq,
    tries: u32,
}

impl Homes {
    /// Tells members whom `rows` mention or answer, now or later.
    pub(super) async fn tell_mentioned(&self, log: LogId, rows: &[Row]) {
        let LogId::Channel(channel) = log else { return };
        let left = self.tell(channel, rows, false).await;
        self.tell_later(left.into_iter().map(|seq| Owed { channel, seq, tries: 0 }));
    }

    /// As [`Self::tell_mentioned`] for a row that was found by a retry.
    pub(super) async fn tell_mentioned_again(&self, log: LogId, seq: Seq) {
        let LogId::Channel(channel) = log else { return };
        if !self.tell_again(channel, seq).await {
            self.tell_later([Owed { channel, seq, tries: 0 }]);
        }
    }

    /// Whether everybody is told whom the message at `seq` concerns.
    async fn tell_again(&self, channel: ChannelId, seq: Seq) -> bool {
        match self.0.store.rows(LogId::Channel(channel), seq..=seq, usize::MAX).await {
            Ok(rows) => self.tell(channel, &rows, true).await.is_empty(),
            Err(error) => {
                tracing::warn!(channel.id = %channel, %error, "a message could not be read again");
                false
            }
        }
    }

    /// Tells whom `rows` concern, in their order; `again`: unless they were told. Answers with the messages of which
    /// not everybody was.
    async fn tell(&self, channel: ChannelId, rows: &[Row], again: bool) -> Vec<Seq> {
        let messages = rows.iter().filter_map(|row| Some((row.entry.seq, row.entry.content.message()?)));
        let messages: Vec<(Seq, &Message)> =
            messages.filter(|(_, message)| concerns_others(message)).collect();
        if messages.is_empty() {
            return Vec::new();
        }
        let notes = match self.notes(channel, &messages).await {
            Ok(notes) => notes,
            Err(error) => {
                tracing::warn!(channel.id = %channel, %error, "whom messages concern could not be read");
                return messages.into_iter().map(|(seq, _)| seq).collect();
            }
        };
        // All are handed over before one is waited for, in this order.
        let told = notes.into_iter().map(|Note { to, seq, content }| async move {
            (seq, self.note_mention(to, channel, seq, content, again).await)
        });
        let mut left: Vec<Seq> =
            join_all(told).await.into_iter().filter_map(|(seq, is_told)| (!is_told).then_some(seq)).collect();
        left.dedup();
        left
    }

    async fn notes(&self, channel: ChannelId, messages: &[(Seq, &Message)]) -> StoreResult<Vec<Note>> {
        let answered = self.senders_of(channel, messages).await?;
        let concerned = messages.iter().flat_map(|&(seq, message)| {
            // An answer is told as one, also if it mentions her too.
            let mut users: BTreeMap<UserId, bool> =
                message.body.mentions.iter().map(|user| (*user, false)).collect();
            let answered = message.body.reply_to.and_then(|target| answered.get(&target));
            users.extend(answered.map(|user| (*user, true)));
            users.remove(&message.sender_id);
            users.into_iter().map(move |(to, is_reply)| {
                let by = message.sender_id;
                Note { to, seq, content: Content::Mentioned { channel_id: channel, seq, by, is_reply } }
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
        Ok(notes)
    }

    /// Who said what the messages answer.
    async fn senders_of(
        &self,
        channel: ChannelId,
        messages: &[(Seq, &Message)],
    ) -> StoreResult<BTreeMap<Seq, UserId>> {
        let targets: Vec<Seq> = messages.iter().filter_map(|(_, message)| message.body.reply_to).collect();
        if targets.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = self.0.store.rows_at(LogId::Channel(channel), &targets).await?;
        let senders = rows
            .iter()
            .flatten()
            .filter_map(|row| Some((row.entry.seq, row.entry.content.message()?.sender_id)));
        Ok(senders.collect())
    }

    /// Whether it is in her log.
    async fn note_mention(
        &self,
        user: UserId,
        channel: ChannelId,
        seq: Seq,
        content: Content,
        again: bool,
    ) -> bool {
        let is_it = |content: &Content| matches!(content, Content::Mentioned { channel_id, seq: at, .. } if (*channel_id, *at) == (channel, seq));
        let was_told = if again { self.noted_lately(user, is_it).await } else { Ok(false) };
        let error = match was_told {
            Ok(true) => return true,
            Ok(false) => self.note(user, content).await.err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = &error {
            tracing::warn!(channel.id = %channel, user.id = %user, %error, "a mention was not told yet");
        }
        error.is_none()
    }

    fn tell_later(&self, owed: impl IntoIterator<Item = Owed>) {
        let mut untold = self.0.untold.lock();
        for owed in owed {
            if untold.waiting.len() == UNTOLD || owed.tries == TRIES {
                tracing::warn!(channel.id = %owed.channel, seq = %owed.seq, "a mention is not told");
            } else {
                untold.waiting.push_back(owed);
            }
        }
        if !untold.waiting.is_empty() && !std::mem::replace(&mut untold.is_tended, true) {
            self.0.tasks.spawn("mentions", self.clone().tend_untold());
        }
    }

    /// Tells what is owed until nothing is. When the process drains, for the last time.
    async fn tend_untold(self) {
        loop {
            let is_last = tokio::select! {
                () = self.0.clock.sleep(AGAIN) => false,
                () = self.0.tasks.drain().draining() => true,
            };
            let waiting = std::mem::take(&mut self.0.untold.lock().waiting);
            let mut left = Vec::new();
            for Owed { channel, seq, tries } in waiting {
                if !self.tell_again(channel, seq).await {
                    left.push(Owed { channel, seq, tries: tries + 1 });
                }
            }
            self.tell_later(left);
            let mut untold = self.0.untold.lock();
            if untold.waiting.is_empty() || is_last {
                untold.is_tended = false;
                return;
            }
        }
    }
}

/// What is told to one.
struct Note {
    to: UserId,
    seq: Seq,
    content: Content,
}

fn concerns_others(message: &Message) -> bool {
    !message.body.mentions.is_empty() || message.body.reply_to.is_some()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use madang_bus::local::LocalInbox;
    use madang_engine::home::{Command, JoinRequest, SeatRequest};
    use madang_engine::log::{BodyHash, RowKey};
    use madang_ids::{ClientMsgId, Millis, Snowflakes};
    use madang_proto::{Body, ChannelCard, ChannelKind, Role};
    use madang_service::{Clock, Drain, ManualClock, Metrics, Tasks};
    use madang_store::model::{Fate, Faults, Model, ModelConfig};
    use madang_store::{Channel, ChannelStore, LogStore};

    use super::*;
    use crate::metrics::ChatMetrics;

    const ANNA: UserId = UserId::from_raw(1);
    const BERT: UserId = UserId::from_raw(2);
    const CARL: UserId = UserId::from_raw(3);

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
            let homes = Homes::new(Arc::clone(&model) as _, Arc::new(inbox), ids, clock, tasks, metrics);
            let card =
                ChannelCard::new(ChannelId::from_raw(9), ChannelKind::Open, Some("tea".to_owned()), None);
            let channel = Channel::new(card, ANNA, Millis::new(1), 100);
            model.create_channel(&channel).await.unwrap();
            let joins = [(ANNA, Role::Owner), (BERT, Role::Member), (CARL, Role::Member)];
            let joins = joins.map(|(user_id, role)| JoinRequest { user_id, role }).to_vec();
            let request = SeatRequest { joins, is_creation: true, ..SeatRequest::by(ANNA) };
            homes.ask(&channel, Command::Seats(request)).await.unwrap();
            Self { homes, model, hand, channel }
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

        /// Until nothing is owed, while the clock goes on in such steps.
        async fn settle(&self, step: Duration) {
            for _ in 0..1_000 {
                if !self.homes.0.untold.lock().is_tended {
                    return;
                }
                self.hand.advance(step);
                tokio::task::yield_now().await;
            }
            panic!("mentions are still owed");
        }

        /// The messages of which somebody's log tells.
        async fn told(&self, user: UserId) -> Vec<Seq> {
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
    async fn who_could_not_be_told_is_told_later_and_once() {
        let stage = Stage::open().await;
        let first = stage.say(1, mention(&[BERT, CARL])).await;
        for _ in 0..2 {
            stage.model.script(LogId::User(BERT), Fate::Unavailable);
        }
        let second = stage.say(2, mention(&[BERT, CARL])).await;
        let third = stage.say(3, mention(&[CARL])).await;
        assert_eq!(stage.told(BERT).await, [first]);
        stage.settle(AGAIN).await;
        assert_eq!(stage.told(BERT).await, [first, second]);
        assert_eq!(stage.told(CARL).await, [first, second, third]);
    }

    #[tokio::test]
    async fn messages_of_one_append_are_told_in_their_order() {
        let stage = Stage::open().await;
        let body = || mention(&[BERT]);
        let (one, two, three) =
            tokio::join!(stage.say(1, body()), stage.say(2, body()), stage.say(3, body()));
        assert_eq!(stage.told(BERT).await, [one, two, three]);
        let answer = Body { reply_to: Some(two), ..mention(&[]) };
        stage.say(4, answer).await;
        assert_eq!(stage.told(ANNA).await, [], "who answers herself is not told");
    }

    #[tokio::test]
    async fn what_is_owed_is_tried_once_more_when_the_process_drains() {
        let stage = Stage::open().await;
        stage.model.script(LogId::User(BERT), Fate::Unavailable);
        let first = stage.say(1, mention(&[BERT])).await;
        assert_eq!(stage.told(BERT).await, []);
        stage.homes.0.tasks.drain().begin();
        stage.settle(Duration::ZERO).await;
        assert_eq!(stage.told(BERT).await, [first]);
    }
}
