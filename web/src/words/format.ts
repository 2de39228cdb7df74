// Numbers, times and durations in the reader's language. Formatters are kept: the board formats hundreds of numbers
// a second, and making a formatter is slow.

type Options = Intl.NumberFormatOptions;

export class Format {
  #numbers = new Map<string, Intl.NumberFormat>();
  #dates = new Map<string, Intl.DateTimeFormat>();

  constructor(readonly locale: string) {}

  /** Whole numbers, with separators. */
  count(value: number): string {
    return this.#number(value, { maximumFractionDigits: 0 });
  }

  /** Three digits of meaning: 12,345 is 12.3K. */
  short(value: number): string {
    if (Math.abs(value) < 10_000) return this.count(value);
    return this.#number(value, { notation: 'compact', maximumSignificantDigits: 3 });
  }

  decimal(value: number): string {
    return this.#number(value, { maximumFractionDigits: 3 });
  }

  percent(share: number): string {
    return this.#number(share, { style: 'percent', maximumFractionDigits: share < 0.1 ? 1 : 0 });
  }

  bytes(value: number): string {
    return this.#bytes(value, '');
  }

  bytesPerSecond(value: number): string {
    return this.#bytes(value, '-per-second');
  }

  ms(value: number): string {
    if (value >= 10_000) return this.#unit(value / 1000, 'second', 0);
    return this.#unit(value, 'millisecond', value < 10 ? 1 : 0, value > 0 && value < 10 ? 1 : 0);
  }

  /** Two quantiles with one unit: 56 / 124 ms. */
  msPair({ p50, p99 }: { p50: number; p99: number }): string {
    if (p99 >= 10_000) return `${this.ms(p50)} / ${this.ms(p99)}`;
    const digits = p50 < 10 ? 1 : 0;
    return `${this.#number(p50, { maximumFractionDigits: digits })} / ${this.ms(p99)}`;
  }

  seconds(value: number): string {
    return this.#unit(value, 'second', 0);
  }

  /** The two greatest units: 45 s, 3 min 20 s, 2 h 5 min, 3 days 4 h. */
  duration(ms: number): string {
    const seconds = Math.max(0, Math.floor(ms / 1000));
    const parts: [number, string][] = [
      [Math.floor(seconds / 86_400), 'day'],
      [Math.floor(seconds / 3_600) % 24, 'hour'],
      [Math.floor(seconds / 60) % 60, 'minute'],
      [seconds % 60, 'second'],
    ];
    const first = parts.findIndex(([amount]) => amount > 0);
    if (first < 0) return this.#unit(0, 'second', 0);
    return parts
      .slice(first, first + 2)
      .filter(([amount]) => amount > 0)
      .map(([amount, unit]) => this.#unit(amount, unit, 0))
      .join(' ');
  }

  /** The greatest unit only, for places where a second unit would distract. */
  roughly(ms: number): string {
    const seconds = Math.max(0, Math.round(ms / 1000));
    if (seconds < 60) return this.#unit(seconds, 'second', 0);
    if (seconds < 3_600) return this.#unit(Math.round(seconds / 60), 'minute', 0);
    if (seconds < 86_400) return this.#unit(Math.round(seconds / 3_600), 'hour', 0);
    return this.#unit(Math.round(seconds / 86_400), 'day', 0);
  }

  minutes(value: number): string {
    return value % 60 === 0 ? this.#unit(value / 60, 'hour', 0) : this.#unit(value, 'minute', 0);
  }

  clock(at: number): string {
    return this.#date(at, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
  }

  clockWithSeconds(at: number): string {
    return this.#date(at, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
  }

  dateTime(at: number): string {
    return this.#date(at, {
      month: 'short',
      day: 'numeric',
      hour: '2-digit',
      minute: '2-digit',
      second: '2-digit',
      hourCycle: 'h23',
    });
  }

  #bytes(value: number, per: string): string {
    if (value < 1_000_000) return this.#unit(value / 1_000, `kilobyte${per}`, 1);
    if (value < 1_000_000_000) return this.#unit(value / 1_000_000, `megabyte${per}`, 1);
    return this.#unit(value / 1_000_000_000, `gigabyte${per}`, 1);
  }

  #unit(value: number, unit: string, digits: number, least = 0): string {
    return this.#number(value, {
      style: 'unit',
      unit,
      unitDisplay: 'short',
      minimumFractionDigits: least,
      maximumFractionDigits: value >= 100 ? 0 : digits,
    });
  }

  #number(value: number, options: Options): string {
    const key = JSON.stringify(options);
    let format = this.#numbers.get(key);
    if (format === undefined) {
      format = new Intl.NumberFormat(this.locale, options);
      this.#numbers.set(key, format);
    }
    return format.format(value);
  }

  #date(at: number, options: Intl.DateTimeFormatOptions): string {
    const key = JSON.stringify(options);
    let format = this.#dates.get(key);
    if (format === undefined) {
      format = new Intl.DateTimeFormat(this.locale, options);
      this.#dates.set(key, format);
    }
    return format.format(at);
  }
}
