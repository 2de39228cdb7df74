const FIRST_MS = 500;
const MOST_MS = 20_000;

/**
 * Milliseconds before attempt `failures + 1`: full jitter below a bound that doubles. Full, so that the pages of all
 * operators do not return at the same moment after a restart; but at least a fifth of the bound, so that one page
 * does not try twice at once.
 */
export function delayMs(failures: number, random: () => number = Math.random): number {
  const bound = Math.min(MOST_MS, FIRST_MS * 2 ** Math.min(failures, 10));
  return Math.round(bound * (0.2 + 0.8 * random()));
}
