import type { AlertNote } from '../contract/types';
import type { Words } from './en';

/** What happened about an alert, in words. */
export function noteText({ outcome, detail }: AlertNote, { alerts }: Words): string {
  if (outcome === 'dropped') return alerts.dropped(alerts.reasons[detail] ?? detail);
  return alerts.outcomes[outcome] ?? alerts.later(outcome);
}
