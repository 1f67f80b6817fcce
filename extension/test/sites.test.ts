import assert from "node:assert/strict";
import test from "node:test";
import { chatgpt } from "../src/sites/chatgpt";
import { claude } from "../src/sites/claude";
import { gemini } from "../src/sites/gemini";
import { grok } from "../src/sites/grok";
import type { Site } from "../src/sites/site";
import { xgrok } from "../src/sites/xgrok";
import { Page } from "./page";
import * as wire from "./wire";

const PIECES = ["Hé", "llo 🙂", "\r\n```js\nconst a = \"\\u{1F642}\";\n", "```\n終わり ", "\u2028 e\u0301\n\n"];
const WHOLE = PIECES.join("");

const GPT = "https://chatgpt.com/backend-api/f/conversation";
const CLAUDE = "https://claude.ai/api/organizations/o-1/chat_conversations/c-1/completion";
const GEMINI =
  "https://gemini.google.com/u/1/_/BardChatUi/data/assistant.lamda.BardFrontendService/StreamGenerate?bl=x&rt=c";
const GROK = "https://grok.com/rest/app-chat/conversations/";

const gptBody = (text: string, more: object = {}): object => ({
  action: "next",
  messages: [{ id: "u-1", author: { role: "user" }, content: { content_type: "text", parts: [text] } }],
  parent_message_id: "p-0",
  model: "auto",
  ...more,
});
const claudeBody = (text: string): object => ({
  prompt: text,
  parent_message_uuid: "p-0",
  model: "claude-9",
  turn_message_uuids: { human_message_uuid: "u-1", assistant_message_uuid: "a-1" },
});

interface Shape {
  site: Site;
  url: string;
  body: unknown;
  stream: string;
  messageId: string | undefined;
  conversation: string | undefined;
  title?: string;
}

const SHAPES: Record<string, Shape> = {
  "ChatGPT, delta encoding with inherited places, patches, reasoning and tools": {
    site: chatgpt, url: GPT, body: gptBody("Q"), stream: wire.gptDeltas(PIECES), messageId: "u-1", conversation: "c-1", title: "A title",
  },
  "ChatGPT, whole snapshots": {
    site: chatgpt, url: "https://chatgpt.com/backend-api/conversation", body: gptBody("Q"), stream: wire.gptSnapshots(PIECES), messageId: "u-1", conversation: "c-1",
  },
  "Claude, Messages events with thinking, a tool and limits": {
    site: claude, url: CLAUDE, body: claudeBody("Q"), stream: wire.claudeEvents(PIECES), messageId: "u-1", conversation: "c-1",
  },
  "Claude, legacy completions": {
    site: claude, url: CLAUDE, body: { prompt: "Q" }, stream: wire.claudeLegacy(PIECES), messageId: undefined, conversation: "c-1",
  },
  "Gemini, cumulative frames with lengths": {
    site: gemini, url: GEMINI, body: wire.geminiBody("Q"), stream: wire.geminiFrames(PIECES), messageId: "REQ-1", conversation: "c_1", title: "A title",
  },
  "Grok, first turn": {
    site: grok, url: `${GROK}new`, body: { message: "Q", temporary: false }, stream: wire.grokFirst(PIECES), messageId: "u-1", conversation: "g-1", title: "A title",
  },
  "Grok, later turns, with data: in front": {
    site: grok, url: `${GROK}g-1/responses`, body: { message: "Q", parentResponseId: "p-0" }, stream: wire.grokLater(PIECES), messageId: "u-1", conversation: "g-1",
  },
  "Grok in X": {
    site: xgrok, url: "https://grok.x.com/2/grok/add_response.json", body: { responses: [{ message: "Q", sender: 1 }], conversationId: "20" }, stream: wire.grokOnX(PIECES), messageId: "u-1", conversation: "20",
  },
};

function check(page: Page, shape: Shape): void {
  const { prompts, answer } = page;
  assert.equal(prompts.at(-1)?.prompt, "Q");
  assert.equal(prompts.at(-1)?.messageId, shape.messageId);
  assert.equal(answer.response, WHOLE);
  assert.equal(answer.status, "complete");
  assert.equal(answer.messageId, shape.messageId);
  assert.equal(answer.facts.conversation_id, shape.conversation);
  assert.equal(answer.facts.conversation_title, shape.title);
  assert.equal(new Set(page.news.map((news) => news.key)).size, 1);
}

