// How old a state is, although the clocks of the node and of the browser differ.

const SAMPLES = 60;

/** Ages up to here are usual: a state comes each second. */
export const OLD_MS = 3_000;
export const TOO_OLD_MS = 10_000;

export type Freshness = 'fresh' | 'old' | 'too_old';

export function freshness(ageMs: number): Freshness {
  if (ageMs > TOO_OLD_MS) return 'too_old';
  return ageMs > OLD_MS ? 'old' : 'fresh';
}

/**
 * The difference of two clocks is the least difference seen between the time in a state and the time of its
 * arrival: that state travelled fastest. So a node that repeats an old state is found out, and a browser whose clock
 * is wrong is not.
 */
export class ClockOffset {
  #node = '';
  #samples: number[] = [];

  sample(node: string, at: number, arrivedAt: number): void {
    if (node !== this.#node) {
      this.#node = node;
      this.#samples = [];
    }
    this.#samples.push(arrivedAt - at);
    if (this.#samples.length > SAMPLES) this.#samples.shift();
  }

  /** The node's time at a time of the browser. */
  nodeTime(browserTime: number): number {
    return this.#samples.length === 0 ? browserTime : browserTime - Math.min(...this.#samples);
  }

  ageMs(at: number, browserTime: number): number {
    return Math.max(0, this.nodeTime(browserTime) - at);
  }
}

/** When each node reported last, by the browser's clock: the times in reports are of each node's own clock. */
export class NodeReports {
  #seen = new Map<string, { at: number; arrivedAt: number }>();

  sample(nodes: readonly { name: string; at: number }[], arrivedAt: number): void {
    const names = new Set(nodes.map((node) => node.name));
    for (const name of this.#seen.keys()) if (!names.has(name)) this.#seen.delete(name);
    for (const { name, at } of nodes) {
      if (this.#seen.get(name)?.at !== at) this.#seen.set(name, { at, arrivedAt });
    }
  }

  silentMs(name: string, browserTime: number): number {
    const seen = this.#seen.get(name);
    return seen ? Math.max(0, browserTime - seen.arrivedAt) : 0;
  }
}
