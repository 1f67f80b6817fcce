// `node record.mjs chat.har > test/fixtures/SITE-YYYY-MM.json`: what a real site sends, without a word of
// what anybody wrote. Structure, types, lengths and line breaks stay; letters, digits and ids do not.
import { readFile } from "node:fs/promises";
import { build } from "esbuild";

// Values of these names are words of the protocol, and are needed to read it.
const PROTOCOL = new Set(
  ("action author channel content_type end_turn event messageTag method mimeType o p recipient role " +
    "sender status stop_reason type content-type").split(" "),
);
const ID = /^(?=.*\d)[\w:.-]{6,}$|^[0-9a-f]{8}-[0-9a-f]{4}-/i;

export class Redactor {
  #ids = new Map();

  text(value) {
    if (ID.test(value)) {
      if (!this.#ids.has(value)) this.#ids.set(value, `id-${this.#ids.size + 1}`);
      return this.#ids.get(value);
    }
    return value.replace(/\p{L}/gu, (letter) => (letter.length === 2 ? "𝑥" : "x")).replace(/\p{N}/gu, "0");
  }

  value(value, name = "") {
    if (typeof value === "string") return PROTOCOL.has(name) ? value : this.packed(value);
    if (typeof value === "number") return value > 1e6 ? 1 : value;
    if (Array.isArray(value)) return value.map((one, n) => this.item(one, n));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, one]) => [ID.test(key) ? this.text(key) : key, this.value(one, key)]),
    );
  }

  /** Gemini marks its rows by a first item of these. */
  item(value, n) {
    return n === 0 && ["wrb.fr", "di", "e", "af.httprm"].includes(value) ? value : this.value(value);
  }

  /** A text may hold JSON, or a whole piece of a stream. */
  packed(text) {
    const parsed = parse(text);
    if (typeof parsed === "object" && parsed !== null) return JSON.stringify(this.value(parsed));
    return /^(event|data): /m.test(text) ? this.stream(text) : this.text(text);
  }

  /** Line by line: server-sent events, lines of JSON, or Gemini's frames, whose lengths are made anew. */
  stream(text) {
    const lines = text.split("\n").map((line) => this.line(line));
    return lines
      .map((line, n) => (/^\d+\r?$/.test(line) && lines[n + 1]?.startsWith("[") ? `${lines[n + 1].length + 2}` : line))
      .join("\n");
  }

  line(line) {
    const [, before, rest, after] = /^(data: ?)?(.*?)(\r?)$/s.exec(line);
    if (/^(event: \w+|\d+|\)\]\}'|)$/.test(rest) || rest === "[DONE]") return line;
    const parsed = parse(rest);
    const safe = parsed === undefined ? this.text(rest) : JSON.stringify(this.value(parsed));
    return `${before ?? ""}${safe}${after}`;
  }

  body(text) {
    const form = new URLSearchParams(text).get("f.req");
    if (form === null) return this.packed(text);
    return new URLSearchParams({ "f.req": this.packed(form) }).toString();
  }

  url(address) {
    const url = new URL(address);
    url.pathname = url.pathname.split("/").map((step) => (ID.test(step) && !/^reconnect/.test(step) ? this.text(step) : step)).join("/");
    url.search = "";
    return url.href;
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function decoded({ text = "", encoding }) {
  return encoding === "base64" ? Buffer.from(text, "base64").toString() : text;
}

/** The exchanges that an adapter knows, redacted. */
export function fixture(har, endpoints) {
  const redactor = new Redactor();
  return har.log.entries
    .filter(({ request }) => endpoints.some(({ method, url }) => method === request.method && url.test(request.url.split("?")[0])))
    .map(({ request, response }) => ({
      method: request.method,
      url: redactor.url(request.url),
      body: redactor.body(request.postData?.text ?? ""),
      status: response.status,
      stream: redactor.stream(decoded(response.content)),
    }));
}

async function main(path) {
  const made = await build({ entryPoints: ["src/sites/endpoints.ts"], bundle: true, format: "esm", write: false });
  const { ENDPOINTS } = await import(`data:text/javascript;base64,${Buffer.from(made.outputFiles[0].text).toString("base64")}`);
  const exchanges = fixture(JSON.parse(await readFile(path, "utf8")), ENDPOINTS);
  console.error(`${exchanges.length} exchanges that an adapter knows`);
  console.log(JSON.stringify(exchanges, null, 1));
}

if (process.argv[1]?.endsWith("record.mjs")) await main(process.argv[2]);
