// The order of the rows of the board.

import type { HotRow } from '../contract/types';
import { rank } from '../contract/types';

export const SORTS = ['level', 'channel', 'cost', 'sends', 'out', 'audience', 'freshness', 'spared'] as const;
export type Sort = (typeof SORTS)[number];

export interface Sorting {
  by: Sort;
  isRising: boolean;
}

export const FIRST_SORTING: Sorting = { by: 'level', isRising: false };

/** A row that is shown; one that has left the board stays while the order is held, so that nothing moves. */
export interface ShownRow {
  row: HotRow;
  isGone: boolean;
}

type Compare = (a: HotRow, b: HotRow) => number;

const COMPARE: Record<Sort, Compare> = {
  level: (a, b) => rank(a.level) - rank(b.level) || a.cost - b.cost,
  channel: (a, b) => -(a.name ?? a.channel_id).localeCompare(b.name ?? b.channel_id),
  cost: (a, b) => a.cost - b.cost,
  sends: (a, b) => a.work.entries - b.work.entries,
  out: (a, b) => a.work.bytes - b.work.bytes,
  audience: (a, b) => a.subscribers - b.subscribers,
  freshness: (a, b) => a.freshness_ms.p99 - b.freshness_ms.p99,
  spared: (a, b) => Object.values(a.spared).reduce(add, 0) - Object.values(b.spared).reduce(add, 0),
};

const add = (a: number, b: number): number => a + b;

export function sorted(rows: readonly HotRow[], { by, isRising }: Sorting): ShownRow[] {
  const sign = isRising ? 1 : -1;
  const byId: Compare = (a, b) => (a.channel_id < b.channel_id ? -1 : 1);
  return [...rows]
    .sort((a, b) => sign * COMPARE[by](a, b) || byId(a, b))
    .map((row) => ({ row, isGone: false }));
}

/** The new values in the old order: new rows at the end, rows that are gone with their last values. */
export function held(before: readonly ShownRow[], rows: readonly HotRow[]): ShownRow[] {
  const now = new Map(rows.map((row) => [row.channel_id, row]));
  const kept = before.map(({ row }) => {
    const current = now.get(row.channel_id);
    now.delete(row.channel_id);
    return current === undefined ? { row, isGone: true } : { row: current, isGone: false };
  });
  return [...kept, ...[...now.values()].map((row) => ({ row, isGone: false }))];
}

export function matching(rows: readonly ShownRow[], find: string): readonly ShownRow[] {
  const wanted = find.trim().toLocaleLowerCase();
  if (wanted === '') return rows;
  return rows.filter(({ row }) => `${row.name ?? ''} ${row.channel_id}`.toLocaleLowerCase().includes(wanted));
}
