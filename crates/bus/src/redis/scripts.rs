//! The scripts that Redis runs, and the keys that they share.
//!
//! Keys of one user share a hash slot (`{u5}`), those of an open channel too (`{c7}`):
//!
//! | key | content | bound | life |
//! |---|---|---|---|
//! | `{u5}:heads` | a hash: `p` = the position of the last row; `s` = a device has taken a snapshot; `a` = see [`super::alert_scripts`]; for each log, the last `seq` that was brought to the inbox, or that a snapshot contains | one field for each channel in which the user was a member | [`HEADS_LIFE`] after the last change |
//! | `{u5}:items` | a stream: the id is the position of the item's last row, `r` = log, first and last `seq` | [`ITEMS`] entries | [`ITEMS_LIFE`] after the last item |
//! | `{u5}:nodes` | a hash: node → end of its lease (ms) and a token | the nodes where the user is connected | [`REGISTRATION`] |
//! | `{c7}:nodes` | the same for subscribers of an open channel, and `h` = the last `seq` that was published | the nodes with subscribers | [`REGISTRATION`]; `h` as long |
//!
//! Positions count rows. The first one of an inbox is the server's time in microseconds, so that an inbox that was lost (its life
//! was over, or the server began empty) never hands out a position twice: no user receives a row per microsecond.
//!
//! Each script returns the *epoch* first: the server's `master_replid`, which changes when a replica is promoted, or a server
//! begins again, and with it may lose the last writes. Reading it inside the script costs about a microsecond.

use std::sync::LazyLock;

use redis::{Cmd, Pipeline};

use super::alert_scripts::{self, ALERTS_OF_ROWS, MARKS, NOTE_ALERTS, TEXT_BYTES};
use super::{reports, shared};

/// Items that a stream keeps.
pub(super) const ITEMS: usize = 512;
/// For how long items are kept, in milliseconds: 7 days.
const ITEMS_LIFE: u64 = 7 * 24 * 3_600 * 1_000;
/// For how long an inbox without changes is kept, in milliseconds: 30 days. Devices that return later take a snapshot.
pub(super) const HEADS_LIFE: u64 = 30 * 24 * 3_600 * 1_000;
/// The lease of a registration, in milliseconds: two renewals may be missed.
pub(super) const REGISTRATION: u64 = 75_000;

/// What every script begins with.
pub(super) const EPOCH: &str =
    "local epoch = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')\n";

