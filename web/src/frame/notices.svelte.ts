export interface Notice {
  id: number;
  text: string;
  isError: boolean;
}

const SHOWN_MS = 8_000;
const MOST = 3;

/** Short answers to what the operator did. Errors stay until they are dismissed. */
export class Notices {
  items = $state.raw<Notice[]>([]);
  #last = 0;

  say(text: string): void {
    const id = this.#add(text, false);
    setTimeout(() => this.dismiss(id), SHOWN_MS);
  }

  fail(text: string): void {
    if (!this.items.some((item) => item.text === text)) this.#add(text, true);
  }

  dismiss(id: number): void {
    this.items = this.items.filter((item) => item.id !== id);
  }

  #add(text: string, isError: boolean): number {
    this.#last += 1;
    this.items = [...this.items, { id: this.#last, text, isError }].slice(-MOST);
    return this.#last;
  }
}
