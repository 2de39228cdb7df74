// A channel with enough traffic to be hot: one sender, and members who count the frames that come.

import { randomUUID } from 'node:crypto';
import { WebSocket } from 'ws';

const MEMBERS = 60;
const MESSAGES_PER_SECOND = 250;
const TICK_MS = 20;

export class Concert {
  frames = 0;
  #sockets = [];
  #timer;

  /** Users, the channel, and their subscriptions. */
  static async prepare(pageUrl, name = 'Concert') {
    const concert = new Concert();
    const api = new URL('/v1/', pageUrl);
    const tokens = [];
    for (let number = 0; number <= MEMBERS; number += 1) {
      const handle = `${name.toLowerCase()}${number}`;
      const account = { handle, display_name: handle, password: 'correct horse' };
      tokens.push((await call(api, 'POST', 'accounts', undefined, account)).access_token);
    }
    const wish = { kind: 'open', name };
    concert.channel = (await call(api, 'POST', 'channels', tokens[0], wish)).id;
    for (const token of tokens.slice(1)) {
      await call(api, 'PUT', `channels/${concert.channel}/membership`, token);
    }
    await Promise.all(tokens.map((token, number) => concert.#connect(api, token, number > 0)));
    return concert;
  }

  begin() {
    const [sender] = this.#sockets;
    let sent = 0;
    const since = Date.now();
    this.#timer = setInterval(() => {
      const due = ((Date.now() - since) * MESSAGES_PER_SECOND) / 1_000;
      for (; sent < due; sent += 1) sender.send(JSON.stringify(this.#message(sent)));
    }, TICK_MS);
  }

  async stop() {
    clearInterval(this.#timer);
    for (const socket of this.#sockets) socket.terminate();
  }

  #message(number) {
    const id = String(number);
    const body = { text: `la la la ${number}` };
    return { type: 'send', id, channel_id: this.channel, client_msg_id: randomUUID(), body };
  }

  #connect(api, token, subscribes) {
    const url = new URL('ws', api);
    url.protocol = 'ws:';
    const socket = new WebSocket(url, 'madang.v1.json');
    this.#sockets.push(socket);
    const heartbeat = setInterval(() => socket.send('{"type":"heartbeat"}'), 5_000);
    socket.on('close', () => clearInterval(heartbeat));
    return new Promise((resolve, reject) => {
      socket.on('error', reject);
      socket.on('open', () => socket.send(JSON.stringify({ type: 'hello', token })));
      socket.on('message', (message) => {
        const text = message.toString();
        if (text.startsWith('{"type":"welcome"')) {
          if (!subscribes) return resolve();
          const subscribe = { type: 'subscribe', id: 's', channel_id: this.channel };
          return socket.send(JSON.stringify(subscribe));
        }
        if (text.startsWith('{"type":"heads"') && text.includes('"id":"s"')) return resolve();
        if (text.startsWith('{"type":"error"')) throw new Error(text);
        if (text.startsWith('{"type":"entries"') && text.includes('"log":"channel"')) this.frames += 1;
      });
    });
  }
}

async function call(api, method, path, token, body) {
  const answer = await fetch(new URL(path, api), {
    method,
    headers: {
      'content-type': 'application/json',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}
