import assert from 'node:assert/strict';
import { goTo, signIn } from '../chromium.mjs';

// A channel and stories of the mock.
const CHANNEL = '269737367961600105';
const ANSWER = '.alert-answer';

async function ask(page, question) {
  for (const [field, value] of Object.entries(question))
    await page.fill(`.alert-form [name="${field}"]`, value);
  await page.click('button[name="ask"]');
}

async function openAlerts({ open, view, act }, options) {
  const page = await open(options);
  await signIn(page, view.name ? view : act);
  await goTo(page, 'alerts');
  return page;
}

/** Waits until a field is called wrong, has the focus, and says why. */
async function wrong(page, field, text) {
  await page.waitForSelector(`.alert-form [name="${field}"][aria-invalid="true"]:focus`);
  await page.waitForSelector(`#about-${field}.problem:has-text("${text}")`);
  assert.equal(await page.locator(ANSWER).count(), 0);
}

export async function aWrongQuestionIsSaidBesideItsField(given) {
  const page = await openAlerts(given);
  await page.click('button[name="ask"]');
  await wrong(page, 'handle', 'Enter the handle');
  assert.equal(await page.locator('[aria-invalid="true"]').count(), 3);
  await ask(page, { handle: 'nobody.at.all', channel_id: 'concert', seq: '12' });
  await wrong(page, 'channel_id', 'digits only');
  await page.fill('.alert-form [name="channel_id"]', '1');
  await page.waitForSelector('#about-channel_id.hint');
  await page.click('button[name="ask"]');
  await wrong(page, 'handle', 'No user has this handle');
  if (!(await isMock(given))) return 'the rest needs the users of the mock';
  await ask(page, { handle: 'ada' });
  await wrong(page, 'channel_id', 'no channel with this id');
  await ask(page, { channel_id: CHANNEL, seq: '481' });
  await wrong(page, 'seq', 'no message with this number');
}

export async function anAlertIsExplained(given) {
  if (!(await isMock(given))) return 'needs the stories of the mock';
  const page = await openAlerts(given);
  await ask(page, { handle: '@ada', channel_id: CHANNEL, seq: '12' });
  await page.waitForSelector(`${ANSWER}[data-verdict="taken"] h2:has-text("for 2 devices")`);
  const steps = await page.locator(`${ANSWER} .steps li`).allInnerTexts();
  assert.equal(steps.length, 4);
  assert.match(steps[0], /\d\d:\d\d:\d\d[^]*sent again[^]*device 2697\d+[^]*503/);
  assert.match(steps[1], /device 2697\d+, for the messages 11 to 12/);

  await ask(page, { seq: '13' });
  await page.waitForSelector(`${ANSWER} h2:has-text("No alert: these were quiet hours of the user.")`);
  await page.waitForSelector(`${ANSWER} .steps li:has-text("all devices of the user")`);
  await ask(page, { seq: '14' });
  await page.waitForSelector(`${ANSWER} .steps li:last-child:has-text("waits to be decided or sent")`);
  await ask(page, { seq: '15' });
  await page.waitForSelector(`${ANSWER}[data-verdict="nothing"] li:has-text("older than 7 days")`);
  await ask(page, { seq: '17' });
  await page.waitForSelector(`${ANSWER} .steps li:last-child a[href="#/push"]`);
  await ask(page, { seq: '18' });
  await page.waitForSelector(`${ANSWER} .steps li:has-text("melted")`);

  await goTo(page, 'nodes');
  await goTo(page, 'alerts');
  await page.waitForSelector(`${ANSWER} .steps li:has-text("melted")`);
  assert.equal(await page.inputValue('.alert-form [name="seq"]'), '18');
  assert.ok(!page.url().includes('ada'), 'the handle is not in the address');
}

export async function anAlertIsExplainedInKorean(given) {
  if (!(await isMock(given))) return 'needs the stories of the mock';
  const page = await openAlerts(given, { locale: 'ko-KR' });
  await ask(page, { handle: 'ada', channel_id: CHANNEL, seq: '13' });
  await page.waitForSelector(`${ANSWER} h2:has-text("방해 금지 시간")`);
  await ask(page, { handle: 'nobody' });
  await wrong(page, 'handle', '이 핸들을 쓰는 사용자가 없습니다');
}

export async function aCallForAlertsThatFailsIsSurvived(given) {
  const page = await openAlerts(given);
  const refusal = { status: 503, json: { code: 'unavailable', message: 'not now' } };
  await page.route(/operator\/alerts/, (route) => route.fulfill(refusal));
  await ask(page, { handle: 'ada', channel_id: CHANNEL, seq: '12' });
  await page.waitForSelector('main > .problem:has-text("cannot do this now")');
}

async function isMock({ server, act }) {
  const query = new URLSearchParams({ handle: 'ada', channel_id: CHANNEL, seq: '12' });
  return (await server.call(act, 'GET', `alerts?${query}`)).status === 200;
}
