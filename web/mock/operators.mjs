import { randomUUID } from 'node:crypto';
import { Refusal } from './calls.mjs';

/** Operators of the mock: `ada` may act, `vera` may look. */
export const OPERATORS = [
  { name: 'ada', secret: 'ada-secret', scope: 'act' },
  { name: 'vera', secret: 'vera-secret', scope: 'view' },
];

export class Tokens {
  #issued = new Map();

  constructor(seconds) {
    this.seconds = seconds;
  }

  issue(name, secret) {
    const operator = OPERATORS.find((each) => each.name === name && each.secret === secret);
    if (!operator) throw new Refusal(401, 'unauthorized', 'wrong name or secret');
    const token = randomUUID();
    const endsAt = Date.now() + this.seconds * 1000;
    this.#issued.set(token, { ...operator, endsAt });
    return { token, scope: operator.scope, ends_at: endsAt };
  }

  check(token) {
    const operator = this.#issued.get(token);
    return operator && operator.endsAt > Date.now() ? operator : undefined;
  }
}

export class Acts {
  #acts = [];
  #acted;

  /** `acted` is called with each act. */
  constructor(acted = () => {}) {
    this.#acted = acted;
    const kinds = ['override_set', 'override_measured', 'override_ended', 'config_changed', 'name_shown'];
    for (let index = 0; index < 130; index += 1) {
      const what = index === 0 ? 'operator_added' : kinds[index % kinds.length];
      const isMeasured = what === 'override_measured';
      this.add({
        at: Date.now() - (130 - index) * 2_700_000,
        by: index === 0 ? 'local' : isMeasured ? 'madang' : ['ada', 'mina', 'joon'][index % 3],
        from: index === 0 || isMeasured ? '' : `10.0.3.${10 + (index % 7)}`,
        what,
        ...(what.startsWith('override') ? { channel_id: `26973736796160010${1 + (index % 7)}` } : {}),
        ...(what === 'name_shown' ? { channel_id: '269737367961600105' } : {}),
        change: {
          operator_added: 'ada, scope act',
          config_changed: 'heat.pacing.hot.batch_ms: 400 → 500',
          override_set: 'level blazing for 60 minutes; before: none',
          override_ended: 'level blazing, 22 minutes before its end',
          override_measured: measured([31_000, 12_000, 11_640]),
          name_shown: 'group',
        }[what],
        why: isMeasured
          ? ''
          : [
              'Encore begins, p99 of bystanders at 40 ms',
              'OPS-398: crowd has left, back to the meter',
              'Agreed in the weekly review',
            ][index % 3],
      });
    }
  }

  add(given) {
    const act = { seq: this.#acts.length + 1, at: Date.now(), ...given };
    this.#acts.push(act);
    this.#acted(act);
  }

  addMeasured(id, frames) {
    const act = { what: 'override_measured', channel_id: id, change: measured(frames), why: '' };
    this.add({ by: 'madang', from: '', ...act });
  }

  page({ before, limit }) {
    const most = Math.min(100, Math.max(1, Number(limit ?? 50)));
    const older = this.#acts.filter((act) => before === undefined || act.seq < Number(before)).reverse();
    const items = older.slice(0, most);
    return { items, ...(older.length > most ? { next: String(items.at(-1).seq) } : {}) };
  }
}

/** What a forecast said, and what came. */
function measured(frames) {
  const [before, forecast, came] = frames.map(Math.round);
  return `frames a minute: ${before} before, ${forecast} forecast, ${came} came`;
}
