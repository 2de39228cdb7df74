import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { goTo, signIn } from '../chromium.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const ROW = '.channels-table tbody tr';
const OPEN = '.dialog[open]';
const UNKNOWN_CHANNEL = '269737367961600999';
const NOTE = { at: 1_800_000_000_000, first_seq: 9, last_seq: 12, device_id: '269737367961600701' };
const HISTORY = {
  items: [
    { ...NOTE, outcome: 'not_taken', detail: `503 ${'x'.repeat(290)}` },
    { ...NOTE, outcome: 'taken', detail: '201' },
  ],
  is_waiting: true,
};
const LETTER = {
  ...NOTE,
  id: '1',
  user_id: UNKNOWN_CHANNEL,
  channel_id: UNKNOWN_CHANNEL,
  outcome: 'expired',
};
const LETTERS = { items: [{ ...LETTER, detail: `503 ${'x'.repeat(290)}` }], next: '1' };
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

/** Shows each view in turn, also the dialogs, and calls `look` with its name. */
async function walk(page, who, look) {
  await look('sign-in');
  await signIn(page, who);
  await page.waitForSelector(ROW);
  await look('channels');
  await page.click('.legend summary');
  await look('channels, legend');
  await page.locator(`${ROW} .cell-name a`).first().click();
  await page.waitForSelector('.chart');
  await page.click('.chart-table summary');
  await look('channel');
  await page.click('.actions .buttons .button >> nth=0');
  await page.check(`${OPEN} input[name="level"][value="blazing"]`);
  await page.fill(`${OPEN} input[name="batch_ms"]`, '9999');
  await look('override');
  await page.keyboard.press('Escape');
  if (await page.locator('button[name="move"]').count()) {
    await page.click('button[name="move"]');
    await look('move');
    await page.keyboard.press('Escape');
  }
  await page.route(/dead-letters/, (route) => route.fulfill({ json: { ...LETTERS, count: 12_345 } }));
  for (const view of ['nodes', 'guarantees', 'push', 'audit', 'configuration']) {
    await goTo(page, view);
    if (view === 'push') await page.waitForSelector('.letters-table tbody tr');
    if (view === 'audit') await page.waitForSelector('.acts-table tbody tr');
    if (view === 'configuration') await page.waitForSelector('.settings input');
    await look(view);
    if (view === 'push') await lookAtLetters(page, look);
  }
  await page.fill('input[name="heat.pacing.hot.batch_ms"]', '90');
  await page.fill('input[name="limits.user_sends"]', '0');
  await page.click('button[name="review"]');
  await look('review');
  await page.keyboard.press('Escape');
  await walkAlerts(page, look);
  await page.evaluate((id) => (location.hash = `#/channels/${id}`), UNKNOWN_CHANNEL);
  await page.click('button[name="show-name"]');
  await look('show a name');
  await page.route(/\/name$/, (route) => route.fulfill({ json: { kind: 'group', name: 'n'.repeat(100) } }));
  await page.fill(`${OPEN} textarea`, 'looked at by a browser test');
  await page.click(`${OPEN} button[name="show"]`);
  await page.waitForSelector('h1:has-text("nnn")');
  await look('a shown name');
}

async function lookAtLetters(page, look) {
  for (const name of ['send-one', 'send-all']) {
    await page.click(`button[name="${name}"]`);
    await page.waitForSelector(OPEN);
    await look(name);
    await page.keyboard.press('Escape');
    await page.waitForSelector(OPEN, { state: 'detached' });
  }
}

async function walkAlerts(page, look) {
  await goTo(page, 'alerts');
  await page.click('button[name="ask"]');
  await page.waitForSelector('[aria-invalid="true"]');
  await look('alerts, problems');
  const histories = [HISTORY, { items: [], is_waiting: false }];
  await page.route(/operator\/alerts/, (route) => route.fulfill({ json: histories.shift() }));
  const question = { handle: 'a'.repeat(32), channel_id: UNKNOWN_CHANNEL, seq: '12' };
  for (const [name, value] of Object.entries(question)) await page.fill(`[name="${name}"]`, value);
  await page.click('button[name="ask"]');
  await page.waitForSelector('.steps li');
  await look('alerts, steps');
  await page.click('button[name="ask"]');
  await page.waitForSelector('[data-verdict="nothing"]');
  await look('alerts, nothing');
}

