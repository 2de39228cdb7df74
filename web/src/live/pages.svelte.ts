import type { Page } from '../contract/types';

/** A list of the server that is loaded page by page. */
export class Pages<Item> {
  items = $state.raw<Item[]>([]);
  next = $state<string | undefined>(undefined);
  isLoaded = $state(false);
  isBusy = $state(false);

  constructor(private readonly load: (next?: string) => Promise<Page<Item>>) {}

  async refresh(): Promise<void> {
    await this.#show([]);
  }

  async more(): Promise<void> {
    if (this.next !== undefined) await this.#show(this.items, this.next);
  }

  forget(): void {
    this.items = [];
    this.next = undefined;
    this.isLoaded = false;
  }

  async #show(before: readonly Item[], from?: string): Promise<void> {
    this.isBusy = true;
    try {
      const page = await this.load(from);
      this.items = [...before, ...page.items];
      this.next = page.next;
      this.isLoaded = true;
    } finally {
      this.isBusy = false;
    }
  }
}
