//! Acts of operators: buckets of 256, each a partition.

use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use madang_ids::{ChannelId, Millis};
use scylla::DeserializeRow;

use super::Scylla;
use super::codec::{int, number};
use super::session::{Class, Statement};
use crate::acts::{Act, ActStore};
use crate::error::StoreResult;

/// Acts of one partition.
const BUCKET: u64 = 256;

const APPEND: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO acts (bucket, seq, at, by_name, client, kind, channel, change, why, document)
          VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS",
};
const ACTS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT seq, at, by_name, client, kind, channel, change, why, document FROM acts
          WHERE bucket = ? AND seq < ? LIMIT ?",
};

/// The greatest bucket in which an act was found: where the next look for the last act begins.
#[derive(Debug, Default)]
pub(super) struct LastBucket(AtomicI64);

#[derive(Debug, DeserializeRow)]
struct StoredAct {
    seq: i64,
    at: i64,
    by_name: String,
    client: String,
    kind: String,
    channel: Option<i64>,
    change: String,
    why: String,
    document: String,
}

impl From<StoredAct> for Act {
    fn from(stored: StoredAct) -> Self {
        let StoredAct { seq, at, by_name, client, kind, channel, change, why, document } = stored;
        let channel = channel.map(|channel| ChannelId::from_raw(number(channel)));
        let (seq, at) = (number(seq), Millis::new(number(at)));
        Self { seq, at, by: by_name, from: client, kind, channel, change, why, document }
    }
}

fn bucket_of(seq: u64) -> i64 {
    int(seq.saturating_sub(1) / BUCKET)
}

impl Scylla {
    async fn acts_of(&self, bucket: i64, before: i64, limit: usize) -> StoreResult<Vec<Act>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let stored: Vec<StoredAct> = self.cql.read(&ACTS, (bucket, before, limit)).await?;
        Ok(stored.into_iter().map(Act::from).collect())
    }
}

#[async_trait]
impl ActStore for Scylla {
    async fn append_act(&self, act: &Act) -> StoreResult<bool> {
        // Acts have no hole, so the one before is the last one unless this one exists.
        let before = self.acts(Some(act.seq), 1).await?.first().map_or(0, |act| act.seq);
        if before + 1 != act.seq {
            return Ok(false);
        }
        let Act { seq, at, by, from, kind, channel, change, why, document } = act;
        let channel = channel.map(|channel| int(channel.raw()));
        let who = (by.as_str(), from.as_str(), kind.as_str(), channel);
        let (by, from, kind, channel) = who;
        let values = (
            bucket_of(*seq),
            int(*seq),
            int(at.get()),
            by,
            from,
            kind,
            channel,
            change.as_str(),
            why.as_str(),
            document.as_str(),
        );
        self.cql.conditional(&APPEND, values).await
    }

    async fn last_act(&self) -> StoreResult<Option<Act>> {
        Ok(self.acts(None, 1).await?.pop())
    }

    async fn acts(&self, before: Option<u64>, limit: usize) -> StoreResult<Vec<Act>> {
        let mut acts = Vec::new();
        let mut bucket = match before {
            Some(before) => bucket_of(before.saturating_sub(1)),
            None => {
                // Buckets have no hole either: the last one is before the first empty one.
                let mut bucket = self.last_bucket.0.load(Ordering::Relaxed);
                while !self.acts_of(bucket + 1, i64::MAX, 1).await?.is_empty() {
                    bucket += 1;
                }
                self.last_bucket.0.fetch_max(bucket, Ordering::Relaxed);
                bucket
            }
        };
        let before = before.map_or(i64::MAX, int);
        while bucket >= 0 && acts.len() < limit {
            acts.extend(self.acts_of(bucket, before, limit - acts.len()).await?);
            bucket -= 1;
        }
        Ok(acts)
    }
}
