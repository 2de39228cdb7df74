import { describe, expect, it } from 'vitest';
import { ClockOffset, freshness, NodeReports } from '../src/live/age';
import { delayMs } from '../src/live/backoff';
import { fleetOf, isRecent, pushOf, worstGuarantee } from '../src/live/fleet';
import { endByBrowser, isIdle, tokenState } from '../src/live/renewal';
import { parseBoard } from '../src/contract/parse';

const MINUTE = 60_000;

describe('renewal of a token', () => {
  it('asks two minutes before the end', () => {
    const state = (now: number) => tokenState(now, 0, 15 * MINUTE);
    expect(state(12.9 * MINUTE)).toBe('valid');
    expect(state(13 * MINUTE)).toBe('ending');
    expect(state(15 * MINUTE)).toBe('ended');
  });

  it('asks in the last quarter of a short life', () => {
    expect(tokenState(44_000, 0, MINUTE)).toBe('valid');
    expect(tokenState(45_000, 0, MINUTE)).toBe('ending');
  });

  it('does not trust the browser’s clock', () => {
    const browser = 1_000_000_000;
    const server = browser + 3_600_000;
    expect(endByBrowser(server + 15 * MINUTE, server, browser)).toBe(browser + 15 * MINUTE);
    expect(endByBrowser(server + 90 * MINUTE, server, browser)).toBe(browser + 15 * MINUTE);
    expect(endByBrowser(server - MINUTE, server, browser)).toBe(browser);
  });

  it('knows an idle operator', () => {
    expect(isIdle(10 * MINUTE - 1, 0)).toBe(false);
    expect(isIdle(10 * MINUTE, 0)).toBe(true);
  });
});

describe('reconnecting', () => {
  it('waits longer each time, up to 20 s', () => {
    const longest = [0, 1, 2, 3, 4, 5, 6, 99].map((failures) => delayMs(failures, () => 1));
    expect(longest).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]);
  });

  it('spreads the attempts of many pages, and never tries at once', () => {
    expect(delayMs(3, () => 0)).toBe(800);
    expect(delayMs(3, () => 0.5)).toBe(2_400);
  });
});

describe('ages', () => {
  it('do not depend on the clocks', () => {
    const offset = new ClockOffset();
    offset.sample('n1', 1_000, 501_040);
    offset.sample('n1', 2_000, 502_010);
    expect(offset.ageMs(2_000, 502_010)).toBe(0);
    expect(offset.ageMs(2_000, 507_010)).toBe(5_000);
  });

  it('show a node that repeats an old state', () => {
    const offset = new ClockOffset();
    offset.sample('n1', 1_000, 1_000);
    offset.sample('n1', 1_000, 9_000);
    expect(offset.ageMs(1_000, 9_000)).toBe(8_000);
  });

  it('begin anew with another answering node', () => {
    const offset = new ClockOffset();
    offset.sample('n1', 1_000, 1_000);
    offset.sample('n2', 900_000, 2_000);
    expect(offset.ageMs(900_000, 2_500)).toBe(500);
  });

  it('are grey above 3 s and red above 10 s', () => {
    expect([3_000, 3_001, 10_000, 10_001].map(freshness)).toEqual(['fresh', 'old', 'old', 'too_old']);
  });

  it('find a node that stays silent', () => {
    const reports = new NodeReports();
    reports.sample([{ name: 'n1', at: 5 }], 1_000);
    reports.sample([{ name: 'n1', at: 5 }], 4_000);
    expect(reports.silentMs('n1', 4_500)).toBe(3_500);
    reports.sample([{ name: 'n1', at: 6 }], 5_000);
    expect(reports.silentMs('n1', 5_000)).toBe(0);
  });
});

describe('the fleet', () => {
  const node = (name: string, more: object) => ({ name, bystanders_ms: { p99: 5 }, is_ready: true, ...more });

  it('is summed, and the worst is named', () => {
    const fleet = fleetOf(
      parseBoard({
        config_version: 3,
        nodes: [
          node('a', { connections: 10, sends: 1, config_version: 3 }),
          node('b', { connections: 20, bystanders_ms: { p99: 40 }, config_version: 2, shed_level: 2 }),
          node('c', { is_ready: false, config_version: 3 }),
        ],
      }),
    );
    expect(fleet).toMatchObject({ ready: 2, total: 3, notReady: ['c'], connections: 30, applied: 2 });
    expect(fleet).toMatchObject({ bystandersP99: 40, bystandersNode: 'b', shed: 2, configVersion: 3 });
  });

  it('sums what was sent to each push provider', () => {
    const row = (provider: string, taken: number, halted: number) => ({
      ...{ provider, taken, not_taken: 1, unknown: 0, gone: 2, dead: 0, credential: 0, halted },
    });
    const board = parseBoard({
      config_version: 1,
      nodes: [
        node('a', { push: [row('fcm', 10, 1), row('apns', 1, 0)] }),
        node('b', { push: [row('fcm', 5, 1)] }),
        node('c', {}),
      ],
      push_processes: [{ name: 'p', push: [row('fcm', 100, 0)] }],
    });
    expect(pushOf(board)).toEqual([row('apns', 1, 0), { ...row('fcm', 115, 2), not_taken: 3, gone: 6 }]);
    expect(board.nodes[0]?.push[0]?.taken).toBe(10);
  });

  it('shows the guarantee that broke last, red for an hour', () => {
    const rows = [
      { id: 'G1', breaches: 0 },
      { id: 'G3', breaches: 9, last: 100 },
      { id: 'G4', breaches: 1, last: 200 },
    ];
    const worst = worstGuarantee(rows);
    expect(worst?.id).toBe('G4');
    expect(isRecent(rows[2]!, 200 + 3_599_999)).toBe(true);
    expect(isRecent(rows[2]!, 200 + 3_600_000)).toBe(false);
    expect(worstGuarantee(rows.slice(0, 1))).toBeUndefined();
  });
});
