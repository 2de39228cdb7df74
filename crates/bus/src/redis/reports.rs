//! What processes of a fleet report about themselves, for operators to read.

use std::sync::LazyLock;

use madang_store::StoreResult;

use super::connection::Redis;
use super::scripts::{EPOCH, Script, call, script};
use super::values::Reply;

/// For how many seconds a report holds.
const REPORT_LIFE: u64 = 30;

pub(super) const LIFE: (&str, u64) = ("REPORT_LIFE", REPORT_LIFE);

/// Reads the reports that hold, and removes the others.
const HOLDING: &str = "
local now, found = tonumber(redis.call('TIME')[1]), {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local at, text = string.match(all[i + 1], '^(%d+) (.*)$')
  if tonumber(at) + REPORT_LIFE < now then redis.call('HDEL', KEYS[1], all[i])
  else found[#found + 1] = all[i]; found[#found + 1] = text end
end
";

/// Puts a report in the place of the one before.
///
/// Keys: the reports. Arguments: the name of the process; the report, in one line.
pub(super) static PUT: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        HOLDING,
        "
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2])
redis.call('EXPIRE', KEYS[1], REPORT_LIFE)
return {epoch}
",
    ])
});

/// Keys: the reports. Returns the name and the report of each process.
pub(super) static ALL: LazyLock<Script> =
    LazyLock::new(|| script(&[EPOCH, HOLDING, "return {epoch, unpack(found)}"]));

/// The reports of all processes of a kind. One holds for half a minute: a process that is gone leaves nothing behind.
#[derive(Clone)]
pub struct Reports {
    redis: Redis,
    key: String,
}

impl Reports {
    /// Those of this kind of processes.
    #[must_use]
    pub fn of(redis: Redis, kind: &str) -> Self {
        Self { redis, key: format!("reports:{kind}") }
    }

    /// Puts the report of a process, which is one line of a few kilobytes.
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn put(&self, name: &str, report: &str) -> StoreResult<()> {
        let arguments = [name.as_bytes(), report.as_bytes()];
        self.redis.command(&call(&PUT, &[&self.key], &arguments)).await?;
        Ok(())
    }

    /// The reports that hold.
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn all(&self) -> StoreResult<Vec<String>> {
        let mut reply = Reply::of(self.redis.command(&call(&ALL, &[&self.key], &[])).await?)?;
        let mut reports = Vec::new();
        reply.skip();
        while !reply.is_empty() {
            reports.push(reply.skip().text()?);
        }
        Ok(reports)
    }
}
