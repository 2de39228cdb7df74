// Addresses of the page: `#/channels`, `#/channels/ID`, `#/nodes`, …. Never a secret or a token in one.

export const TABS = ['channels', 'nodes', 'guarantees', 'push', 'alerts', 'configuration', 'audit'] as const;
export type Tab = (typeof TABS)[number];

export interface Place {
  tab: Tab;
  channelId?: string;
}

const ID = /^[1-9][0-9]{0,18}$/;

export function isChannelId(text: string): boolean {
  return ID.test(text);
}

export function placeOf(hash: string): Place {
  const [name, id] = hash.replace(/^#\/?/, '').split('/');
  const tab = TABS.find((known) => known === name) ?? 'channels';
  return tab === 'channels' && id !== undefined && isChannelId(id) ? { tab, channelId: id } : { tab };
}

export function hashOf(place: Place): string {
  return place.channelId === undefined ? `#/${place.tab}` : `#/${place.tab}/${place.channelId}`;
}

export class Route {
  place = $state.raw<Place>(placeOf(location.hash));

  start(): () => void {
    const moved = () => (this.place = placeOf(location.hash));
    window.addEventListener('hashchange', moved);
    return () => window.removeEventListener('hashchange', moved);
  }
}
