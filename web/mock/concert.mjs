// A synthetic concert: channels whose traffic rises and falls, on three nodes. Everything follows from the time, so
// that two runs look alike.

import { DEFAULT_CONFIG, pacingOf } from './heat.mjs';
import { SET_LIMITS } from './limits.mjs';

const LEVELS = ['normal', 'warm', 'hot', 'blazing'];
const STEP_S = 10;
const HOUR_STEPS = 360;
const HOLD_S = 30;
const CAPACITY = 25_000;

/** Each wave is [period in seconds, phase]; the traffic is `base` times a mix of them. */
const CHANNELS = [
  {
    id: '269737367961600101',
    name: 'concert-live',
    kind: 'open',
    cause: 'delivery',
    readers: 5010,
    entries: 118,
    wave: [1500, 1.0],
  },
  {
    id: '269737367961600102',
    name: '마당-공연-응원',
    kind: 'open',
    cause: 'entries',
    readers: 1240,
    entries: 74,
    wave: [900, 0.5],
  },
  {
    id: '269737367961600103',
    name: 'tickets',
    kind: 'open',
    cause: 'joins',
    readers: 2212,
    joins: 240,
    entries: 3,
    wave: [700, 1.2],
  },
  {
    id: '269737367961600104',
    name: 'setlist-and-encore-speculation-thread',
    kind: 'open',
    cause: 'history',
    readers: 803,
    reads: 150,
    entries: 4,
    wave: [1100, 1.7],
  },
  {
    id: '269737367961600105',
    kind: 'group',
    cause: 'entries',
    readers: 0,
    members: 212,
    entries: 60,
    wave: [800, 0.4],
  },
  {
    id: '269737367961600106',
    name: 'lost-and-found',
    kind: 'open',
    cause: 'delivery',
    readers: 640,
    entries: 18,
    wave: [1300, 4.4],
  },
  {
    id: '269737367961600107',
    name: 'announcements',
    kind: 'open',
    cause: 'delivery',
    readers: 9120,
    entries: 0,
    wave: [600, 0],
  },
  {
    id: '269737367961600108',
    kind: 'direct',
    cause: 'entries',
    readers: 0,
    members: 2,
    entries: 2,
    wave: [500, 2.1],
  },
];

const NODES = [
  { name: 'seoul-1', share: 0.41, ready: true },
  { name: 'seoul-2', share: 0.36, ready: true },
  { name: 'seoul-3', share: 0.23, ready: true },
];

export class Concert {
  config = { ...structuredClone(DEFAULT_CONFIG), limits: SET_LIMITS };
  /** The act that changed the configuration last. */
  configured = { seq: 0, at: 0 };
  lastAct = 0;
  overrides = new Map();
  #states = new Map();
  #appliedAt = Date.now();
  #startedAt = Date.now();