/// The nodes in the hash KEYS[i] whose lease holds; the others are removed.
const NODES: &str = "
local function living(key)
  local time = redis.call('TIME')
  local now, nodes = time[1] * 1000 + math.floor(time[2] / 1000), {}
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if all[i] ~= 'h' then
      if tonumber(string.match(all[i + 1], '^%d+')) > now then nodes[#nodes + 1] = all[i]
      else redis.call('HDEL', key, all[i]) end
    end
  end
  return nodes, now
end
";

/// The position of the inbox with the heads KEYS[1], which is begun if there is none.
const POSITION: &str = "
local p = redis.call('HGET', KEYS[1], 'p')
if not p then
  local time = redis.call('TIME')
  p = string.format('%.0f', time[1] * 1000000 + time[2])
  redis.call('HSET', KEYS[1], 'p', p)
  redis.call('PEXPIRE', KEYS[1], HEADS_LIFE)
end
";

/// Brings rows of one log to an inbox, and notes those that may be worth an alert: a crash leaves both or neither.
///
/// Keys: heads, items, nodes, alerts. Arguments: the log; the first row, the last row; the place at which the user's stay begins; whether
/// the rows were appended just now, and whether the stay goes on (1 or 0); nothing, or: by how many milliseconds alerts of a connected
/// user wait, by how many those of the channel wait besides, how long alerts are kept, and the events of [`ALERTS_OF_ROWS`].
///
/// Returns, if the inbox has the last row already, or nobody needs the rows, the epoch and what waits of these events. Otherwise rows
/// that an earlier call should have brought and did not are brought too: all after the last one that the inbox has, within the stay.
/// Then: the position before, the position after, the first row that was brought, the nodes, and what waits: channel and time of each.
///
/// The inbox may know nothing of the log. If a device has taken a snapshot without it, the log has become the user's since, and
/// everything since the beginning of the stay is missing. If none has, every device will: it finds there what was appended before.
pub(super) static MOVED: LazyLock<Script> = LazyLock::new(|| {
    script(&[EPOCH, NODES, POSITION, NOTE_ALERTS, ALERTS_OF_ROWS, "
local from, to = tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], ARGV[1], 'a')
local last, has_alerts = known[1], ARGV[7] and not (known[2] and tonumber(known[2]) < 0)
if last then
  if tonumber(last) >= to then return {epoch, has_alerts and waiting(KEYS[4]) or {}} end
  from = math.max(tonumber(last) + 1, tonumber(ARGV[4]))
else
  local shown = redis.call('HEXISTS', KEYS[1], 's') == 1
  if shown and ARGV[6] == '1' then
    from = tonumber(ARGV[4])
  elseif not shown and ARGV[5] == '0' then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
    return {epoch, {}}
  end
end
local position = string.format('%.0f', p + (to - from + 1))
redis.call('XADD', KEYS[2], 'MAXLEN', '=', ITEMS, position .. '-0', 'r', ARGV[1] .. ':' .. string.format('%.0f', from) .. ':' .. ARGV[3])
redis.call('PEXPIRE', KEYS[2], ITEMS_LIFE)
redis.call('HSET', KEYS[1], 'p', position, ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], HEADS_LIFE)
local nodes, now = living(KEYS[3])
local dues = has_alerts and note_rows(KEYS[4], epoch, now, from, p, #nodes > 0) or {}
return {epoch, p, position, string.format('%.0f', from), nodes, dues}
"])
});

/// Notes which rows a snapshot contains, for logs of which the inbox knows nothing.
///
/// Keys: heads. Arguments: whether these are the last logs of the snapshot (1 or 0); each log and its last row. Returns how many were
/// not known.
pub(super) static KNOW: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        POSITION,
        "
local new = 0
if ARGV[1] == '1' then new = redis.call('HSETNX', KEYS[1], 's', '1') end
for i = 2, #ARGV, 2 do new = new + redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
if new > 0 then redis.call('PEXPIRE', KEYS[1], HEADS_LIFE) end
return {epoch, new}
",
    ])
});

/// The end of an inbox. Keys: heads. Returns the position.
pub(super) static END: LazyLock<Script> = LazyLock::new(|| script(&[EPOCH, POSITION, "return {epoch, p}"]));

/// Items after a position.
///
/// Keys: heads, items. Arguments: the position, how many items.
///
/// Returns the position of the end, the oldest item that is kept (id and content, or nothing), and the items.
pub(super) static READ: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        POSITION,
        "
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
local items = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])
return {epoch, p, first, items}
",
    ])
});

/// Registers a node for a user, or renews the registration.
///
/// Keys: heads, nodes. Arguments: the node, a token. Returns the position of the end of the inbox.
pub(super) static ATTACH: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        POSITION,
        "
local time = redis.call('TIME')
local till = time[1] * 1000 + math.floor(time[2] / 1000) + REGISTRATION
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', till) .. ':' .. ARGV[2])
redis.call('PEXPIRE', KEYS[2], REGISTRATION)
return {epoch, p}
",
    ])
});

/// Ends a registration of a node, unless it was made anew with another token.
///
/// Keys: nodes. Arguments: the node, the token.
pub(super) static DETACH: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
local lease = redis.call('HGET', KEYS[1], ARGV[1])
if lease and string.match(lease, ':(.*)$') == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return {epoch}
",
    ])
});

/// Registers a node for the rows of an open channel, or renews the registration.
///
/// Keys: nodes. Arguments: the node, a token. Returns the last `seq` that was published, 0 if that is not known.
pub(super) static SUBSCRIBE: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
local time = redis.call('TIME')
local till = time[1] * 1000 + math.floor(time[2] / 1000) + REGISTRATION
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', till) .. ':' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], REGISTRATION)
return {epoch, redis.call('HGET', KEYS[1], 'h') or '0'}
",
    ])
});

