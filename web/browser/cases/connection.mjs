import assert from 'node:assert/strict';
import { signIn } from '../chromium.mjs';

const ROW = '.channels-table tbody tr';
const TOKEN_ENDED = 4401;

/** A network that the test can cut, and the sockets that are open. */
async function withNetwork(page) {
  const network = { isCut: false, sockets: new Set(), opened: 0 };
  await page.routeWebSocket(/operator\/live$/, (socket) => {
    if (network.isCut) return void socket.close({ code: 1011 });
    network.opened += 1;
    network.sockets.add(socket);
    const server = socket.connectToServer();
    socket.onClose((code) => {
      network.sockets.delete(socket);
      void server.close({ code: code === 1000 ? 1000 : 3000 });
    });
    server.onMessage((message) => socket.send(message));
    socket.onMessage((message) => server.send(message));
  });
  await page.route(/\/v1\/operator\//, (route) => (network.isCut ? route.abort() : route.continue()));
  await page.reload();
  return network;
}

async function closeAll(network, code) {
  for (const socket of network.sockets) await socket.close({ code });
  network.sockets.clear();
}

export async function theLastStateStaysWhenTheServerIsGone({ open, act }) {
  const page = await open();
  const network = await withNetwork(page);
  await signIn(page, act);
  await page.waitForSelector(ROW);
  network.isCut = true;
  await closeAll(network, 1011);
  await page.waitForSelector('.strip-gone');
  assert.match(await page.locator('.strip-gone').innerText(), /does not answer[^]*old/);
  assert.ok((await page.locator(ROW).count()) > 0, 'the rows stay');
  await page.waitForSelector('[data-term="age"].tone-faded');
  network.isCut = false;
  await page.click('.strip-gone .button');
  await page.waitForSelector('.strip-gone', { state: 'detached' });
  await page.waitForSelector('[data-term="age"].tone-good');
}

export async function aTokenThatEndsIsRenewedWithoutLosingTheState({ open, act }) {
  const page = await open();
  const network = await withNetwork(page);
  await signIn(page, act);
  await page.waitForSelector(ROW);
  await page.fill('input[type="search"]', 'a');
  await closeAll(network, TOKEN_ENDED);
  await page.waitForSelector('.strip-ask:has-text("has ended")');
  assert.ok((await page.locator(ROW).count()) > 0, 'the rows stay');
  await page.fill('.strip-ask input[name="secret"]', act.secret);
  await page.press('.strip-ask input[name="secret"]', 'Enter');
  await page.waitForSelector('.strip-ask', { state: 'detached' });
  await page.waitForSelector('[data-term="age"].tone-good');
  assert.equal(await page.inputValue('input[type="search"]'), 'a');
  assert.equal(network.opened, 2);
}

export async function theSecretIsAskedForBeforeTheEnd({ open, act }) {
  const page = await open();
  await page.route(/operator\/token$/, async (route) => {
    const response = await route.fetch();
    const token = await response.json();
    await route.fulfill({ response, json: { ...token, ends_at: Date.now() + 8_000 } });
  });
  await signIn(page, act);
  await page.waitForSelector('.strip-ask:has-text("ends in")');
  await page.waitForSelector('[data-term="age"].tone-good');
}

export async function aHiddenPageClosesItsSocket({ open, act }) {
  const page = await open();
  const network = await withNetwork(page);
  await signIn(page, act);
  await page.waitForSelector(ROW);
  const hide = (isHidden) =>
    page.evaluate((isHidden) => {
      Object.defineProperty(document, 'hidden', { value: isHidden, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, isHidden);
  const asked = page.waitForResponse(/operator\/board$/);
  await hide(true);
  assert.equal((await asked).status(), 200);
  await hide(false);
  await page.waitForFunction(() => document.querySelector('[data-term="age"]').matches('.tone-good'));
  assert.equal(network.opened, 2);
}
