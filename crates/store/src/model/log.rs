//! The store of logs, in memory.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use madang_ids::{ChannelId, ClientMsgId, LogId, Millis, Position, Seq, UserId};
use madang_proto::{Content, Reaction, Unreadable};
use tokio::sync::mpsc::OwnedPermit;

use super::{Fate, Model, Mutant, State, Stored, unavailable, unknown};
use crate::commit_order::Commit;
use crate::error::{StoreError, StoreResult};
use crate::log::{
    Append, AppendOutcome, Consequences, Head, LogStore, MAX_APPEND_ROWS, Marker, Mention, MentionPlace,
    OwnReactions, ReactionChange, ReactionPlace, Row, RowChange, SendRecord, SentRows, Tail,
};

/// Most appends of unknown outcome that a log keeps; further ones are lost.
const MAX_LATE: usize = 16;

/// Shards of the model: enough that some logs share one and others do not.
const SHARDS: u64 = 4;

pub(super) fn shard_of(log: LogId) -> u64 {
    match log {
        LogId::Channel(channel) => channel.raw() % SHARDS,
        LogId::User(user) => user.raw() % SHARDS,
    }
}

#[async_trait]
impl LogStore for Model {
    async fn append(&self, append: Append) -> StoreResult<AppendOutcome> {
        let _call = self.journal.begin("append");
        check(&append)?;
        self.reach(append.log).await;
        self.delay().await;
        if self.dice.lock().is_heads() {
            self.apply_late(append.log).await;
        }
        let sent = self.record_and_look_up(&append).await?;
        if !sent.is_empty() {
            if self.is_mutant(Mutant::AppendDespiteKnownKey) {
                self.apply(&append).await;
            }
            return Ok(AppendOutcome::SentBefore(sent));
        }
        let fate = self.dice.lock().append_fate(append.log);
        match fate {
            Fate::Done => {
                let outcome = self.apply(&append).await;
                self.delay().await;
                Ok(outcome)
            }
            Fate::Unavailable => Err(unavailable()),
            Fate::UnknownDone => {
                self.apply(&append).await;
                Err(unknown())
            }
            Fate::UnknownLost => Err(unknown()),
            Fate::UnknownLate => {
                let mut state = self.state.lock();
                let late = &mut state.logs.entry(append.log).or_default().late;
                if late.len() < MAX_LATE {
                    late.push(append);
                }
                Err(unknown())
            }
            Fate::UnknownChangesOnly => {
                self.apply_changes(append.log, &append.changes);
                Err(unknown())
            }
        }
    }

    async fn apply_consequences(&self, channel: ChannelId, consequences: &Consequences) -> StoreResult<()> {
        let _call = self.journal.begin("apply_consequences");
        let Consequences { markers, mentions, deleted } = consequences;
        if !self.is_mutant(Mutant::ConsequencesForgetMarkers) {
            let goes_back = self.is_mutant(Mutant::ConsequencesGoBack);
            let raise = |state: &mut State, &(sender, marker): &(UserId, Marker)| {
                state.raise_marker(sender, channel, marker, goes_back);
            };
            self.write_each(markers, raise).await?;
        }
        if !self.is_mutant(Mutant::ConsequencesForgetMentions) {
            let notes: Vec<_> =
                mentions.iter().flat_map(|of| of.users.iter().map(move |user| (of, *user))).collect();
            self.write_each(&notes, |state, &(of, user)| state.note_mention(channel, of, user)).await?;
        }
        if !self.is_mutant(Mutant::ConsequencesKeepNotes) {
            let notes: Vec<_> =
                deleted.iter().flat_map(|of| of.mentioned.iter().map(move |user| (of, *user))).collect();
            self.write_each(&notes, |state, &(of, user)| state.forget_mention(channel, of, user)).await?;
        }
        if !self.is_mutant(Mutant::ConsequencesKeepReactions) {
            self.write_each(deleted, |state, of| state.forget_reactions(channel, of.target)).await?;
        }
        Ok(())
    }

    fn shard(&self, log: LogId, _seq: Seq) -> u64 {
        shard_of(log)
    }

    async fn tail(&self, log: LogId, rows: usize) -> StoreResult<Tail> {
        let _call = self.journal.begin("tail");
        self.reach(log).await;
        if self.dice.lock().is_heads() {
            self.apply_late(log).await;
        }
        let rows = if self.is_mutant(Mutant::TailLacksLastRow) { rows.saturating_sub(1) } else { rows };
        self.read(|state| {
            let Some(log) = state.logs.get(&log) else { return Tail::default() };
            let from = log.rows.len().saturating_sub(rows);
            Tail {
                head: log.head,
                rows: log.rows[from..].iter().map(|stored| stored.row.clone().without_body()).collect(),
            }
        })
        .await
    }

