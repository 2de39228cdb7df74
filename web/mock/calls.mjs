// The operators' calls over REST, with their errors.

import { alertsOf } from './alerts.mjs';
import { Letters } from './letters.mjs';
import { badLimit, FILE_LIMITS } from './limits.mjs';
import { nameOf } from './names.mjs';

export class Refusal extends Error {
  constructor(status, code, message, more = {}) {
    super(message);
    this.status = status;
    this.body = { code, message, ...more };
  }
}

const BOUNDS = { batch_ms: 1_000, slow_mode_seconds: 21_600, joins_per_second: 100_000 };
const LEVELS = ['normal', 'warm', 'hot', 'blazing'];
/** An override is measured this long after it was set, or at its end. */
const MEASURED_MS = 300_000;

export class Calls {
  /** By channel: writes what came of its override, once. */
  #unmeasured = new Map();
  #letters = new Letters();

  constructor(concert, tokens, acts) {
    this.concert = concert;
    this.tokens = tokens;
    this.acts = acts;
  }

  /** @returns {{status: number, body?: unknown, etag?: string}} */
  answer({ method, path, query, token, ifMatch, from, body }) {
    const call = `${method} ${path}`;
    if (call === 'POST token') return { status: 200, body: this.tokens.issue(body?.name, body?.secret) };
    const operator = this.tokens.check(token);
    if (!operator) throw new Refusal(401, 'unauthorized', 'no valid token');
    if (call === 'GET board') return { status: 200, body: this.concert.board('seoul-1') };
    if (call === 'GET config') return this.#config();
    if (call === 'GET acts') return { status: 200, body: this.acts.page(query) };
    if (call === 'GET alerts') return this.#alerts(query);
    if (call === 'GET dead-letters') return { status: 200, body: this.#letters.page(query) };
    const [, id, rest] = /^channels\/([0-9]+)(\/override|\/name)?$/.exec(path) ?? [];
    if (method === 'GET' && id && !rest) return this.#channel(id);
    const who = { by: operator.name, from };
    if (call === 'PUT config') return this.#change(operator, who, ifMatch, body);
    if (call === 'POST dead-letters') return this.#sendAgain(operator, who, body);
    if (method === 'POST' && rest === '/name') return this.#name(operator, who, id, body);
    if (method === 'PUT' && rest === '/override') return this.#set(operator, who, id, body);
    if (method === 'DELETE' && rest === '/override') return this.#end(operator, who, id, body);
    throw new Refusal(404, 'not_found', 'no such call');
  }

  #config() {
    const { configured, config } = this.concert;
    const { seq: version, at } = configured;
    return { status: 200, etag: `"${version}"`, body: { version, at, config, file_limits: FILE_LIMITS } };
  }

