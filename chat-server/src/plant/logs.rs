//! Around the logs of the store: writes that are acknowledged and not made, and pages without one of their rows.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use madang_ids::{ChannelId, ClientMsgId, LogId, Millis, Seq, UserId};
use madang_proto::Reaction;
use madang_store::{
    Append, AppendOutcome, Consequences, Head, LogStore, Mention, MentionPlace, OwnReactions, ReactionChange,
    ReactionPlace, Row, SendRecord, SentRows, StoreResult, Tail,
};

use super::{Fault, strikes};

/// Logs that lose what they have acknowledged.
pub(crate) struct FaultyLogs(pub(crate) Arc<dyn LogStore>);

/// Only pages: a read of a single row does not serve history.
fn without_one(mut page: Vec<Row>) -> Vec<Row> {
    if page.len() > 1 && strikes(Fault::HistoryWithoutRow) {
        page.remove(page.len() / 2);
    }
    page
}

#[async_trait]
impl LogStore for FaultyLogs {
    async fn append(&self, append: Append) -> StoreResult<AppendOutcome> {
        if strikes(Fault::AckWithoutWriting) {
            return Ok(AppendOutcome::Appended);
        }
        self.0.append(append).await
    }

    async fn react(
        &self,
        channel: ChannelId,
        target: Seq,
        changes: &[ReactionChange],
        named: usize,
    ) -> StoreResult<Vec<Reaction>> {
        let changes = if strikes(Fault::ReactionLost) { &[][..] } else { changes };
        self.0.react(channel, target, changes, named).await
    }

    async fn rows(&self, log: LogId, range: RangeInclusive<Seq>, max_bytes: usize) -> StoreResult<Vec<Row>> {
        self.0.rows(log, range, max_bytes).await.map(without_one)
    }

    async fn rows_back(
        &self,
        log: LogId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<Vec<Row>> {
        self.0.rows_back(log, range, max_bytes).await.map(without_one)
    }

    async fn apply_consequences(&self, channel: ChannelId, consequences: &Consequences) -> StoreResult<()> {
        self.0.apply_consequences(channel, consequences).await
    }

    fn applies_consequences_with_rows(&self) -> bool {
        self.0.applies_consequences_with_rows()
    }

    fn shard(&self, log: LogId, seq: Seq) -> u64 {
        self.0.shard(log, seq)
    }

    async fn tail(&self, log: LogId, rows: usize) -> StoreResult<Tail> {
        self.0.tail(log, rows).await
    }

    async fn heads(&self, logs: &[LogId]) -> StoreResult<Vec<Head>> {
        self.0.heads(logs).await
    }

    async fn rows_by(
        &self,
        channel: ChannelId,
        sender: UserId,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> StoreResult<SentRows> {
        self.0.rows_by(channel, sender, range, max_bytes).await
    }

    async fn rows_at(&self, log: LogId, seqs: &[Seq], max_bytes: usize) -> StoreResult<Vec<Option<Row>>> {
        self.0.rows_at(log, seqs, max_bytes).await
    }

    async fn rows_of(
        &self,
        ranges: &[(LogId, RangeInclusive<Seq>)],
        max_bytes: usize,
    ) -> StoreResult<Vec<Vec<Row>>> {
        self.0.rows_of(ranges, max_bytes).await
    }

    async fn reactors(
        &self,
        channel: ChannelId,
        target: Seq,
        emoji: &str,
        after: Option<UserId>,
        limit: usize,
    ) -> StoreResult<Vec<UserId>> {
        self.0.reactors(channel, target, emoji, after, limit).await
    }

    async fn reactions_by(
        &self,
        channel: ChannelId,
        user: UserId,
        after: Option<ReactionPlace>,
        scan: usize,
    ) -> StoreResult<OwnReactions> {
        self.0.reactions_by(channel, user, after, scan).await
    }

    async fn mentions_of(
        &self,
        user: UserId,
        before: Option<MentionPlace>,
        limit: usize,
    ) -> StoreResult<Vec<Mention>> {
        self.0.mentions_of(user, before, limit).await
    }

    async fn seq_at(&self, log: LogId, at: Millis) -> StoreResult<Seq> {
        self.0.seq_at(log, at).await
    }

    async fn find_sends(
        &self,
        channel: ChannelId,
        keys: &[(UserId, ClientMsgId)],
    ) -> StoreResult<Vec<Option<SendRecord>>> {
        self.0.find_sends(channel, keys).await
    }
}
