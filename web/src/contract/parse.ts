// Reads what the server sends. A newer server may add fields and words, an older one may lack some: neither may
// take the board away from the operator. Unknown fields are ignored, missing ones get a neutral value.

import type {
  Act,
  AlertHistory,
  AlertNote,
  Board,
  BoardNode,
  Cause,
  ChannelKind,
  ConfigTree,
  DeadLetter,
  Forecast,
  GuaranteeRow,
  HeatChange,
  HeatPoint,
  HotDetail,
  HotRow,
  JoinRow,
  Level,
  Limits,
  OperatorConfig,
  OperatorToken,
  OverrideAnswer,
  OverrideCard,
  OverrideSettings,
  Page,
  PushProcess,
  PushRow,
  Quantiles,
  ShownName,
} from './types';
import { LEVELS, LIMITS } from './types';

type Fields = Record<string, unknown>;

const CAUSES: readonly Cause[] = ['entries', 'delivery', 'joins', 'history'];
const KINDS: readonly ChannelKind[] = ['direct', 'group', 'open'];

export class NotUnderstood extends Error {}

export function parseBoard(value: unknown): Board {
  const board = object(value, 'board');
  return {
    at: number(board, 'at'),
    node: text(board, 'node'),
    config_version: number(board, 'config_version'),
    nodes: list(board, 'nodes')
      .filter((node) => text(node, 'name') !== '')
      .map(parseNode),
    channels: list(board, 'channels').filter(hasId).map(parseRow),
    guarantees: list(board, 'guarantees').map(parseGuarantee),
    push_processes: list(board, 'push_processes').map(parseProcess),
  };
}

export function parseDetail(value: unknown): HotDetail {
  const detail = object(value, 'channel');
  return {
    row: parseRow(object(detail['row'], 'row')),
    hour: list(detail, 'hour').map(parsePoint),
    changes: list(detail, 'changes').map(parseChange),
    senders: list(detail, 'senders').map((sender) => ({
      user_id: text(sender, 'user_id'),
      share: number(sender, 'share'),
    })),
    joins: parseJoins(fields(detail['joins'])),
    ...optional('graphs_url', text(detail, 'graphs_url') || undefined),
  };
}

export function parseToken(value: unknown): OperatorToken {
  const token = object(value, 'token');
  if (text(token, 'token') === '') throw new NotUnderstood('the answer has no token');
  return {
    token: text(token, 'token'),
    scope: token['scope'] === 'act' ? 'act' : 'view',
    ends_at: number(token, 'ends_at'),
  };
}

export function parseAnswer(value: unknown): OverrideAnswer {
  const answer = object(value, 'answer');
  const set = answer['set'];
  return {
    forecast: parseForecast(fields(answer['forecast'])),
    config_version: number(answer, 'config_version'),
    ...(isObject(set) ? { set: parseOverride(set) } : {}),
  };
}

export function parseConfig(value: unknown): OperatorConfig {
  const answer = object(value, 'configuration');
  return {
    version: number(answer, 'version'),
    at: number(answer, 'at'),
    config: object(answer['config'], 'configuration') as ConfigTree,
    ...(isObject(answer['file_limits']) ? { file_limits: parseLimits(answer['file_limits']) } : {}),
  };
}

export function parseName(value: unknown): ShownName {
  const answer = object(value, 'name');
  return {
    ...optional('kind', oneOf(KINDS, answer['kind'])),
    ...optional('name', text(answer, 'name') || undefined),
  };
}

export function parseAlerts(value: unknown): AlertHistory {
  const history = object(value, 'alerts');
  return { items: list(history, 'items').map(parseNote), is_waiting: history['is_waiting'] === true };
}

export function parseActs(value: unknown): Page<Act> {
  return parsePage(object(value, 'acts'), parseAct);
}

export function parseLetters(value: unknown): Page<DeadLetter> {
  return parsePage(object(value, 'letters'), parseLetter);
}

export function parseCount(value: unknown): number {
  return number(object(value, 'count'), 'count');
}

