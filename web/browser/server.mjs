// Calls of the server from outside of the page: another operator, or a look at what has really happened.

import assert from 'node:assert/strict';

export class Server {
  #tokens = new Map();

  constructor(pageUrl) {
    this.base = new URL('/v1/operator/', pageUrl);
  }

  async call(who, method, path, { body, headers = {} } = {}) {
    const token = await this.#token(who);
    return fetch(new URL(path, this.base), {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  }

  async board(who) {
    return (await this.call(who, 'GET', 'board')).json();
  }

  /** Changes the configuration as another operator would. */
  async changeConfig(who, change) {
    const response = await this.call(who, 'GET', 'config');
    const { config } = await response.json();
    const before = JSON.stringify(config);
    change(config);
    // A change that changes nothing is refused.
    if (JSON.stringify(config) === before) return;
    const answer = await this.call(who, 'PUT', 'config', {
      body: { config, why: 'changed by a browser test' },
      headers: { 'if-match': response.headers.get('etag') },
    });
    assert.equal(answer.status, 200);
  }

  async #token({ name, secret }) {
    if (!this.#tokens.has(name)) {
      const response = await fetch(new URL('token', this.base), {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ name, secret }),
      });
      assert.equal(response.status, 200, `no token for ${name}`);
      this.#tokens.set(name, (await response.json()).token);
    }
    return this.#tokens.get(name);
  }
}
