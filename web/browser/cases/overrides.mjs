import assert from 'node:assert/strict';
import { goTo, signIn } from '../chromium.mjs';

const ROW = '.channels-table tbody tr';
const OPEN = '.dialog[open]';
const WHY = 'a browser test of the operator’s board';

async function openChannel(page) {
  await page.waitForSelector(ROW);
  const id = await page.locator(ROW).first().getAttribute('data-channel');
  const name = (await page.locator(`${ROW} .cell-name a`).first().innerText()).trim();
  await page.locator(`${ROW} .cell-name a`).first().click();
  await page.waitForSelector('.chart');
  return { id, name };
}

const isEnabled = (page, name) => page.locator(`${OPEN} button[name="${name}"]`).isEnabled();

export async function anOverrideIsTriedSetShownAndEnded({ open, act, server }) {
  const page = await open();
  await signIn(page, act);
  const { id, name } = await openChannel(page);
  await page.click('.actions .buttons .button >> nth=0');
  await page.fill(`${OPEN} input[name="batch_ms"]`, '1001');
  await page.fill(`${OPEN} textarea`, WHY);
  assert.equal(await isEnabled(page, 'dry-run'), false, 'a value out of bounds');
  await page.fill(`${OPEN} input[name="batch_ms"]`, '250');
  await page.check(`${OPEN} input[name="level"][value="blazing"]`);
  await page.check(`${OPEN} input[name="minutes"][value="10"]`);
  assert.equal(await isEnabled(page, 'apply'), false, 'no dry run yet');
  await page.click(`${OPEN} button[name="dry-run"]`);
  await page.waitForFunction(() => document.querySelectorAll('.dialog[open] .forecast p').length >= 1);
  assert.equal(await isEnabled(page, 'apply'), false, 'the name is not typed yet');
  await page.fill(`${OPEN} input[name="confirm"]`, name);
  await page.waitForSelector(`${OPEN} button[name="apply"]:enabled`);
  await page.fill(`${OPEN} input[name="batch_ms"]`, '260');
  await page.waitForSelector(`${OPEN} button[name="apply"]:disabled`);
  await page.fill(`${OPEN} input[name="batch_ms"]`, '250');
  await page.click(`${OPEN} button[name="apply"]:enabled`);
  await page.waitForSelector(`.override-now:has-text("250 ms")`);
  assert.equal(await page.locator(OPEN).count(), 0, 'the dialog is closed');
  const row = (await server.board(act)).channels.find((each) => each.channel_id === id);
  assert.deepEqual([row.override.level, row.override.batch_ms, row.override.why], ['blazing', 250, WHY]);

  await page.click('.back');
  await page.waitForSelector(`${ROW}[data-channel="${id}"] .chip-set`);
  await page.click(`${ROW}[data-channel="${id}"] .cell-name a`);
  await page.click('.actions .buttons .button:last-of-type');
  await page.fill(`${OPEN} textarea`, WHY);
  await page.click(`${OPEN} button[name="end"]`);
  await page.waitForSelector('.override-now', { state: 'detached' });

  await goTo(page, 'audit');
  const acts = await actsOf(page, id);
  for (const [what, text] of Object.entries(acts)) {
    assert.ok(text.includes(what === 'override measured' ? 'the server itself' : WHY), text);
  }
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('button[name="export"]')]);
  assert.match(download.suggestedFilename(), /^madang-acts-.*\.jsonl$/);
}

