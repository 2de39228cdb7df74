import assert from 'node:assert/strict';
import { goTo, signIn } from '../chromium.mjs';

const OPEN = '.dialog[open]';
const WHY = 'a browser test of the configuration';
const HOT_BATCH = 'input[name="heat.pacing.hot.batch_ms"]';
const USER_SENDS = 'input[name="limits.user_sends"]';
const WARM_BATCH = 'input[name="heat.pacing.warm.batch_ms"]';

export async function aChangeIsReviewedAndSavedAndAConflictIsShown({ open, act, server }) {
  const before = await configOf(server, act);
  try {
    const page = await open();
    await signIn(page, act);
    await goTo(page, 'configuration');
    await page.fill(HOT_BATCH, '5000');
    await page.waitForSelector(`${HOT_BATCH}[aria-invalid="true"]`);
    assert.equal(await page.locator('button[name="review"]').isEnabled(), false);
    await page.fill(HOT_BATCH, '490');
    await page.click('button[name="review"]');
    assert.match(await page.locator(`${OPEN} tbody`).innerText(), /490/);
    await page.fill(`${OPEN} textarea`, WHY);
    await page.click(`${OPEN} button[name="save"]`);
    await page.waitForSelector('.notice');
    await page.waitForSelector(OPEN, { state: 'detached' });
    assert.equal((await stored(server, act)).hot.batch_ms, 490);
    await appliedEverywhere(page, before.version + 1);

    await page.fill(HOT_BATCH, '480');
    await page.click('button[name="review"]');
    await page.fill(`${OPEN} textarea`, WHY);
    await server.changeConfig(act, (config) => (config.heat.pacing.warm.batch_ms = 90));
    await page.click(`${OPEN} button[name="save"]`);
    await page.waitForSelector(`${OPEN} .conflict:has-text("90")`);
    assert.equal((await stored(server, act)).hot.batch_ms, 490, 'nothing was overwritten');
    await page.click(`${OPEN} button[name="save"]`);
    await page.waitForSelector(OPEN, { state: 'detached' });
    const now = await stored(server, act);
    assert.deepEqual([now.hot.batch_ms, now.warm.batch_ms], [480, 90]);
    assert.equal(await page.inputValue(WARM_BATCH), '90');

    await goTo(page, 'audit');
    await page.waitForSelector(`.acts-table tbody tr:has-text("${WHY}")`);
  } finally {
    await server.changeConfig(act, (config) => Object.assign(config, before.config));
  }
}

export async function editsSurviveAChangeOfTheView({ open, act, server }) {
  const page = await open();
  await signIn(page, act);
  await goTo(page, 'configuration');
  await page.fill(HOT_BATCH, '470');
  await goTo(page, 'nodes');
  await goTo(page, 'configuration');
  assert.equal(await page.inputValue(HOT_BATCH), '470');
  const before = await stored(server, act);
  try {
    await server.changeConfig(act, (config) => (config.heat.pacing.warm.batch_ms = 80));
    await page.waitForSelector('main > .conflict:has-text("80")');
    assert.equal(await page.inputValue(HOT_BATCH), '470');
  } finally {
    await server.changeConfig(act, (config) => (config.heat.pacing.warm = before.warm));
  }
}

export async function anActOfAnotherKindIsNoChangeOfTheConfiguration({ open, act, server }) {
  const { version } = await configOf(server, act);
  const [{ channel_id: id }] = (await server.board(act)).channels;
  const page = await open();
  let loads = 0;
  page.on('request', (request) => (loads += Number(request.url().endsWith('/config'))));
  const [live] = await Promise.all([page.waitForEvent('websocket'), signIn(page, act)]);
  await goTo(page, 'configuration');
  await page.fill(HOT_BATCH, '460');
  const path = `channels/${id}/override`;
  const body = { batch_ms: 100, minutes: 10, why: WHY };
  const { config_version } = await (await server.call(act, 'PUT', path, { body })).json();
  try {
    assert.ok(config_version > version);
    assert.equal((await configOf(server, act)).version, version);
    await appliedEverywhere(page, config_version);
    const before = loads;
    for (let board = 0; board < 3; board += 1) await live.waitForEvent('framereceived');
    assert.ok(loads <= before + 1, `${loads - before} loads for three boards`);
    assert.equal(await page.locator('.conflict').count(), 0);
    assert.equal(await page.inputValue(HOT_BATCH), '460');
  } finally {
    await server.call(act, 'DELETE', path, { body: { why: WHY } });
  }
}

export async function aRateIsSetAndUnsetAndAConflictSaysSo({ open, act, server }) {
  const { config, file_limits: file } = await configOf(server, act);
  try {
    await server.changeConfig(act, (config) => delete config.limits);
    const page = await open();
    await signIn(page, act);
    await goTo(page, 'configuration');
    await page.waitForSelector(USER_SENDS);
    assert.equal(await page.inputValue(USER_SENDS), '', 'an absent rate is an empty field');
    const row = page.locator(`tr:has(${USER_SENDS})`);
    assert.match(await row.innerText(), new RegExp(file.user_sends === 0 ? 'no limit' : file.user_sends));
    await page.fill(USER_SENDS, '1000001');
    await page.waitForSelector(`${USER_SENDS}[aria-invalid="true"]`);
    await page.fill(USER_SENDS, '5000');
    assert.match(await review(page), /as in the file \([^)]+\)\s+5,000/);
    await save(page);
    assert.deepEqual((await configOf(server, act)).config.limits, { user_sends: 5_000 });

    await page.fill(USER_SENDS, '');
    assert.match(await review(page), /5,000\s+as in the file/);
    await server.changeConfig(act, (config) => (config.limits.user_sends = 0));
    await page.click(`${OPEN} button[name="save"]`);
    await page.waitForSelector(`${OPEN} .conflict:has-text("no limit"):has-text("you change this too")`);
    await save(page);
    assert.equal((await configOf(server, act)).config.limits, undefined, 'an empty object is not sent');
  } finally {
    await server.changeConfig(act, (now) => (now.limits = config.limits));
  }
}

async function review(page) {
  await page.click('button[name="review"]');
  await page.fill(`${OPEN} textarea`, WHY);
  return page.locator(`${OPEN} tbody`).innerText();
}

async function save(page) {
  await page.click(`${OPEN} button[name="save"]`);
  await page.waitForSelector(OPEN, { state: 'detached' });
}

async function configOf(server, who) {
  return (await server.call(who, 'GET', 'config')).json();
}

async function stored(server, who) {
  return (await configOf(server, who)).config.heat.pacing;
}

function appliedEverywhere(page, version) {
  return page.waitForFunction((version) => {
    const text = document.querySelector('[data-term="config"]').innerText;
    const [, on, of] = /applied on (\d+)\/(\d+)/.exec(text) ?? [];
    const shown = Number(/No\. (\d+)/.exec(text)?.[1]);
    return shown >= version && on === of;
  }, version);
}