  #channel(id) {
    const channel = this.concert.channel(id);
    if (!channel) throw new Refusal(404, 'not_found', 'no such channel');
    return { status: 200, body: this.concert.detail(channel) };
  }

  #change(operator, who, ifMatch, body) {
    mayAct(operator);
    const why = reason(body);
    const version = this.concert.configured.seq;
    if (ifMatch !== `"${version}"`) {
      throw new Refusal(409, 'conflict', `the configuration has version ${version} by now`);
    }
    const batch = body.config?.heat?.pacing?.warm?.batch_ms;
    if (!Number.isInteger(batch) || batch > 1_000) {
      throw new Refusal(400, 'invalid', 'out of bounds', { field: 'body.config.heat.pacing.warm.batch_ms' });
    }
    const bad = badLimit(body.config.limits);
    check(bad === undefined, `config.limits.${bad}`);
    const { limits, ...config } = body.config;
    this.concert.config = Object.keys(limits ?? {}).length > 0 ? { ...config, limits } : config;
    this.acts.add({ ...who, what: 'config_changed', change: `instead of version ${version}`, why });
    return this.#config();
  }

  #set(operator, who, id, body) {
    mayAct(operator);
    const why = reason(body);
    const { minutes, dry_run: isDry = false } = body;
    const settings = Object.fromEntries(
      ['level', 'away_from', ...Object.keys(BOUNDS)].flatMap((name) =>
        name in body ? [[name, body[name]]] : [],
      ),
    );
    check(minutes >= 1 && minutes <= 1_440, 'body.minutes');
    check(Object.keys(settings).length > 0, 'body');
    check(!('away_from' in settings) || this.concert.isNode(settings.away_from), 'away_from');
    check(!('level' in settings) || LEVELS.includes(settings.level), 'body.level');
    for (const [name, most] of Object.entries(BOUNDS)) {
      check(
        !(name in settings) ||
          (Number.isInteger(settings[name]) && settings[name] >= 0 && settings[name] <= most),
        `body.${name}`,
      );
    }
    const forecast = this.concert.forecast(this.concert.channel(id), settings);
    const answer = () => ({ forecast, config_version: this.concert.lastAct });
    if (isDry) return { status: 200, body: answer() };
    const set = this.concert.set(id, settings, minutes, why, who.by);
    const change = `${JSON.stringify(settings)} for ${minutes} minutes`;
    this.#unmeasured.get(id)?.();
    this.acts.add({ ...who, what: 'override_set', channel_id: id, change, why });
    this.#measureLater(id, forecast, minutes);
    return { status: 200, body: { set, ...answer() } };
  }

  #end(operator, who, id, body) {
    mayAct(operator);
    const why = reason(body);
    if (!this.concert.end(id)) throw new Refusal(404, 'not_found', 'no override');
    this.acts.add({ ...who, what: 'override_ended', channel_id: id, change: 'ended before its time', why });
    this.#unmeasured.get(id)?.();
    return { status: 204 };
  }

  #measureLater(id, { frames: [before, forecast] }, minutes) {
    const measure = () => {
      clearTimeout(timer);
      this.#unmeasured.delete(id);
      this.acts.addMeasured(id, [before, forecast, forecast * 0.97]);
    };
    const timer = setTimeout(measure, Math.min(MEASURED_MS, minutes * 60_000)).unref();
    this.#unmeasured.set(id, measure);
  }

  #name(operator, who, id, body) {
    mayAct(operator);
    const why = reason(body);
    const found = this.#named(id);
    if (!found) throw new Refusal(404, 'not_found', 'no such channel', { field: 'channel_id' });
    this.acts.add({ ...who, what: 'name_shown', channel_id: id, change: found.kind, why });
    return { status: 200, body: found };
  }

  #named(id) {
    const { kind, name } = this.concert.channel(id) ?? {};
    return nameOf(id) ?? (kind && { kind, name });
  }

  #sendAgain(operator, who, body) {
    mayAct(operator);
    const { id, dry_run: isDry = false } = body;
    const found = this.#letters.found(id);
    if (id !== undefined && found.length === 0) throw new Refusal(404, 'not_found', 'none', { field: 'id' });
    const count = found.length;
    if (isDry || count === 0) return { status: 200, body: { count } };
    const why = reason(body);
    this.#letters.remove(found);
    this.acts.add({ ...who, what: 'alerts_sent_again', change: `${count} alerts`, why });
    return { status: 200, body: { count } };
  }

  #alerts(query) {
    const { history, field } = alertsOf(query, (id) => this.#named(id) !== undefined);
    if (field === 'seq') throw new Refusal(400, 'invalid', 'out of bounds', { field });
    if (field) throw new Refusal(404, 'not_found', 'there is none', { field });
    return { status: 200, body: history };
  }
}

function mayAct({ scope }) {
  if (scope !== 'act') throw new Refusal(403, 'forbidden', 'this operator may look only');
}

function check(isGood, field) {
  if (!isGood) throw new Refusal(400, 'invalid', 'out of bounds', { field });
}

function reason(body) {
  const length = [...String(body?.why ?? '').trim()].length;
  check(length >= 10 && length <= 500, 'body.why');
  return body.why;
}
