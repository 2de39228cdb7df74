// What happened about messages for users who were away. Each number of a message is another story.

const PHONE = '269737367961600701';
const BROWSER = '269737367961600702';
const HANDLES = ['ada', 'ben', 'mina'];
/** The last message of each channel. */
const LAST = 480;

const STORIES = {
  12: [
    [0, PHONE, 'not_taken', '503 {"reason":"ServiceUnavailable"}'],
    [1_400, BROWSER, 'taken', '201'],
    [11_200, PHONE, 'taken', '200'],
    [95_000, PHONE, 'withdrawn', 'read elsewhere: 200'],
  ],
  13: [[0, undefined, 'dropped', 'quiet_hours']],
  14: [[0, PHONE, 'not_taken', '429 {"reason":"TooManyRequests"}']],
  16: [[0, BROWSER, 'unknown', 'no answer within 20 s']],
  17: [
    [0, PHONE, 'credential', '403 {"reason":"InvalidProviderToken"}'],
    [3_600_000, PHONE, 'expired', '403 {"reason":"InvalidProviderToken"}'],
  ],
  18: [[0, PHONE, 'melted', 'an outcome of a later version']],
};

/** The history, or the field of the question that is wrong. */
export function alertsOf({ handle, channel_id, seq }, isKnown, now = Date.now()) {
  if (!HANDLES.includes(handle)) return { field: 'handle' };
  if (!isKnown(channel_id)) return { field: 'channel_id' };
  const number = Number(seq);
  if (!Number.isInteger(number) || number < 1 || number > LAST) return { field: 'seq' };
  const items = (STORIES[seq] ?? []).map(([after, device, outcome, detail]) => ({
    at: now - 7_200_000 + after,
    first_seq: number - (outcome === 'taken' ? 1 : 0),
    last_seq: number,
    ...(device ? { device_id: device } : {}),
    outcome,
    detail,
  }));
  return { history: { items, is_waiting: number === 14 } };
}
