// The operators' calls over REST.

import {
  parseActs,
  parseAlerts,
  parseAnswer,
  parseBoard,
  parseConfig,
  parseCount,
  parseDetail,
  parseLetters,
  parseName,
  parseToken,
} from './parse';
import type {
  Act,
  AlertHistory,
  AlertQuestion,
  Board,
  ConfigTree,
  DeadLetter,
  HotDetail,
  OperatorConfig,
  OperatorToken,
  OverrideAnswer,
  OverrideWish,
  Page,
  SendAgain,
  ShownName,
} from './types';

const DEADLINE_MS = 15_000;

/** The answer to a call was an error, or there was no answer: then `status` is 0 and `code` is `unreachable`. */
export class CallError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly field?: string,
    readonly retryAfterMs?: number,
  ) {
    super(message);
  }
}

export interface Holder {
  /** The token in use, or nothing. */
  readonly token: string | null;
  /** Called when the server refuses the token. */
  refused(token: string): void;
}

export interface TokenAnswer {
  token: OperatorToken;
  /** The server's clock, from the `Date` header; the browser's clock may be wrong. */
  serverTime: number;
}

export interface ConfigAnswer extends OperatorConfig {
  etag: string;
}

export class Calls {
  constructor(
    private readonly holder: Holder,
    private readonly fetch: typeof globalThis.fetch = (...args) => globalThis.fetch(...args),
  ) {}

  async token(name: string, secret: string): Promise<TokenAnswer> {
    const response = await this.request('POST', 'token', { body: { name, secret }, isOpen: true });
    const date = Date.parse(response.headers.get('date') ?? '');
    const token = parseToken(await json(response));
    return { token, serverTime: Number.isNaN(date) ? Date.now() : date };
  }

  async board(): Promise<Board> {
    return parseBoard(await json(await this.request('GET', 'board')));
  }

  async channel(id: string): Promise<HotDetail> {
    return parseDetail(await json(await this.request('GET', `channels/${encodeURIComponent(id)}`)));
  }

  async setOverride(id: string, body: OverrideWish): Promise<OverrideAnswer> {
    const response = await this.request('PUT', `channels/${encodeURIComponent(id)}/override`, { body });
    return parseAnswer(await json(response));
  }

  async endOverride(id: string, why: string): Promise<void> {
    await this.request('DELETE', `channels/${encodeURIComponent(id)}/override`, { body: { why } });
  }

  /** The name of a channel that the board does not show. It is an act: the reason is recorded. */
  async showName(id: string, why: string): Promise<ShownName> {
    const path = `channels/${encodeURIComponent(id)}/name`;
    return parseName(await json(await this.request('POST', path, { body: { why } })));
  }

  async alerts(question: AlertQuestion): Promise<AlertHistory> {
    return parseAlerts(await json(await this.request('GET', `alerts?${query({ ...question })}`)));
  }

  /** Alerts that were given up, the oldest first. */
  async deadLetters(after?: string): Promise<Page<DeadLetter>> {
    return parseLetters(await json(await this.request('GET', `dead-letters?${query({ after })}`)));
  }

  /** How many alerts are sent again; of a dry run, how many would be. */
  async sendAgain(body: SendAgain): Promise<number> {
    return parseCount(await json(await this.request('POST', 'dead-letters', { body })));
  }

  async config(): Promise<ConfigAnswer> {
    return tagged(await this.request('GET', 'config'));
  }

  async changeConfig(etag: string, config: ConfigTree, why: string): Promise<ConfigAnswer> {
    return tagged(await this.request('PUT', 'config', { body: { config, why }, etag }));
  }

  async acts(limit: number, before?: string): Promise<Page<Act>> {
    return parseActs(await json(await this.request('GET', `acts?${query({ limit: `${limit}`, before })}`)));
  }

  private async request(
    method: string,
    path: string,
    how: { body?: unknown; etag?: string; isOpen?: boolean } = {},
  ): Promise<Response> {
    const token = how.isOpen ? null : this.holder.token;
    if (token === null && !how.isOpen) throw new CallError(401, 'unauthorized', 'no token');
    const headers: Record<string, string> = {};
    if (token !== null) headers['authorization'] = `Bearer ${token}`;
    if (how.body !== undefined) headers['content-type'] = 'application/json';
    if (how.etag !== undefined) headers['if-match'] = how.etag;
    let response: Response;
    try {
      response = await this.fetch(`/v1/operator/${path}`, {
        method,
        headers,
        body: how.body === undefined ? null : JSON.stringify(how.body),
        cache: 'no-store',
        credentials: 'omit',
        signal: AbortSignal.timeout(DEADLINE_MS),
      });
    } catch (cause) {
      throw new CallError(0, 'unreachable', cause instanceof Error ? cause.message : String(cause));
    }
    if (response.ok) return response;
    const error = await failure(response);
    if (error.status === 401 && token !== null) this.holder.refused(token);
    throw error;
  }
}

function query(fields: Record<string, string | undefined>): URLSearchParams {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) if (value !== undefined) query.set(name, value);
  return query;
}

async function tagged(response: Response): Promise<ConfigAnswer> {
  const config = parseConfig(await json(response));
  return { ...config, etag: response.headers.get('etag') ?? `"${config.version}"` };
}

async function json(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch {
    throw new CallError(response.status, 'not_json', 'the answer is not JSON');
  }
}

async function failure(response: Response): Promise<CallError> {
  const body: unknown = await response.json().catch(() => null);
  const fields = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>;
  const word = (name: string) => (typeof fields[name] === 'string' ? fields[name] : undefined);
  const wait = fields['retry_after_ms'];
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
  return new CallError(
    response.status,
    word('code') ?? `status_${response.status}`,
    word('message') ?? response.statusText,
    word('field'),
    typeof wait === 'number' ? wait : Number.isFinite(seconds) ? seconds * 1000 : undefined,
  );
}
