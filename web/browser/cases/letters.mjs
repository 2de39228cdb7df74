import assert from 'node:assert/strict';
import { goTo, signIn } from '../chromium.mjs';

const OPEN = '.dialog[open]';
const ROW = '.letters-table tbody tr';
const WHY = 'a browser test of dead letters';

async function count({ server, act }) {
  const body = { why: '', dry_run: true };
  return (await (await server.call(act, 'POST', 'dead-letters', { body })).json()).count;
}

async function openPush({ open }, who) {
  const page = await open();
  await signIn(page, who);
  await goTo(page, 'push');
  return page;
}

async function send(page) {
  await page.fill(`${OPEN} textarea`, 'too short');
  assert.equal(await page.locator(`${OPEN} button[name="send"]`).isEnabled(), false);
  await page.fill(`${OPEN} textarea`, WHY);
  await page.click(`${OPEN} button[name="send"]`);
}

export async function aViewerSeesDeadLettersAndCannotSendThem(given) {
  const { server, view } = given;
  if (!view.name) return 'needs --view-name and --view-secret';
  const refused = await server.call(view, 'POST', 'dead-letters', { body: { why: WHY } });
  assert.deepEqual([refused.status, (await refused.json()).code], [403, 'forbidden']);
  if ((await count(given)) === 0) return 'the rest needs the dead letters of the mock';
  const page = await openPush(given, view);
  await page.waitForSelector(ROW);
  assert.equal(await page.locator('main button[name^="send"]').count(), 0);
}

export async function deadLettersAreSentAgain(given) {
  const all = await count(given);
  const page = await openPush(given, given.act);
  const none = 'main .empty:has-text("No alert was given up")';
  if (all === 0) {
    await page.waitForSelector(none);
    return 'the rest needs the dead letters of the mock';
  }
  await page.waitForSelector(`${ROW}:has-text("BadTopic")`);
  const shown = await page.locator(ROW).count();
  await page.click('button[name="more"]');
  await page.waitForFunction(([rows, shown]) => document.querySelectorAll(rows).length > shown, [ROW, shown]);

  await page.click('button[name="send-one"] >> nth=0');
  await send(page);
  await page.waitForSelector('.notice:has-text("1 alert waits")');
  await page.waitForSelector('h2:has-text("given up"):focus');
  assert.equal(await count(given), all - 1);

  await page.click('button[name="send-all"]');
  await page.waitForSelector(`${OPEN} p:has-text("${all - 1} alerts go back into the queue")`);
  await send(page);
  await page.waitForSelector(none);
  assert.equal(await page.locator('button[name="send-all"]').count(), 0);
  await goTo(page, 'audit');
  await page.waitForSelector(`.acts-table tbody tr:has-text("alerts sent again"):has-text("${WHY}")`);
}

export async function aDeadLetterThatIsGoneIsSaid(given) {
  const letter = { id: '9', user_id: '7', channel_id: '8', at: 1_800_000_000_000, first_seq: 3, last_seq: 4 };
  const page = await given.open();
  await page.route(/operator\/dead-letters/, (route) =>
    route.request().method() === 'GET'
      ? route.fulfill({ json: { items: [{ ...letter, outcome: 'melted', detail: '' }] } })
      : route.continue(),
  );
  await signIn(page, given.act);
  await goTo(page, 'push');
  await page.waitForSelector(`${ROW}:has-text("for the messages 3 to 4"):has-text("melted")`);
  await page.click('button[name="send-one"]');
  await send(page);
  await page.waitForSelector(`${OPEN} .problem:has-text("no longer given up")`);
  await page.keyboard.press('Escape');
  await page.unrouteAll();
  await page.route(/operator\/dead-letters/, (route) =>
    route.fulfill({ status: 503, json: { code: 'unavailable', message: 'not now' } }),
  );
  await page.click('button[name="send-all"]');
  await page.waitForSelector('main > .problem:has-text("cannot do this now")');
}
