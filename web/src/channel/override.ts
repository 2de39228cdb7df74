// What an operator is about to set: the checks of the page. The server checks again.

import type { Forecast, Level, OverrideSettings, OverrideWish } from '../contract/types';

export const MINUTES = [10, 60, 480, 1_440] as const;
export const WHY_LEAST = 10;
export const WHY_MOST = 500;
/** A forecast is about the last minutes: after this time the traffic may be another one. */
export const PLAN_VALID_MS = 60_000;

export const BOUNDS = {
  batch_ms: [0, 1_000],
  slow_mode_seconds: [0, 21_600],
  joins_per_second: [0, 100_000],
} as const;

export type NumberField = keyof typeof BOUNDS;
export const NUMBER_FIELDS = Object.keys(BOUNDS) as NumberField[];

/** The fields of the form as they are typed; empty: as the level says. */
export interface Form {
  level: Level | '';
  batch_ms: string;
  slow_mode_seconds: string;
  joins_per_second: string;
  /** The name of a node; empty: any node may be the home. */
  away_from: string;
  minutes: number;
  why: string;
  typed: string;
}

/** Sets nothing, but keeps where the home is: a new override replaces the one before. */
export function emptyForm(set?: OverrideSettings): Form {
  return {
    level: '',
    batch_ms: '',
    slow_mode_seconds: '',
    joins_per_second: '',
    away_from: set?.away_from ?? '',
    minutes: 60,
    why: '',
    typed: '',
  };
}

/** Moves the home away from a node, and keeps what is set, for at least as long as it would have held. */
export function movingForm(home: string, set: OverrideSettings = {}, leftMs = 0): Form {
  const form: Form = { ...emptyForm(), level: set.level ?? '', away_from: home };
  for (const name of NUMBER_FIELDS) form[name] = String(set[name] ?? '');
  const least = Math.max(form.minutes, leftMs / 60_000);
  form.minutes = MINUTES.find((minutes) => minutes >= least) ?? 1_440;
  return form;
}

/** The forecast of one dry run, and the values that it is about. */
export interface Plan {
  key: string;
  at: number;
  forecast: Forecast;
}

export function isWholeWithin(text: string, [least, most]: readonly [number, number]): boolean {
  return /^[0-9]{1,9}$/.test(text) && Number(text) >= least && Number(text) <= most;
}

export function badFields(form: Form): NumberField[] {
  return NUMBER_FIELDS.filter((name) => {
    const text = form[name].trim();
    return text !== '' && !isWholeWithin(text, BOUNDS[name]);
  });
}

export function settingsOf(form: Form): OverrideSettings {
  const settings: OverrideSettings = form.level === '' ? {} : { level: form.level };
  for (const name of NUMBER_FIELDS) {
    const text = form[name].trim();
    if (text !== '') settings[name] = Number(text);
  }
  if (form.away_from !== '') settings.away_from = form.away_from;
  return settings;
}

export function whyMissing(why: string): number {
  return Math.max(0, WHY_LEAST - [...why.trim()].length);
}

/** Whether a dry run may be asked for. */
export function isComplete(form: Form): boolean {
  const isSomethingSet = Object.keys(settingsOf(form)).length > 0;
  return isSomethingSet && badFields(form).length === 0 && whyMissing(form.why) === 0;
}

/** Moving alone changes no pacing: then a forecast has nothing to say. */
export function isMoveOnly(form: Form): boolean {
  return Object.keys(settingsOf(form)).join() === 'away_from';
}

/** What is felt by everyone in the channel wants its name typed. */
export function wantsName(form: Form): boolean {
  const { level, joins_per_second } = settingsOf(form);
  return level === 'blazing' || joins_per_second === 0;
}

export function isNamed(form: Form, channel: { id: string; name?: string | undefined }): boolean {
  const typed = form.typed.trim();
  return typed === channel.id || (channel.name !== undefined && typed === channel.name);
}

export function wishOf(form: Form): OverrideWish {
  return { ...settingsOf(form), minutes: form.minutes, why: form.why.trim() };
}

/** The values that a forecast depends on; the reason is not one of them. */
export function planKey(form: Form): string {
  return JSON.stringify([settingsOf(form), form.minutes]);
}

export function planLeftMs(plan: Plan | null, form: Form, now: number): number {
  if (plan === null || plan.key !== planKey(form)) return 0;
  return Math.min(PLAN_VALID_MS, Math.max(0, plan.at + PLAN_VALID_MS - now));
}
