// Geometry of the chart of a channel's last hour.

import type { HeatPoint, Level, OverrideCard } from '../contract/types';

export interface Frame {
  width: number;
  height: number;
  left: number;
  right: number;
  top: number;
  bottom: number;
}

export interface Scale {
  from: number;
  until: number;
  most: number;
  x(at: number): number;
  y(cost: number): number;
}

const POINT_MS = 10_000;

export function scaleOf(hour: readonly HeatPoint[], frame: Frame): Scale {
  const first = hour[0]?.at ?? 0;
  const until = hour.at(-1)?.at ?? first;
  const from = Math.min(first - POINT_MS, until - POINT_MS);
  const highest = Math.max(1, ...hour.map((point) => Math.max(point.cost, point.bar)));
  const most = ticks(highest, 4).at(-1) ?? highest;
  const width = frame.width - frame.left - frame.right;
  const height = frame.height - frame.top - frame.bottom;
  return {
    from,
    until,
    most,
    x: (at) => frame.left + (width * (at - from)) / (until - from),
    y: (cost) => frame.top + height * (1 - cost / most),
  };
}

/** Round values from 0 to at least `highest`. */
export function ticks(highest: number, about: number): number[] {
  const rough = highest / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  return Array.from({ length: Math.ceil(highest / step) + 1 }, (_, index) => index * step);
}

/** Times at full multiples of `stepMs` within the chart. */
export function timeTicks(from: number, until: number, stepMs: number): number[] {
  const first = Math.ceil(from / stepMs) * stepMs;
  const found: number[] = [];
  for (let at = first; at <= until; at += stepMs) found.push(at);
  return found;
}

export function linePath(hour: readonly HeatPoint[], of: (point: HeatPoint) => number, scale: Scale): string {
  return hour
    .map(
      (point, index) => `${index === 0 ? 'M' : 'L'}${fixed(scale.x(point.at))} ${fixed(scale.y(of(point)))}`,
    )
    .join('');
}

export function areaPath(hour: readonly HeatPoint[], scale: Scale): string {
  const first = hour[0];
  const last = hour.at(-1);
  if (first === undefined || last === undefined) return '';
  const line = linePath(hour, (point) => point.cost, scale);
  const floor = fixed(scale.y(0));
  return `${line}L${fixed(scale.x(last.at))} ${floor}L${fixed(scale.x(first.at))} ${floor}Z`;
}

export interface Band {
  level: Level;
  from: number;
  until: number;
}

/** Stretches of one level. */
export function bandsOf(hour: readonly HeatPoint[]): Band[] {
  const bands: Band[] = [];
  for (const point of hour) {
    const last = bands.at(-1);
    if (last?.level === point.level) last.until = point.at;
    else bands.push({ level: point.level, from: last?.until ?? point.at - POINT_MS, until: point.at });
  }
  return bands;
}

export interface Mark {
  at: number;
  kind: 'start' | 'end';
}

export function marksOf(
  changes: readonly { at: number; by_override: boolean }[],
  set: OverrideCard | undefined,
  scale: Scale,
): Mark[] {
  const starts = changes.filter((change) => change.by_override).map((change) => change.at);
  if (set !== undefined && !starts.some((at) => Math.abs(at - set.since) < 2_000)) starts.push(set.since);
  const marks: Mark[] = starts.map((at) => ({ at, kind: 'start' }));
  if (set !== undefined) marks.push({ at: set.ends_at, kind: 'end' });
  return marks.filter(({ at }) => at >= scale.from && at <= scale.until);
}

export interface Minute {
  at: number;
  cost: number;
  bar: number;
  level: Level;
}

/** One row for each minute, the newest first: a table of 360 rows is read by nobody. */
export function minutesOf(hour: readonly HeatPoint[]): Minute[] {
  const minutes = new Map<number, HeatPoint[]>();
  for (const point of hour) {
    const at = Math.floor((point.at - 1) / 60_000) * 60_000;
    minutes.set(at, [...(minutes.get(at) ?? []), point]);
  }
  return [...minutes]
    .map(([at, points]) => ({
      at,
      cost: points.reduce((sum, point) => sum + point.cost, 0) / points.length,
      bar: points.at(-1)?.bar ?? 0,
      level: points.at(-1)?.level ?? 'normal',
    }))
    .reverse();
}

/** Points of a sparkline in a box, the newest at the right end. */
export function sparkPath(costs: readonly number[], width: number, height: number, slots: number): string {
  const most = Math.max(1, ...costs);
  const step = width / Math.max(1, slots - 1);
  const start = width - step * (costs.length - 1);
  return costs
    .map((cost, index) => {
      const x = fixed(start + step * index);
      return `${index === 0 ? 'M' : 'L'}${x} ${fixed(height - 1 - (height - 2) * (cost / most))}`;
    })
    .join('');
}

function fixed(value: number): string {
  return value.toFixed(1);
}
