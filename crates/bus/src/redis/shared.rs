//! One text that all processes of a fleet share.

use std::sync::LazyLock;

use madang_store::StoreResult;
use redis::Value;

use super::connection::Redis;
use super::scripts::{EPOCH, Script, call, script};
use super::values::Reply;

/// For how long it is kept after it was written, in milliseconds.
const SHARED_LIFE: u64 = 3_600_000;

/// Puts a text in the place of another one.
///
/// Keys: the text. Arguments: what was there, or nothing; what is to be there. Returns whether it is (1 or 0).
pub(super) static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return {epoch, 0} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', SHARED_LIFE)
return {epoch, 1}
",
    ])
});

pub(super) const LIFE: (&str, u64) = ("SHARED_LIFE", SHARED_LIFE);

/// A text under a key of its own, which ends an hour after it was written.
#[derive(Clone)]
pub struct SharedText {
    redis: Redis,
    key: String,
}

impl SharedText {
    /// The text with this name.
    #[must_use]
    pub fn new(redis: Redis, name: &str) -> Self {
        Self { redis, key: format!("shared:{name}") }
    }

    /// The text, if there is one.
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn load(&self) -> StoreResult<Option<String>> {
        match self.redis.command(redis::cmd("GET").arg(&self.key)).await? {
            Value::Nil => Ok(None),
            value => Reply::of(Value::Array(vec![value]))?.text().map(Some),
        }
    }

    /// Puts `after` in the place of `before`. `false` if another text is there by now.
    ///
    /// # Errors
    /// Redis does not answer; the text may have been replaced then.
    pub async fn replace(&self, before: Option<&str>, after: &str) -> StoreResult<bool> {
        let arguments = [before.unwrap_or_default(), after].map(str::as_bytes);
        let answer = self.redis.command(&call(&REPLACE, &[&self.key], &arguments)).await?;
        Ok(Reply::of(answer)?.skip().number()? == 1)
    }
}
