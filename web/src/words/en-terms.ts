// Terms that are explained: guarantees, numbers, settings.

export interface Explained {
  what: string;
  todo: string;
}

/** The numbers of the board that have an explanation. */
export type Term =
  | 'guarantee'
  | 'nodes'
  | 'connections'
  | 'sends'
  | 'bystanders'
  | 'shed'
  | 'age'
  | 'config'
  | 'level'
  | 'cause'
  | 'cost'
  | 'rates'
  | 'out'
  | 'audience'
  | 'freshness'
  | 'spared'
  | 'pacing'
  | 'override'
  | 'home'
  | 'joins'
  | 'load'
  | 'bars'
  | 'lag'
  | 'bytes';

const help: Record<Term, Explained> = {
  guarantee: {
    what: 'The guarantee that may have been broken last, and how often since the start of the process.',
    todo: 'Open Guarantees: each one says what to do.',
  },
  nodes: {
    what: 'Nodes that are ready for clients, of all that the answering node knows.',
    todo: 'Open Nodes. A node that is not ready drains, starts or has lost its store; one that is silent is gone or cut off.',
  },
  connections: {
    what: 'Open sockets on all nodes.',
    todo: 'A sudden fall is a network or a node that is gone; a sudden rise is a reconnect of many clients.',
  },
  sends: {
    what: 'Messages that were acknowledged in the last second, on all nodes.',
    todo: 'Zero while there are connections: look at the store and at the guarantees G1 and G3.',
  },
  bystanders: {
    what: 'Time from an append to its delivery in direct channels and groups within ten seconds; 99 in 100 were faster. It shows whether hot channels hurt others (G8).',
    todo: 'If it rises together with a hot channel, cool that channel down. If it rises alone, look at the timer lag of the nodes.',
  },
  shed: {
    what: 'How much is refused to protect the nodes, 0 (nothing) to 7 (messages); the highest of all nodes.',
    todo: 'From 4 on users notice. Cool the hottest channel down, or add a node.',
  },
  age: {
    what: 'How long ago the answering node made this state.',
    todo: 'Grey above 3 s, red above 10 s: the server or the network is slow or gone. The page keeps trying.',
  },
  config: {
    what: 'The last act of operators by its number in the audit, and how many nodes have applied it: configuration and overrides.',
    todo: 'All nodes follow within a second. One that stays behind has lost its connection to the others: restart it.',
  },
  level: {
    what: 'How much of its node the channel takes: warm is felt, hot would be felt by others, blazing would take the node for itself.',
    todo: 'Nothing, while the bystanders’ p99 is good: the level paces the channel by itself.',
  },
  cause: {
    what: 'What costs most in this channel now.',
    todo: 'Joins: limit joins. Messages: slow mode. Many readers: a longer batch. History: usually a client that reloads; it passes.',
  },
  cost: {
    what: 'The work of the last second, in units of one entry that is appended.',
    todo: 'Compare it with the bar of the next level, and with the capacity of the node.',
  },
  rates: {
    what: 'What happened in the last second: messages, joins and leaves, reads of history.',
    todo: 'Look at which one rose first: that is the cause.',
  },
  out: {
    what: 'Bytes to receivers in the last second.',
    todo: 'Compare it with the network of the node.',
  },
  audience: {
    what: 'Connections that are subscribed to this open channel.',
    todo: 'Nothing. The cost of a message is proportional to it.',
  },
  freshness: {
    what: 'Time from an append to its delivery within ten seconds: half were faster, and 99 in 100.',
    todo: 'A batch is part of it. If p99 is far above the batch, readers or the node are slow.',
  },
  spared: {
    what: 'What pacing has kept from the node since the channel is hot: typing and receipts, frames, entries for slow readers, joins, reads, messages.',
    todo: 'Joins that were refused come back by themselves. Entries that were left out are read as history.',
  },
  pacing: {
    what: 'How long entries wait for others, and the slow mode that the server adds.',
    todo: 'Too slow for a conversation: set an override with a shorter batch.',
  },
  override: {
    what: 'What an operator has set for this channel. It ends by itself.',
    todo: 'Renewing is a new act with a new reason.',
  },
  home: {
    what: 'The node that orders this channel: all its messages pass through it.',
    todo: 'If this node is at its capacity or slow (Nodes: load, timer lag), move the home away.',
  },
  joins: {
    what: 'Attempts to join that the level admitted, of all; also those of members. A user who was told to wait and comes again counts again. The wait is that of the last ten seconds.',
    todo: 'If waits are long and the nodes have room, allow more joins by an override.',
  },
  load: {
    what: 'The cost of everything in the last second, of what the node has learnt that it can do.',
    todo: 'Above 80 % for minutes: add a node, or pace more.',
  },
  bars: {
    what: 'The costs a second from which on a channel of this node is warm, hot and blazing. They follow the capacity.',
    todo: 'Nothing. Shares, least and most are set under Configuration.',
  },
  lag: {
    what: 'How late timers were on average in the last second.',
    todo: 'Above 20 ms the node is at its capacity, and it lowers its bars.',
  },
  bytes: {
    what: 'Requests under way, and frames that wait for slow receivers.',
    todo: 'If it only rises, many receivers are slow: look at the network.',
  },
};

