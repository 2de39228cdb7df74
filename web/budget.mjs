// Fails if a page loads more JavaScript than the budget: every chunk, and of the languages the largest.

import { readdirSync, readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const BUDGET_KB = 64;
const ASSETS = new URL('./dist/assets/', import.meta.url);
const LANGUAGE = /^(en|ko)-[^.]+\.js$/;

const sizes = readdirSync(ASSETS)
  .filter((name) => name.endsWith('.js'))
  .map((name) => ({ name, kb: gzipSync(readFileSync(new URL(name, ASSETS)), { level: 9 }).length / 1000 }));
const languages = sizes.filter(({ name }) => LANGUAGE.test(name));
const others = sizes.filter(({ name }) => !LANGUAGE.test(name));
const total = others.reduce((sum, { kb }) => sum + kb, 0) + Math.max(0, ...languages.map(({ kb }) => kb));

for (const { name, kb } of sizes) console.log(`${kb.toFixed(1).padStart(7)} KB  ${name}`);
console.log(`${total.toFixed(1).padStart(7)} KB  of ${BUDGET_KB} KB (gzip, one language)`);
if (total > BUDGET_KB) {
  console.error('The budget is exceeded.');
  process.exit(1);
}
