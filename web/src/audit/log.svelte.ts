import type { Calls } from '../contract/calls';
import type { Act } from '../contract/types';
import { Pages } from '../live/pages.svelte';

const PAGE = 50;
const EXPORT_PAGE = 100;
/** An export ends here: the file stays below a few megabytes. */
const EXPORT_MOST = 10_000;

/** What operators did, the newest first. */
export class AuditLog extends Pages<Act> {
  constructor(private readonly calls: Calls) {
    super((before) => calls.acts(PAGE, before));
  }

  /** All acts as JSON lines, the newest first. */
  async jsonLines(progress: (count: number) => void): Promise<string> {
    const lines: string[] = [];
    let before: string | undefined;
    do {
      const page = await this.calls.acts(EXPORT_PAGE, before);
      lines.push(...page.items.map((act) => JSON.stringify(act)));
      before = page.next;
      progress(lines.length);
    } while (before !== undefined && lines.length < EXPORT_MOST);
    return lines.map((line) => `${line}\n`).join('');
  }
}
