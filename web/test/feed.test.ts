import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { CallError, type Calls } from '../src/contract/calls';
import { Feed } from '../src/live/feed.svelte';
import { Session } from '../src/live/session.svelte';

class FakeSocket {
  static all: FakeSocket[] = [];
  sent: string[] = [];
  onopen?: () => void;
  onmessage?: (message: { data: string }) => void;
  onclose?: (event: { code: number }) => void;

  constructor(
    readonly address: string,
    readonly subprotocol: string,
  ) {
    FakeSocket.all.push(this);
  }

  static get last(): FakeSocket {
    return FakeSocket.all.at(-1)!;
  }

  send(text: string): void {
    this.sent.push(text);
  }

  close(): void {}

  board(at: number): void {
    this.onmessage?.({ data: JSON.stringify({ at, node: 'n1' }) });
  }
}

let page: EventTarget & { hidden: boolean };
let answer: () => Promise<unknown>;

async function signedIn(): Promise<Feed & { renew: () => Promise<void> }> {
  const calls = {
    token: async () => ({
      token: { token: 't1', scope: 'act', ends_at: Date.now() + 900_000 },
      serverTime: Date.now(),
    }),
    board: () => answer(),
  } as unknown as Calls;
  const session = new Session({ now: 0 });
  await session.signIn(calls, 'ada', 'secret');
  const feed = new Feed(session, calls, () => 'ws://host/v1/operator/live');
  return Object.assign(feed, {
    renew: async () => {
      await session.signIn(calls, 'ada', 'secret');
      feed.tokenChanged();
    },
  });
}

beforeEach(() => {
  vi.useFakeTimers();
  page = Object.assign(new EventTarget(), { hidden: false });
  vi.stubGlobal('WebSocket', FakeSocket);
  vi.stubGlobal('document', page);
  vi.stubGlobal('window', new EventTarget());
  FakeSocket.all = [];
  answer = async () => {
    throw new CallError(0, 'unreachable', '');
  };
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe('the feed', () => {
  it('sends the token first, and shows boards', async () => {
    const feed = await signedIn();
    feed.start();
    FakeSocket.last.onopen?.();
    expect(FakeSocket.last.sent).toEqual(['{"token":"t1"}']);
    expect(FakeSocket.last.subprotocol).toBe('madang.operator.v1.json');
    FakeSocket.last.board(7);
    expect([feed.state, feed.board?.at]).toEqual(['live', 7]);
  });

  it('keeps the last board and tries again', async () => {
    const feed = await signedIn();
    feed.start();
    FakeSocket.last.board(7);
    FakeSocket.last.onclose?.({ code: 1006 });
    expect([feed.state, feed.board?.at]).toEqual(['waiting', 7]);
    await vi.advanceTimersByTimeAsync(500);
    expect(FakeSocket.all).toHaveLength(2);
    FakeSocket.last.board(8);
    expect([feed.state, feed.failures]).toEqual(['live', 0]);
  });

  it('asks by a request when sockets fail', async () => {
    const feed = await signedIn();
    feed.start();
    answer = async () => ({ at: 9, node: 'n1', nodes: [], channels: [], guarantees: [], push_processes: [] });
    FakeSocket.last.onclose?.({ code: 1006 });
    await vi.advanceTimersByTimeAsync(500);
    FakeSocket.last.onclose?.({ code: 1006 });
    await vi.advanceTimersByTimeAsync(0);
    expect(feed.board?.at).toBe(9);
  });

  it('drops what an older socket reports', async () => {
    const feed = await signedIn();
    feed.start();
    const old = FakeSocket.last;
    old.board(7);
    feed.retryNow();
    old.board(99);
    old.onclose?.({ code: 1006 });
    expect([feed.state, feed.board?.at]).toEqual(['connecting', 7]);
  });

  it('finds a socket that has become silent', async () => {
    const feed = await signedIn();
    feed.start();
    FakeSocket.last.board(7);
    await vi.advanceTimersByTimeAsync(12_000);
    expect(feed.state).toBe('waiting');
  });

  it('waits for a secret after 4401, and goes on with a new token', async () => {
    const feed = await signedIn();
    feed.start();
    FakeSocket.last.board(7);
    FakeSocket.last.onclose?.({ code: 4401 });
    expect([feed.state, feed.board?.at]).toEqual(['needs_token', 7]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeSocket.all).toHaveLength(1);
    await feed.renew();
    expect([feed.state, feed.board?.at]).toEqual(['connecting', 7]);
  });

  it('closes the socket of a hidden page and asks each 15 s', async () => {
    let asked = 0;
    answer = async () => {
      asked += 1;
      return { at: asked, node: 'n1', nodes: [], channels: [], guarantees: [], push_processes: [] };
    };
    const feed = await signedIn();
    feed.start();
    FakeSocket.last.board(7);
    page.hidden = true;
    page.dispatchEvent(new Event('visibilitychange'));
    await vi.advanceTimersByTimeAsync(30_000);
    expect([feed.state, asked]).toEqual(['hidden', 3]);
    page.hidden = false;
    page.dispatchEvent(new Event('visibilitychange'));
    expect([feed.state, FakeSocket.all.length]).toEqual(['connecting', 2]);
  });
});
