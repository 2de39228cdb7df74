//! The logs to which each node appends: if the node dies between an append and its fan-out, the new homes of these logs repeat the
//! fan-out. So the logs themselves are the outbox.
//!
//! Keys, in one hash slot: `{busy}:runs`, a set of the runs of nodes that may have left something, and for each run
//! `{busy}:<run>`, a set of its logs. A log is added before the first acknowledgement of a busy period, and removed when its home
//! is evicted. A run is removed when its set is empty. Bound: the homes of each node.

use madang_ids::{LogId, NodeEpoch, NodeId, NodeRun};
use madang_store::StoreResult;
use redis::Pipeline;

use super::RedisBus;
use super::inbox::{log_name, parse_log, texts};
use super::values::Reply;

const RUNS: &str = "{busy}:runs";
/// Logs of a dead node that are taken in one step.
const STEP: usize = 256;

fn key(run: NodeRun) -> String {
    format!("{{busy}}:{run}")
}

fn parse_run(text: &str) -> Option<NodeRun> {
    let (node, epoch) = text.split_once('.')?;
    Some(NodeRun { node: NodeId(node.parse().ok()?), epoch: NodeEpoch(epoch.parse().ok()?) })
}

impl RedisBus {
    pub(super) async fn announce_log(&self, log: LogId) -> StoreResult<()> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("SADD").arg(RUNS).arg(self.run.to_string());
        pipeline.cmd("SADD").arg(key(self.run)).arg(log_name(log));
        self.redis.pipeline(&pipeline).await.map(drop)
    }

    pub(super) async fn retire_logs(&self, of: NodeRun, logs: &[LogId]) -> StoreResult<()> {
        for logs in logs.chunks(STEP) {
            let mut command = redis::cmd("SREM");
            command.arg(key(of));
            for log in logs {
                command.arg(log_name(*log));
            }
            self.redis.command(&command).await?;
        }
        Ok(())
    }

    /// The runs of nodes that may have left something.
    pub(super) async fn runs(&self) -> StoreResult<Vec<NodeRun>> {
        let runs = texts(Reply::of(self.redis.command(redis::cmd("SMEMBERS").arg(RUNS)).await?)?)?;
        Ok(runs.iter().filter_map(|run| parse_run(run)).collect())
    }

    /// Some of the logs of a run. A run without logs is removed.
    pub(super) async fn logs_of(&self, run: NodeRun) -> StoreResult<Vec<LogId>> {
        let answer = self.redis.command(redis::cmd("SRANDMEMBER").arg(key(run)).arg(STEP)).await?;
        let logs = texts(Reply::of(answer)?)?;
        if logs.is_empty() {
            self.redis.command(redis::cmd("SREM").arg(RUNS).arg(run.to_string())).await?;
        }
        Ok(logs.iter().filter_map(|log| parse_log(log)).collect())
    }
}
