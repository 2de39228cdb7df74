import { CallError, type Calls, type ConfigAnswer } from '../contract/calls';
import type { ConfigTree, Limit } from '../contract/types';
import { diff, rebased, type Change } from './diff';
import { FIELDS, isUnset, read, valueAt, withValues, type Field } from './fields';

/** What another operator changed while this one was editing. */
export interface Conflict {
  mine: number;
  theirs: number;
  changes: Change[];
  /** Paths that both changed. */
  both: ReadonlySet<string>;
}

/** The configuration as the server has it, and the edits that are not saved. Edits survive a change of the view. */
export class ConfigDraft {
  base = $state.raw<ConfigAnswer | null>(null);
  /** Texts as typed, by path; only those that differ from the base. */
  edits = $state.raw<ReadonlyMap<string, string>>(new Map());
  why = $state('');
  conflict = $state.raw<Conflict | null>(null);
  isBusy = $state(false);

  constructor(private readonly calls: Calls) {}

  get changes(): Change[] {
    if (this.base === null) return [];
    return diff(this.base.config, this.#edited(this.base.config));
  }

  get badPaths(): ReadonlySet<string> {
    const bad = FIELDS.filter((field) => {
      const text = this.edits.get(field.path);
      return text !== undefined && !isUnset(field, text) && read(field, text) === undefined;
    });
    return new Set(bad.map((field) => field.path));
  }

  textOf(path: string): string {
    const value = this.base === null ? undefined : valueAt(this.base.config, path);
    return this.edits.get(path) ?? (value === undefined ? '' : String(value));
  }

  edit(path: string, text: string): void {
    const edits = new Map(this.edits);
    const value = this.base === null ? undefined : valueAt(this.base.config, path);
    if (text.trim() === (value === undefined ? '' : String(value))) edits.delete(path);
    else edits.set(path, text);
    this.edits = edits;
  }

  undoAll(): void {
    this.edits = new Map();
    this.conflict = null;
  }

  /** The value in the configuration file of the answering node, of a field that may be absent. */
  fileValue(field: Field): number | undefined {
    return field.isOptional ? this.base?.file_limits?.[field.setting as Limit] : undefined;
  }

  forget(): void {
    this.base = null;
    this.why = '';
    this.undoAll();
  }

  /** Loads the newest version. Edits are kept, on top of it. */
  async load(): Promise<void> {
    const before = this.base;
    const answer = await this.calls.config();
    this.base = answer;
    if (before !== null && before.etag !== answer.etag) this.#rebase(before, answer);
  }

  /** Whether it was saved; if another operator was first, `conflict` says what is different. */
  async save(): Promise<boolean> {
    this.isBusy = true;
    try {
      if (await this.#put()) return true;
      await this.load();
      // Settings that were changed and changed back: nobody has to look at them again.
      return this.conflict === null && (await this.#put());
    } finally {
      this.isBusy = false;
    }
  }

  async #put(): Promise<boolean> {
    const base = this.base;
    if (base === null) return false;
    try {
      this.base = await this.calls.changeConfig(base.etag, this.#edited(base.config), this.why.trim());
    } catch (error) {
      const isConflict = error instanceof CallError && (error.status === 409 || error.status === 412);
      if (isConflict) return false;
      throw error;
    }
    this.why = '';
    this.undoAll();
    return true;
  }

  edited(): ConfigTree | null {
    return this.base === null ? null : this.#edited(this.base.config);
  }

  #rebase(before: ConfigAnswer, answer: ConfigAnswer): void {
    const changes = diff(before.config, answer.config);
    const both = new Set(changes.map(({ field }) => field.path).filter((path) => this.edits.has(path)));
    const isConcerned = this.edits.size > 0 && changes.length > 0;
    this.edits = rebased(this.edits, answer.config);
    if (isConcerned) this.conflict = { mine: before.version, theirs: answer.version, changes, both };
  }

  #edited(config: ConfigTree): ConfigTree {
    const values = new Map<string, number | null>();
    for (const field of FIELDS) {
      const text = this.edits.get(field.path);
      if (text === undefined) continue;
      const value = isUnset(field, text) ? null : read(field, text);
      if (value !== undefined) values.set(field.path, value);
    }
    return withValues(config, values);
  }
}