    async fn heads(&self, logs: &[LogId]) -> StoreResult<Vec<Head>> {
        let _call = self.journal.begin("heads");
        let lags = self.is_mutant(Mutant::HeadsLagBehind);
        let head = |state: &State, log| if lags { state.head_before(log) } else { state.head(log) };
        self.read(|state| logs.iter().map(|&log| head(state, log)).collect()).await
    }

    async fn rows(&self, log: LogId, range: RangeInclusive<Seq>, max_bytes: usize) -> StoreResult<Vec<Row>> {
        let _call = self.journal.begin("rows");
        self.reach(log).await;
        let max_bytes = if self.is_mutant(Mutant::RowsIgnoreBytes) { usize::MAX } else { max_bytes };
        let lags = self.is_mutant(Mutant::RowsLagBehind);
        self.read(|state| {
            let last = if lags { state.head_before(log).seq } else { *range.end() };
            limited(state.stored(log, &range).filter(|stored| stored.row.entry.seq <= last), max_bytes)
        })
        .await
    }

    async fn rows_back(
        &self,
        log: LogId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<Vec<Row>> {
        let _call = self.journal.begin("rows_back");
        self.reach(log).await;
        let skipped = usize::from(self.is_mutant(Mutant::RowsBackOffByOne));
        self.read(|state| limited(state.stored(log, &range).rev().skip(skipped), max_bytes)).await
    }

    async fn rows_by(
        &self,
        channel: ChannelId,
        sender: UserId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<SentRows> {
        let _call = self.journal.begin("rows_by");
        let finds_all = self.is_mutant(Mutant::RowsByIgnoreSender);
        self.read(|state| {
            let is_sent =
                |stored: &&Stored| stored.row.key.is_some_and(|key| finds_all || key.sender == sender);
            let sent = || state.stored(LogId::Channel(channel), &range).filter(is_sent);
            let rows = limited(sent(), max_bytes);
            let is_whole = rows.len() == sent().count();
            let upto = rows.last().filter(|_| !is_whole).map_or(*range.end(), |row| row.entry.seq);
            SentRows { rows, upto }
        })
        .await
    }

    async fn rows_at(&self, log: LogId, seqs: &[Seq], max_bytes: usize) -> StoreResult<Vec<Option<Row>>> {
        let _call = self.journal.begin("rows_at");
        self.reach(log).await;
        let max_bytes = if self.is_mutant(Mutant::RowsIgnoreBytes) { usize::MAX } else { max_bytes };
        self.read(|state| {
            let (mut rows, mut bytes) = (Vec::new(), 0_usize);
            for seq in seqs {
                let row = state.stored(log, &(*seq..=*seq)).next().map(|stored| stored.row.clone());
                bytes += row.as_ref().map_or(0, |row| content_bytes(&row.entry.content));
                if row.is_some() && bytes > max_bytes && !rows.is_empty() {
                    break;
                }
                rows.push(row);
            }
            rows
        })
        .await
    }

    async fn react(
        &self,
        channel: ChannelId,
        target: Seq,
        changes: &[ReactionChange],
        named: usize,
    ) -> StoreResult<Vec<Reaction>> {
        let _call = self.journal.begin("react");
        let forgets = self.is_mutant(Mutant::ReactNeverTakesBack);
        self.write(|state| {
            for ReactionChange { user_id, emoji, on, at_us } in changes {
                let place = (channel, target, emoji.clone());
                let last_us = state.reacted.entry((place.clone(), *user_id)).or_default();
                if at_us < last_us {
                    continue;
                }
                *last_us = *at_us;
                let users = state.reactions.entry(place).or_default();
                let _ = match on {
                    true => users.insert(*user_id),
                    false => !forgets && users.remove(user_id),
                };
            }
            state.reactions_to(channel, target, named)
        })
        .await
    }

    async fn reactors(
        &self,
        channel: ChannelId,
        target: Seq,
        emoji: &str,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<UserId>> {
        let _call = self.journal.begin("reactors");
        self.read(|state| {
            let users = state.reactions.get(&(channel, target, emoji.to_owned())).into_iter().flatten();
            users.copied().filter(|user| Some(*user) > after).take(limit).collect()
        })
        .await
    }

    async fn reactions_by(
        &self,
        channel: ChannelId,
        user: UserId,
        after: Option<ReactionPlace>,
        scan: usize,
    ) -> StoreResult<OwnReactions> {
        let _call = self.journal.begin("reactions_by");
        self.read(|state| {
            let here = state.reactions.iter().filter(|((of, _, _), _)| *of == channel);
            let all = here.flat_map(|((_, target, emoji), users)| {
                users.iter().map(|user| (*target, emoji.clone(), *user))
            });
            let next: Vec<ReactionPlace> =
                all.filter(|place| after.as_ref().is_none_or(|after| place > after)).take(scan).collect();
            let own = next.iter().filter(|(_, _, by)| *by == user);
            let found = own.map(|(target, emoji, _)| (*target, emoji.clone())).collect();
            OwnReactions { found, next: next.last().cloned().filter(|_| next.len() == scan) }
        })
        .await
    }

    async fn mentions_of(
        &self,
        user: UserId,
        before: Option<MentionPlace>,
        limit: usize,
    ) -> StoreResult<Vec<Mention>> {
        let _call = self.journal.begin("mentions_of");
        self.read(|state| {
            let own = state.mentions.iter().filter(|((_, who, _), _)| *who == Some(user));
            let mut all: Vec<Mention> = own
                .filter_map(|((channel, _, seq), sender)| {
                    let stored = state.stored(LogId::Channel(*channel), &(*seq..=*seq)).next()?;
                    Some(Mention { place: (stored.row.entry.at, *channel, *seq), sender: *sender })
                })
                .filter(|mention| before.is_none_or(|before| mention.place < before))
                .collect();
            all.sort_by_key(|mention| std::cmp::Reverse(mention.place));
            all.truncate(limit);
            all
        })
        .await
    }

    async fn seq_at(&self, log: LogId, at: Millis) -> StoreResult<Seq> {
        let _call = self.journal.begin("seq_at");
        let less = u64::from(self.is_mutant(Mutant::SeqAtOffByOne));
        self.read(|state| {
            let before = state.logs.get(&log).map_or(0, |log| {
                log.trimmed + log.rows.partition_point(|stored| stored.row.entry.at < at) as u64
            });
            Seq::new(before + 1 - less)
        })
        .await
    }

    async fn find_sends(
        &self,
        channel: ChannelId,
        keys: &[(UserId, ClientMsgId)],
    ) -> StoreResult<Vec<Option<SendRecord>>> {
        let _call = self.journal.begin("find_sends");
        let is_blind = self.is_mutant(Mutant::FindSendsIgnoresSender);
        self.read(|state| keys.iter().map(|&key| state.send(channel, key, is_blind)).collect()).await
    }
}

fn check(append: &Append) -> StoreResult<()> {
    let is_dense =
        append.rows.iter().zip(append.expected.seq.get() + 1..).all(|(row, seq)| row.entry.seq.get() == seq);
    if is_dense && (1..=MAX_APPEND_ROWS).contains(&append.rows.len()) {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!("an append to {} has a hole", append.log)))
}

fn content_bytes(content: &madang_proto::Content) -> usize {
    serde_json::to_string(content).map_or(0, |content| content.len())
}

fn limited<'a>(stored: impl Iterator<Item = &'a Stored>, max_bytes: usize) -> Vec<Row> {
    let (mut rows, mut bytes) = (Vec::new(), 0_usize);
    for stored in stored {
        bytes += content_bytes(&stored.row.entry.content);
        if bytes > max_bytes && !rows.is_empty() {
            break;
        }
        rows.push(stored.row.clone());
    }
    rows
}

impl Model {
    /// Changes the content of a row as a failing disk may do. From then on the row is unreadable.
    pub fn spoil(&self, log: LogId, seq: Seq) {
        let mut state = self.state.lock();
        let rows = state.logs.entry(log).or_default().rows.iter_mut();
        for Stored { row, version, .. } in rows.filter(|stored| stored.row.entry.seq == seq) {
            let (sender_id, ordinal) = (row.key.map(|key| key.sender), row.key.map(|_| row.ordinal));
            row.entry.content = Content::Unreadable(Unreadable { sender_id, ordinal, version: *version });
        }
    }

