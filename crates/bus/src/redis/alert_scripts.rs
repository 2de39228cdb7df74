//! The scripts of the queue of alerts, and its keys.
//!
//! | key | content | bound | life |
//! |---|---|---|---|
//! | `{u5}:alerts` | a hash with up to three fields for each channel `c` in which something is outstanding: `pc` = the messages about which nothing was decided, `hc` = what workers have written, `rc` = how far the user has read since | the channels with alerts of the last days; 4 KiB of messages each | [`super::scripts::HEADS_LIFE`] after the last change |
//! | `{u5}:heads`, field `a` | how often a subscription was written; negative: a worker has found none since. Without it nothing is known | one number | that of the heads |
//! | `alerts:epoch` | the epoch of the server, and when a worker has seen it first | one text | – |
//! | `{alerts3}:due` | a sorted set: `user:channel`, by the time at which a worker has to look at the record | one entry for each record | – |
//!
//! The record is written before its entry, and the entry is removed after it, so no record is without one. Times that workers have
//! set have a fraction; those of new events have none. A worker moves or removes an entry only if it has the time that a worker has
//! set: an event that came meanwhile is never lost.

use std::sync::LazyLock;

use super::scripts::{EPOCH, Script, script};

/// The sorted sets of the queue. Their sizes and their load are alike.
pub(super) const SHARDS: u64 = 16;
/// Messages of one record. Of more, the last ones.
pub(super) const MARKS: u64 = madang_engine::alerts::MARKS as u64;

/// Bytes of a text of messages from which on all but the last [`MARKS`] are cut off: about twice as many.
pub(super) const TEXT_BYTES: u64 = 4_096;

/// What changes records. A text of messages has the time at which they are decided, and for each `epoch:seq:position:expiry`; a text of
/// a read marker has the time at which alerts are withdrawn, the `seq`, and the time of reading.
pub(super) const NOTE_ALERTS: &str = "
local function note_messages(key, channel, marks, due)
  local text, added = redis.call('HGET', key, 'p' .. channel), table.concat(marks, ' ')
  if not text then
    redis.call('HSET', key, 'p' .. channel, due .. ' ' .. added)
    redis.call('PEXPIRE', key, HEADS_LIFE)
    return due, true
  end
  local first = string.match(text, '^%d+')
  text = text .. ' ' .. added
  if #text > TEXT_BYTES then
    local words = {}
    for word in string.gmatch(text, '%S+') do words[#words + 1] = word end
    text = first .. ' ' .. table.concat(words, ' ', #words - MARKS + 1)
  end
  redis.call('HSET', key, 'p' .. channel, text)
  return first, false
end
local function note_read(key, channel, seq, at, due)
  if redis.call('HEXISTS', key, 'h' .. channel) == 0 then return nil end
  local text = redis.call('HGET', key, 'r' .. channel)
  local is_new = not text
  if text then
    local first, last = string.match(text, '^(%d+) (%d+)')
    due = first
    if tonumber(last) >= tonumber(seq) then return due, false end
  end
  redis.call('HSET', key, 'r' .. channel, due .. ' ' .. seq .. ' ' .. at)
  return due, is_new
end
";

/// What [`super::scripts::MOVED`] notes of rows that it brings, and what of rows that it brought earlier still waits. A record in which
/// something waited has its place in the queue already. Each event has five arguments, from the tenth on: `m`, channel, first and last
/// message, the row of the first one; or `r`, channel, `seq`, time of reading, time of the withdrawal.
pub(super) const ALERTS_OF_ROWS: &str = "
local function note_rows(key, epoch, now, from, position, is_online)
  local dues = {}
  local due = string.format('%.0f', now + tonumber(ARGV[8]) + (is_online and tonumber(ARGV[7]) or 0))
  local expires = string.format('%.0f', now + tonumber(ARGV[9]))
  for i = 10, #ARGV, 5 do
    local channel, noted, is_new = ARGV[i + 1], nil, nil
    if ARGV[i] == 'm' then
      local first, last, row = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
      if ARGV[1] == 'c' .. channel then
        -- All of the rows that an earlier call should have brought may be messages.
        if from < tonumber(ARGV[2]) or from > first then first = from end
        row = first
      end
      local marks = {}
      if row >= from then
        for seq = math.max(first, last - MARKS + 1), last do
          marks[#marks + 1] = string.format('%s:%.0f:%.0f:%s', string.sub(epoch, 1, 16), seq, position + row + seq - first - from + 1, expires)
        end
      end
      if #marks > 0 then noted, is_new = note_messages(key, channel, marks, due) end
    else
      noted, is_new = note_read(key, channel, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
    end
    if is_new then dues[#dues + 1] = channel; dues[#dues + 1] = noted end
  end
  return dues
end
local function waiting(key)
  local dues = {}
  for i = 10, #ARGV, 5 do
    local text = redis.call('HGET', key, (ARGV[i] == 'm' and 'p' or 'r') .. ARGV[i + 1])
    if text then
      dues[#dues + 1] = ARGV[i + 1]
      dues[#dues + 1] = string.match(text, '^%d+')
    end
  end
  return dues
end
";

/// Takes in what happened in one channel.
///
/// Keys: alerts. Arguments: the channel; then for each event `m`, the mark, the time at which it is decided, and nothing; or `r`, `seq`,
/// time of reading, time of the withdrawal. Returns the earliest time at which a worker has to look, if there is any.
pub(super) static FOLD: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        NOTE_ALERTS,
        "
local earliest
for i = 2, #ARGV, 4 do
  local noted
  if ARGV[i] == 'm' then noted = note_messages(KEYS[1], ARGV[1], {ARGV[i + 1]}, ARGV[i + 2])
  else noted = note_read(KEYS[1], ARGV[1], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) end
  if noted and (not earliest or tonumber(noted) < tonumber(earliest)) then earliest = noted end
end
return {epoch, earliest}
",
    ])
});

/// Changes a record if it is as it was read.
///
/// Keys: alerts. Arguments: the channel; what was read of `h` and of `r`, and what `h` is to be; then, if messages are taken out, what
/// was read of `p`. An empty text stands for an absent field. Returns whether it was changed (1 or 0).
pub(super) static CHANGE: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
local p, h, r = 'p' .. ARGV[1], 'h' .. ARGV[1], 'r' .. ARGV[1]
local function is(field, text) return (redis.call('HGET', KEYS[1], field) or '') == text end
if not is(h, ARGV[2]) or not is(r, ARGV[3]) or (ARGV[5] and not is(p, ARGV[5])) then return {epoch, 0} end
if ARGV[5] then redis.call('HDEL', KEYS[1], p) end
redis.call('HDEL', KEYS[1], r)
if ARGV[4] == '' then redis.call('HDEL', KEYS[1], h)
else
  redis.call('HSET', KEYS[1], h, ARGV[4])
  redis.call('PEXPIRE', KEYS[1], HEADS_LIFE)
end
return {epoch, 1}
",
    ])
});

