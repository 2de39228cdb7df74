// Words of the answer to "why did this user get (or not get) an alert". The outcomes are those of
// `crates/proto/src/alerts.rs`, the reasons those of `push/src/core/decision.rs`.

import { plural } from './en-tasks';

export const alerts = {
  title: 'Alerts',
  lead: 'Why a user was alerted of a message, or was not. Kept for 7 days.',
  fields: { handle: 'Handle of the user', channel_id: 'Id of the channel', seq: 'Number of the message' },
  hints: {
    handle: 'such as ada',
    channel_id: '18 or 19 digits',
    seq: 'its place in the channel (seq)',
  },
  wrong: {
    handle: {
      empty: 'Enter the handle.',
      malformed: 'A handle has 2 to 32 of a–z, 0–9, dots, hyphens and underscores.',
      missing: 'No user has this handle.',
    },
    channel_id: {
      empty: 'Enter the id.',
      malformed: 'An id has digits only.',
      missing: 'There is no channel with this id.',
    },
    seq: {
      empty: 'Enter the number.',
      malformed: 'A whole number from 1.',
      missing: 'The channel has no message with this number.',
    },
  },
  ask: 'Find out',
  asking: 'Asking…',
  message: (seq: string) => `message ${seq}`,
  range: (first: string, last: string) => `for the messages ${first} to ${last}`,
  device: 'device',
  allDevices: 'all devices of the user',
  said: 'Answer:',
  now: 'now',
  taken: (devices: number) =>
    `Alerted: the push service has taken the alert for ${devices} ${plural(devices, 'device', 'devices')}.`,
  dropped: (reason: string) => `No alert: ${reason}.`,
  later: (outcome: string) => `An outcome that this page does not know: ${outcome}.`,
  verdicts: {
    withdrawn: 'Alerted, and the alert was removed again because the message was read elsewhere.',
    waiting: 'The alert waits to be decided or sent.',
    uncertain: 'Nobody knows: the push service has not answered.',
    failed: 'Not alerted: the push service has not taken the alert.',
    nothing: 'Nothing is recorded about this message for this user. Possible reasons:',
  },
  todos: {
    taken:
      'No server knows whether a device has shown it. If the user saw nothing, look at the permissions of the app on the device.',
    waiting: 'Ask again in a moment.',
    uncertain:
      'It is not sent again: a second alert would be worse than none. The next message alerts again.',
    failed: 'The last answer below is the cause. “madang push test --user” tries it now.',
  } as Record<string, string>,
  causes: [
    'The user had no device with alerts at that time, is no member, or sent the message.',
    'The number is not that of a message: joins and edits have numbers, too.',
    'The message is older than 7 days.',
    'This server sends no alerts.',
  ],
  outcomes: {
    taken: 'The push service has taken the alert.',
    not_taken: 'The push service has not taken the alert. It is sent again.',
    unknown: 'Whether the push service has taken the alert is unknown. It is not sent again.',
    gone: 'The subscription of the device has ended, and was removed.',
    wrong_environment:
      'The token belongs to another environment or project. Nothing is sent until the app registers again.',
    credential: 'The push service does not accept the keys of this server.',
    refused: 'The push service refuses the request itself.',
    expired: 'It was not taken before it was worthless.',
    withdrawn: 'The alert was removed, because the message was read elsewhere.',
  } as Record<string, string>,
  dead: 'It is among the dead letters.',
  reasons: {
    no_subscription: 'no device of the user can receive alerts',
    no_account: 'the account is deleted or disabled',
    left: 'the user had left the channel',
    level_nothing: 'the user wants no alerts of this channel',
    muted: 'the user had muted the channel',
    quiet_hours: 'these were quiet hours of the user',
    received: 'a device of the user had received the message',
    read: 'the user had read the message',
    repeated: 'the user had been alerted of the message before',
    own: 'the user sent the message',
    deleted: 'the message was deleted',
    blocked: 'the user blocks the sender',
    not_named: 'the message does not mention the user, who is alerted of mentions only',
  } as Record<string, string>,
};
