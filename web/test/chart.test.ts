import { expect, it } from 'vitest';
import { bandsOf, marksOf, minutesOf, scaleOf, sparkPath, ticks, timeTicks } from '../src/channel/chart';
import type { HeatPoint, Level } from '../src/contract/types';

const FRAME = { width: 110, height: 100, left: 10, right: 0, top: 0, bottom: 0 };
const point = (at: number, cost: number, level: Level = 'normal'): HeatPoint => ({
  at: at * 10_000,
  cost,
  bar: 500,
  level,
});

it('chooses round values', () => {
  expect(ticks(930, 4)).toEqual([0, 250, 500, 750, 1_000]);
  expect(ticks(17_800, 4)).toEqual([0, 5_000, 10_000, 15_000, 20_000]);
  expect(timeTicks(65_000, 200_000, 60_000)).toEqual([120_000, 180_000]);
});

it('puts the newest point at the right end and zero at the bottom', () => {
  const scale = scaleOf([point(1, 0), point(2, 400), point(3, 100)], FRAME);
  expect([scale.x(scale.from), scale.x(30_000)]).toEqual([10, 110]);
  expect([scale.y(0), scale.y(scale.most)]).toEqual([100, 0]);
  expect(sparkPath([0, 10], 10, 10, 3)).toBe('M5.0 9.0L10.0 1.0');
});

it('joins stretches of one level', () => {
  const hour = [point(1, 0), point(2, 0), point(3, 0, 'hot'), point(4, 0)];
  expect(bandsOf(hour)).toEqual([
    { level: 'normal', from: 0, until: 20_000 },
    { level: 'hot', from: 20_000, until: 30_000 },
    { level: 'normal', from: 30_000, until: 40_000 },
  ]);
});

it('marks overrides within the hour once', () => {
  const scale = scaleOf([point(1, 0), point(10, 0)], FRAME);
  const set = { by: 'ada', why: '', since: 50_000, ends_at: 900_000 };
  const changes = [
    { at: 50_500, by_override: true },
    { at: 60_000, by_override: false },
  ];
  expect(marksOf(changes, set, scale)).toEqual([{ at: 50_500, kind: 'start' }]);
});

it('has one row a minute in the table, the newest first', () => {
  const hour = Array.from({ length: 12 }, (_, index) => point(index + 1, index < 6 ? 60 : 120));
  expect(minutesOf(hour).map(({ at, cost }) => [at, cost])).toEqual([
    [60_000, 120],
    [0, 60],
  ]);
});
