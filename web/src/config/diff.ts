// What differs between two configurations, and how two operators' changes meet.

import type { ConfigTree } from '../contract/types';
import { FIELDS, isSame, ROWS, valueAt, type Field } from './fields';

export interface Change {
  field: Field;
  before: number | undefined;
  /** Absent if the value is removed: then it is as in the configuration file of each node. */
  after: number | undefined;
}

export function diff(before: ConfigTree, after: ConfigTree): Change[] {
  return FIELDS.flatMap((field) => {
    const value = valueAt(after, field.path);
    const was = valueAt(before, field.path);
    const isUnknown = value === undefined && !field.isOptional;
    return isUnknown || value === was ? [] : [{ field, before: was, after: value }];
  });
}

/**
 * An operator's edits on top of another version: edits that the other operator made as well are no longer changes.
 */
export function rebased(edits: ReadonlyMap<string, string>, onto: ConfigTree): Map<string, string> {
  return new Map([...edits].filter(([path, text]) => !isSame(text, valueAt(onto, path))));
}

export interface Disorder {
  setting: Field['setting'];
  /** The place of the hotter level among warm, hot, blazing. */
  hotter: number;
}

/** Settings by which a hotter level paces less than a cooler one. */
export function disorders(tree: ConfigTree): Disorder[] {
  return ROWS.pacing.flatMap(({ setting, fields }) =>
    [1, 2]
      .filter((hotter) => {
        const [cool, hot] = [fields[hotter - 1], fields[hotter]].map((field) => strength(tree, field));
        return cool !== undefined && hot !== undefined && hot < cool;
      })
      .map((hotter) => ({ setting, hotter })),
  );
}

/** Of most settings a greater value paces more; of rates a smaller one, and zero not at all. */
function strength(tree: ConfigTree, field: Field | undefined): number | undefined {
  if (field === undefined) return undefined;
  const value = valueAt(tree, field.path);
  const isRate = field.setting === 'joins_per_second' || field.setting === 'slow_reader_entries';
  if (value === undefined || !isRate) return value;
  return value === 0 ? Number.NEGATIVE_INFINITY : -value;
}
