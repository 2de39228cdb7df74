import { describe, expect, it } from 'vitest';
import { Concert } from '../mock/concert.mjs';
import { NotUnderstood, parseActs, parseBoard, parseDetail, parseToken } from '../src/contract/parse';
import type { Board } from '../src/contract/types';

describe('a board', () => {
  it('of the mock is read whole', () => {
    const sent = new Concert().board('seoul-1') as unknown as Board & { field_of_a_later_version: boolean };
    const read = parseBoard(sent);
    expect(read.channels.map((row) => row.channel_id)).toEqual(sent.channels.map((row) => row.channel_id));
    expect(read.nodes).toEqual(sent.nodes);
    expect(read.guarantees).toEqual(sent.guarantees);
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
  });

  it('that is none is not understood', () => {
    expect(() => parseBoard([])).toThrow(NotUnderstood);
    expect(() => parseBoard(null)).toThrow(NotUnderstood);
  });
});

it('reads an override beside its settings', () => {
  const override = { level: 'hot', joins_per_second: 0, by: 'ada', why: 'encore', since: 1, ends_at: 2 };
  const read = parseBoard({ channels: [{ channel_id: '7', override }] });
  expect(read.channels[0]?.override).toEqual(override);
});

it('reads details, acts and tokens', () => {
  const concert = new Concert();
  const detail = parseDetail(concert.detail(concert.channel('269737367961600101')));
  expect(detail.hour).toHaveLength(360);
  expect(detail.changes.length).toBeGreaterThan(3);
  expect(parseActs({ items: [{ seq: 3, what: 'a_later_word' }], next: 3 })).toMatchObject({
    items: [{ seq: 3, what: 'a_later_word' }],
    next: 3,
  });
  expect(parseToken({ token: 't', scope: 'everything', ends_at: 1 }).scope).toBe('view');
  expect(() => parseToken({ scope: 'act' })).toThrow(NotUnderstood);
});
