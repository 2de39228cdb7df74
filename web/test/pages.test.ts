import { expect, it } from 'vitest';
import { Letters } from '../mock/letters.mjs';
import { AuditLog } from '../src/audit/log.svelte';
import type { Calls } from '../src/contract/calls';
import { parseLetters } from '../src/contract/parse';
import { Pages } from '../src/live/pages.svelte';

it('loads page after page, and begins anew', async () => {
  const mock = new Letters();
  const letters = new Pages(async (after) => parseLetters(mock.page({ after })));
  await letters.more();
  expect([letters.isLoaded, letters.items.length]).toEqual([false, 0]);
  await letters.refresh();
  await letters.more();
  expect([letters.items.length, letters.next]).toEqual([50, letters.items.at(-1)?.id]);
  await letters.more();
  expect([new Set(letters.items.map(({ id }) => id)).size, letters.next]).toEqual([60, undefined]);
  mock.remove(mock.found(letters.items[0]?.id));
  await letters.refresh();
  expect([letters.items.length, letters.isBusy]).toEqual([25, false]);
  letters.forget();
  expect([letters.isLoaded, letters.items, letters.next]).toEqual([false, [], undefined]);
});

it('exports all acts, page by page', async () => {
  const pages = [{ items: [{ seq: 2 }], next: '2' }, { items: [{ seq: 1 }] }];
  const asked: (string | undefined)[] = [];
  const acts = async (_limit: number, before?: string) => {
    asked.push(before);
    return pages[asked.length - 1];
  };
  const log = new AuditLog({ acts } as unknown as Calls);
  expect(await log.jsonLines(() => {})).toBe('{"seq":2}\n{"seq":1}\n');
  expect(asked).toEqual([undefined, '2']);
});