  constructor() {
    const end = Math.floor(Date.now() / 10_000) * 10_000;
    for (const channel of CHANNELS) {
      const state = {
        level: 'normal',
        since: end - 3_600_000,
        hour: [],
        changes: [],
        coolFrom: 0,
        spared: 0,
      };
      this.#states.set(channel.id, state);
      for (let step = HOUR_STEPS - 1; step >= 0; step -= 1) this.#step(channel, state, end - step * 10_000);
    }
    this.#preset(
      '269737367961600107',
      { joins_per_second: 40 },
      'Doors open at 20:00, the crowd comes at once',
      34,
    );
    this.#preset('269737367961600106', { batch_ms: 200 }, 'Ticket OPS-412: people search for keys here', 2);
  }

  /** The id, the name and whether the channel is known. */
  channel(id) {
    return CHANNELS.find((channel) => channel.id === id);
  }

  tick(now = Date.now()) {
    for (const [id, card] of this.overrides) if (card.ends_at <= now) this.overrides.delete(id);
    for (const channel of CHANNELS) {
      const state = this.#states.get(channel.id);
      if (now - (state.hour.at(-1)?.at ?? 0) >= STEP_S * 1000) this.#step(channel, state, now);
      this.#level(channel, state, now);
    }
  }

  board(node, now = Date.now()) {
    const rows = CHANNELS.map((channel) => this.row(channel, now)).filter(
      (row) => row.level !== 'normal' || row.override || now - row.since < 60_000,
    );
    return {
      at: now,
      node,
      config_version: this.lastAct,
      nodes: NODES.map((each, index) => this.#node(each, index, now)),
      channels: rows.sort((a, b) => b.cost - a.cost),
      guarantees: this.#guarantees(),
      push_processes: [
        { name: 'push-1', version: '0.1.0', at: now, push: [{ provider: 'fcm', taken: 9_120, halted: 0 }] },
      ],
      field_of_a_later_version: true,
    };
  }

  row(channel, now = Date.now()) {
    const state = this.#states.get(channel.id);
    const work = workAt(channel, now);
    const set = this.overrides.get(channel.id);
    const pacing = this.pacing(state.level, set);
    const batch = pacing.batch_ms;
    const heated = (now - state.since) / 1000 + 40;
    const spared = state.level === 'normal' ? 0 : heated;
    return {
      channel_id: channel.id,
      kind: channel.kind,
      ...(channel.name ? { name: channel.name } : {}),
      level: state.level,
      since: state.since,
      cause: channel.cause,
      home: homeOf(channel, set),
      cost: costOf(work),
      work,
      subscribers: channel.readers,
      pacing,
      freshness_ms: { p50: 4 + batch * 0.52, p99: 18 + batch * 1.06 },
      spared: {
        events: Math.round(spared * work.entries * 2.1),
        frames: Math.round(spared * work.deliveries * (batch > 0 ? 0.8 : 0)),
        left_out: state.level === 'blazing' ? Math.round(spared * 3) : 0,
        joins: Math.round(spared * Math.max(0, work.joins - 100)),
        reads: Math.round(spared * work.reads * 0.7),
        sends: state.level === 'blazing' ? Math.round(spared * 1.4) : 0,
      },
      spark: state.hour.slice(-30).map((point) => Math.round(point.cost)),
      ...(set ? { override: set } : {}),
    };
  }

  detail(channel) {
    const state = this.#states.get(channel.id);
    const row = this.row(channel);
    const { joins } = row.spared;
    const shares = [0.34, 0.12, 0.06, 0.05, 0.04, 0.03, 0.02, 0.02, 0.01, 0.01];
    return {
      row,
      hour: state.hour,
      changes: state.changes.slice(0, 20),
      graphs_url: `https://graphs.example/d/channels?var-channel=${channel.id}`,
      senders: channel.entries
        ? shares.map((share, index) => ({ user_id: `26973736796170${1000 + index * 37}`, share }))
        : [],
      joins: {
        admitted: Math.round(((Date.now() - row.since) / 1000) * Math.min(100, row.work.joins)),
        refused: joins,
        wait_ms: joins > 0 ? { p50: 3_200, p99: 9_400 } : { p50: 0, p99: 0 },
      },
    };
  }

  pacing(level, set) {
    const of = pacingOf(this.config, set?.level ?? level);
    const slow = set?.slow_mode_seconds ?? of.slow_mode_seconds;
    return {
      level: set?.level ?? level,
      batch_ms: set?.batch_ms ?? of.batch_ms,
      ...(slow > 0 ? { slow_mode_seconds: slow } : {}),
    };
  }

  forecast(channel, settings) {
    if (!channel) return { seconds: 0, delayed: 0, delay_ms: 0, frames: [0, 0], joins_refused: 0 };
    const work = workAt(channel, Date.now());
    const now = this.pacing(this.#states.get(channel.id).level, this.overrides.get(channel.id));
    const then = this.pacing(this.#states.get(channel.id).level, settings);
    const frames = (batch) =>
      Math.max(1, channel.readers) * 60 * Math.min(work.entries, batch > 0 ? 1000 / batch : 1e9);
    const joins = settings.joins_per_second ?? 1e9;
    return {
      seconds: 300,
      delayed: then.batch_ms > 0 ? work.deliveries * 60 * 0.93 : 0,
      delay_ms: then.batch_ms * 0.52,
      frames: [frames(now.batch_ms), frames(then.batch_ms)],
      joins_refused: Math.max(0, work.joins - joins * NODES.length) * 60,
    };
  }

  set(id, settings, minutes, why, by) {
    const now = Date.now();
    const card = { ...settings, by, why, since: now, ends_at: now + minutes * 60_000 };
    this.overrides.set(id, card);
    this.tick(now);
    return card;
  }

  end(id) {
    const existed = this.overrides.delete(id);
    this.tick();
    return existed;
  }

  /** An act reaches the nodes, whatever it is about; only changes of the configuration are its versions. */
  acted({ seq, at, what }) {
    this.lastAct = seq;
    this.#appliedAt = Date.now();
    if (what === 'config_changed') this.configured = { seq, at };
  }

  isNode(name) {
    return NODES.some((node) => node.name === name);
  }

  #preset(id, settings, why, minutes) {
    const now = Date.now();
    this.overrides.set(id, {
      ...settings,
      by: 'mina',
      why,
      since: now - 600_000,
      ends_at: now + minutes * 60_000,
    });
  }

  #step(channel, state, at) {
    const cost = costOf(workAt(channel, at));
    this.#level(channel, state, at);
    const bars = this.#bars();
    const bar = bars[Math.min(LEVELS.indexOf(state.level), 2)];
    state.hour.push({ at, cost, bar, level: state.level });
    if (state.hour.length > HOUR_STEPS) state.hour.shift();
  }

  #level(channel, state, at) {
    const set = this.overrides.get(channel.id);
    const cost = costOf(workAt(channel, at));
    const bars = this.#bars();
    const measured = LEVELS[bars.filter((bar) => cost > bar).length];
    const wanted = set?.level ?? measured;
    const isCooler = LEVELS.indexOf(wanted) < LEVELS.indexOf(state.level);
    if (!isCooler || set?.level) state.coolFrom = 0;
    else state.coolFrom ||= at;
    const isHeld = isCooler && !set?.level && at - state.coolFrom < HOLD_S * 1000;
    if (wanted === state.level || isHeld) return;
    state.changes.unshift({
      at,
      from: state.level,
      to: wanted,
      cost,
      cause: channel.cause,
      by_override: Boolean(set?.level),
    });
    state.level = wanted;
    state.since = at;
    state.coolFrom = 0;
  }

  #bars() {
    const { shares, floor, cap } = this.config.heat.capacity;
    return shares.map((share, index) => Math.min(cap[index], Math.max(floor[index], share * CAPACITY)));
  }

  #node({ name, share, ready }, index, now) {
    const cost = CHANNELS.reduce((sum, channel) => sum + costOf(workAt(channel, now)), 0) * share;
    const isBehind = now - this.#appliedAt < 250 * (index + 1);
    return {
      name,
      version: '0.9.0',
      at: now,
      is_ready: ready,
      config_version: isBehind ? this.lastAct - 1 : this.lastAct,
      connections: Math.round(16_200 * share + 90 * wave(now, [300, index])),
      sends: Math.round(620 * share + 40 * wave(now, [60, index])),
      deliveries: Math.round(cost * 38),
      cost,
      capacity: CAPACITY + index * 1_200,
      bars: this.#bars(),
      lag_ms: 0.6 + cost / 6_000 + 0.4 * wave(now, [45, index]),
      bytes_under_way: Math.round(480_000 * share * (1 + wave(now, [80, index]))),
      bystanders_ms: { p50: 2.1 + 0.3 * wave(now, [50, index]), p99: 7.8 + cost / 1_500 },
      shed_level: 0,
      push: [
        {
          provider: 'apns',
          taken: 41_200 + index,
          not_taken: 12,
          unknown: 1,
          gone: 90,
          dead: 3,
          credential: 0,
          halted: 0,
        },
        {
          provider: 'fcm',
          taken: 18_300,
          not_taken: 240,
          unknown: 4,
          gone: 31,
          dead: 0,
          credential: 0,
          halted: index === 1 ? 1 : 0,
        },
      ],
    };
  }

  #guarantees() {
    const rows = Array.from({ length: 10 }, (_, index) => ({ id: `G${index + 1}`, breaches: 0 }));
    rows[6] = { id: 'G7', breaches: 3, last: this.#startedAt - 2.2 * 3_600_000 };
    return rows;
  }
}

