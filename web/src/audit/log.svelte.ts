import type { Calls } from '../contract/calls';
import type { Act } from '../contract/types';

const PAGE = 50;
const EXPORT_PAGE = 100;
/** An export ends here: the file stays below a few megabytes. */
const EXPORT_MOST = 10_000;

/** What operators did, the newest first, loaded page by page. */
export class AuditLog {
  acts = $state.raw<Act[]>([]);
  next = $state<number | undefined>(undefined);
  isLoaded = $state(false);
  isBusy = $state(false);

  constructor(private readonly calls: Calls) {}

  async refresh(): Promise<void> {
    await this.#busy(async () => {
      const page = await this.calls.acts(PAGE);
      this.acts = page.items;
      this.next = page.next;
      this.isLoaded = true;
    });
  }

  async older(): Promise<void> {
    const before = this.next;
    if (before === undefined) return;
    await this.#busy(async () => {
      const page = await this.calls.acts(PAGE, before);
      this.acts = [...this.acts, ...page.items];
      this.next = page.next;
    });
  }

  /** All acts as JSON lines, the newest first. */
  async jsonLines(progress: (count: number) => void): Promise<string> {
    const lines: string[] = [];
    let before: number | undefined;
    do {
      const page = await this.calls.acts(EXPORT_PAGE, before);
      lines.push(...page.items.map((act) => JSON.stringify(act)));
      before = page.next;
      progress(lines.length);
    } while (before !== undefined && lines.length < EXPORT_MOST);
    return lines.map((line) => `${line}\n`).join('');
  }

  forget(): void {
    this.acts = [];
    this.next = undefined;
    this.isLoaded = false;
  }

  async #busy(work: () => Promise<void>): Promise<void> {
    this.isBusy = true;
    try {
      await work();
    } finally {
      this.isBusy = false;
    }
  }
}