export async function axeFindsNothingInTheDarkAndInTheLight({ open, act }) {
  const page = await open({ colorScheme: 'dark' });
  const violations = (runOnly) =>
    page.evaluate(async (runOnly) => {
      const { violations } = await window.axe.run(document, {
        runOnly,
        resultTypes: ['violations'],
        preload: false,
        iframes: false,
      });
      return violations.map(
        ({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`,
      );
    }, runOnly);
  // The source is evaluated by the debugger, so that the page’s own policy holds during the test.
  await page.evaluate(AXE);
  await walk(page, act, async (view) => {
    assert.deepEqual(await violations({ type: 'tag', values: RULES }), [], `axe in ${view}, dark`);
    // Nothing but colours depends on the theme.
    await page.emulateMedia({ colorScheme: 'light' });
    assert.deepEqual(
      await violations({ type: 'rule', values: ['color-contrast'] }),
      [],
      `axe in ${view}, light`,
    );
    await page.emulateMedia({ colorScheme: 'dark' });
  });
}

async function withoutOverflow({ open, act }, options, name) {
  const page = await open(options);
  await walk(page, act, async (view) => {
    const wide = await page.evaluate(() => {
      const width = document.documentElement.clientWidth;
      if (document.documentElement.scrollWidth <= width) return [];
      return [...document.querySelectorAll('body *')]
        .filter((element) => element.getBoundingClientRect().right > width + 1)
        .map((element) => `${element.tagName} ${element.className}`);
    });
    assert.deepEqual(wide.slice(0, 5), [], `${view} is wider than ${name}`);
  });
}

export const nothingOverflowsOnAPhone = (given) =>
  withoutOverflow(given, { viewport: { width: 360, height: 740 } }, 'a phone');
export const nothingOverflowsAt200Percent = (given) =>
  withoutOverflow(given, { viewport: { width: 640, height: 400 }, deviceScaleFactor: 2 }, '200 % zoom');

export async function everythingIsDoneByKeyboard({ open, act }) {
  const page = await open();
  const press = (key) => page.keyboard.press(key);
  const tabTo = async (selector) => {
    for (let count = 0; count < 80; count += 1) {
      if (await page.evaluate((selector) => document.activeElement?.matches(selector), selector)) return;
      await press('Tab');
    }
    assert.fail(`the keyboard does not reach ${selector}`);
  };
  await tabTo('input[name="name"]');
  await page.keyboard.type(act.name);
  await press('Tab');
  await page.keyboard.type(act.secret);
  await press('Enter');
  await page.waitForSelector(ROW);
  await tabTo('.skip');
  await press('Enter');
  await tabTo('.channels-table .cell-name a');
  await press('p');
  await page.waitForSelector('main > .strip-pause');
  await press('p');
  await page.waitForSelector('main > .strip-pause', { state: 'detached' });
  await press('Enter');
  await page.waitForSelector('.chart');
  await tabTo('.actions .button');
  await press('Enter');
  await page.waitForSelector(OPEN);
  await tabTo(`${OPEN} input[name="level"]`);
  await press('ArrowRight');
  await press('ArrowRight');
  assert.equal(await page.locator(`${OPEN} input[name="level"]:checked`).inputValue(), 'warm');
  await tabTo(`${OPEN} textarea`);
  await page.keyboard.type('tried by the keyboard only');
  await tabTo(`${OPEN} button[name="dry-run"]`);
  await press('Enter');
  await page.waitForSelector(`${OPEN} button[name="apply"]:enabled`);
  await press('Escape');
  await page.waitForSelector(OPEN, { state: 'detached' });
  assert.ok(
    await page.evaluate(() => document.activeElement?.matches('.actions .button')),
    'the focus returns',
  );
}

export async function everythingIsSaidInKorean({ open, act }) {
  const page = await open({ locale: 'ko-KR' });
  await signIn(page, act);
  await page.waitForSelector('h1:has-text("뜨거운 채널")');
  assert.equal(await page.getAttribute('html', 'lang'), 'ko');
  for (const view of ['nodes', 'guarantees', 'push', 'alerts', 'configuration', 'audit']) {
    await goTo(page, view);
    assert.match(await page.locator('h1').innerText(), /[가-힣]/);
  }
  await page.selectOption('.foot select >> nth=1', 'en');
  await page.waitForSelector('h1:has-text("Audit")');
  await page.reload();
  await page.waitForSelector('h1:has-text("Operator’s board")');
}

export async function theThemeIsKept({ open }) {
  const page = await open({ colorScheme: 'dark' });
  const back = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const dark = await back();
  await page.selectOption('.foot select >> nth=0', 'light');
  const light = await back();
  assert.notEqual(light, dark);
  await page.reload();
  await page.waitForSelector('.sign-in');
  assert.equal(await back(), light);
}
