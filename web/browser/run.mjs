// Browser tests against a server, or against the mock.
//   npm run browser -- --url URL --name NAME --secret SECRET [--view-name NAME --view-secret SECRET] [--only WORD]
//   npm run browser:mock [-- --only WORD]
// The server needs at least one channel on its board. What a test changes, it changes back.

import { parseArgs } from 'node:util';
import { start } from '../mock/server.mjs';
import { launch, open } from './chromium.mjs';
import * as alerts from './cases/alerts.mjs';
import * as board from './cases/board.mjs';
import * as config from './cases/config.mjs';
import * as connection from './cases/connection.mjs';
import * as letters from './cases/letters.mjs';
import * as looks from './cases/looks.mjs';
import * as names from './cases/names.mjs';
import * as overrides from './cases/overrides.mjs';
import { Server } from './server.mjs';

const DEADLINE_MS = 80_000;
// Lanes run side by side; the cases of a lane run one after the other. Only the first lane changes the server.
const LANES = [
  { ...overrides, ...config, ...names, ...letters, ...board },
  { ...connection, ...alerts, ...looks },
].map(Object.entries);

const { values } = parseArgs({
  options: {
    mock: { type: 'boolean', default: false },
    url: { type: 'string' },
    name: { type: 'string', default: 'ada' },
    secret: { type: 'string', default: 'ada-secret' },
    'view-name': { type: 'string' },
    'view-secret': { type: 'string' },
    only: { type: 'string', default: '' },
  },
});

const mock = values.mock ? await start() : undefined;
const url = mock?.url ?? values.url;
if (url === undefined) throw new Error('either --url or --mock is needed');
const act = { name: values.name, secret: values.secret };
const view = mock
  ? { name: 'vera', secret: 'vera-secret' }
  : { name: values['view-name'], secret: values['view-secret'] };

const browser = await launch();
const began = Date.now();
const failed = [];
try {
  await Promise.all(LANES.map(runLane));
} finally {
  await browser.close();
  await mock?.stop();
}
const seconds = ((Date.now() - began) / 1000).toFixed(1);
console.log(failed.length === 0 ? `all passed in ${seconds} s` : `${failed.length} failed in ${seconds} s`);
process.exitCode = failed.length === 0 ? 0 : 1;

async function runLane(cases) {
  for (const [name, run] of cases.filter(([name]) => name.includes(values.only))) await runCase(name, run);
}

async function runCase(name, run) {
  const since = Date.now();
  const opened = [];
  const given = {
    act,
    view,
    server: new Server(url),
    open: async (options) => {
      const page = await open(browser, url, options);
      page.page.setDefaultTimeout(15_000);
      opened.push(page);
      return page.page;
    },
  };
  try {
    const skipped = await Promise.race([run(given), deadline()]);
    const faults = opened.flatMap((page) => page.faults);
    if (faults.length > 0) throw new Error(faults.join('\n'));
    const mark = skipped ? `-- ${skipped}` : `${Date.now() - since} ms`;
    console.log(`ok   ${words(name)} (${mark})`);
  } catch (error) {
    failed.push(name);
    console.log(`FAIL ${words(name)}\n${error.stack ?? error}`);
  } finally {
    for (const { context } of opened) await context.close();
  }
}

/** No case may hold up the others: an evaluation in a page that hangs has no timeout of its own. */
function deadline() {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`not done within ${DEADLINE_MS} ms`)), DEADLINE_MS).unref();
  });
}

function words(name) {
  return name.replace(/([A-Z])/g, (letter) => ` ${letter.toLowerCase()}`);
}