function run(shape: Shape, bytes: Uint8Array, ...cuts: number[]): Page {
  const page = new Page(shape.site);
  const n = page.ask(shape.url, shape.body);
  page.receive(n, bytes, ...cuts);
  page.end(n);
  return page;
}

for (const [name, shape] of Object.entries(SHAPES)) {
  const bytes = new TextEncoder().encode(shape.stream);
  test(`${name}: the answer comes out as it went in`, () => check(run(shape, bytes), shape));
  test(`${name}: cut at every byte boundary`, () => {
    for (let cut = 0; cut <= bytes.length; cut++) check(run(shape, bytes, cut), shape);
  });
  test(`${name}: byte by byte`, () => {
    check(run(shape, bytes, ...Array.from(bytes.keys())), shape);
  });
  test(`${name}: a stream that breaks off anywhere never invents text`, () => {
    for (let cut = 0; cut < bytes.length; cut++) {
      const page = new Page(shape.site);
      const n = page.ask(shape.url, shape.body);
      page.receive(n, bytes.slice(0, cut));
      page.end(n, "failed");
      assert.equal(page.prompts.at(-1)?.prompt, "Q");
      for (const { response, status } of page.answers) {
        const known = status === "complete" ? WHOLE : WHOLE.slice(0, response.length);
        assert.equal(response, known);
      }
    }
  });
}

test("the prompt is said before any of the answer has come", () => {
  for (const shape of Object.values(SHAPES)) {
    const page = new Page(shape.site);
    page.ask(shape.url, shape.body);
    assert.deepEqual(page.news.map(({ type }) => type), ["prompt"]);
  }
});

test("frames whose JSON has line breaks are read by their length", () => {
  const rows = [["wrb.fr", null, JSON.stringify([null, ["c_1", "r_1"], { 44: true }, null, [["rc_1", ["🙂 ok"]]]])]];
  const json = JSON.stringify(rows, null, 1);
  const reader = gemini.reader();
  reader.push(`)]}'\n\n${json.length + 2}\n${json}\n`);
  assert.deepEqual([reader.answer.text, reader.answer.done], ["🙂 ok", true]);
});

test("no reader throws, whatever comes", () => {
  const garbage = ["", "\n\n\n", "data: {\n\n", "data: null\n\n", "data: [1]\n\n", "[[\n", "7\n[null]\n", '{"result":null}\n', "data: 5\n\n"];
  const odd = [{ p: 7 }, { v: null }, { o: "patch", v: [null, 3] }, { message: 4 }, { type: {} }, { result: { response: [] } }, [["wrb.fr", null, "[[["]], [["wrb.fr", null, "[4]"]]];
  for (const site of [chatgpt, claude, gemini, grok, xgrok]) {
    const reader = site.reader();
    for (const text of [...garbage, ...odd.map((event) => `data: ${JSON.stringify(event)}\n\n${JSON.stringify(event)}\n`)]) reader.push(text);
    reader.close(true);
    assert.equal(reader.answer.text, "");
    for (const body of ["", "{", "null", "[]", '"x"', "f.req=%5B%5D"]) {
      assert.equal(site.prompt({ url: new URL("https://example.com/x"), body }), null);
      assert.equal(site.history?.({ url: new URL("https://example.com/x"), body: "" }, body) ?? null, null);
    }
  }
});

test("what is not a turn is not taken for one", () => {
  const others = [
    [chatgpt, "https://chatgpt.com/backend-api/f/conversation/prepare"],
    [chatgpt, "https://chatgpt.com/backend-api/sentinel/chat-requirements"],
    [chatgpt, "https://chatgpt.com.evil.example/backend-api/f/conversation"],
    [claude, "https://claude.ai/api/organizations/o-1/chat_conversations/c-1/title"],
    [gemini, "https://gemini.google.com/_/BardChatUi/data/batchexecute?rpcids=hNvQHb"],
    [grok, "https://grok.com/rest/app-chat/conversations/g-1/load-responses"],
  ] as const;
  for (const [site, url] of others) {
    const page = new Page(site);
    page.ask(url, gptBody("Q"));
    assert.deepEqual(page.news, [], url);
  }
});
