import { describe, expect, it } from 'vitest';
import { Concert } from '../mock/concert.mjs';
import {
  NotUnderstood,
  parseActs,
  parseAlerts,
  parseBoard,
  parseConfig,
  parseCount,
  parseDetail,
  parseLetters,
  parseName,
  parseToken,
} from '../src/contract/parse';
import type { Board } from '../src/contract/types';

describe('a board', () => {
  it('of the mock is read whole', () => {
    const sent = new Concert().board('seoul-1') as unknown as Board & { field_of_a_later_version: boolean };
    const read = parseBoard(sent);
    expect(read.channels.map((row) => row.channel_id)).toEqual(sent.channels.map((row) => row.channel_id));
    expect(read.nodes).toEqual(sent.nodes);
    expect(read.guarantees).toEqual(sent.guarantees);
    expect(read.push_processes).toMatchObject(sent.push_processes);
    expect(read).not.toHaveProperty('field_of_a_later_version');
  });

  it('may have unknown fields and words, and lack known ones', () => {
    const read = parseBoard({
      at: 5,
      channels: [
        { channel_id: '7', level: 'glowing', cause: 'moonlight', kind: 'secret', mood: 1 },
        { level: 'hot' },
        null,
      ],
      nodes: [{ name: 'n1', bars: [1] }, {}],
      guarantees: 'none',
    });
    expect(read.channels).toHaveLength(1);
    expect(read.channels[0]).toMatchObject({ channel_id: '7', level: 'normal', subscribers: 0 });
    expect(read.channels[0]).not.toHaveProperty('cause');
    expect(read.channels[0]).not.toHaveProperty('kind');
    expect(read.nodes.map((node) => node.bars)).toEqual([[1, 0, 0]]);
    expect(read.guarantees).toEqual([]);
    expect(read.push_processes).toEqual([]);
  });

  it('that is none is not understood', () => {
    expect(() => parseBoard([])).toThrow(NotUnderstood);
    expect(() => parseBoard(null)).toThrow(NotUnderstood);
  });
});

it('reads an override beside its settings', () => {
  const override = {
    level: 'hot',
    joins_per_second: 0,
    away_from: 'n1',
    by: 'ada',
    why: 'encore',
    since: 1,
    ends_at: 2,
  };
  const read = parseBoard({ channels: [{ channel_id: '7', home: 'n2', override }] });
  expect(read.channels[0]).toMatchObject({ home: 'n2', override });
});

it('reads details, acts and tokens', () => {
  const concert = new Concert();
  const detail = parseDetail(concert.detail(concert.channel('269737367961600101')));
  expect(detail.hour).toHaveLength(360);
  expect(detail.changes.length).toBeGreaterThan(3);
  const none = { admitted: 0, refused: 0, wait_ms: { p50: 0, p99: 0 } };
  expect(parseDetail({ row: {} }).joins).toEqual(none);
  expect(parseDetail({ row: {}, joins: { ...none, refused: 3 } }).joins.refused).toBe(3);
  expect(parseActs({ items: [{ seq: 3, what: 'a_later_word' }], next: '3' })).toMatchObject({
    items: [{ seq: 3, what: 'a_later_word' }],
    next: '3',
  });
  expect(parseToken({ token: 't', scope: 'everything', ends_at: 1 }).scope).toBe('view');
  expect(() => parseToken({ scope: 'act' })).toThrow(NotUnderstood);
});

it('reads the rates of the file, and does without them', () => {
  const sent = {
    version: 3,
    at: 1,
    config: {},
    file_limits: { user_sends: 40, address_logins: 0, later: 1 },
  };
  expect(parseConfig(sent).file_limits).toEqual({ user_sends: 40, address_logins: 0 });
  expect(parseConfig({ version: 3, at: 1, config: {} })).not.toHaveProperty('file_limits');
});

it('reads names and alerts', () => {
  expect(parseName({ kind: 'group', name: 'Stage crew' })).toEqual({ kind: 'group', name: 'Stage crew' });
  expect(parseName({ kind: 'direct' })).toEqual({ kind: 'direct' });
  expect(parseName({ kind: 'a_later_word', name: '' })).toEqual({});
  const note = { at: 5, first_seq: 11, last_seq: 12, outcome: 'a_later_word', detail: '201' };
  expect(parseAlerts({ items: [note, { ...note, device_id: '7' }, null], is_waiting: true })).toEqual({
    items: [note, { ...note, device_id: '7' }],
    is_waiting: true,
  });
  expect(parseAlerts({})).toEqual({ items: [], is_waiting: false });
});

it('reads alerts that were given up, and counts', () => {
  const note = { at: 5, first_seq: 11, last_seq: 12, outcome: 'expired', detail: '503' };
  const letter = { ...note, id: '9', user_id: '7', channel_id: '8', device_id: '6' };
  expect(parseLetters({ items: [letter, null], next: '9' })).toEqual({ items: [letter], next: '9' });
  expect(parseLetters({})).toEqual({ items: [] });
  expect([parseCount({ count: 3 }), parseCount({})]).toEqual([3, 0]);
});