export async function theHomeIsMovedAway({ open, act, server }) {
  const { channels, nodes } = await server.board(act);
  const page = await open();
  await signIn(page, act);
  const { id } = await openChannel(page);
  const { home } = channels.find((row) => row.channel_id === id);
  if (home === undefined || nodes.length < 2) {
    assert.equal(await page.locator('button[name="move"]').count(), 0);
    return 'the rest needs a fleet';
  }
  await page.waitForSelector(`.numbers dd:has-text("${home}")`);
  await page.click('button[name="move"]');
  assert.equal(await page.locator(`${OPEN} input[name="away_from"]:checked`).inputValue(), home);
  assert.equal(await page.locator(`${OPEN} input[name="minutes"]:checked`).inputValue(), '60');
  await page.fill(`${OPEN} textarea`, WHY);
  await page.check(`${OPEN} input[name="away_from"][value=""]`);
  assert.equal(await isEnabled(page, 'dry-run'), false, 'nothing is set');
  await page.check(`${OPEN} input[name="away_from"][value="${home}"]`);
  await page.click(`${OPEN} button[name="dry-run"]`);
  await page.click(`${OPEN} button[name="apply"]:enabled`);
  try {
    await page.waitForSelector(`.override-now:has-text("home away from ${home}")`);
    await page.waitForFunction(
      (home) => !document.querySelector('button[name="move"] + small').innerText.includes(home),
      home,
    );
    const unknown = { away_from: 'nowhere', minutes: 10, why: WHY };
    const refused = await server.call(act, 'PUT', `channels/${id}/override`, { body: unknown });
    assert.deepEqual([refused.status, (await refused.json()).field], [400, 'away_from']);
  } finally {
    await server.call(act, 'DELETE', `channels/${id}/override`, { body: { why: WHY } });
  }
}

/** The newest acts about the override of a channel, by their kinds. It is measured a moment after its end. */
async function actsOf(page, id) {
  const rows = `.acts-table tbody tr:has-text("${id}")`;
  for (;;) {
    await page.waitForSelector('.acts-table tbody tr');
    const acts = await page.$$eval(rows, (found) =>
      found.map((row) => [row.querySelector('.cell-what').innerText, row.innerText]),
    );
    const sinceSet = acts.slice(0, acts.findIndex(([what]) => what === 'override set') + 1).reverse();
    if (sinceSet.some(([what]) => what === 'override measured')) return Object.fromEntries(sinceSet);
    await Promise.all([page.waitForResponse(/operator\/acts/), page.click('button[name="refresh"]:enabled')]);
  }
}

export async function viewersSeeNoButtonsAndAreRefused({ open, view, act, server }) {
  if (!view.name) return 'needs --view-name and --view-secret';
  const page = await open();
  await signIn(page, view);
  const { id } = await openChannel(page);
  assert.equal(await page.locator('.actions .button').count(), 0);
  await goTo(page, 'configuration');
  await page.waitForSelector('.settings input[readonly]');
  assert.equal(await page.locator('.save-bar').count(), 0);
  const body = { batch_ms: 100, minutes: 10, why: WHY };
  const refused = await server.call(view, 'PUT', `channels/${id}/override`, { body });
  assert.deepEqual([refused.status, (await refused.json()).code], [403, 'forbidden']);
  const ended = await server.call(view, 'DELETE', `channels/${id}/override`, { body: { why: WHY } });
  assert.equal(ended.status, 403);
  const { version } = await (await server.call(act, 'GET', 'config')).json();
  const { config } = await (await server.call(view, 'GET', 'config')).json();
  const headers = { 'if-match': `"${version}"` };
  const changed = await server.call(view, 'PUT', 'config', { body: { config, why: WHY }, headers });
  assert.equal(changed.status, 403);
}

export async function aForbiddenCallIsSurvived({ open, act }) {
  const page = await open();
  const refusal = { status: 403, json: { code: 'forbidden', message: 'this operator may look only' } };
  await page.route(/\/override$/, (route) => route.fulfill(refusal));
  await signIn(page, act);
  await openChannel(page);
  await page.click('.actions .buttons .button >> nth=0');
  await page.check(`${OPEN} input[name="level"][value="warm"]`);
  await page.fill(`${OPEN} textarea`, WHY);
  await page.click(`${OPEN} button[name="dry-run"]`);
  await page.waitForSelector(`${OPEN} .problem:has-text("may look")`);
  await page.keyboard.press('Escape');
  await page.waitForSelector(OPEN, { state: 'detached' });
}
