//! The registry of a fleet, over Redis.
//!
//! All keys have the hash tag `{madang}`, so they are in one slot. Every script takes the time from Redis.
//!
//! | key | content | bound | life |
//! |---|---|---|---|
//! | `{madang}:live` | sorted set: `role:id` → end of the lease in ms | live processes, and those of the last hour | an hour after the lease |
//! | `{madang}:cards` | hash: `role:id` → card as JSON, below 1.5 KiB | as above | as above |
//! | `{madang}:states` | hash: `role:id` → epoch, load, drain flag | as above | as above |
//! | `{madang}:names` | hash: `role:name` → `role:id` | as above | as above |
//! | `{madang}:incarnation` | when the first process registered, in µs | one | until Redis loses its data |
//! | `{madang}:ticket:ID` | 1 | tickets used within their time | the time of the ticket |
//!
//! A process has one connection for its registry. A call that fails or takes too long gives the connection up, because the
//! peer may be gone without a word; the next call opens another.

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, Script,
    ScriptInvocation,
};
use async_trait::async_trait;
use madang_ids::{NodeEpoch, NodeId};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::config::BusConfig;

use super::{
    LiveProcess, ProcessCard, ProcessRun, ProcessState, Registry, RegistryError, RegistryView, Renewal,
    VIEW_PROCESSES,
};

/// The longest time of a call, with the connection that it may have to open.
const PATIENCE: Duration = Duration::from_secs(2);

const LIVE: &str = "{madang}:live";
const CARDS: &str = "{madang}:cards";
const STATES: &str = "{madang}:states";
const NAMES: &str = "{madang}:names";
const INCARNATION: &str = "{madang}:incarnation";
const TICKETS: &str = "{madang}:ticket:";

/// The first lines of every script: `now` in ms.
macro_rules! script {
    ($text:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(
                "local time = redis.call('TIME')\n",
                "local now = time[1] * 1000 + math.floor(time[2] / 1000)\n",
                $text
            ))
        })
    };
}

/// Keys: live, cards, states, names, incarnation. Arguments: `role:id`, epoch, lease in ms, card, state, `role:name`.
/// Forgets at most 100 processes whose lease ended over an hour ago. Returns `{'ok'}`, `{'older', epoch}` or `{'name', role:id}`.
static REGISTER: LazyLock<Script> = script!(
    r"
local function drop_name(process)
  local card = redis.call('HGET', KEYS[2], process)
  if not card then return end
  local name = string.match(process, '^[^:]*:') .. cjson.decode(card).name
  if redis.call('HGET', KEYS[4], name) == process then redis.call('HDEL', KEYS[4], name) end
end
for _, process in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - 3600000, 'LIMIT', 0, 100)) do
  drop_name(process)
  redis.call('ZREM', KEYS[1], process)
  redis.call('HDEL', KEYS[2], process)
  redis.call('HDEL', KEYS[3], process)
end
local state = redis.call('HGET', KEYS[3], ARGV[1])
local known = state and string.match(state, '^%d+')
if known and tonumber(known) > tonumber(ARGV[2]) then return {'older', known} end
local holder = redis.call('HGET', KEYS[4], ARGV[6])
if holder and holder ~= ARGV[1] then
  local ends = redis.call('ZSCORE', KEYS[1], holder)
  if ends and tonumber(ends) > now then return {'name', holder} end
end
drop_name(ARGV[1])
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[5])
redis.call('HSET', KEYS[4], ARGV[6], ARGV[1])
redis.call('SET', KEYS[5], string.format('%d%06d', time[1], time[2]), 'NX')
return {'ok'}"
);

/// Keys: live, states. Arguments: `role:id`, epoch, lease in ms, state. Returns `{'kept'}`, `{'unknown'}` or `{'older', epoch}`.
static RENEW: LazyLock<Script> = script!(
    r"
local state = redis.call('HGET', KEYS[2], ARGV[1])
local known = state and string.match(state, '^%d+')
if not known then return {'unknown'} end
if tonumber(known) > tonumber(ARGV[2]) then return {'older', known} end
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if tonumber(known) < tonumber(ARGV[2]) or not ends or tonumber(ends) <= now then return {'unknown'} end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
return {'kept'}"
);

