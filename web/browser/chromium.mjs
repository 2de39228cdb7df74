// Chromium, and pages of it that note everything that should not happen.

import { chromium } from 'playwright-core';

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
  });
}

/** Opens a page. `faults` collects console errors, CSP reports, and requests to other origins. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({
    locale: 'en-GB',
    viewport: { width: 1360, height: 860 },
    reducedMotion: 'reduce',
    ...options,
  });
  const page = await context.newPage();
  const faults = [];
  const origin = new URL(url).origin;
  // Refusals that a case provokes are logged by Chromium as failed resources; cases check those themselves.
  page.on('console', (message) => {
    const isAnswer = message.text().startsWith('Failed to load resource');
    if (message.type() === 'error' && !isAnswer) faults.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
  page.on('request', (request) => {
    const { protocol, origin: to } = new URL(request.url());
    if (protocol.startsWith('http') && to !== origin) faults.push(`request to ${to}`);
  });
  await page.exposeFunction('noteCspReport', (report) => faults.push(`CSP: ${report}`));
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      window.noteCspReport(
        `${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`,
      );
    });
  });
  await page.goto(url);
  return { page, context, faults };
}

export async function signIn(page, { name, secret }) {
  await page.fill('input[name="name"]', name);
  await page.fill('input[name="secret"]', secret);
  await page.press('input[name="secret"]', 'Enter');
  await page.waitForSelector('.tabs');
}

export async function goTo(page, view) {
  await page.click(`.tabs a[href="#/${view}"]`);
  await page.waitForSelector(`.tabs a[href="#/${view}"][aria-current="page"]`);
}