function parsePage<Item>(page: Fields, parse: (row: Fields) => Item): Page<Item> {
  return { items: list(page, 'items').map(parse), ...optional('next', text(page, 'next') || undefined) };
}

function parseProcess(process: Fields): PushProcess {
  return {
    name: text(process, 'name'),
    version: text(process, 'version'),
    at: number(process, 'at'),
    push: list(process, 'push').map(parsePush),
  };
}

function parseNode(node: Fields): BoardNode {
  const [warm, hot, blazing] = numbers(node, 'bars');
  return {
    name: text(node, 'name'),
    version: text(node, 'version'),
    at: number(node, 'at'),
    is_ready: node['is_ready'] === true,
    config_version: number(node, 'config_version'),
    connections: number(node, 'connections'),
    sends: number(node, 'sends'),
    deliveries: number(node, 'deliveries'),
    cost: number(node, 'cost'),
    capacity: number(node, 'capacity'),
    bars: [warm ?? 0, hot ?? 0, blazing ?? 0],
    lag_ms: number(node, 'lag_ms'),
    bytes_under_way: number(node, 'bytes_under_way'),
    bystanders_ms: quantiles(node, 'bystanders_ms'),
    shed_level: number(node, 'shed_level'),
    push: list(node, 'push').map(parsePush),
  };
}

function parsePush(row: Fields): PushRow {
  return {
    provider: text(row, 'provider'),
    taken: number(row, 'taken'),
    not_taken: number(row, 'not_taken'),
    unknown: number(row, 'unknown'),
    gone: number(row, 'gone'),
    dead: number(row, 'dead'),
    credential: number(row, 'credential'),
    halted: number(row, 'halted'),
  };
}

function parseRow(row: Fields): HotRow {
  const work = fields(row['work']);
  const spared = fields(row['spared']);
  const pacing = fields(row['pacing']);
  const set = row['override'];
  return {
    channel_id: text(row, 'channel_id'),
    level: level(row, 'level'),
    since: number(row, 'since'),
    cost: number(row, 'cost'),
    work: {
      entries: number(work, 'entries'),
      deliveries: number(work, 'deliveries'),
      bytes: number(work, 'bytes'),
      joins: number(work, 'joins'),
      reads: number(work, 'reads'),
    },
    subscribers: number(row, 'subscribers'),
    pacing: {
      level: level(pacing, 'level'),
      batch_ms: number(pacing, 'batch_ms'),
      slow_mode_seconds: number(pacing, 'slow_mode_seconds'),
    },
    freshness_ms: quantiles(row, 'freshness_ms'),
    spared: {
      events: number(spared, 'events'),
      frames: number(spared, 'frames'),
      left_out: number(spared, 'left_out'),
      joins: number(spared, 'joins'),
      reads: number(spared, 'reads'),
      sends: number(spared, 'sends'),
    },
    spark: numbers(row, 'spark'),
    ...optional('cause', oneOf(CAUSES, row['cause'])),
    ...optional('kind', oneOf(KINDS, row['kind'])),
    ...optional('name', text(row, 'name') || undefined),
    ...optional('home', text(row, 'home') || undefined),
    ...(isObject(set) ? { override: parseOverride(set) } : {}),
  };
}

function parseOverride(card: Fields): OverrideCard {
  return {
    ...parseSettings(card),
    by: text(card, 'by'),
    why: text(card, 'why'),
    since: number(card, 'since'),
    ends_at: number(card, 'ends_at'),
  };
}

function parseSettings(card: Fields): OverrideSettings {
  return {
    ...optional('level', oneOf(LEVELS, card['level'])),
    ...optional('batch_ms', maybeNumber(card, 'batch_ms')),
    ...optional('slow_mode_seconds', maybeNumber(card, 'slow_mode_seconds')),
    ...optional('joins_per_second', maybeNumber(card, 'joins_per_second')),
    ...optional('away_from', text(card, 'away_from') || undefined),
  };
}