/// The nodes that receive rows of an open channel.
///
/// Keys: nodes. Arguments: the last row. Returns the nodes; none if a call for later rows was faster, or nobody is subscribed.
pub(super) static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        NODES,
        "
local nodes = living(KEYS[1])
if #nodes > 0 then
  local head = tonumber(redis.call('HGET', KEYS[1], 'h') or '0')
  if head >= tonumber(ARGV[1]) then return {epoch, {}} end
  redis.call('HSET', KEYS[1], 'h', ARGV[1])
end
return {epoch, nodes}
",
    ])
});

/// The nodes that are registered for a user or an open channel. Keys: nodes.
pub(super) static NODES_OF: LazyLock<Script> =
    LazyLock::new(|| script(&[EPOCH, NODES, "return {epoch, living(KEYS[1])}"]));

/// Appends a frame to the stream of a process.
///
/// Keys: the stream, its count. Arguments: the frame. Entries are counted without a gap, so that the reader notices those that
/// were trimmed before it read them, or that a promoted replica never had. Returns nothing but the epoch if there is no stream:
/// its reader creates it, and it ends [`STREAM_LIFE`] after the reader's last renewal.
pub(super) static SEND: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
if redis.call('EXISTS', KEYS[2]) == 0 then return {epoch} end
local n = redis.call('INCR', KEYS[2])
redis.call('XADD', KEYS[1], 'MAXLEN', '~', STREAM_FRAMES, '*', 'n', n, 'd', ARGV[1])
return {epoch, n}
",
    ])
});

/// Renews the stream of the process that reads it, and drops what it has read.
///
/// Keys: the stream, its count. Arguments: the id up to which entries were read. Returns the count; 0 for a stream that was just
/// created.
pub(super) static KEEP: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
redis.call('SETNX', KEYS[2], '0')
redis.call('PEXPIRE', KEYS[2], STREAM_LIFE)
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
redis.call('PEXPIRE', KEYS[1], STREAM_LIFE)
return {epoch, redis.call('GET', KEYS[2])}
",
    ])
});

/// Frames that a stream keeps for a reader that is slow, each of at most 64 KiB or one frame.
pub(super) const STREAM_FRAMES: u64 = 2_048;
/// How long a stream that nobody reads is kept, in milliseconds.
pub(super) const STREAM_LIFE: u64 = 60_000;

/// A script and its name for Redis.
pub(super) struct Script {
    text: String,
    hash: String,
}

pub(super) fn script(parts: &[&str]) -> Script {
    let values = [
        ("ITEMS_LIFE", ITEMS_LIFE),
        ("HEADS_LIFE", HEADS_LIFE),
        ("ITEMS", ITEMS as u64),
        ("REGISTRATION", REGISTRATION),
        ("STREAM_FRAMES", STREAM_FRAMES),
        ("STREAM_LIFE", STREAM_LIFE),
        ("MARKS", MARKS),
        ("TEXT_BYTES", TEXT_BYTES),
        shared::LIFE,
        reports::LIFE,
    ];
    let text =
        values.iter().fold(parts.concat(), |text, (name, value)| text.replace(name, &value.to_string()));
    let hash = redis::Script::new(&text).get_hash().to_owned();
    Script { text, hash }
}

/// Loads every script: a server that was started again knows none.
pub(super) fn load_all() -> Pipeline {
    let mut pipeline = Pipeline::new();
    let own: [&Script; 14] = [
        &MOVED,
        &KNOW,
        &END,
        &READ,
        &ATTACH,
        &DETACH,
        &SUBSCRIBE,
        &PUBLISH,
        &NODES_OF,
        &SEND,
        &KEEP,
        &shared::REPLACE,
        &reports::PUT,
        &reports::ALL,
    ];
    for script in own.into_iter().chain(alert_scripts::all()) {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(&script.text);
    }
    pipeline
}

/// A call of a script in a pipeline.
pub(super) fn call(script: &Script, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(&script.hash).arg(keys.len());
    for part in keys.iter().map(|key| key.as_bytes()).chain(arguments.iter().copied()) {
        command.arg(part);
    }
    command
}
