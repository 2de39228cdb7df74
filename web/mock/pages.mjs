// Serves `dist` below /operator/, with the headers that the real server sends.

import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';

const DIST = new URL('../dist/', import.meta.url);
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

export const CSP = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  'trusted-types svelte-trusted-html',
].join('; ');

export async function page(path, response) {
  if (path === '/' || path === '/operator') return response.writeHead(308, { location: '/operator/' }).end();
  const name = path === '/operator/' ? 'index.html' : path.replace(/^\/operator\//, '');
  const isSafe = /^(assets\/)?[\w.-]+$/.test(name) && !name.includes('..');
  const body = isSafe ? await readFile(new URL(name, DIST)).catch(() => undefined) : undefined;
  if (body === undefined) return response.writeHead(404).end();
  const headers = {
    'content-type': TYPES[extname(name)] ?? 'application/octet-stream',
    'cache-control': name.startsWith('assets/') ? 'public, max-age=31536000, immutable' : 'no-cache',
    'content-security-policy': CSP,
    'x-content-type-options': 'nosniff',
  };
  return response.writeHead(200, headers).end(body);
}
