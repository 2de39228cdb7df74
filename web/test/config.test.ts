import { describe, expect, it } from 'vitest';
import { diff, disorders, rebased } from '../src/config/diff';
import { ConfigDraft } from '../src/config/draft.svelte';
import { FIELDS, read, valueAt, withValues } from '../src/config/fields';
import { CallError, type Calls, type ConfigAnswer } from '../src/contract/calls';
import type { ConfigTree } from '../src/contract/types';
import { en } from '../src/words/en';
import { Format } from '../src/words/format';
import { ko } from '../src/words/ko';
import { valueText } from '../src/words/value';
import { DEFAULT_CONFIG } from '../mock/heat.mjs';

const CONFIG = { ...(DEFAULT_CONFIG as ConfigTree), later: { unknown: 1 } };
const HOT_BATCH = 'heat.pacing.hot.batch_ms';
const WARM_SHARE = 'heat.capacity.shares.0';
const USER_SENDS = 'limits.user_sends';
const LOGINS = 'limits.address_logins';

const field = (path: string) => FIELDS.find((each) => each.path === path)!;
const changed = (...values: [string, number | null][]) => withValues(CONFIG, new Map(values));

describe('fields', () => {
  it('are all in the configuration of the server', () => {
    const required = FIELDS.filter(({ isOptional }) => !isOptional);
    expect(required.filter(({ path }) => valueAt(CONFIG, path) === undefined)).toEqual([]);
    expect([required.length, FIELDS.length]).toEqual([37, 42]);
  });

  it('that may be absent are removed, and with the last one their object', () => {
    const both = changed([USER_SENDS, 20], [LOGINS, 0]);
    expect(both['limits']).toEqual({ user_sends: 20, address_logins: 0 });
    expect(withValues(both, new Map([[USER_SENDS, null]]))['limits']).toEqual({ address_logins: 0 });
    expect(withValues(changed([USER_SENDS, 20]), new Map([[USER_SENDS, null]]))).toEqual(CONFIG);
    expect(changed([USER_SENDS, null])).toEqual(CONFIG);
    const later = { ...CONFIG, limits: { user_sends: 20, later: 1 } };
    expect(withValues(later, new Map([[USER_SENDS, null]]))['limits']).toEqual({ later: 1 });
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

  it('know a value that is set, unset, or set to no limit', () => {
    const ends = (before: ConfigTree, after: ConfigTree) =>
      diff(before, after).map(({ before, after }) => [before, after]);
    const set = changed([USER_SENDS, 20]);
    expect(ends(CONFIG, set)).toEqual([[undefined, 20]]);
    expect(ends(set, CONFIG)).toEqual([[20, undefined]]);
    expect(ends(set, changed([USER_SENDS, 0]))).toEqual([[20, 0]]);
  });

  it('are said in words', () => {
    const said = (value: number | undefined, file?: number, words = en) =>
      valueText(field(USER_SENDS), value, file, words, new Format(words.locale));
    expect([said(1_000), said(0), said(undefined, 40), said(undefined, 0), said(undefined)]).toEqual([
      '1,000',
      'no limit',
      'as in the file (40)',
      'as in the file (no limit)',
      'as in the file',
    ]);
    expect(said(undefined, 0, ko)).toBe('파일 값 사용 (제한 없음)');
    expect(valueText(field(HOT_BATCH), 0, undefined, en, new Format('en'))).toBe('0');
  });

  it('keep an empty field apart from no limit', () => {
    const edits = new Map([[USER_SENDS, '']]);
    expect(rebased(edits, changed([USER_SENDS, 0])).size).toBe(1);
    expect(rebased(edits, CONFIG).size).toBe(0);
    expect(rebased(new Map([[USER_SENDS, '0']]), CONFIG).size).toBe(1);
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
    const file_limits = { user_sends: 40 };
    return { version: this.version, etag: `"${this.version}"`, at: 0, config: this.config, file_limits };
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

  it('are not in each other’s way if a change was taken back', async () => {
    const server = new Server();
    const draft = new ConfigDraft(server.calls);
    await draft.load();
    draft.edit(HOT_BATCH, '400');
    server.change(CONFIG);
    expect(await draft.save()).toBe(true);
    expect(server.version).toBe(3);
  });

  it('may set and unset the same rate', async () => {
    const server = new Server();
    server.config = changed([USER_SENDS, 20]);
    const draft = new ConfigDraft(server.calls);
    await draft.load();
    expect([draft.textOf(USER_SENDS), draft.textOf(LOGINS)]).toEqual(['20', '']);
    expect(draft.fileValue(field(USER_SENDS))).toBe(40);
    draft.edit(USER_SENDS, ' ');
    draft.edit(LOGINS, 'x');
    expect([...draft.badPaths]).toEqual([LOGINS]);
    draft.edit(LOGINS, '');
    expect([...draft.edits.keys()]).toEqual([USER_SENDS]);
    server.change(changed([USER_SENDS, 0]));
    expect(await draft.save()).toBe(false);
    expect(draft.conflict?.changes.map(({ before, after }) => [before, after])).toEqual([[20, 0]]);
    expect(draft.changes.map(({ before, after }) => [before, after])).toEqual([[0, undefined]]);
    expect(await draft.save()).toBe(true);
    expect(server.config).toEqual(CONFIG);
  });

  it('see that a rate was removed', async () => {
    const server = new Server();
    server.config = changed([USER_SENDS, 20]);
    const draft = new ConfigDraft(server.calls);
    await draft.load();
    draft.edit(USER_SENDS, '30');
    server.change(CONFIG);
    await draft.load();
    expect(draft.conflict?.changes.map(({ before, after }) => [before, after])).toEqual([[20, undefined]]);
    expect(draft.changes.map(({ before, after }) => [before, after])).toEqual([[undefined, 30]]);
  });
});
