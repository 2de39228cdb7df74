import { CallError } from '../contract/calls';
import type { Words } from './en';
import type { Format } from './format';

/** What a failed call means for the operator. */
export function errorText(error: unknown, words: Words, format: Format): string {
  const said = words.errors;
  if (!(error instanceof CallError)) {
    return said.other('page', error instanceof Error ? error.message : String(error));
  }
  switch (error.code) {
    case 'unreachable':
      return said.unreachable;
    case 'unauthorized':
      return said.unauthorized;
    case 'forbidden':
      return said.forbidden;
    case 'limited':
      return said.limited(format.roughly(error.retryAfterMs ?? 1_000));
    case 'unavailable':
      return said.unavailable;
    case 'not_found':
      return said.not_found;
    case 'invalid':
      return said.invalid(error.field ?? 'body', error.message);
    default:
      return said.other(error.code, error.message);
  }
}
