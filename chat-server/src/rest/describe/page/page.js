// Shows /v1/openapi.json and /v1/asyncapi.json, and makes calls. Everything is inserted into the page as text, never as HTML.

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const pretty = (value) => make("pre", { textContent: JSON.stringify(value, null, 2) });

const folded = (title, content) => make("details", {}, make("summary", { textContent: title }), content());

const lookUp = (root, ref) => ref.slice(2).split("/").reduce((at, key) => at[key], root);

// A schema with its references replaced by their schemas. A schema that contains itself stays a reference.
const resolve = (root, schema, within = []) => {
  if (Array.isArray(schema)) return schema.map((one) => resolve(root, one, within));
  if (schema === null || typeof schema !== "object") return schema;
  if (schema.$ref) {
    if (within.includes(schema.$ref)) return schema;
    const { $ref, ...rest } = schema;
    const { examples, ...found } = lookUp(root, $ref);
    return { ...resolve(root, found, [...within, $ref]), ...resolve(root, rest, within) };
  }
  return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, resolve(root, value, within)]));
};

const schemaOf = (content) => content?.content?.["application/json"]?.schema;

const exampleOf = (root, schema) => (schema?.$ref ? lookUp(root, schema.$ref) : schema)?.examples?.[0];

const call = async (method, path, fields, body) => {
  const query = new URLSearchParams();
  const headers = {};
  for (const { parameter, input } of fields) {
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (input.value && parameter.in === "query") query.set(parameter.name, input.value);
    else if (input.value) headers[parameter.name] = input.value;
  }
  const token = document.querySelector("#token").value;
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const suffix = query.size ? `?${query}` : "";
  const answer = await fetch(path + suffix, { method, headers, body: body?.value, credentials: "omit" });
  const text = await answer.text();
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Not JSON: shown unchanged.
  }
  return `${answer.status}\n${shown}`;
};

const trial = (root, method, path, operation) => {
  const fields = operation.parameters.map((parameter) => ({ parameter, input: make("input") }));
  const schema = schemaOf(operation.requestBody);
  const example = exampleOf(root, schema);
  const body = schema && make("textarea", { value: example ? JSON.stringify(example, null, 2) : "{}" });
  const answer = make("pre", { hidden: true });
  const send = async () => {
    answer.hidden = false;
    answer.textContent = "…";
    try {
      answer.textContent = await call(method.toUpperCase(), path, fields, body);
    } catch (error) {
      answer.textContent = String(error);
    }
  };
  const labels = fields.map(({ parameter, input }) =>
    make("label", {}, `${parameter.name} (${parameter.in}${parameter.required ? "" : ", optional"})`, input));
  const button = make("button", { type: "button", textContent: "Call", onclick: send });
  return make("div", {}, ...labels, ...(body ? [make("label", {}, "body", body)] : []), button, answer);
};

const showOperation = (root, path, method, operation) => {
  const title = make("summary", {}, make("span", { className: "verb", textContent: method.toUpperCase() }),
    make("code", { textContent: path }), ` ${operation.summary}`);
  const box = make("details", { id: operation.operationId }, title);
  box.addEventListener("toggle", () => {
    if (!box.open || box.childElementCount > 1) return;
    const isFree = operation.security.length === 0;
    box.append(make("p", { textContent: isFree ? "Without a token." : "With an access token." }));
    const schema = schemaOf(operation.requestBody);
    if (schema) box.append(folded("Body", () => pretty(resolve(root, schema))));
    for (const [status, entry] of Object.entries(operation.responses)) {
      const response = entry.$ref ? lookUp(root, entry.$ref) : entry;
      const answer = schemaOf(response);
      box.append(folded(`${status} ${response.description}`, () => pretty(answer ? resolve(root, answer) : null)));
    }
    box.append(trial(root, method, path, operation));
  });
  return box;
};

const showRest = (root) => {
  const sections = root.tags.map(({ name }) => make("section", { id: name }, make("h2", { textContent: name })));
  for (const [path, methods] of Object.entries(root.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const section = sections.find(({ id }) => id === operation.tags[0]);
      section.append(showOperation(root, path, method, operation));
    }
  }
  return sections;
};

const showFrame = (root, key, message) => {
  const [side, kind] = key.split(".");
  const title = make("summary", {}, make("span", { className: "verb", textContent: side }),
    make("code", { textContent: kind }), ` ${message.summary ?? ""}`);
  const box = make("details", { id: key }, title);
  box.addEventListener("toggle", () => {
    if (!box.open || box.childElementCount > 1) return;
    for (const { payload } of message.examples) box.append(pretty(payload));
    box.append(folded("Schema", () => pretty(resolve(root, message.payload))));
  });
  return box;
};

const showSocket = (root) => {
  const { "x-close-codes": codes, address } = root.channels.socket;
  const frames = Object.entries(root.components.messages).map(([key, message]) => showFrame(root, key, message));
  const ends = codes.map(({ code, meaning, reconnect }) =>
    make("li", { textContent: `${code}: ${meaning}${reconnect ? "" : " (do not reconnect automatically)"}` }));
  return make("section", {}, make("h2", { textContent: `Socket ${address}` }), ...frames, make("ul", {}, ...ends));
};

const load = async (url) => (await fetch(url, { credentials: "omit" })).json();

const main = document.querySelector("#main");
try {
  const [rest, socket] = await Promise.all([load("/v1/openapi.json"), load("/v1/asyncapi.json")]);
  main.replaceChildren(...showRest(rest), showSocket(socket));
} catch (error) {
  main.replaceChildren(make("p", { textContent: `Loading the descriptions failed: ${error}` }));
}