    /// Two steps before the append. If either fails, no row was appended.
    async fn record_and_look_up(&self, append: &Append) -> StoreResult<Vec<SendRecord>> {
        let LogId::Channel(channel) = append.log else { return Ok(Vec::new()) };
        let records = if self.is_mutant(Mutant::AppendForgetsRecords) { &[][..] } else { &append.records };
        let recorded = self.write_each(records, |state, record| {
            let key = (channel, record.key.sender, record.key.client_msg_id.value());
            state.sends.entry(key).or_insert(*record);
        });
        recorded.await.map_err(|_| unavailable())?;
        if !append.looks_up_keys || self.is_mutant(Mutant::AppendIgnoresKnownKeys) {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = append.keys().collect();
        Ok(self.find_sends(channel, &keys).await?.into_iter().flatten().collect())
    }

    /// Makes the pending appends of unknown outcome take effect now, if they still can.
    async fn apply_late(&self, log: LogId) {
        let late = self.state.lock().logs.get_mut(&log).map(|log| std::mem::take(&mut log.late));
        for mut append in late.unwrap_or_default() {
            if self.is_mutant(Mutant::LateAppendIgnoresHead) {
                append.expected = self.state.lock().head(log);
            }
            self.apply(&append).await;
        }
    }

    /// Writes the changes first, then the rows. The two writes are not atomic.
    async fn apply(&self, append: &Append) -> AppendOutcome {
        if !append.changes.is_empty() {
            let head = self.state.lock().head(append.log);
            if head != append.expected {
                return AppendOutcome::Moved;
            }
            if let Some(stale) = self.apply_changes(append.log, &append.changes) {
                return stale;
            }
            self.delay().await;
        }
        loop {
            let place = self.place_in_feed().await;
            let mut state = self.state.lock();
            if place.is_some() || !state.feed_is_taken || self.feed.is_closed() {
                return self.apply_rows(&mut state, append, place);
            }
        }
    }

    async fn place_in_feed(&self) -> Option<OwnedPermit<Commit>> {
        let is_taken = self.state.lock().feed_is_taken;
        if is_taken { self.feed.clone().reserve_owned().await.ok() } else { None }
    }

    fn apply_changes(&self, log: LogId, changes: &[RowChange]) -> Option<AppendOutcome> {
        let is_blind = self.is_mutant(Mutant::ChangeIgnoresVersion);
        let mut state = self.state.lock();
        for change in changes {
            let rows = &mut state.logs.entry(log).or_default().rows;
            let target = rows.iter_mut().find(|stored| stored.row.entry.seq == change.target);
            let version = target.as_ref().map_or(0, |stored| stored.version);
            match target {
                Some(stored) if is_blind || version == change.if_version => {
                    stored.version = change.if_version + 1;
                    stored.row.entry.content = change.content.clone();
                }
                _ => return Some(AppendOutcome::Stale),
            }
        }
        None
    }

    fn is_at(&self, head: Head, expected: Head) -> bool {
        head.seq == expected.seq
            && (head.ordinal == expected.ordinal || self.is_mutant(Mutant::AppendIgnoresOrdinal))
            && (head.at == expected.at || self.is_mutant(Mutant::AppendIgnoresTime))
    }

    fn apply_rows(
        &self,
        state: &mut State,
        append: &Append,
        place: Option<OwnedPermit<Commit>>,
    ) -> AppendOutcome {
        let head = state.head(append.log);
        if !self.is_at(head, append.expected) && !self.is_mutant(Mutant::AppendOverwrites) {
            return AppendOutcome::Moved;
        }
        state.appends += 1;
        if self.is_mutant(Mutant::AppendAcksWithoutWriting) && state.appends.is_multiple_of(5) {
            return AppendOutcome::Appended;
        }
        let rows = self.rows_to_write(append);
        let first = Position::new(state.position + 1);
        let stands_still = self.is_mutant(Mutant::PositionStandsStill);
        let keeps_messages = self.is_mutant(Mutant::ChangeKeepsMessage);
        state.append(append.log, &rows, append.head(), stands_still, keeps_messages);
        self.note_alerts(state, append.log, &rows);
        if let (LogId::Channel(channel), Some(details)) = (append.log, &append.details)
            && !self.is_mutant(Mutant::AppendForgetsDetails)
        {
            if self.is_mutant(Mutant::DetailsLagBehind) {
                let old = state.channels.get(&channel).cloned();
                state.old_channels.get_mut().extend(old.map(|old| (channel, old)));
            }
            state.set_details(channel, details);
        }
        if let Some(place) = place {
            self.send(place, Commit { log: append.log, rows: rows.into(), first });
        }
        AppendOutcome::Appended
    }

    fn rows_to_write(&self, append: &Append) -> Arc<[Row]> {
        let mut rows = append.rows.to_vec();
        if self.is_mutant(Mutant::AppendLosesLastRow) && rows.len() > 1 {
            rows.pop();
        }
        if self.is_mutant(Mutant::AppendReversesRows) && rows.len() > 1 {
            rows.swap(0, 1);
        }
        rows.into()
    }

    fn send(&self, place: OwnedPermit<Commit>, commit: Commit) {
        if self.is_mutant(Mutant::FeedOutOfOrder) && commit.first.get().is_multiple_of(2) {
            // Delayed by one: the next commit enters the feed before this one.
            let feed = self.feed.clone();
            drop(place);
            if let Some(held) = self.held_back(Some(commit)) {
                let _ = feed.try_send(held);
            }
            return;
        }
        if self.is_mutant(Mutant::FeedTwice) {
            let _ = self.feed.try_send(commit.clone());
        }
        place.send(commit);
        if let Some(held) = self.held_back(None) {
            let _ = self.feed.try_send(held);
        }
    }

    /// Holds a commit back, and returns the one that was held back before.
    fn held_back(&self, commit: Option<Commit>) -> Option<Commit> {
        std::mem::replace(&mut *self.held.lock(), commit)
    }
}