/// Keys: live, states. Arguments: `role:id`, epoch. Returns nothing. The state stays, because it has the epoch.
static LEAVE: LazyLock<Script> = script!(
    r"
local state = redis.call('HGET', KEYS[2], ARGV[1])
if state and tonumber(string.match(state, '^%d+')) == tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[1], 'LT', now, ARGV[1])
end
return {'ok'}"
);

/// Keys: live, cards, states, incarnation. Argument: the most processes. Returns the incarnation, then card, state and end of the
/// lease of each process, in a flat list.
static VIEW: LazyLock<Script> = script!(
    r"
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1])
local view = {redis.call('GET', KEYS[4]) or '0'}
for at = 1, #found, 2 do
  local card, state = redis.call('HGET', KEYS[2], found[at]), redis.call('HGET', KEYS[3], found[at])
  if card and state then
    view[#view + 1] = card
    view[#view + 1] = state
    view[#view + 1] = found[at + 1]
  end
end
return view"
);

/// The registry over one Redis server. Cheap calls, about six in five seconds for each process.
#[derive(Debug)]
pub struct RedisRegistry {
    client: Client,
    /// The connection in use, with its number.
    connection: Mutex<(u64, Option<MultiplexedConnection>)>,
}

impl RedisRegistry {
    /// A registry on the server of `client`. Opens no connection yet: a server that is away makes the calls fail, not this.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client, connection: Mutex::new((0, None)) }
    }

    /// As [`Self::new`], for the URL of a server such as `redis://10.0.0.5:6379`, and its password unless the URL has it.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] if it is not such a URL.
    pub fn open(url: &str, password: Option<&str>) -> Result<Self, RegistryError> {
        let opened = url.into_connection_info().and_then(|mut info| {
            if let Some(password) = password {
                let settings = info.redis_settings().clone().set_password(password);
                info = info.set_redis_settings(settings);
            }
            Client::open(info)
        });
        opened.map(Self::new).map_err(|error| unavailable(&error))
    }

    /// As [`Self::open`], for the server of the bus.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] if the URL is not valid, or the file of the password cannot be read.
    pub fn of_bus(config: &BusConfig) -> Result<Self, RegistryError> {
        let file = &config.password_file;
        if file.as_os_str().is_empty() {
            return Self::open(&config.url, None);
        }
        let password = std::fs::read_to_string(file)
            .map_err(|error| RegistryError::Unavailable(format!("bus.password_file: {error}")))?;
        Self::open(&config.url, Some(password.trim_end()))
    }

    async fn call<T: FromRedisValue>(
        &self,
        script: &'static Script,
        fill: impl FnOnce(&mut ScriptInvocation<'static>),
    ) -> Result<T, RegistryError> {
        let mut invocation = script.prepare_invoke();
        fill(&mut invocation);
        self.within(async |connection| invocation.invoke_async(connection).await).await
    }

    /// Runs a call on the connection, which it opens if there is none. A connection on which a call was not answered as it
    /// should be is given up.
    async fn within<T>(
        &self,
        call: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, RegistryError> {
        let number = self.connection.lock().0;
        let outcome = timeout(PATIENCE, async {
            let mut connection = self.connected().await?;
            call(&mut connection).await
        });
        let error = match outcome.await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => unavailable(&error),
            Err(_) => RegistryError::Unavailable("Redis did not answer within 2 s".to_owned()),
        };
        let mut connection = self.connection.lock();
        if connection.0 <= number + 1 {
            connection.1 = None;
        }
        Err(error)
    }

    async fn connected(&self) -> Result<MultiplexedConnection, RedisError> {
        if let Some(connection) = self.connection.lock().1.clone() {
            return Ok(connection);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let opened = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut connection = self.connection.lock();
        // Another call may have opened one meanwhile. Either serves.
        *connection = (connection.0 + 1, Some(opened.clone()));
        Ok(opened)
    }
}

#[async_trait]
impl Registry for RedisRegistry {
    async fn register(
        &self,
        card: &ProcessCard,
        state: ProcessState,
        lease: Duration,
    ) -> Result<(), RegistryError> {
        card.check()?;
        let json = serde_json::to_string(card)
            .map_err(|_| RegistryError::Invalid("the card cannot be written as JSON".into()))?;
        let answer: Vec<String> = self
            .call(&REGISTER, |script| {
                script.key(&[LIVE, CARDS, STATES, NAMES, INCARNATION]);
                script.arg(key(card.run)).arg(card.run.epoch.0).arg(ms(lease));
                script.arg(json).arg(text(card.run, state)).arg(format!("{}:{}", card.run.role, card.name));
            })
            .await?;
        match answer.first().map(String::as_str) {
            Some("ok") => Ok(()),
            Some("name") => Err(RegistryError::NameTaken { id: NodeId(number(&answer, 1)?) }),
            _ => Err(RegistryError::OlderEpoch { known: NodeEpoch(number(&answer, 1)?) }),
        }
    }

    async fn renew(
        &self,
        run: ProcessRun,
        state: ProcessState,
        lease: Duration,
    ) -> Result<Renewal, RegistryError> {
        let answer: Vec<String> = self
            .call(&RENEW, |script| {
                script.key(&[LIVE, STATES]);
                script.arg(key(run)).arg(run.epoch.0).arg(ms(lease)).arg(text(run, state));
            })
            .await?;
        match answer.first().map(String::as_str) {
            Some("kept") => Ok(Renewal::Kept),
            Some("unknown") => Ok(Renewal::Unknown),
            _ => Err(RegistryError::OlderEpoch { known: NodeEpoch(number(&answer, 1)?) }),
        }
    }

    async fn leave(&self, run: ProcessRun) -> Result<(), RegistryError> {
        let _: Vec<String> = self
            .call(&LEAVE, |script| {
                script.key(&[LIVE, STATES]).arg(key(run)).arg(run.epoch.0);
            })
            .await?;
        Ok(())
    }

    async fn view(&self) -> Result<RegistryView, RegistryError> {
        let flat: Vec<String> = self
            .call(&VIEW, |script| {
                script.key(&[LIVE, CARDS, STATES, INCARNATION]).arg(VIEW_PROCESSES);
            })
            .await?;
        let incarnation = number(&flat, 0)?;
        let parts = flat.get(1..).unwrap_or_default().chunks_exact(3);
        // A process of a later version may have registered a role that this one does not know.
        let processes = parts.filter_map(|part| read(&part[0], &part[1], &part[2])).collect();
        Ok(RegistryView { incarnation, processes })
    }

    async fn use_ticket(&self, id: &str, ttl: Duration) -> Result<bool, RegistryError> {
        let mut set = ::redis::cmd("SET");
        set.arg(format!("{TICKETS}{id}")).arg(1).arg("NX").arg("PX").arg(ms(ttl).max(1));
        let answer: Option<String> =
            self.within(async |connection| set.query_async(connection).await).await?;
        Ok(answer.is_some())
    }
}

fn key(run: ProcessRun) -> String {
    format!("{}:{}", run.role, run.id.0)
}

fn text(run: ProcessRun, state: ProcessState) -> String {
    format!("{} {} {}", run.epoch.0, state.load, u8::from(state.is_draining))
}

fn read(card: &str, state: &str, ends: &str) -> Option<LiveProcess> {
    let card = serde_json::from_str(card).ok()?;
    let mut parts = state.split(' ').skip(1);
    let load = parts.next()?.parse().ok()?;
    let is_draining = parts.next()? == "1";
    Some(LiveProcess { card, state: ProcessState { load, is_draining }, renewal: ends.parse().ok()? })
}

/// The number in an answer of a script, alone or behind a role.
fn number<T: std::str::FromStr>(answer: &[String], at: usize) -> Result<T, RegistryError> {
    let number = answer.get(at).and_then(|text| text.rsplit(':').next()?.parse().ok());
    number.ok_or_else(|| RegistryError::Unavailable("Redis gave an answer that is not understood".to_owned()))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unavailable(error: &RedisError) -> RegistryError {
    // The text of an error of the configuration may contain the URL, and with it the password.
    RegistryError::Unavailable(match error.kind() {
        ErrorKind::InvalidClientConfig => "the URL of Redis is not valid".to_owned(),
        _ => error.to_string(),
    })
}