/** An override moves a channel to the next node. */
function homeOf(channel, set) {
  const index = CHANNELS.indexOf(channel);
  const [home, other] = [index, index + 1].map((place) => NODES[place % NODES.length].name);
  return set?.away_from === home ? other : home;
}

const BEGIN = Date.now();

/** 0 to 1. The same at each start of the mock, so that screenshots and tests meet a concert that is under way. */
function wave(at, [period, phase]) {
  const turn = ((at - BEGIN) / 1000 / period) * 2 * Math.PI + phase;
  return 0.5 + 0.35 * Math.sin(turn) + 0.15 * Math.sin(turn * 3.7 + phase);
}

function workAt(channel, at) {
  const strength = Math.max(0, wave(at, channel.wave)) ** 1.6;
  const jitter = 0.92 + 0.16 * wave(at, [7, channel.readers]);
  const entries = Math.round((channel.entries ?? 0) * strength * jitter);
  const receivers = channel.readers || channel.members || 0;
  const deliveries = entries * receivers;
  return {
    entries,
    deliveries,
    bytes: deliveries * 190,
    joins: Math.round((channel.joins ?? 0) * strength * jitter),
    reads: Math.round((channel.reads ?? 0) * strength * jitter),
  };
}

function costOf({ entries, deliveries, bytes, joins, reads }) {
  return entries + deliveries * 0.02 + (bytes / 1024) * 0.05 + joins * 8 + reads * 4;
}
