import { describe, expect, it } from 'vitest';
import { alertsOf } from '../mock/alerts.mjs';
import { fieldOf, trimmed, wrongFields } from '../src/alerts/question';
import { AlertSearch } from '../src/alerts/search.svelte';
import { devicesWith, verdictOf } from '../src/alerts/verdict';
import { CallError, type Calls } from '../src/contract/calls';
import { parseAlerts } from '../src/contract/parse';
import type { AlertHistory, AlertQuestion } from '../src/contract/types';
import { en } from '../src/words/en';
import { ko } from '../src/words/ko';

const QUESTION = { handle: 'ada', channel_id: '269737367961600105', seq: '12' };
const note = (outcome: string, device_id?: string) => ({
  ...{ at: 0, first_seq: 12, last_seq: 12, outcome, detail: '' },
  ...(device_id === undefined ? {} : { device_id }),
});
const verdict = (...notes: ReturnType<typeof note>[]) => verdictOf({ items: notes, is_waiting: false });

describe('a question', () => {
  it('is trimmed of what people copy with it', () => {
    expect(trimmed({ handle: ' @Ada ', channel_id: ' 7 ', seq: '#12' })).toEqual({
      handle: 'ada',
      channel_id: '7',
      seq: '12',
    });
  });

  it('has three fields of their own form', () => {
    expect(wrongFields(QUESTION)).toEqual({});
    expect(wrongFields({ handle: '', channel_id: '', seq: '' })).toEqual({
      handle: 'empty',
      channel_id: 'empty',
      seq: 'empty',
    });
    expect(wrongFields({ handle: 'a', channel_id: 'concert', seq: '0' })).toEqual({
      handle: 'malformed',
      channel_id: 'malformed',
      seq: 'malformed',
    });
  });

  it('knows its field in an error', () => {
    expect(['handle', 'query.seq', 'body.why', undefined].map(fieldOf)).toEqual([
      'handle',
      'seq',
      undefined,
      undefined,
    ]);
  });
});

describe('a verdict', () => {
  it('is that of the mock’s stories', () => {
    const of = (seq: string) => {
      const { history } = alertsOf({ ...QUESTION, seq }, () => true) as { history: AlertHistory };
      return verdictOf(parseAlerts(history));
    };
    expect(['12', '13', '14', '15', '16', '17', '18'].map(of)).toEqual([
      'taken',
      'dropped',
      'waiting',
      'nothing',
      'uncertain',
      'failed',
      'failed',
    ]);
  });

  it('says withdrawn if no device shows the alert any more', () => {
    expect(verdict(note('taken', '1'), note('withdrawn', '1'))).toBe('withdrawn');
    expect(verdict(note('taken', '1'), note('taken', '2'), note('withdrawn', '1'))).toBe('taken');
  });

  it('says taken, whatever follows', () => {
    expect(verdict(note('not_taken', '1'), note('taken', '1'), note('dropped'))).toBe('taken');
    expect(verdictOf({ items: [note('taken', '1')], is_waiting: true })).toBe('taken');
  });

  it('counts a device once', () => {
    expect(devicesWith([note('taken', '1'), note('taken', '2'), note('taken', '1')], 'taken')).toEqual([
      '1',
      '2',
    ]);
  });
});

describe('a search', () => {
  const searching = (answer: (question: AlertQuestion) => AlertHistory) => {
    const search = new AlertSearch({
      alerts: async (asked: AlertQuestion) => answer(asked),
    } as unknown as Calls);
    search.form = { ...QUESTION };
    return search;
  };
  const refusing = (error: CallError) =>
    searching(() => {
      throw error;
    });

  it('keeps the question beside its answer', async () => {
    const search = searching(() => ({ items: [], is_waiting: false }));
    search.form.handle = '@Ada';
    expect(await search.ask()).toBe(true);
    search.form.seq = '13';
    expect([search.asked.handle, search.asked.seq]).toEqual(['ada', '12']);
  });

  it('asks nothing that is wrong', async () => {
    const search = searching(() => expect.unreachable());
    search.form.seq = 'x';
    expect(await search.ask()).toBe(false);
    expect(search.wrong).toEqual({ seq: 'malformed' });
    search.changed('seq');
    expect(search.wrong).toEqual({});
  });

  it('takes an error to the field that it names', async () => {
    const search = refusing(new CallError(404, 'not_found', 'no such user', 'handle'));
    expect(await search.ask()).toBe(false);
    expect([search.wrong, search.history]).toEqual([{ handle: 'missing' }, null]);
    const other = refusing(new CallError(503, 'unavailable', 'not now'));
    await expect(other.ask()).rejects.toThrow('not now');
    expect(other.isBusy).toBe(false);
  });

  it('forgets all of it', async () => {
    const search = searching(() => ({ items: [], is_waiting: true }));
    await search.ask();
    search.forget();
    expect([search.form.handle, search.asked.seq, search.history]).toEqual(['', '', null]);
  });
});

it('has words for the same outcomes and reasons in both languages', () => {
  const keys = ({ outcomes, reasons, todos, causes }: typeof en.alerts) =>
    [outcomes, reasons, todos, causes].map((part) => Object.keys(part));
  expect(keys(ko.alerts)).toEqual(keys(en.alerts));
});
