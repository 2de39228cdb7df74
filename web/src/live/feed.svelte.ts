import { CallError, type Calls } from '../contract/calls';
import { parseBoard } from '../contract/parse';
import type { Board } from '../contract/types';
import { ClockOffset, NodeReports } from './age';
import { delayMs } from './backoff';
import type { Session } from './session.svelte';

const SUBPROTOCOL = 'madang.operator.v1.json';
const TOKEN_ENDED = 4401;
const OPEN_DEADLINE_MS = 10_000;
/** The server sends a state each second, and each five seconds to many viewers. */
const SILENCE_MS = 12_000;
const HIDDEN_POLL_MS = 15_000;

export type FeedState = 'stopped' | 'connecting' | 'live' | 'hidden' | 'waiting' | 'needs_token';

/**
 * Keeps the board up to date: by the socket while the page is visible, by a request each 15 s while it is hidden.
 * The last board stays when the server is gone. Drive it by `start`, `stop`, and `tokenChanged` after each new token.
 *
 * Each socket and each timer belongs to a generation; what an older generation reports is dropped.
 */
export class Feed {
  board = $state.raw<Board | null>(null);
  state = $state<FeedState>('stopped');
  /** The time of the next attempt, by the browser's clock. */
  retryAt = $state(0);
  failures = $state(0);

  readonly offset = new ClockOffset();
  readonly reports = new NodeReports();

  #generation = 0;
  #socket: WebSocket | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly session: Session,
    private readonly calls: Calls,
    private readonly address: () => string,
  ) {}

  start(): void {
    document.addEventListener('visibilitychange', this.#again);
    window.addEventListener('online', this.#again);
    window.addEventListener('pageshow', this.#again);
    this.failures = 0;
    this.#begin();
  }

  stop(): void {
    document.removeEventListener('visibilitychange', this.#again);
    window.removeEventListener('online', this.#again);
    window.removeEventListener('pageshow', this.#again);
    this.#leave();
    this.state = 'stopped';
    this.board = null;
  }

  tokenChanged(): void {
    if (this.state === 'needs_token') this.retryNow();
  }

  retryNow(): void {
    this.failures = 0;
    this.#begin();
  }

  ageMs(now: number): number | null {
    return this.board === null ? null : this.offset.ageMs(this.board.at, now);
  }

  #again = (): void => {
    const isWorking = this.state === 'live' || this.state === 'connecting';
    if (this.state === 'stopped' || this.state === 'needs_token') return;
    if (document.hidden || !isWorking) this.retryNow();
  };

  #begin(): void {
    this.#leave();
    if (this.session.token === null) this.state = 'needs_token';
    else if (document.hidden) void this.#poll(this.#generation);
    else this.#connect(this.#generation, this.session.token);
  }

  #leave(): void {
    this.#generation += 1;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
    this.#socket = null;
  }

  #connect(generation: number, token: string): void {
    this.state = 'connecting';
    const socket = new WebSocket(this.address(), SUBPROTOCOL);
    this.#socket = socket;
    const isCurrent = () => generation === this.#generation;
    this.#after(OPEN_DEADLINE_MS, () => void this.#failed(generation));
    socket.onopen = () => {
      if (isCurrent()) socket.send(JSON.stringify({ token }));
    };
    socket.onmessage = (message: MessageEvent<unknown>) => {
      if (isCurrent() && typeof message.data === 'string') this.#received(generation, message.data);
    };
    socket.onclose = (event) => {
      if (!isCurrent()) return;
      if (event.code === TOKEN_ENDED) this.#refused(token);
      else void this.#failed(generation);
    };
  }

  #received(generation: number, frame: string): void {
    try {
      this.#show(parseBoard(JSON.parse(frame)));
    } catch {
      // A frame that is no board is skipped; if all are, the silence is found.
      return;
    }
    this.state = 'live';
    this.failures = 0;
    this.#after(SILENCE_MS, () => void this.#failed(generation));
  }

  #show(board: Board): void {
    const now = Date.now();
    this.offset.sample(board.node, board.at, now);
    this.reports.sample(board.nodes, now);
    this.board = board;
  }

  #refused(token: string): void {
    this.session.refused(token);
    this.#leave();
    this.state = 'needs_token';
  }

  /** A browser does not see why a socket failed: a request finds out, and brings a board if it can. */
  async #failed(generation: number): Promise<void> {
    if (generation !== this.#generation) return;
    this.#leave();
    const next = this.#generation;
    this.failures += 1;
    this.#retryAfter(delayMs(this.failures - 1));
    if (this.failures > 1) await this.#ask(next);
  }

  async #poll(generation: number): Promise<void> {
    this.state = 'hidden';
    this.#after(HIDDEN_POLL_MS, () => void this.#poll(generation));
    await this.#ask(generation);
  }

  async #ask(generation: number): Promise<void> {
    try {
      const board = await this.calls.board();
      if (generation === this.#generation) this.#show(board);
    } catch (error) {
      if (generation !== this.#generation) return;
      if (error instanceof CallError && error.status === 401) {
        this.#leave();
        this.state = 'needs_token';
      } else if (error instanceof CallError && error.retryAfterMs !== undefined && this.state === 'waiting') {
        this.#retryAfter(error.retryAfterMs + delayMs(0));
      }
    }
  }

  #retryAfter(ms: number): void {
    this.state = 'waiting';
    this.retryAt = Date.now() + ms;
    this.#after(ms, () => this.#begin());
  }

  #after(ms: number, then: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, ms);
  }
}
