// The browser tests against a real server with a synthetic hot channel, and what only such a server can show:
// the channel appears within two seconds, a forecast comes true, an override ends by itself.
//   MADANG=target/debug/madang node browser/real.mjs [--only WORD]

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { launch, open, signIn } from './chromium.mjs';
import { Concert } from './concert.mjs';
import { Server } from './server.mjs';

const APPEARS_MS = 2_000;
/** How far the outcome may be from the forecast. */
const TOLERANCE = 0.25;
const MEASURED_MS = 15_000;
const WHY = 'a browser test with a hot channel';

const madang = process.env.MADANG ?? '../target/debug/madang';
const run = promisify(execFile);
const data = await mkdtemp(join(tmpdir(), 'madang-web-'));
const server = await startServer();
let concert;
try {
  const act = await addOperator('ada', 'act');
  const view = await addOperator('vera', 'view');
  concert = await Concert.prepare(server.url);
  await appearsInTime(act);
  await comesTrue(act);
  const ends = endsByItself(act);
  await runCases(act, view);
  await ends;
  console.log('the real server: all passed');
} finally {
  await concert?.stop();
  server.process.kill('SIGTERM');
  await once(server.process, 'exit');
  await rm(data, { recursive: true });
}

async function startServer() {
  const settings = {
    MADANG_PASSWORDS__MEMORY_KIB: '8',
    MADANG_PASSWORDS__PASSES: '1',
    MADANG_TELEMETRY__FILTER: 'error',
    // A machine that runs tests is overloaded; these are not about that.
    MADANG_OVERLOAD__SHED: 'false',
  };
  const child = spawn(madang, ['serve', '--addr', '127.0.0.1:0', '--limits', 'off', '--data', data], {
    env: { ...process.env, ...settings },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  // Also if this process ends in the middle.
  process.on('exit', () => child.kill('SIGKILL'));
  let said = '';
  for await (const chunk of child.stdout) {
    said += chunk;
    const found = /listens on (http:\/\/[0-9.:]+)/.exec(said);
    if (found) {
      child.stdout.resume();
      return { process: child, url: `${found[1]}/operator/` };
    }
  }
  throw new Error(`the server did not start: ${said}`);
}

async function addOperator(name, scope) {
  const { stdout } = await run(madang, ['operator', 'add', name, '--scope', scope, '--data', data]);
  return { name, secret: stdout.trim() };
}

async function appearsInTime(act) {
  const browser = await launch();
  try {
    const { page, faults } = await open(browser, server.url);
    await signIn(page, act);
    await page.waitForSelector('.empty');
    concert.begin();
    const crossed = await until(async () => (await row(act)) !== undefined && Date.now());
    await page.waitForSelector('.channels-table tbody tr');
    const took = Date.now() - crossed;
    assert.ok(took <= APPEARS_MS, `the channel appeared after ${took} ms`);
    assert.deepEqual(faults, []);
    console.log(`ok   a hot channel appears on the page ${took} ms after the server has it`);
  } finally {
    await browser.close();
  }
}

/** A dry run says how many frames would be left; then they are counted. */
async function comesTrue(act) {
  const wish = { batch_ms: 500, minutes: 1, why: WHY };
  const path = `channels/${concert.channel}/override`;
  const calls = new Server(server.url);
  const put = async (dry_run) => (await calls.call(act, 'PUT', path, { body: { ...wish, dry_run } })).json();
  const forecast = await until(async () => {
    const answer = (await put(true)).forecast;
    return answer.seconds >= 5 && answer;
  });
  const { set } = await put(false);
  assert.equal(set.batch_ms, 500);
  const before = concert.frames;
  const since = Date.now();
  await until(() => Date.now() - since >= MEASURED_MS);
  const outcome = ((concert.frames - before) * 60_000) / (Date.now() - since);
  const off = Math.abs(outcome / forecast.frames[1] - 1);
  const figures = `forecast ${Math.round(forecast.frames[1])} frames a minute, came ${Math.round(outcome)}`;
  assert.ok(off <= TOLERANCE, figures);
  console.log(`ok   ${figures} (before ${Math.round(forecast.frames[0])})`);
}

/** The override of one minute. */
async function endsByItself(act) {
  const { ends_at } = (await row(act)).override;
  // waits for: the end of a minute, by the server's clock
  await until(async () => (await row(act))?.override === undefined, 90_000);
  const late = Date.now() - ends_at;
  assert.ok(late < 3_000, `the override ended ${late} ms late`);
  console.log('ok   an override ends by itself');
}

async function runCases(act, view) {
  const others = await Concert.prepare(server.url, 'Rehearsal');
  others.begin();
  // waits for: a point in the history of both, so that each has a chart
  await until(async () => {
    const { channels } = await new Server(server.url).board(act);
    return channels.length === 2 && channels.every((each) => each.spark.length >= 2);
  });
  const args = ['browser/run.mjs', '--url', server.url, ...process.argv.slice(2)];
  args.push('--name', act.name, '--secret', act.secret);
  args.push('--view-name', view.name, '--view-secret', view.secret);
  const child = spawn(process.execPath, args, { stdio: 'inherit' });
  const [code] = await once(child, 'exit');
  await others.stop();
  assert.equal(code, 0, 'the browser tests failed');
}

async function row(act) {
  const board = await new Server(server.url).board(act);
  return board.channels.find((each) => each.channel_id === concert.channel);
}

async function until(isTrue, patience = 30_000) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await isTrue();
    if (found) return found;
    if (Date.now() > deadline) throw new Error('waited in vain');
    await new Promise((resume) => setTimeout(resume, 50));
  }
}
