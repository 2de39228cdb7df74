// Shows the alerts of Madang. docs/push.md describes what arrives.
//
// Safari 18.4 and later show an alert by themselves (declarative Web Push) and do not run the handler of `push`.

// A newer version of this file replaces the one that runs at once, and serves the pages that are open.
self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));

// The browser may end the worker as soon as the promise of `waitUntil` has settled.
self.addEventListener('push', (event) => event.waitUntil(receive(event.data)));

async function receive(body) {
  const { title, body: text, tag, navigate, app_badge, data } = parse(body);
  // Always, and first: a browser that sees pushes without notifications shows a text of its own, or ends the subscription.
  await self.registration.showNotification(title, {
    body: text,
    // A notification with the tag of an earlier one takes its place. The tag stands for the channel.
    tag,
    // Without it the replacement makes no sound. With it and without a tag `showNotification` throws.
    renotify: Boolean(tag),
    data: { ...data, navigate },
  });
  await Promise.allSettled([closeRead(data.read ?? {}), setBadge(app_badge)]);
}

function parse(body) {
  try {
    const { notification } = body.json();
    return { ...notification, data: notification.data ?? {} };
  } catch {
    return { title: 'New message', data: {} };
  }
}

/** Closes notifications of messages that were read on another device. `read` has the last read message of each channel. */
async function closeRead(read) {
  for (const shown of await self.registration.getNotifications()) {
    const { channel_id, seq } = shown.data ?? {};
    if (Object.hasOwn(read, channel_id) && seq <= read[channel_id]) shown.close();
  }
}

/** The badge counts unread messages. Not every browser has one; 0 removes it. */
async function setBadge(text) {
  const count = Number(text);
  if (text !== undefined && Number.isInteger(count)) await self.navigator.setAppBadge?.(count);
}

self.addEventListener('notificationclick', (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data?.navigate));
});

async function open(navigate) {
  // `navigate` is push.link of the server.
  const url = new URL(navigate ?? './', self.registration.scope);
  const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
  const page = pages.find((page) => page.url.startsWith(self.registration.scope));
  if (page && url.href.startsWith(self.registration.scope)) {
    await page.focus();
    page.postMessage({ type: 'open', url: url.href });
  } else {
    await self.clients.openWindow(url.href);
  }
}

// The push service has given another endpoint. The worker has no token to register it with: a page does so, now or when it is
// opened next. Until then there are no alerts.
self.addEventListener('pushsubscriptionchange', (event) => event.waitUntil(renew(event)));

async function renew({ oldSubscription, newSubscription }) {
  // Some browsers bring neither. Then the page subscribes.
  if (!newSubscription && oldSubscription) await self.registration.pushManager.subscribe(oldSubscription.options);
  const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
  pages.forEach((page) => page.postMessage({ type: 'subscription_changed' }));
}
