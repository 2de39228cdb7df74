import type { Calls, Holder } from '../contract/calls';
import type { Scope } from '../contract/types';
import { endByBrowser, isIdle, tokenState, type TokenState } from './renewal';

interface Access {
  token: string;
  scope: Scope;
  startedAt: number;
  endsAt: number;
}

/**
 * The operator that is signed in. The token is kept in this object only; the secret is kept nowhere. When a token ends, the name
 * and the state of the page stay, and the secret is asked for again.
 */
export class Session implements Holder {
  name = $state('');
  #access = $state.raw<Access | null>(null);
  #isRefused = $state(false);
  #lastInputAt = $state(Date.now());
  #isLocked = $state(false);

  constructor(private readonly clock: { readonly now: number }) {}

  get token(): string | null {
    return this.#isRefused ? null : (this.#access?.token ?? null);
  }

  get isSignedIn(): boolean {
    return this.#access !== null;
  }

  get scope(): Scope {
    return this.#access?.scope ?? 'view';
  }

  get mayAct(): boolean {
    return this.scope === 'act';
  }

  get tokenState(): TokenState {
    const access = this.#access;
    if (access === null || this.#isRefused) return 'ended';
    return tokenState(this.clock.now, access.startedAt, access.endsAt);
  }

  get endsInMs(): number {
    return Math.max(0, (this.#access?.endsAt ?? 0) - this.clock.now);
  }

  /** Whether the secret is needed before the next change: nobody touched the page for ten minutes. */
  get isLocked(): boolean {
    return this.#isLocked;
  }

  get wantsSecret(): boolean {
    return this.isSignedIn && (this.tokenState !== 'valid' || (this.mayAct && this.#isLocked));
  }

  /** Whether nothing may be changed before the secret was entered; while a token only nears its end, it may. */
  get wantsSecretNow(): boolean {
    return this.tokenState === 'ended' || this.#isLocked;
  }

  async signIn(calls: Calls, name: string, secret: string): Promise<void> {
    const { token, serverTime } = await calls.token(name, secret);
    const now = Date.now();
    this.name = name;
    this.#access = {
      token: token.token,
      scope: token.scope,
      startedAt: now,
      endsAt: endByBrowser(token.ends_at, serverTime, now),
    };
    this.#isRefused = false;
    this.#isLocked = false;
    this.#lastInputAt = now;
  }

  signOut(): void {
    this.#access = null;
    this.#isRefused = false;
    this.name = '';
  }

  /** The token of an answer that comes late may be an older one. */
  refused(token: string): void {
    if (token === this.#access?.token) this.#isRefused = true;
  }

  /** Called at each key and pointer press, before it has an effect. */
  touched(now: number): void {
    if (isIdle(now, this.#lastInputAt)) this.#isLocked = true;
    this.#lastInputAt = now;
  }
}
