import assert from 'node:assert/strict';
import { goTo, signIn } from '../chromium.mjs';

const ROW = '.channels-table tbody tr';

export async function signInIsRefusedAndThenGranted({ open, act }) {
  const page = await open();
  await page.fill('input[name="name"]', act.name);
  await page.fill('input[name="secret"]', 'this is not the secret');
  await page.press('input[name="secret"]', 'Enter');
  await page.waitForFunction(() => document.querySelector('.sign-in .problem')?.textContent !== '');
  assert.equal(
    await page.inputValue('input[name="secret"]'),
    '',
    'a wrong secret does not stay in the field',
  );
  await signIn(page, act);
  const kept = await page.evaluate(() =>
    JSON.stringify([localStorage, sessionStorage, location.href, document.cookie]),
  );
  assert.ok(!kept.includes(act.secret), 'the secret is stored nowhere');
  const storage = await page.evaluate(() => Object.keys(localStorage));
  assert.ok(
    storage.every((key) => /theme|language/.test(key)),
    `unexpected in the storage: ${storage}`,
  );
}

export async function rowsAndTheTopBarAreShown({ open, act }) {
  const page = await open();
  await signIn(page, act);
  await page.waitForSelector(ROW);
  const first = page.locator(ROW).first();
  assert.match(await first.locator('.level').innerText(), /normal|warm|hot|blazing/);
  assert.equal(await first.locator('.level svg').count(), 1, 'a shape beside the colour');
  const bar = await page.locator('.tiles').innerText();
  for (const label of ['Guarantees', 'Nodes ready', 'Connections', 'Shed level', 'Data age']) {
    assert.ok(bar.includes(label), `the bar lacks ${label}`);
  }
  assert.match(await page.locator('[data-term="config"]').innerText(), /applied on \d+\/\d+/);
  await page.click('[data-term="bystanders"] button');
  await page.waitForSelector('[data-term="bystanders"] .help-pop:popover-open');
}

/** Lets the test decide in which order the server sends the rows. */
async function withOrder(page) {
  const order = { isFlipped: false };
  await page.routeWebSocket(/operator\/live$/, (socket) => {
    const server = socket.connectToServer();
    socket.onMessage((message) => server.send(message));
    server.onMessage((message) => socket.send(JSON.stringify(ordered(JSON.parse(message), order.isFlipped))));
  });
  await page.reload();
  return order;
}

function ordered(board, isFlipped) {
  const [first] = board.channels;
  const row = (id, cost) => ({ ...first, channel_id: id, name: `row ${id}`, level: 'hot', cost });
  return {
    ...board,
    channels: first ? [row('101', isFlipped ? 1 : 900), row('102', isFlipped ? 800 : 2)] : [],
  };
}

export async function sortingFreezesWhileThePointerIsInTheTable({ open, act }) {
  const page = await open();
  const order = await withOrder(page);
  await signIn(page, act);
  const ids = () => page.$$eval(ROW, (rows) => rows.map((row) => row.dataset.channel).join(' '));
  const costOf = (id, cost) =>
    page.waitForFunction(
      ([id, cost]) =>
        document.querySelector(`[data-channel="${id}"] .cell-cost`)?.textContent.trim() === cost,
      [id, cost],
    );
  await costOf('101', '900');
  assert.equal(await ids(), '101 102');
  await page.hover(`${ROW} >> nth=0`);
  order.isFlipped = true;
  await costOf('102', '800');
  assert.equal(await ids(), '101 102', 'the order is held, the values are new');
  await page.mouse.move(0, 0);
  await page.waitForFunction(
    () => document.querySelector('.channels-table tbody tr').dataset.channel === '102',
  );
  await page.keyboard.press('p');
  await page.waitForSelector('.strip-pause');
  order.isFlipped = false;
  await page.keyboard.press('p');
  await page.waitForFunction(
    () => document.querySelector('.channels-table tbody tr').dataset.channel === '101',
  );
}

export async function aRowOpensItsDetailAndBackReturns({ open, act }) {
  const page = await open();
  await signIn(page, act);
  const link = page.locator(`${ROW} .cell-name a`).first();
  const id = await page.locator(ROW).first().getAttribute('data-channel');
  await link.click();
  await page.waitForSelector('.chart');
  assert.ok(page.url().endsWith(`#/channels/${id}`));
  await page.focus('.chart');
  await page.keyboard.press('ArrowLeft');
  await page.waitForFunction(() => /cost .* bar/.test(document.querySelector('.readout').textContent));
  await page.click('.chart-table summary');
  // The chart is a table, too, with each point of the history: one in ten seconds.
  await page.waitForFunction(() => document.querySelectorAll('.chart-table tbody tr').length > 1);
  assert.equal(await page.locator('.numbers .todo').count(), await page.locator('.numbers > div').count());
  await page.goBack();
  await page.waitForSelector(ROW);
}

export async function theStateIsCopiedForTheIncident({ open, act }) {
  const page = await open({ permissions: ['clipboard-read', 'clipboard-write'] });
  await signIn(page, act);
  await page.waitForSelector(ROW);
  await page.click('.copy-state');
  await page.waitForSelector('.notice');
  const text = await page.evaluate(() => navigator.clipboard.readText());
  const id = await page.locator(ROW).first().getAttribute('data-channel');
  assert.ok(text.startsWith('State of Madang, as of ') && text.includes(id), text);
}

export async function nodesAndGuaranteesAreShown({ open, act, server }) {
  const page = await open();
  await signIn(page, act);
  const board = await server.board(act);
  await goTo(page, 'nodes');
  for (const { name } of board.nodes) await page.waitForSelector(`[data-node="${name}"]`);
  await goTo(page, 'guarantees');
  for (const { id } of board.guarantees) await page.waitForSelector(`[data-guarantee="${id}"]`);
}

export async function pushIsSummedOverAllProcesses({ open, act, server }) {
  const page = await open();
  await signIn(page, act);
  await goTo(page, 'push');
  const { nodes, push_processes = [] } = await server.board(act);
  const rows = [...nodes, ...push_processes]
    .flatMap(({ push }) => push)
    .filter(({ provider }) => provider === 'apns');
  if (rows.length === 0) {
    await page.waitForSelector('main .empty');
    return;
  }
  const taken = rows.reduce((sum, row) => sum + row.taken, 0);
  const row = page.locator('[data-provider="apns"]');
  assert.equal(await row.count(), 1);
  assert.equal(await row.locator('td.number').first().innerText(), taken.toLocaleString('en'));
  await page.waitForSelector('[data-provider="fcm"] .tone-bad:has-text("left alone")');
  for (const { name } of push_processes) await page.waitForSelector(`.lead:has-text("${name}")`);
}
