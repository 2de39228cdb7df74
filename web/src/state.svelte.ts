// The objects of the page. Each is a class that tests make for themselves; this is the one set that the page uses.

import { AlertSearch } from './alerts/search.svelte';
import { AuditLog } from './audit/log.svelte';
import { ChannelList } from './channels/list.svelte';
import { ConfigDraft } from './config/draft.svelte';
import { Calls } from './contract/calls';
import { Notices } from './frame/notices.svelte';
import { Theme } from './frame/theme.svelte';
import { Feed } from './live/feed.svelte';
import { Pages } from './live/pages.svelte';
import { Session } from './live/session.svelte';
import { Ticker } from './live/ticker.svelte';
import { Route } from './route.svelte';
import { Speech } from './words/speech.svelte';

function liveAddress(): string {
  const address = new URL('/v1/operator/live', location.href);
  address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
  return address.href;
}

export const ticker = new Ticker();
export const session = new Session(ticker);
export const calls = new Calls(session);
export const feed = new Feed(session, calls, liveAddress);
export const speech = new Speech();
export const route = new Route();
export const theme = new Theme();
export const notices = new Notices();
export const channels = new ChannelList();
export const config = new ConfigDraft(calls);
export const audit = new AuditLog(calls);
export const alerts = new AlertSearch(calls);
export const letters = new Pages((after) => calls.deadLetters(after));

/** The present time by the clock of the answering node: times in boards are of that clock. */
export function nodeTime(): number {
  return feed.board === null ? ticker.now : feed.offset.nodeTime(ticker.now);
}

export async function signIn(name: string, secret: string): Promise<void> {
  const isFirst = !session.isSignedIn;
  await session.signIn(calls, name, secret);
  if (isFirst) feed.start();
  else feed.tokenChanged();
}

export function signOut(): void {
  feed.stop();
  session.signOut();
  config.forget();
  audit.forget();
  alerts.forget();
  letters.forget();
}
