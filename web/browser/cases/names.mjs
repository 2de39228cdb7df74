import assert from 'node:assert/strict';
import { goTo, signIn } from '../chromium.mjs';

const OPEN = '.dialog[open]';
const SHOW = 'button[name="show-name"]';
const WHY = 'a browser test of hidden names';
// Channels of the mock.
const GROUP = '269737367961600105';
const DIRECT = '269737367961600108';
const NEVER_HOT = '269737367961600109';
const NONE = '269737367961600999';

async function visit(page, id) {
  await page.evaluate((id) => (location.hash = `#/channels/${id}`), id);
  await page.waitForSelector(`h1:has-text("${id}")`);
}

async function show(page) {
  await page.click(SHOW);
  await page.fill(`${OPEN} textarea`, 'too short');
  assert.equal(await page.locator(`${OPEN} button[name="show"]`).isEnabled(), false);
  await page.fill(`${OPEN} textarea`, WHY);
  await page.click(`${OPEN} button[name="show"]`);
}

/** Whether the server has the channels that these cases are about. */
async function hasGroup(server, who) {
  return (await server.call(who, 'GET', `channels/${GROUP}`)).status === 200;
}

export async function aHiddenNameIsShownForAReasonUntilThePageIsLeft({ open, act, server }) {
  if (!(await hasGroup(server, act))) return 'needs the channels of the mock';
  const page = await open({ permissions: ['clipboard-read', 'clipboard-write'] });
  await signIn(page, act);
  await visit(page, GROUP);
  await show(page);
  await page.waitForSelector('h1:has-text("Stage crew"):focus');
  assert.equal(await page.locator(SHOW).count(), 0);
  await page.waitForSelector(`.channel-head .id:has-text("${GROUP}")`);
  await page.click('.copy-state');
  await page.waitForSelector('.notice');
  const kept = await page.evaluate(async () =>
    JSON.stringify([
      await navigator.clipboard.readText(),
      { ...localStorage, ...sessionStorage },
      location.href,
      document.title,
    ]),
  );
  assert.ok(!kept.includes('Stage crew'), 'the name is on the page only');

  await goTo(page, 'audit');
  const row = page.locator(`.acts-table tbody tr:has-text("${WHY}")`).first();
  await row.waitFor();
  assert.match(await row.innerText(), new RegExp(`name shown[^]*${GROUP}`));
  assert.ok(!(await row.innerText()).includes('Stage crew'), 'the audit does not have the name');
  await page.goBack();
  await page.waitForSelector(`h1:has-text("${GROUP}")`);
  await page.waitForSelector(SHOW);
}

export async function aNameIsShownOfAChannelThatWasNeverHot({ open, act, server }) {
  if (!(await hasGroup(server, act))) return 'needs the channels of the mock';
  const page = await open({ locale: 'ko-KR' });
  await signIn(page, act);
  await visit(page, NEVER_HOT);
  await show(page);
  await page.waitForSelector('h1:has-text("야외 공연 준비팀")');
  await page.waitForSelector('.hidden-name:has-text("이 화면에만")');
}

export async function aDirectChannelHasNoNameAndAnUnknownOneNeither({ open, act, server }) {
  const page = await open();
  await signIn(page, act);
  await visit(page, NONE);
  await show(page);
  await page.waitForSelector(`${OPEN} .problem:has-text("no channel with this id")`);
  await page.keyboard.press('Escape');
  if (!(await hasGroup(server, act))) return 'the rest needs the channels of the mock';
  await visit(page, DIRECT);
  await page.waitForSelector('.hidden-name:has-text("A direct channel has no name")');
  assert.equal(await page.locator(SHOW).count(), 0);
}

export async function viewersSeeNoNames({ open, view, server }) {
  if (!view.name) return 'needs --view-name and --view-secret';
  const refused = await server.call(view, 'POST', `channels/${GROUP}/name`, { body: { why: WHY } });
  assert.deepEqual([refused.status, (await refused.json()).code], [403, 'forbidden']);
  if (!(await hasGroup(server, view))) return 'the rest needs the channels of the mock';
  const page = await open();
  await signIn(page, view);
  await visit(page, GROUP);
  await page.waitForSelector('.hidden-name:has-text("does not show names")');
  assert.equal(await page.locator(SHOW).count(), 0);
}
