// Alerts that were given up: some were refused by a push service, most were not taken within their time.

const COUNT = 60;
const PAGE = 25;

export class Letters {
  #letters = Array.from({ length: COUNT }, (_, index) => letter(index));

  page({ after = '0' }) {
    const later = this.#letters.filter(({ id }) => BigInt(id) > BigInt(after));
    const items = later.slice(0, PAGE);
    return { items, ...(later.length > PAGE ? { next: items.at(-1).id } : {}) };
  }

  /** The one with this id, or all. */
  found(id) {
    return this.#letters.filter((each) => id === undefined || each.id === id);
  }

  remove(letters) {
    this.#letters = this.#letters.filter((each) => !letters.includes(each));
  }
}

function letter(index) {
  const isRefused = index % 4 === 1;
  const last = 300 + index;
  return {
    id: `2697373679618${10_000 + index * 11}`,
    user_id: `26973736796170${1000 + (index % 9) * 37}`,
    channel_id: `26973736796160010${1 + (index % 8)}`,
    at: Date.now() - (COUNT - index) * 5_400_000,
    first_seq: last - (index % 3),
    last_seq: last,
    device_id: `26973736796160070${1 + (index % 3)}`,
    outcome: isRefused ? 'refused' : 'expired',
    detail: isRefused ? '400 {"reason":"BadTopic"}' : '503 {"reason":"ServiceUnavailable"}',
  };
}
