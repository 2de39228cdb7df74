// What an operator asks about an alert: the checks of the page. The server checks again.

import type { AlertQuestion } from '../contract/types';
import { isChannelId } from '../route.svelte';

export const FIELDS = ['handle', 'channel_id', 'seq'] as const;
export type QuestionField = (typeof FIELDS)[number];

/** What is wrong with a field: it is empty, it has another form, or the server says so. */
export type Wrong = 'empty' | 'malformed' | 'missing';

export const EMPTY: AlertQuestion = { handle: '', channel_id: '', seq: '' };

const HANDLE = /^[a-z0-9_.-]{2,32}$/;
const SEQ = /^[1-9][0-9]{0,15}$/;

/** The question as it is sent: people copy handles with a sign before them, and ids with spaces. */
export function trimmed({ handle, channel_id, seq }: AlertQuestion): AlertQuestion {
  return {
    handle: handle.trim().replace(/^@/, '').toLowerCase(),
    channel_id: channel_id.trim(),
    seq: seq.trim().replace(/^#/, ''),
  };
}

export function wrongFields(question: AlertQuestion): Partial<Record<QuestionField, Wrong>> {
  const isGood = {
    handle: HANDLE.test(question.handle),
    channel_id: isChannelId(question.channel_id),
    seq: SEQ.test(question.seq),
  };
  const bad = FIELDS.filter((field) => !isGood[field]);
  return Object.fromEntries(bad.map((field) => [field, question[field] === '' ? 'empty' : 'malformed']));
}

/** The field that an error of the server names, also as `query.seq`. */
export function fieldOf(name: string | undefined): QuestionField | undefined {
  const last = name?.split('.').at(-1);
  return FIELDS.find((field) => field === last);
}
