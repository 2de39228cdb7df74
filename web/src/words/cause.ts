import type { Forecast, HotRow, OverrideSettings, Spared } from '../contract/types';
import type { Words } from './en';
import type { Format } from './format';

/** What makes a channel hot, in words: "300 msg/s × 5,010 readers". */
export function causeText(row: HotRow, words: Words, format: Format): string {
  const { work } = row;
  const cause = words.causes;
  switch (row.cause) {
    case 'entries':
      if (work.entries === 0) return cause.quiet;
      return cause.messages(format.count(work.entries), format.count(readers(row)));
    case 'delivery':
      if (work.deliveries === 0) return cause.quiet;
      if (work.entries > 0) return cause.messages(format.count(work.entries), format.count(readers(row)));
      return cause.deliveries(format.short(work.deliveries), format.bytesPerSecond(work.bytes));
    case 'joins':
      return work.joins === 0 ? cause.quiet : cause.joinsPerSecond(format.count(work.joins));
    case 'history':
      return work.reads === 0 ? cause.quiet : cause.readsPerSecond(format.count(work.reads));
    default:
      return cause.cost(format.short(row.cost));
  }
}

/** Only open channels have subscribers; of others, the deliveries tell how many receive an entry. */
function readers({ subscribers, work }: HotRow): number {
  return subscribers > 0 ? subscribers : Math.round(work.deliveries / Math.max(1, work.entries));
}

/** What is set, in words: "level hot, batch 500 ms, joins closed". */
export function settingsText(set: OverrideSettings, words: Words, format: Format): string {
  const pacing = words.pacing;
  const parts: string[] = [];
  if (set.level === 'normal') parts.push(pacing.exempt);
  else if (set.level !== undefined) parts.push(pacing.level(words.levels[set.level]));
  if (set.batch_ms !== undefined) parts.push(pacing.batch(format.ms(set.batch_ms)));
  if (set.slow_mode_seconds !== undefined) parts.push(pacing.slow(format.seconds(set.slow_mode_seconds)));
  if (set.joins_per_second === 0) parts.push(pacing.joinsClosed);
  else if (set.joins_per_second !== undefined) parts.push(pacing.joins(format.count(set.joins_per_second)));
  if (set.away_from !== undefined) parts.push(pacing.away(set.away_from));
  return parts.join(', ');
}

/** How a channel is paced now, in words: "batch 1,000 ms", "slow mode 5 s". */
export function pacingTexts(row: HotRow, words: Words, format: Format): string[] {
  const parts: string[] = [];
  if (row.pacing.batch_ms > 0) parts.push(words.pacing.batch(format.ms(row.pacing.batch_ms)));
  const slow = row.pacing.slow_mode_seconds;
  if (slow > 0) parts.push(words.pacing.slow(format.seconds(slow)));
  return parts.length > 0 ? parts : [words.pacing.none];
}

const SPARED: readonly (keyof Spared)[] = ['frames', 'events', 'joins', 'reads', 'left_out', 'sends'];

/** What pacing has spared, the parts that are not zero, the greatest first. */
export function sparedTexts(spared: Spared, words: Words, format: Format): string[] {
  const parts = SPARED.filter((part) => spared[part] > 0).sort((a, b) => spared[b] - spared[a]);
  return parts.map((part) => words.spared[part](format.short(spared[part])));
}

/** The share of the greatest part. */
export function sparedMost(spared: Spared): number {
  return Math.max(...SPARED.map((part) => spared[part])) / Math.max(1, sparedTotal(spared));
}

export function sparedTotal(spared: Spared): number {
  return SPARED.reduce((sum, part) => sum + spared[part], 0);
}

/** The forecast of a dry run, in sentences. */
export function forecastTexts(forecast: Forecast, words: Words, format: Format): string[] {
  const act = words.act;
  if (forecast.seconds === 0) return [act.noTraffic];
  const [now, then] = forecast.frames;
  const change = now === 0 ? 0 : (then - now) / now;
  const share = format.percent(Math.abs(change));
  const compared = change < -0.005 ? ` ${act.fewer(share)}` : change > 0.005 ? ` ${act.more(share)}` : '';
  const round = Math.round;
  return [
    act.basis(format.duration(forecast.seconds * 1000)),
    round(forecast.delayed) === 0
      ? act.delayedNone
      : act.delayed(format.count(forecast.delayed), format.ms(forecast.delay_ms)),
    act.frames(format.count(now), format.count(then)) + compared,
    round(forecast.joins_refused) === 0 ? act.refusedNone : act.refused(format.count(forecast.joins_refused)),
  ];
}
