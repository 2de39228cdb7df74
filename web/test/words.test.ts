import { describe, expect, it } from 'vitest';
import { CallError } from '../src/contract/calls';
import { causeText, forecastTexts, settingsText, sparedTexts } from '../src/words/cause';
import { en } from '../src/words/en';
import { errorText } from '../src/words/errors';
import { Format } from '../src/words/format';
import { ko } from '../src/words/ko';
import { preferred } from '../src/words/speech.svelte';
import { format, NOTHING, row, words } from './sample';

describe('causes', () => {
  const said = (fields: Parameters<typeof row>[0]) => causeText(row(fields), words, format);

  it('are messages times readers', () => {
    expect(said({})).toBe('300 msg/s × 5,010 readers');
    expect(said({ cause: 'delivery' })).toBe('300 msg/s × 5,010 readers');
  });

  it('count the receivers of a group from its deliveries', () => {
    const work = { ...NOTHING, entries: 60, deliveries: 12_000 };
    expect(said({ subscribers: 0, work })).toBe('60 msg/s × 200 readers');
  });

  it('are joins, reads, or nothing', () => {
    expect(said({ cause: 'joins', work: { ...NOTHING, joins: 2_000 } })).toBe('2,000 joins/s');
    expect(said({ cause: 'history', work: { ...NOTHING, reads: 120 } })).toBe('120 history reads/s');
    expect(said({ work: NOTHING })).toBe('quiet now');
  });

  it('that are unknown are said as a cost', () => {
    const unknown = row();
    delete unknown.cause;
    expect(causeText(unknown, words, format)).toBe('cost 3,000/s');
  });

  it('are said in Korean', () => {
    expect(causeText(row(), ko, new Format('ko'))).toBe('메시지 300건/초 × 독자 5,010명');
  });
});

describe('settings and forecasts', () => {
  it('name what is set', () => {
    const set = { level: 'blazing', batch_ms: 200, joins_per_second: 0 } as const;
    expect(settingsText(set, words, format)).toBe('level blazing, batch 200 ms, joins closed');
    expect(settingsText({ level: 'normal', away_from: 'n1' }, words, format)).toBe(
      'exempt from pacing, home away from n1',
    );
  });

  it('put the greatest of what was spared first', () => {
    const spared = { events: 12, frames: 41_200, left_out: 0, joins: 1_930, reads: 0, sends: 0 };
    expect(sparedTexts(spared, words, format)).toEqual([
      '41.2K frames',
      '1,930 joins',
      '12 typing and receipts',
    ]);
  });

  it('say what would have followed', () => {
    const forecast = {
      seconds: 300,
      delayed: 41_200,
      delay_ms: 430,
      frames: [31_000, 12_000] as [number, number],
      joins_refused: 1_930,
    };
    expect(forecastTexts(forecast, words, format)).toEqual([
      'Had it held over the last 5 min:',
      '41,200 deliveries a minute would have waited, 430 ms on average.',
      'Frames to receivers: 12,000 a minute instead of 31,000. 61% fewer.',
      '1,930 joins a minute would have been refused for now.',
    ]);
    expect(forecastTexts({ ...forecast, seconds: 0 }, words, format)).toEqual([words.act.noTraffic]);
  });
});

describe('formats', () => {
  it('show at most two units', () => {
    expect(format.duration(0)).toBe('0 sec');
    expect(format.duration(200_000)).toBe('3 min 20 sec');
    expect(format.duration(2 * 3_600_000 + 5_000)).toBe('2 hr');
    expect(format.roughly(89_000)).toBe('1 min');
    expect(format.minutes(480)).toBe('8 hr');
    expect(format.bytesPerSecond(12_345_678)).toBe('12.3 MB/s');
    expect(format.msPair({ p50: 4.21, p99: 18.6 })).toBe('4.2 / 19 ms');
  });
});

describe('errors and languages', () => {
  it('say what the operator can do', () => {
    const said = (error: unknown) => errorText(error, words, format);
    expect(said(new CallError(429, 'limited', '', undefined, 2_500))).toBe(
      'Too many requests. Try again in 3 sec.',
    );
    expect(said(new CallError(400, 'invalid', 'out of bounds', 'body.minutes'))).toContain('body.minutes');
    expect(said(new CallError(418, 'a_later_code', 'something'))).toBe('something (a_later_code)');
  });

  it('take the first language that is known', () => {
    expect(preferred(['de-DE', 'ko-KR', 'en'])).toBe('ko');
    expect(preferred(['fr'])).toBe('en');
  });

  it('explain the same terms in both', () => {
    expect(Object.keys(ko.help)).toEqual(Object.keys(en.help));
    expect(Object.keys(ko.guaranteeTexts)).toEqual(Object.keys(en.guaranteeTexts));
    expect(ko.shed.length).toBe(en.shed.length);
    expect(Object.keys(ko.audit.kinds)).toEqual(Object.keys(en.audit.kinds));
  });
});