function parseForecast(forecast: Fields): Forecast {
  const [now, then] = numbers(forecast, 'frames');
  return {
    seconds: number(forecast, 'seconds'),
    delayed: number(forecast, 'delayed'),
    delay_ms: number(forecast, 'delay_ms'),
    frames: [now ?? 0, then ?? 0],
    joins_refused: number(forecast, 'joins_refused'),
  };
}

function parseJoins(joins: Fields): JoinRow {
  return {
    admitted: number(joins, 'admitted'),
    refused: number(joins, 'refused'),
    wait_ms: quantiles(joins, 'wait_ms'),
  };
}

function parsePoint(point: Fields): HeatPoint {
  return {
    at: number(point, 'at'),
    cost: number(point, 'cost'),
    bar: number(point, 'bar'),
    level: level(point, 'level'),
  };
}

function parseChange(change: Fields): HeatChange {
  return {
    at: number(change, 'at'),
    from: level(change, 'from'),
    to: level(change, 'to'),
    cost: number(change, 'cost'),
    by_override: change['by_override'] === true,
    ...optional('cause', oneOf(CAUSES, change['cause'])),
  };
}

function parseGuarantee(row: Fields): GuaranteeRow {
  return {
    id: text(row, 'id'),
    breaches: number(row, 'breaches'),
    ...optional('last', maybeNumber(row, 'last')),
  };
}

function parseAct(act: Fields): Act {
  return {
    seq: number(act, 'seq'),
    at: number(act, 'at'),
    by: text(act, 'by'),
    from: text(act, 'from'),
    what: text(act, 'what'),
    change: text(act, 'change'),
    why: text(act, 'why'),
    ...optional('channel_id', text(act, 'channel_id') || undefined),
  };
}

function parseLimits(limits: Fields): Limits {
  return Object.assign({}, ...LIMITS.map((name) => optional(name, maybeNumber(limits, name))));
}

function parseNote(note: Fields): AlertNote {
  return {
    at: number(note, 'at'),
    first_seq: number(note, 'first_seq'),
    last_seq: number(note, 'last_seq'),
    outcome: text(note, 'outcome'),
    detail: text(note, 'detail'),
    ...optional('device_id', text(note, 'device_id') || undefined),
  };
}

function parseLetter(letter: Fields): DeadLetter {
  return {
    ...parseNote(letter),
    id: text(letter, 'id'),
    user_id: text(letter, 'user_id'),
    channel_id: text(letter, 'channel_id'),
  };
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function object(value: unknown, what: string): Fields {
  if (!isObject(value)) throw new NotUnderstood(`${what}: not an object`);
  return value;
}

function fields(value: unknown): Fields {
  return isObject(value) ? value : {};
}

function hasId(row: Fields): boolean {
  return text(row, 'channel_id') !== '';
}

function list(from: Fields, name: string): Fields[] {
  const value = from[name];
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function numbers(from: Fields, name: string): number[] {
  const value = from[name];
  return Array.isArray(value) ? value.map((item) => (typeof item === 'number' ? item : 0)) : [];
}

function maybeNumber(from: Fields, name: string): number | undefined {
  const value = from[name];
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined;
}

function number(from: Fields, name: string): number {
  return maybeNumber(from, name) ?? 0;
}

function text(from: Fields, name: string): string {
  const value = from[name];
  return typeof value === 'string' ? value : '';
}

function quantiles(from: Fields, name: string): Quantiles {
  const value = fields(from[name]);
  return { p50: number(value, 'p50'), p99: number(value, 'p99') };
}

function level(from: Fields, name: string): Level {
  return oneOf(LEVELS, from[name]) ?? 'normal';
}

function oneOf<T extends string>(words: readonly T[], value: unknown): T | undefined {
  return words.find((word) => word === value);
}

function optional<K extends string, V>(name: K, value: V | undefined): Partial<Record<K, V>> {
  return (value === undefined ? {} : { [name]: value }) as Partial<Record<K, V>>;
}
