// Recordings of real sites, if there are any, and the tool that makes them.

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import test from "node:test";
import { fixture } from "../record.mjs";
import { SITES } from "../src/sites/all";
import { endpointFor, type Site } from "../src/sites/site";
import { Page } from "./page";
import * as wire from "./wire";

interface Exchange {
  method: string;
  url: string;
  body: string;
  status: number;
  stream: string;
}

function play(exchange: Exchange, cut: number): Page | null {
  const site = SITES.find((one) => endpointFor(one.endpoints, exchange.method, exchange.url));
  if (!site) return null;
  const page = new Page(site as Site);
  const n = page.ask(exchange.url, exchange.body, exchange.method);
  page.receive(n, exchange.stream, cut);
  page.end(n);
  return page;
}

const FOLDER = "test/fixtures";
for (const name of existsSync(FOLDER) ? readdirSync(FOLDER) : []) {
  const exchanges = JSON.parse(readFileSync(`${FOLDER}/${name}`, "utf8")) as Exchange[];
  test(`${name}: prompt and answer are read, however the stream is cut`, () => {
    for (const exchange of exchanges) {
      const whole = play(exchange, 0);
      assert.ok(whole?.prompts.at(-1)?.prompt && whole.answer.status === "complete");
      for (let cut = 0; cut < exchange.stream.length; cut += 7) {
        assert.equal(play(exchange, cut)?.answer.response, whole.answer.response);
      }
    }
  });
}

const SECRET = ["Grandmother's ", "pass🙂word is ", "Żółć 4711."];
const id = "0190a7a0-0000-7000-8000-000000000001";
const gptBody = JSON.stringify({
  action: "next",
  conversation_id: "c-1234567",
  messages: [{ id, author: { role: "user" }, content: { content_type: "text", parts: [SECRET.join("")] } }],
});
const RECORDED = {
  "https://chatgpt.com/backend-api/f/conversation": [gptBody, wire.gptDeltas([...SECRET, "end"])],
  [`https://claude.ai/api/organizations/${id}/chat_conversations/${id}/completion`]: [
    JSON.stringify({ prompt: SECRET.join("") }),
    wire.claudeEvents(SECRET),
  ],
  "https://gemini.google.com/_/BardChatUi/data/assistant.lamda.BardFrontendService/StreamGenerate?f.sid=-4711": [
    wire.geminiBody(SECRET.join("")),
    wire.geminiFrames(SECRET),
  ],
  "https://grok.com/rest/app-chat/conversations/new": [
    JSON.stringify({ message: SECRET.join("") }),
    wire.grokFirst(SECRET),
  ],
};

test("a recording holds no word, digit or id of what was said, and still reads as before", () => {
  const entries = Object.entries(RECORDED).map(([url, [body, stream]]) => ({
    request: { method: "POST", url, postData: { text: body } },
    response: { status: 200, content: { text: stream } },
  }));
  const endpoints = SITES.flatMap((site) => site.endpoints);
  const exchanges = fixture({ log: { entries } }, endpoints) as Exchange[];
  assert.equal(exchanges.length, 4);
  const text = decodeURIComponent(JSON.stringify(exchanges));
  for (const word of ["Grandmother", "pass", "word is", "Żółć", "4711", id, "1234567"]) {
    assert.ok(!text.includes(word), word);
  }
  for (const exchange of exchanges) {
    const page = play(exchange, 5)!;
    const expected = SECRET.join("").replace(/\p{L}/gu, "x").replace(/\p{N}/gu, "0");
    assert.equal(page.answer.status, "complete", exchange.url);
    assert.ok(page.answer.response.startsWith(expected), page.answer.response);
    assert.equal(page.prompts.at(-1)!.prompt, expected);
  }
});
