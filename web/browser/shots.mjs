// Screenshots for the documentation, and for eyes.
//   npm run shots -- [--url URL --name NAME --secret SECRET] [--out ../docs/images] [--all]
// Without an address they are taken from the mock. `--all` adds the views that the documentation does not show.

import { mkdir } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { start } from '../mock/server.mjs';
import { goTo, launch, open, signIn } from './chromium.mjs';

const { values } = parseArgs({
  options: {
    url: { type: 'string' },
    name: { type: 'string', default: 'ada' },
    secret: { type: 'string', default: 'ada-secret' },
    out: { type: 'string', default: '../docs/images' },
    all: { type: 'boolean', default: false },
  },
});

const DOCUMENTED = ['channels', 'override', 'nodes', 'configuration'];

// A channel of the mock.
const GROUP = '269737367961600105';

const LOOKS = {
  light: { colorScheme: 'light' },
  dark: { colorScheme: 'dark' },
  phone: { colorScheme: 'dark', viewport: { width: 360, height: 780 }, deviceScaleFactor: 2, hasTouch: true },
  korean: { colorScheme: 'dark', locale: 'ko-KR' },
};

const mock = values.url ? undefined : await start();
const browser = await launch();
await mkdir(values.out, { recursive: true });
try {
  for (const [look, options] of Object.entries(LOOKS)) await shoot(look, options);
} finally {
  await browser.close();
  await mock?.stop();
}

async function shoot(look, options) {
  const { page, context } = await open(browser, values.url ?? mock.url, options);
  const save = async (view) => {
    if (!values.all && !DOCUMENTED.includes(view)) return;
    await page.screenshot({ path: `${values.out}/operator-${view}-${look}.png` });
  };
  await save('sign-in');
  await signIn(page, values);
  await page.waitForSelector('.channels-table tbody tr');
  await page.mouse.move(0, 0);
  await save('channels');
  await goTo(page, 'nodes');
  await page.waitForSelector('[data-node]');
  await save('nodes');
  await goTo(page, 'guarantees');
  await save('guarantees');
  await goTo(page, 'push');
  await save('push');
  if (values.all) await shootAlerts(page, save);
  await goTo(page, 'configuration');
  await page.waitForSelector('.settings input');
  await page.fill('input[name="heat.pacing.hot.batch_ms"]', '400');
  await save('configuration');
  if (values.all) await shootRates(page, save);
  await goTo(page, 'audit');
  await page.waitForSelector('.acts-table tbody tr');
  await save('audit');
  await goTo(page, 'channels');
  await page.click('.channels-table tbody tr:nth-child(3) .cell-name a');
  await page.waitForSelector('.chart');
  await save('channel');
  await page.click('.actions .buttons .button:first-child');
  await page.check('.dialog[open] input[name="level"][value="hot"]');
  await page.fill('.dialog[open] input[name="joins_per_second"]', '40');
  await page.fill('.dialog[open] textarea', 'OPS-431: encore, bystanders at 40 ms');
  await page.click('.dialog[open] button[name="dry-run"]');
  await page.waitForSelector('.dialog[open] button[name="apply"]:enabled');
  await save('override');
  if (values.all && !values.url) await shootName(page, save);
  await context.close();
}

async function shootAlerts(page, save) {
  await goTo(page, 'alerts');
  await page.click('button[name="ask"]');
  await save('alerts-problems');
  for (const [view, seq] of Object.entries({
    alerts: '12',
    'alerts-dropped': '13',
    'alerts-nothing': '15',
  })) {
    const question = { handle: 'ada', channel_id: GROUP, seq };
    for (const [name, value] of Object.entries(question)) await page.fill(`[name="${name}"]`, value);
    await page.click('button[name="ask"]');
    await page.waitForSelector('.alert-answer');
    await save(view);
  }
}

async function shootRates(page, save) {
  await page.fill('input[name="limits.user_sends"]', '0');
  await page.fill('input[name="limits.user_requests"]', '1e3');
  await page.fill('input[name="limits.address_logins"]', '');
  await page.evaluate(() =>
    document.querySelector('input[name="limits.user_requests"]').scrollIntoView({ block: 'center' }),
  );
  await save('rates');
  await page.fill('input[name="limits.user_requests"]', '');
  await page.click('button[name="review"]');
  await save('rates-review');
  await page.keyboard.press('Escape');
}

async function shootName(page, save) {
  await page.keyboard.press('Escape');
  await page.evaluate((id) => (location.hash = `#/channels/${id}`), GROUP);
  await page.waitForSelector('button[name="show-name"]');
  await save('name-hidden');
  await page.click('button[name="show-name"]');
  await page.fill('.dialog[open] textarea', 'OPS-431: flood in one group, to reach its owner');
  await save('name-dialog');
  await page.click('.dialog[open] button[name="show"]');
  await page.waitForSelector('h1:has-text("Stage crew")');
  await save('name-shown');
}
