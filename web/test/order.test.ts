import { describe, expect, it } from 'vitest';
import { ChannelList } from '../src/channels/list.svelte';
import { held, matching, sorted } from '../src/channels/order';
import { parseBoard } from '../src/contract/parse';
import type { HotRow } from '../src/contract/types';
import { row } from './sample';

const at = (channel_id: string, cost: number, more: Partial<HotRow> = {}) =>
  row({ channel_id, cost, ...more });
const ids = (rows: readonly { row: HotRow }[]) => rows.map((each) => each.row.channel_id).join(' ');
const board = (...channels: HotRow[]) => parseBoard({ channels });

describe('the order', () => {
  it('is the hottest first, then the costliest', () => {
    const rows = [at('1', 10), at('2', 30), at('3', 5, { level: 'blazing' })];
    expect(ids(sorted(rows, { by: 'level', isRising: false }))).toBe('3 2 1');
    expect(ids(sorted(rows, { by: 'cost', isRising: true }))).toBe('3 1 2');
  });

  it('is held: values change, new rows are last, rows that are gone stay', () => {
    const before = sorted([at('1', 30), at('2', 20)], { by: 'cost', isRising: false });
    const after = held(before, [at('3', 90), at('2', 80)]);
    expect(ids(after)).toBe('1 2 3');
    expect(after.map(({ isGone }) => isGone)).toEqual([true, false, false]);
    expect(after[1]?.row.cost).toBe(80);
  });

  it('finds by name and id', () => {
    const rows = sorted([at('17', 1, { name: 'Encore' }), at('28', 2)], { by: 'cost', isRising: false });
    expect(ids(matching(rows, ' enc'))).toBe('17');
    expect(ids(matching(rows, '28'))).toBe('28');
  });
});

describe('the list', () => {
  it('holds the order while the pointer or the focus is in the table', () => {
    const list = new ChannelList();
    list.update(board(at('1', 30), at('2', 20)));
    list.isPointed = true;
    list.update(board(at('1', 30), at('2', 99)));
    expect(ids(list.rows)).toBe('1 2');
    list.hasFocus = true;
    list.isPointed = false;
    list.update(board(at('1', 30), at('2', 99)));
    expect(ids(list.rows)).toBe('1 2');
    list.hasFocus = false;
    list.update(board(at('1', 30), at('2', 99)));
    expect(ids(list.rows)).toBe('2 1');
  });

  it('sorts once when asked, also while it is held', () => {
    const list = new ChannelList();
    list.update(board(at('1', 30), at('2', 20)));
    list.isPointed = true;
    list.sort('cost');
    list.sort('cost');
    expect(ids(list.rows)).toBe('2 1');
    list.update(board(at('1', 1), at('2', 20)));
    expect(ids(list.rows)).toBe('2 1');
  });

  it('changes nothing while it is paused, and shows the newest afterwards', () => {
    const list = new ChannelList();
    list.update(board(at('1', 30)));
    list.togglePause(0);
    list.update(board(at('2', 20)));
    expect(ids(list.rows)).toBe('1');
    list.togglePause(0);
    expect(ids(list.rows)).toBe('2');
  });
});