const guaranteeTexts: Record<string, Explained> = {
  G1: {
    what: 'No acknowledged message is lost.',
    todo: 'Act at once: check the disk or the store of the node; its log says “commit failed” or “damaged”.',
  },
  G2: {
    what: 'A message that is sent again is not a second message.',
    todo: 'Report it with the log of the node; nobody loses anything.',
  },
  G3: {
    what: 'All members see one order of a channel.',
    todo: 'Two homes may write to one channel: look for a node that was paused or cut off.',
  },
  G4: {
    what: 'A device misses nothing: it gets every entry, or a gap that history fills.',
    todo: 'Check Redis and the connections between nodes. Inboxes repair themselves within a minute.',
  },
  G5: {
    what: 'Only the verified token says who a client is, and a revoked device is closed within 5 s.',
    todo: 'Act at once: check Redis, and restart a node that does not answer.',
  },
  G6: {
    what: 'Presence is right within 30 s, and does not flap.',
    todo: 'Check the connections between nodes; it mends itself.',
  },
  G7: {
    what: 'Everything is bounded, in bytes; a slow receiver costs a bounded amount of memory.',
    todo: 'Many slow receivers: look at the network. Frames between nodes that were dropped are read again.',
  },
  G8: {
    what: 'A hot or damaged channel hurts only itself.',
    todo: 'Open the hottest channel and cool it down; watch the bystanders’ p99.',
  },
  G9: {
    what: 'A user is alerted at most once of a message.',
    todo: 'Usually a process that was killed during a push. Nothing to do, unless it goes on.',
  },
  G10: {
    what: 'Capacities are exact: ten seats give ten members.',
    todo: 'Report it with the log of the node.',
  },
};

const settings = {
  entry: 'An entry that is appended',
  delivery: 'An entry to one receiver',
  kib: 'A KiB to one receiver',
  read: 'A read of history from the store',
  join: 'A user who joins or leaves',
  shares: 'Share of a node’s capacity',
  floor: 'Never below',
  cap: 'Never above',
  lag_ms: 'A node is at its capacity when timers are late by',
  assumed: 'Capacity that is assumed at first',
  batch_ms: 'Entries wait for others',
  heads_seconds: 'Passive subscribers get the head each',
  joins_per_second: 'Joins a second on each node (0: any number)',
  slow_mode_seconds: 'Slow mode (0: only the channel’s own)',
  slow_reader_entries: 'Entries a second for a slow reader (0: all that fit)',
  shared_read_ms: 'A page of history serves others for (0: not at all)',
  alert_hold_seconds: 'Alerts wait longer by',
  user_sends: 'Messages of one user',
  user_write_kib: 'Size of the messages and changes of one user',
  user_requests: 'Requests of one user',
  address_requests: 'New sockets and calls without a token, of one address',
  address_logins: 'Sign-ups and logins of one address',
};

const units = {
  ms: 'ms',
  s: 's',
  cost: 'cost',
  costs: 'cost/s',
  share: 'of 1',
  joins: 'joins/s',
  entries: 'entries/s',
  messages: 'messages/s',
  kib: 'KiB/s',
  requests: 'requests/s',
  logins: 'logins/s',
};

export type Setting = keyof typeof settings;
export type Unit = keyof typeof units;

export const terms = { help, guaranteeTexts, settings, units };
