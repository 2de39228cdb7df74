// A page that gets alerts of Madang. The service worker beside it, sw.js, shows them.

const field = (id) => document.getElementById(id);

// A real app keeps its tokens in one place that all of its tabs share, and refreshes them before they expire.
const saved = {
  get: () => JSON.parse(localStorage.getItem('madang') ?? '{}'),
  put: (changes) => localStorage.setItem('madang', JSON.stringify({ ...saved.get(), ...changes })),
};

function log(title, value) {
  const text = value === undefined ? '' : ` ${typeof value === 'string' ? value : JSON.stringify(value, null, 2)}`;
  field('log').textContent = `${new Date().toLocaleTimeString()} ${title}${text}\n${field('log').textContent}`;
}

// ---- The server ----

class Refused extends Error {
  constructor(status, body) {
    super(body?.message ?? `status ${status}`);
    this.status = status;
    this.code = body?.code;
  }
}

async function request(server, method, path, body, token) {
  const headers = { 'Content-Type': 'application/json' };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(server + path, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  const json = text ? JSON.parse(text) : undefined;
  if (!answer.ok) throw new Refused(answer.status, json);
  return json;
}

/** A call with the token of this device. An access token is valid for minutes; a refused one is replaced once. */
async function call(method, path, body) {
  const { server, access_token, refresh_token } = saved.get();
  try {
    return await request(server, method, path, body, access_token);
  } catch (refused) {
    if (refused.code === 'revoked') forgetTokens();
    if (refused.code !== 'unauthorized') throw refused;
  }
  const renewed = await request(server, 'POST', '/v1/tokens', { refresh_token });
  // A refresh token can be used once, so the new one is stored before anything else.
  saved.put({ access_token: renewed.access_token, refresh_token: renewed.refresh_token });
  return request(server, method, path, body, renewed.access_token);
}

function forgetTokens() {
  saved.put({ access_token: undefined, refresh_token: undefined, device_id: undefined, wants_alerts: false });
}

async function signIn(form) {
  const { server: address, handle, password } = Object.fromEntries(new FormData(form));
  const server = address.replace(/\/+$/, '');
  const before = saved.get();
  const login = { handle, password, device_name: 'push example' };
  // The same device again, if this user has signed in here before: otherwise each sign-in would be a further device.
  if (before.server === server && before.handle === handle) login.device_id = before.device_id;
  const { user, device_id, access_token, refresh_token } = await request(server, 'POST', '/v1/sessions', login);
  saved.put({ server, handle: user.handle, device_id, access_token, refresh_token });
  log('signed in on device', device_id);
}

// ---- The subscription ----

/** What this browser lacks; undefined if it lacks nothing. */
function missing() {
  // Only pages over https and on localhost have service workers.
  if (!isSecureContext) return 'this page must be served over https, or from localhost';
  if (!('serviceWorker' in navigator)) return 'this browser has no service workers (or the window is private)';
  // In Safari on iOS these two exist only in a page that was opened from the home screen.
  if (!('Notification' in window) || !('PushManager' in window)) {
    return 'this browser has no push; on iOS add the page to the home screen and open it there';
  }
  if (Notification.permission === 'denied') return 'the user has denied notifications: allow them in the settings of the page';
  if (!saved.get().access_token) return 'nobody is signed in';
  return undefined;
}

const bytes = (base64url) =>
  Uint8Array.from(atob(base64url.replace(/-/g, '+').replace(/_/g, '/')), (char) => char.charCodeAt(0));
const isSame = (one, other) => one.length === other.length && one.every((byte, index) => byte === other[index]);

/** The subscription of this browser with the present key of the server. */
async function subscription(key) {
  const { pushManager } = await navigator.serviceWorker.ready;
  const found = await pushManager.getSubscription();
  if (found && isSame(new Uint8Array(found.options.applicationServerKey ?? []), key)) return found;
  // `subscribe` with another key than before is an error, so the old subscription has to go first.
  await found?.unsubscribe();
  // Without `userVisibleOnly: true` Chrome and Safari refuse. It is the promise that each push shows something.
  return pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
}

/** Registers the subscription at the server. Repeating it is harmless. */
async function register() {
  const info = await call('GET', '/v1/push');
  if (!info.providers.includes('web_push')) throw new Error('this server sends no alerts to browsers: [push.web_push] contact');
  const { endpoint, keys } = (await subscription(bytes(info.vapid_public_key))).toJSON();
  const { p256dh, auth } = keys;
  const registration = {
    provider: 'web_push', endpoint, keys: { p256dh, auth }, app_version: 'example-1', locale: navigator.language,
  };
  const registered = await call('PUT', '/v1/push/subscription', registration);
  saved.put({ wants_alerts: true });
  log('registered', registered);
}

async function registerAgain() {
  if (saved.get().wants_alerts && !missing() && Notification.permission === 'granted') await register();
}

async function stop() {
  saved.put({ wants_alerts: false });
  await call('DELETE', `/v1/push/subscriptions/${saved.get().device_id}`);
  const { pushManager } = await navigator.serviceWorker.ready;
  await (await pushManager.getSubscription())?.unsubscribe();
  log('stopped');
}

// ---- The page ----

async function showState() {
  const has = 'PushManager' in window && (await navigator.serviceWorker?.getRegistration());
  const found = has ? await has.pushManager.getSubscription() : null;
  const lines = [
    `Notification.permission: ${'Notification' in window ? Notification.permission : 'not available'}`,
    `signed in: ${saved.get().access_token ? saved.get().handle : 'no'}`,
    `subscription: ${found ? new URL(found.endpoint).origin : 'none'}`,
    `missing: ${missing() ?? 'nothing'}`,
  ];
  field('state').replaceChildren(...lines.map((line) => {
    const item = document.createElement('li');
    item.textContent = line;
    return item;
  }));
}

async function attempt(what, work) {
  try {
    await work();
  } catch (error) {
    log(`${what}:`, error.message);
  }
  await showState();
}

field('sign-in').addEventListener('submit', (event) => {
  event.preventDefault();
  attempt('sign in', async () => {
    await signIn(event.target);
    // The subscription may belong to another user: it moves to this one.
    await registerAgain();
  });
});

field('get').addEventListener('click', () => attempt('get alerts', async () => {
  // First of all: Safari and Firefox open the question only in the handler of a click.
  if ('Notification' in window) await Notification.requestPermission();
  const lacks = missing();
  if (lacks) throw new Error(lacks);
  await register();
}));

field('test').addEventListener('click', () => attempt('test', async () => {
  log('the push service has answered:', await call('POST', `/v1/push/subscriptions/${saved.get().device_id}/test`));
}));

field('stop').addEventListener('click', () => attempt('stop', stop));

navigator.serviceWorker?.addEventListener('message', ({ data }) => {
  if (data.type === 'open') log('a notification was clicked:', data.url);
  if (data.type === 'subscription_changed') attempt('register again', registerAgain);
});

await attempt('start', async () => {
  await navigator.serviceWorker?.register('sw.js');
  // At each start: an endpoint may have changed while the page was closed, and Safari never fires `pushsubscriptionchange`.
  // The server may also have removed or halted the subscription.
  await registerAgain();
});
