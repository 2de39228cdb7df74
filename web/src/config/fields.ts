// The settings that may change at run time: where each one is, its unit, and its bounds.

import type { ConfigTree } from '../contract/types';
import type { Setting, Unit } from '../words/en-terms';

export interface Field {
  /** Where it is, such as `heat.capacity.shares.0`. */
  path: string;
  setting: Setting;
  unit: Unit;
  least: number;
  most: number;
  isWhole: boolean;
  /** It may be absent: then it is as in the configuration file of each node. */
  isOptional: boolean;
}

export const SECTIONS = ['costs', 'capacity', 'pacing', 'limits'] as const;
export type Section = (typeof SECTIONS)[number];

export const HEATED = ['warm', 'hot', 'blazing'] as const;

type Shape = [setting: Setting, unit: Unit, least: number, most: number];

const COSTS: Shape[] = [
  ['entry', 'cost', 0, 1_000_000],
  ['delivery', 'cost', 0, 1_000_000],
  ['kib', 'cost', 0, 1_000_000],
  ['read', 'cost', 0, 1_000_000],
  ['join', 'cost', 0, 1_000_000],
];

const BARS: Shape[] = [
  ['shares', 'share', 0, 1],
  ['floor', 'costs', 0, 1_000_000_000],
  ['cap', 'costs', 0, 1_000_000_000],
];

const CAPACITY: Shape[] = [
  ['lag_ms', 'ms', 1, 10_000],
  ['assumed', 'costs', 1, 1_000_000_000],
];

const PACING: Shape[] = [
  ['batch_ms', 'ms', 0, 1_000],
  ['heads_seconds', 's', 1, 60],
  ['joins_per_second', 'joins', 0, 100_000],
  ['slow_mode_seconds', 's', 0, 21_600],
  ['slow_reader_entries', 'entries', 0, 100_000],
  ['shared_read_ms', 'ms', 0, 1_000],
  ['alert_hold_seconds', 's', 0, 600],
];

const RATES: Shape[] = [
  ['user_sends', 'messages', 0, 1_000_000],
  ['user_write_kib', 'kib', 0, 1_000_000],
  ['user_requests', 'requests', 0, 1_000_000],
  ['address_requests', 'requests', 0, 1_000_000],
  ['address_logins', 'logins', 0, 1_000_000],
];

/** A row of the form: one setting, with one field or with one for each level. */
export interface Row {
  setting: Setting;
  fields: Field[];
}

export const ROWS: Record<Section | 'bars', Row[]> = {
  costs: COSTS.map((shape) => row(shape, [`heat.costs.${shape[0]}`], false)),
  bars: BARS.map((shape) =>
    row(
      shape,
      [0, 1, 2].map((index) => `heat.capacity.${shape[0]}.${index}`),
      false,
    ),
  ),
  capacity: CAPACITY.map((shape) => row(shape, [`heat.capacity.${shape[0]}`], false)),
  pacing: PACING.map((shape) =>
    row(
      shape,
      HEATED.map((level) => `heat.pacing.${level}.${shape[0]}`),
      true,
    ),
  ),
  limits: RATES.map((shape) => row(shape, [`limits.${shape[0]}`], true, true)),
};

export const FIELDS: Field[] = Object.values(ROWS).flatMap((rows) => rows.flatMap((each) => each.fields));

function row(
  [setting, unit, least, most]: Shape,
  paths: string[],
  isWhole: boolean,
  isOptional = false,
): Row {
  return {
    setting,
    fields: paths.map((path) => ({ path, setting, unit, least, most, isWhole, isOptional })),
  };
}

export function valueAt(tree: ConfigTree, path: string): number | undefined {
  let at: unknown = tree;
  for (const part of path.split('.')) {
    if (typeof at !== 'object' || at === null) return undefined;
    at = (at as Record<string, unknown>)[part];
  }
  return typeof at === 'number' ? at : undefined;
}

/**
 * A copy with other values; `null` removes one, and with the last one its object. What is not named stays, also what
 * this page does not know.
 */
export function withValues(tree: ConfigTree, values: ReadonlyMap<string, number | null>): ConfigTree {
  const copy = structuredClone(tree);
  for (const [path, value] of values) {
    if (value === null) remove(copy, path.split('.'));
    else put(copy, path.split('.'), value);
  }
  return copy;
}

function put(tree: ConfigTree, parts: string[], value: number): void {
  const last = parts.pop();
  let at = tree as Record<string, unknown>;
  for (const part of parts) {
    if (typeof at[part] !== 'object' || at[part] === null) at[part] = {};
    at = at[part] as Record<string, unknown>;
  }
  if (last !== undefined) at[last] = value;
}

function remove(tree: ConfigTree, [first, ...rest]: string[]): void {
  const at = tree as Record<string, unknown>;
  if (first === undefined || !(first in at)) return;
  const inner = at[first] as ConfigTree;
  if (rest.length > 0) remove(inner, rest);
  if (rest.length === 0 || Object.keys(inner).length === 0) delete at[first];
}

/** Whether the field is empty and may be: then its value is removed. */
export function isUnset(field: Field, text: string): boolean {
  return field.isOptional && text.trim() === '';
}

/** Whether a text stands for the value that a field has. */
export function isSame(text: string, value: number | undefined): boolean {
  const trimmed = text.trim();
  return trimmed === '' ? value === undefined : Number(trimmed) === value;
}

/** The number that is typed, or nothing if it is none within the bounds. */
export function read(field: Field, text: string): number | undefined {
  const trimmed = text.trim();
  if (!/^[0-9]+(\.[0-9]+)?$/.test(trimmed)) return undefined;
  const value = Number(trimmed);
  if (field.isWhole && !Number.isInteger(value)) return undefined;
  return value >= field.least && value <= field.most ? value : undefined;
}
