// The answer to "why did this user get (or not get) an alert", in one word.

import type { AlertHistory, AlertNote } from '../contract/types';

export type Verdict = 'taken' | 'withdrawn' | 'waiting' | 'uncertain' | 'dropped' | 'failed' | 'nothing';

/**
 * What matters most: an alert that was taken on any device, or else one that still waits, or else what happened last.
 */
export function verdictOf({ items, is_waiting }: AlertHistory): Verdict {
  const last = items.at(-1);
  const taken = devicesWith(items, 'taken');
  if (taken.length > 0) {
    const withdrawn = new Set(devicesWith(items, 'withdrawn'));
    return taken.every((device) => withdrawn.has(device)) ? 'withdrawn' : 'taken';
  }
  if (is_waiting) return 'waiting';
  if (last === undefined) return 'nothing';
  if (items.some(({ outcome }) => outcome === 'unknown')) return 'uncertain';
  return last.outcome === 'dropped' ? 'dropped' : 'failed';
}

/** The devices with an outcome, each once. */
export function devicesWith(items: readonly AlertNote[], outcome: string): string[] {
  const devices = items.filter((note) => note.outcome === outcome).map((note) => note.device_id ?? '');
  return [...new Set(devices)];
}

/** Whether the alert was given up, so that an operator may send it again. */
export function isDead({ outcome }: AlertNote): boolean {
  return outcome === 'refused' || outcome === 'expired';
}