/// What devices of a user show although it was read, and what was read since.
///
/// Keys: alerts. Arguments: how many channels. Returns for each channel its id, `h` and `r` (or an empty text).
pub(super) static READ_ELSEWHERE: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
local fields, found, limit = redis.call('HGETALL', KEYS[1]), {}, tonumber(ARGV[1]) * 3
for i = 1, #fields, 2 do
  if #found >= limit then break end
  if string.sub(fields[i], 1, 1) == 'h' then
    local channel = string.sub(fields[i], 2)
    local read = redis.call('HGET', KEYS[1], 'r' .. channel)
    if read or string.find(fields[i + 1], '\"is_read\":true', 1, true) then
      found[#found + 1] = channel
      found[#found + 1] = fields[i + 1]
      found[#found + 1] = read or ''
    end
  end
end
return {epoch, found}
",
    ])
});

/// Notes when workers have to look at records to which something has happened, never later than it was noted before.
///
/// Keys: a set of the queue. Arguments: time and `user:channel` of each.
pub(super) static NOTE_DUE: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
for i = 1, #ARGV, 2 do
  local due, noted = tonumber(ARGV[i]), redis.call('ZSCORE', KEYS[1], ARGV[i + 1])
  if noted then due = math.min(due, math.floor(tonumber(noted))) end
  redis.call('ZADD', KEYS[1], string.format('%.0f', due), ARGV[i + 1])
end
return {epoch}
",
    ])
});

/// Leases records that are still due.
///
/// Keys: a set of the queue. Arguments: the time now, the time at which each lease ends, `user:channel` of each. Returns the entries
/// that were leased.
pub(super) static LEASE: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
local leased = {}
for i = 3, #ARGV do
  local due = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if due and tonumber(due) <= tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[1], ARGV[2], ARGV[i])
    leased[#leased + 1] = ARGV[i]
  end
end
return {epoch, leased}
",
    ])
});

/// Notes when a worker has to look at a record that was changed.
///
/// Keys: a set of the queue. Arguments: `user:channel`; the time that was noted when the record was read, or nothing; the time from now
/// on, or nothing if the record is empty. If something has happened meanwhile, or a worker of another lease has the record, the earlier
/// time stays.
pub(super) static RESCHEDULE: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
local noted = redis.call('ZSCORE', KEYS[1], ARGV[1]) or ''
local is_of_worker = noted == '' or string.find(noted, '.', 1, true)
if noted == ARGV[2] and is_of_worker then
  if ARGV[3] == '' then redis.call('ZREM', KEYS[1], ARGV[1])
  else redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end
elseif ARGV[3] ~= '' and (noted == '' or tonumber(noted) > tonumber(ARGV[3])) then
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
return {epoch}
",
    ])
});

/// Notes that a user has a subscription. Keys: heads. Returns how often that was noted.
pub(super) static SUBSCRIBED: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
local times = math.abs(tonumber(redis.call('HGET', KEYS[1], 'a') or '0')) + 1
redis.call('HSET', KEYS[1], 'a', times)
redis.call('PEXPIRE', KEYS[1], HEADS_LIFE)
return {epoch, times}
",
    ])
});

/// Notes that a user has none, unless one was written since. Keys: heads. Arguments: how often one had been written before the worker
/// looked.
pub(super) static UNSUBSCRIBED: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
if (redis.call('HGET', KEYS[1], 'a') or '0') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'a', -math.max(tonumber(ARGV[1]), 1))
  redis.call('PEXPIRE', KEYS[1], HEADS_LIFE)
end
return {epoch}
",
    ])
});

/// How long the server has had its epoch.
///
/// Keys: the text. Returns the milliseconds since a worker has seen it first; nothing before that counts, so it is less than it was.
pub(super) static AGE: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        EPOCH,
        "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen, since = string.match(redis.call('GET', KEYS[1]) or '', '(%S+) (%d+)')
if seen ~= epoch then
  since = now
  redis.call('SET', KEYS[1], epoch .. ' ' .. string.format('%.0f', now))
end
return {epoch, string.format('%.0f', now - since)}
",
    ])
});

/// All of them.
pub(super) fn all() -> [&'static Script; 9] {
    [&AGE, &FOLD, &CHANGE, &READ_ELSEWHERE, &NOTE_DUE, &LEASE, &RESCHEDULE, &SUBSCRIBED, &UNSUBSCRIBED]
}
