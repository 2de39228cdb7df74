//! What an operator should change about the server: each node looks, and says it until it is mended.

use std::fmt;
use std::time::Duration;

use redis::Value;
use tokio::time::sleep;

use super::RedisBus;
use super::connection::Redis;

/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(60);
/// The pause after a server that did not answer.
const AGAIN: Duration = Duration::from_secs(2);
/// The first release with every command of this crate: `XTRIM` with `MINID`. Valkey names the release of Redis that it is compatible
/// with here.
const OLDEST: [u32; 2] = [6, 2];

/// A setting or a state of a server with which devices may miss something for a time. Acknowledged messages are in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    TooOld(String),
    Replica,
    Evicts(String),
    NoAppendOnlyFile,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor] = OLDEST;
        match self {
            Self::TooOld(release) => {
                write!(f, "Redis {release} is too old: use {major}.{minor} or a later release")
            }
            Self::Replica => f.write_str("bus.url names a replica, which refuses every write: name its master"),
            Self::Evicts(policy) => write!(
                f,
                "Redis removes inboxes when its memory is full (maxmemory-policy {policy}), and devices may miss what was in them: \
                 set maxmemory-policy noeviction"
            ),
            Self::NoAppendOnlyFile => f.write_str(
                "Redis writes no append-only file: after a crash it has lost its memory, and every device takes a snapshot: \
                 set appendonly yes",
            ),
        }
    }
}

/// What is wrong in an answer to `INFO`. What the server does not say is taken for right.
fn findings(info: &str) -> Vec<Finding> {
    let value = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
    };
    let mut found = Vec::new();
    if let Some(release) = value("redis_version") {
        let numbers: Vec<u32> = release.split('.').map_while(|part| part.parse().ok()).collect();
        if !numbers.is_empty() && numbers.as_slice() < OLDEST.as_slice() {
            found.push(Finding::TooOld(release.to_owned()));
        }
    }
    if value("role") == Some("slave") {
        found.push(Finding::Replica);
    }
    let is_bounded = value("maxmemory").is_some_and(|bytes| bytes != "0");
    if let Some(policy) = value("maxmemory_policy").filter(|policy| is_bounded && *policy != "noeviction") {
        found.push(Finding::Evicts(policy.to_owned()));
    }
    if value("aof_enabled") == Some("0") {
        found.push(Finding::NoAppendOnlyFile);
    }
    found
}

/// `None` if the server does not answer, or does not allow the command.
async fn info(redis: &Redis) -> Option<String> {
    match redis.command(&redis::cmd("INFO")).await.ok()? {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

impl RedisBus {
    /// Logs what is wrong with the server when that changes; never returns.
    pub(super) async fn watch_settings(&self) {
        let mut known = Vec::new();
        loop {
            let Some(info) = info(&self.redis).await else {
                sleep(AGAIN).await;
                continue;
            };
            let found = findings(&info);
            for finding in found.iter().filter(|finding| !known.contains(*finding)) {
                tracing::error!("{finding}");
            }
            self.metrics.settings_wrong.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
            known = found;
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nmaxmemory:1048576\r\nmaxmemory_human:1M\r\n\
                         maxmemory_policy:noeviction\r\n# Persistence\r\naof_enabled:1\r\n# Replication\r\nrole:master\r\n";

    #[test]
    fn each_wrong_setting_is_found() {
        assert_eq!(findings(SOUND), []);
        let of = |from: &str, to: &str| findings(&SOUND.replace(from, to));
        assert_eq!(of("7.0.15", "6.2.0"), []);
        assert_eq!(of("7.0.15", "6.0.16"), [Finding::TooOld("6.0.16".to_owned())]);
        assert_eq!(of("7.0.15", "10.1"), []);
        assert_eq!(of("role:master", "role:slave"), [Finding::Replica]);
        assert_eq!(of("noeviction", "volatile-lru"), [Finding::Evicts("volatile-lru".to_owned())]);
        assert_eq!(of("aof_enabled:1", "aof_enabled:0"), [Finding::NoAppendOnlyFile]);
        let unbounded =
            SOUND.replace("noeviction", "allkeys-lru").replace("maxmemory:1048576", "maxmemory:0");
        assert_eq!(findings(&unbounded), []);
        assert_eq!(findings("an answer of something else"), []);
    }
}
