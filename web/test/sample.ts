import type { HotRow } from '../src/contract/types';
import { en } from '../src/words/en';
import { Format } from '../src/words/format';

export const words = en;
export const format = new Format('en');

export function row(fields: Partial<HotRow> = {}): HotRow {
  return {
    channel_id: '1',
    name: 'concert',
    level: 'hot',
    since: 0,
    cause: 'entries',
    cost: 3_000,
    work: { entries: 300, deliveries: 1_503_000, bytes: 2_000_000, joins: 0, reads: 0 },
    subscribers: 5_010,
    pacing: { level: 'hot', batch_ms: 500, slow_mode_seconds: 0 },
    freshness_ms: { p50: 250, p99: 520 },
    spared: { events: 0, frames: 0, left_out: 0, joins: 0, reads: 0, sends: 0 },
    spark: [],
    ...fields,
  };
}

export const NOTHING = { entries: 0, deliveries: 0, bytes: 0, joins: 0, reads: 0 };
