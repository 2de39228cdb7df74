import type { Board, HotRow } from '../contract/types';
import { FIRST_SORTING, held, sorted, type ShownRow, type Sort, type Sorting } from './order';

const NONE: readonly HotRow[] = [];

/**
 * The rows that are shown. While the pointer or the focus is within the table the order is held and only the values
 * change; while it is paused nothing changes. Call `update` with each board.
 */
export class ChannelList {
  rows = $state.raw<ShownRow[]>([]);
  sorting = $state.raw<Sorting>(FIRST_SORTING);
  pausedAt = $state<number | null>(null);
  find = $state('');
  isPointed = $state(false);
  hasFocus = $state(false);

  #board: Board | null = null;

  get isHeld(): boolean {
    return this.isPointed || this.hasFocus;
  }

  get isPaused(): boolean {
    return this.pausedAt !== null;
  }

  update(board: Board | null): void {
    this.#board = board;
    if (this.isPaused) return;
    const rows = board?.channels ?? NONE;
    this.rows = this.isHeld ? held(this.rows, rows) : sorted(rows, this.sorting);
  }

  /** The operator asked for it, so it is sorted once, also while the order is held. */
  sort(by: Sort): void {
    const isSame = this.sorting.by === by;
    this.sorting = { by, isRising: isSame ? !this.sorting.isRising : false };
    this.rows = sorted(
      this.rows.filter(({ isGone }) => !isGone).map(({ row }) => row),
      this.sorting,
    );
  }

  togglePause(now: number): void {
    this.pausedAt = this.isPaused ? null : now;
    this.update(this.#board);
  }
}
