// Speaks the operators' contract with a synthetic concert, and serves `dist`. For development and for browser tests.
//   node mock/server.mjs [--port 8788] [--token-seconds 900]

import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { WebSocketServer } from 'ws';
import { Calls, Refusal } from './calls.mjs';
import { Concert } from './concert.mjs';
import { Acts, Tokens } from './operators.mjs';
import { page } from './pages.mjs';

const API = '/v1/operator/';
const SUBPROTOCOL = 'madang.operator.v1.json';
const TOKEN_ENDED = 4401;

export async function start({ port = 0, tokenSeconds = 900 } = {}) {
  const concert = new Concert();
  const tokens = new Tokens(tokenSeconds);
  const calls = new Calls(concert, tokens, new Acts((act) => concert.acted(act)));
  const server = createServer((request, response) => void serve(calls, request, response));
  const sockets = new WebSocketServer({
    noServer: true,
    handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
  });
  server.on('upgrade', (request, socket, head) => {
    if (request.url !== `${API}live`) socket.destroy();
    else sockets.handleUpgrade(request, socket, head, (opened) => live(opened, concert, tokens));
  });
  const timer = setInterval(() => concert.tick(), 500);
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/operator/`,
    stop() {
      clearInterval(timer);
      for (const socket of sockets.clients) socket.terminate();
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

function live(socket, concert, tokens) {
  let timer;
  const greeting = setTimeout(() => socket.close(TOKEN_ENDED, 'no token'), 10_000);
  socket.once('message', (data) => {
    clearTimeout(greeting);
    const token = parse(String(data))?.token;
    const show = () => {
      if (tokens.check(token)) socket.send(JSON.stringify(concert.board('seoul-1')));
      else socket.close(TOKEN_ENDED, 'the token is not valid');
    };
    show();
    timer = setInterval(show, 1_000);
  });
  socket.on('close', () => {
    clearTimeout(greeting);
    clearInterval(timer);
  });
}

async function serve(calls, request, response) {
  const url = new URL(request.url, 'http://localhost');
  if (!url.pathname.startsWith(API)) return page(url.pathname, response);
  try {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const { status, body, etag } = calls.answer({
      method: request.method,
      path: url.pathname.slice(API.length),
      query: Object.fromEntries(url.searchParams),
      token: request.headers.authorization?.replace(/^Bearer /, ''),
      ifMatch: request.headers['if-match'],
      from: request.socket.remoteAddress ?? '',
      body: text === '' ? undefined : parse(text),
    });
    const headers = { 'content-type': 'application/json', ...(etag ? { etag } : {}) };
    response.writeHead(status, headers).end(body === undefined ? undefined : JSON.stringify(body));
  } catch (error) {
    const refusal = error instanceof Refusal ? error : new Refusal(500, 'internal', String(error));
    response
      .writeHead(refusal.status, { 'content-type': 'application/json' })
      .end(JSON.stringify(refusal.body));
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '8788' },
      'token-seconds': { type: 'string', default: '900' },
    },
  });
  const { url } = await start({ port: Number(values.port), tokenSeconds: Number(values['token-seconds']) });
  console.log(`${url} (ada / ada-secret may act, vera / vera-secret may look)`);
}
