import { describe, expect, it } from 'vitest';
import { diff, disorders, rebased } from '../src/config/diff';
import { ConfigDraft } from '../src/config/draft.svelte';
import { FIELDS, read, valueAt, withValues } from '../src/config/fields';
import { CallError, type Calls, type ConfigAnswer } from '../src/contract/calls';
import type { ConfigTree } from '../src/contract/types';
import { DEFAULT_CONFIG } from '../mock/heat.mjs';

const CONFIG = { ...(DEFAULT_CONFIG as ConfigTree), later: { unknown: 1 } };
const HOT_BATCH = 'heat.pacing.hot.batch_ms';
const WARM_SHARE = 'heat.capacity.shares.0';

const field = (path: string) => FIELDS.find((each) => each.path === path)!;
const changed = (...values: [string, number][]) => withValues(CONFIG, new Map(values));

describe('fields', () => {
  it('are all in the configuration of the server', () => {
    expect(FIELDS.filter(({ path }) => valueAt(CONFIG, path) === undefined)).toEqual([]);
    expect(FIELDS).toHaveLength(37);
  });

  it('take numbers within their bounds only', () => {
    const batch = field(HOT_BATCH);
    expect(['0', ' 1000 ', '1001', '-1', '1.5', '', '1e2', 'x'].map((text) => read(batch, text))).toEqual([
      0,
      1_000,
      ...Array(6).fill(undefined),
    ]);
    expect(read(field(WARM_SHARE), '0.03')).toBe(0.03);
  });
});

describe('differences', () => {
  it('name the setting, before and after, and keep what is unknown', () => {
    const after = changed([HOT_BATCH, 400], [WARM_SHARE, 0.03]);
    expect(diff(CONFIG, after).map(({ field, before, after }) => [field.path, before, after])).toEqual([
      [WARM_SHARE, 0.02, 0.03],
      [HOT_BATCH, 500, 400],
    ]);
    expect(after['later']).toEqual({ unknown: 1 });
    expect(valueAt(CONFIG, HOT_BATCH)).toBe(500);
  });

  it('find a hotter level that paces less', () => {
    expect(disorders(CONFIG)).toEqual([]);
    const odd = changed([HOT_BATCH, 50], ['heat.pacing.blazing.joins_per_second', 0]);
    expect(disorders(odd)).toEqual([
      { setting: 'batch_ms', hotter: 1 },
      { setting: 'joins_per_second', hotter: 2 },
    ]);
  });

  it('drop an edit that another operator made as well', () => {
    const edits = new Map([
      [HOT_BATCH, '400'],
      [WARM_SHARE, '0.05'],
    ]);
    expect([...rebased(edits, changed([HOT_BATCH, 400])).keys()]).toEqual([WARM_SHARE]);
  });
});

/** A server with one configuration, which another operator may change. */
class Server {
  version = 1;
  config: ConfigTree = CONFIG;

  calls = {
    config: async () => this.#answer(),
    changeConfig: async (etag: string, config: ConfigTree) => {
      if (etag !== `"${this.version}"`) throw new CallError(409, 'conflict', 'another was first');
      this.change(config);
      return this.#answer();
    },
  } as unknown as Calls;

  change(config: ConfigTree): void {
    this.config = config;
    this.version += 1;
  }

  #answer(): ConfigAnswer {
    return { version: this.version, etag: `"${this.version}"`, at: 0, config: this.config };
  }
}

describe('two operators', () => {
  it('show the second one what the first one changed', async () => {
    const server = new Server();
    const draft = new ConfigDraft(server.calls);
    await draft.load();
    draft.edit(HOT_BATCH, '400');
    draft.why = 'because of the encore';
    server.change(changed([WARM_SHARE, 0.03], [HOT_BATCH, 450]));
    expect(await draft.save()).toBe(false);
    expect(draft.conflict?.changes.map(({ field }) => field.path)).toEqual([WARM_SHARE, HOT_BATCH]);
    expect([...(draft.conflict?.both ?? [])]).toEqual([HOT_BATCH]);
    expect(draft.changes.map(({ before, after }) => [before, after])).toEqual([[450, 400]]);
    expect(await draft.save()).toBe(true);
    expect(valueAt(server.config, WARM_SHARE)).toBe(0.03);
    expect(valueAt(server.config, HOT_BATCH)).toBe(400);
    expect([draft.edits.size, draft.conflict, draft.why]).toEqual([0, null, '']);
  });

  it('are not in each other’s way if only an override raised the version', async () => {
    const server = new Server();
    const draft = new ConfigDraft(server.calls);
    await draft.load();
    draft.edit(HOT_BATCH, '400');
    server.change(CONFIG);
    expect(await draft.save()).toBe(true);
    expect(server.version).toBe(3);
  });
});
