// When the page asks for the secret again. A token lives 15 minutes and cannot be renewed without the secret.

const LONGEST_MS = 15 * 60_000;
const ASK_BEFORE_MS = 2 * 60_000;
/** An operator who did nothing for this long confirms with the secret before the next change. */
const IDLE_MS = 10 * 60_000;

export type TokenState = 'valid' | 'ending' | 'ended';

/** The end of a token by the browser's clock, from times of the server's clock. */
export function endByBrowser(endsAt: number, serverTime: number, browserTime: number): number {
  const life = endsAt - serverTime;
  const plausible = Math.min(Math.max(life, 0), LONGEST_MS);
  return browserTime + plausible;
}

/** A token with a short life is asked for in its last quarter, not at once. */
export function tokenState(now: number, startedAt: number, endsAt: number): TokenState {
  if (now >= endsAt) return 'ended';
  const askBefore = Math.min(ASK_BEFORE_MS, (endsAt - startedAt) / 4);
  return now >= endsAt - askBefore ? 'ending' : 'valid';
}

export function isIdle(now: number, lastInputAt: number): boolean {
  return now - lastInputAt >= IDLE_MS;
}
