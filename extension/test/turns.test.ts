import assert from "node:assert/strict";
import test from "node:test";
import { contextBlock } from "../src/marker";
import { chatgpt } from "../src/sites/chatgpt";
import { claude } from "../src/sites/claude";
import { gemini } from "../src/sites/gemini";
import { grok } from "../src/sites/grok";
import { Page } from "./page";
import * as wire from "./wire";

const GPT = "https://chatgpt.com/backend-api/f/conversation";
const CLAUDE = "https://claude.ai/api/organizations/o-1/chat_conversations/c-1";
const GEMINI =
  "https://gemini.google.com/_/BardChatUi/data/assistant.lamda.BardFrontendService/StreamGenerate";
const GROK = "https://grok.com/rest/app-chat/conversations";

function gptBody(text: string, id = "u-1", more: object = {}): object {
  const content = { content_type: "text", parts: [text] };
  return {
    action: "next",
    messages: [{ id, author: { role: "user" }, content }],
    parent_message_id: "p-0",
    ...more,
  };
}

function turn(page: Page, url: string, body: unknown, stream: string): void {
  const n = page.ask(url, body);
  page.receive(n, stream);
  page.end(n);
}

test("a stopped answer is kept as far as it came", () => {
  const page = new Page(chatgpt);
  const n = page.ask(GPT, gptBody("Q"));
  page.receive(n, wire.gptDeltas(["Hello", " wor", "ld", "!"]).split('{"v":"ld"}')[0]!);
  page.end(n, "aborted");
  assert.equal(page.answer.response, "Hello wor");
  assert.equal(page.answer.status, "partial");
  assert.equal(page.answer.checkpoint, false);
});

test("a long answer is checkpointed while it grows, and said whole once", () => {
  const page = new Page(claude);
  const n = page.ask(`${CLAUDE}/completion`, { prompt: "Q" });
  const stream = wire.claudeEvents(Array.from({ length: 50 }, () => "word "));
  const bytes = new TextEncoder().encode(stream);
  for (let start = 0; start < bytes.length; start += 200) {
    page.receive(n, bytes.slice(start, start + 200));
    page.time += 400;
  }
  page.end(n);
  const said = page.answers;
  assert.equal(said.filter(({ status }) => status === "complete").length, 1);
  assert.ok(said.filter(({ checkpoint }) => checkpoint).length > 3);
  assert.equal(said.at(-1)!.response, "word ".repeat(50));
});

test("a site that keeps its stream open does not hold the answer back", () => {
  const page = new Page(gemini);
  const n = page.ask(GEMINI, wire.geminiBody("Q"));
  page.receive(n, wire.geminiFrames(["Hel", "lo"]));
  assert.equal(page.answers.length, 0);
  page.time += 1_100;
  page.turns.tick();
  assert.deepEqual([page.answer.status, page.answer.response], ["complete", "Hello"]);
  page.end(n);
  assert.equal(page.answers.length, 1);
});

test("another answer is a memory of its own, with the same prompt and the first one's id", () => {
  const page = new Page(chatgpt);
  turn(page, GPT, gptBody("Q"), wire.gptDeltas(["one"]));
  const again = { action: "variant", messages: [], parent_message_id: "u-1", conversation_id: "c-1" };
  turn(page, GPT, again, wire.gptDeltas(["two"]).replaceAll('"a-1"', '"a-2"'));
  const [first, second] = page.prompts;
  assert.deepEqual([first!.messageId, first!.replacesMessageId], ["u-1", undefined]);
  assert.deepEqual([second!.messageId, second!.replacesMessageId, second!.prompt], ["a-2", "u-1", "Q"]);
  assert.deepEqual([page.answer.messageId, page.answer.response], ["a-2", "two"]);
});

test("Claude's retry names its answer in the request, so its prompt goes out at once", () => {
  const page = new Page(claude);
  const ids = (human: string, assistant: string) => ({
    turn_message_uuids: { human_message_uuid: human, assistant_message_uuid: assistant },
  });
  turn(page, `${CLAUDE}/completion`, { prompt: "Q", ...ids("u-1", "a-1") }, wire.claudeEvents(["one"]));
  page.ask(`${CLAUDE}/retry_completion`, { prompt: "", parent_message_uuid: "u-1", ...ids("u-1", "a-2") });
  const said = page.prompts.at(-1)!;
  assert.deepEqual([said.prompt, said.messageId, said.replacesMessageId], ["Q", "a-2", "u-1"]);
});

test("another answer to a prompt of a page that was opened later has its text from the history", () => {
  const page = new Page(claude);
  const n = page.ask(CLAUDE, "", "GET");
  const chat_messages = [
    { uuid: "u-1", sender: "human", content: [{ type: "text", text: `Old question\n\n${contextBlock([])}` }] },
    { uuid: "a-1", sender: "assistant", parent_message_uuid: "u-1", text: "Old answer" },
  ];
  page.receive(n, JSON.stringify({ uuid: "c-1", name: "Title", chat_messages }));
  page.end(n);
  page.ask(`${CLAUDE}/retry_completion`, {
    parent_message_uuid: "u-1",
    turn_message_uuids: { assistant_message_uuid: "a-2" },
  });
  assert.equal(page.prompts.at(-1)!.prompt, "Old question");
});

test("Grok asked again with the same words in the same place gives another memory", () => {
  const page = new Page(grok);
  const body = { message: "Q", parentResponseId: "p-0" };
  turn(page, `${GROK}/g-1/responses`, body, wire.grokLater(["one"]));
  turn(page, `${GROK}/g-1/responses`, body, wire.grokLater(["two"]).replaceAll('"a-1"', '"a-2"'));
  const last = page.answer;
  assert.deepEqual([last.messageId, last.replacesMessageId, last.response], ["a-2", "u-1", "two"]);
  assert.equal(page.prompts.at(-1)!.prompt, "Q");
});

for (const [name, parentResponseId] of Object.entries({ "its place": "p-0", "its prompt": "u-1", "its answer": "a-1" })) {
  test(`Grok asked for another answer, named by ${name}`, () => {
    const page = new Page(grok);
    const url = `${GROK}/g-1/responses`;
    turn(page, url, { message: "Q", parentResponseId: "p-0" }, wire.grokLater(["one"]));
    const again = { message: "", parentResponseId, isRegenRequest: true };
    turn(page, url, again, wire.grokLater(["two"]).replaceAll('"a-1"', '"a-2"'));
    const last = page.answer;
    assert.deepEqual([last.messageId, last.replacesMessageId, last.response], ["a-2", "u-1", "two"]);
    assert.equal(page.prompts.at(-1)!.prompt, "Q");
  });
}

for (const [name, first, second] of [
  ["the first of a chat", {}, { 2: ["c_1", null, null] }],
  ["a later one", { 2: ["c_1", "r_0", "rc_0"] }, { 2: ["c_1", "r_0", "rc_0"] }],
] as const) {
  test(`Gemini asked again gives another memory that names the one before: ${name}`, () => {
    const page = new Page(gemini);
    turn(page, GEMINI, wire.geminiBody("Q", first), wire.geminiFrames(["one"]));
    turn(page, GEMINI, wire.geminiBody("Q", { ...second, 59: "REQ-2" }), wire.geminiFrames(["two"]));
    const last = page.answer;
    assert.deepEqual([last.messageId, last.replacesMessageId, last.response], ["REQ-2", "REQ-1", "two"]);
  });
}

test("the same words later in the same chat replace nothing", () => {
  const page = new Page(gemini);
  turn(page, GEMINI, wire.geminiBody("Q"), wire.geminiFrames(["one"]));
  const later = wire.geminiBody("Q", { 2: ["c_1", "r_1", "rc_1"], 59: "REQ-2" });
  turn(page, GEMINI, later, wire.geminiFrames(["two"]));
  assert.equal(page.answer.replacesMessageId, undefined);
});

test("an edited prompt is a memory of its own that names the one it replaces", () => {
  const page = new Page(chatgpt);
  const there = { conversation_id: "c-1", parent_message_id: "p-7" };
  turn(page, GPT, gptBody("tpyo", "u-1", there), wire.gptDeltas(["?"]));
  turn(page, GPT, gptBody("typo", "u-2", there), wire.gptDeltas(["!"]).replaceAll('"u-1"', '"u-2"'));
  const last = page.prompts.at(-1)!;
  assert.deepEqual([last.messageId, last.replacesMessageId, last.prompt], ["u-2", "u-1", "typo"]);
});

test("a request that the site itself repeats is the same turn", () => {
  const page = new Page(chatgpt);
  const body = gptBody("Q", "u-1", { conversation_id: "c-1" });
  page.end(page.ask(GPT, body), "failed");
  assert.equal(page.turns.starving().length, 1);
  turn(page, GPT, body, wire.gptDeltas(["A"]));
  // The first try does not wait for the page to show what the second has brought.
  assert.deepEqual(page.turns.starving(), []);
  assert.equal(page.turns.busy, false);
  assert.deepEqual(new Set(page.news.map(({ messageId }) => messageId)), new Set(["u-1"]));
  assert.equal(page.answer.replacesMessageId, undefined);
});

test("a temporary chat is not saved, on any site", () => {
  const inner = wire.geminiBody("secret", { 45: 1 });
  const tries: [Page, string, unknown][] = [
    [new Page(chatgpt, "https://chatgpt.com/?temporary-chat=true"), GPT, gptBody("secret")],
    [new Page(chatgpt), GPT, gptBody("secret", "u-1", { history_and_training_disabled: true })],
    [new Page(claude), `${CLAUDE}/completion`, { prompt: "secret", create_conversation_params: { is_temporary: true } }],
    [new Page(gemini), GEMINI, inner],
    [new Page(grok), `${GROK}/new`, { message: "secret", temporary: true }],
  ];
  for (const [page, url, body] of tries) {
    turn(page, url, body, wire.grokFirst(["A"]) + wire.gptDeltas(["A"]) + wire.claudeEvents(["A"]));
    assert.deepEqual(page.news, []);
  }
});

test("a paused conversation is not saved, and others are", () => {
  const page = new Page(claude);
  page.paused = "c-1";
  turn(page, `${CLAUDE}/completion`, { prompt: "secret" }, wire.claudeEvents(["A"]));
  assert.deepEqual(page.news, []);
  assert.equal(page.turns.lastTurnAt, page.time);
  const named = { prompt: "Q", turn_message_uuids: { human_message_uuid: "u-1" } };
  turn(page, `${CLAUDE.replace("c-1", "c-2")}/completion`, named, wire.claudeEvents(["A"]));
  assert.deepEqual(page.news.map(({ type }) => type), ["prompt", "answer"]);
});

test("attachments are named; a message of nothing else goes by their names", () => {
  const page = new Page(chatgpt);
  const metadata = { attachments: [{ name: "plan.pdf" }, { name: "photo.png" }] };
  const message = { id: "u-1", author: { role: "user" }, content: { parts: [{ asset_pointer: "x" }, ""] }, metadata };
  page.ask(GPT, { action: "next", messages: [message] });
  assert.equal(page.prompts[0]!.prompt, "plan.pdf, photo.png");
  assert.deepEqual(page.prompts[0]!.facts.metadata["attachments"], ["plan.pdf", "photo.png"]);
});

test("memories that were inserted are not saved again", () => {
  const found = { id: "1", prompt: "old", response: "older", provider: "grok", conversationId: null, title: null, occurredAt: "2026-01-01T00:00:00Z", relevant: true, snippet: [] };
  const page = new Page(grok);
  turn(page, `${GROK}/new`, { message: `Q\n\n${contextBlock([found])}` }, wire.grokFirst(["A"]));
  assert.equal(page.prompts[0]!.prompt, "Q");
  const only = new Page(grok);
  turn(only, `${GROK}/new`, { message: contextBlock([found]) }, wire.grokFirst(["A"]));
  assert.deepEqual(only.news.map(({ type }) => type), ["answer"]);
});

test("halves of surrogate pairs and NUL do not stop a turn from being saved", () => {
  const page = new Page(grok);
  turn(page, `${GROK}/new`, { message: "a\ud83d b\0" }, wire.grokFirst(["c\ude42"]));
  assert.equal(page.prompts[0]!.prompt, "a\ufffd b\ufffd");
  assert.equal(page.answer.response, "c\ufffd");
});

test("a handed-over answer is read from the stream that resumes it, cut anywhere", () => {
  const rest = new TextEncoder().encode(wire.gptDeltas(["Rea", "soned 🙂", " ans", "wer"]));
  for (let cut = 0; cut <= rest.length; cut++) {
    const page = new Page(chatgpt);
    turn(page, GPT, gptBody("Q"), wire.gptHandoff());
    assert.deepEqual(page.answers, []);
    const n = page.ask(`${GPT}/resume`, { conversation_id: "c-1", offset: 0 });
    page.receive(n, rest, cut);
    page.end(n);
    assert.deepEqual([page.answer.response, page.answer.status], ["Reasoned 🙂 answer", "complete"]);
  }
});

const CONTINUE = { action: "continue", messages: [], conversation_id: "c-1", parent_message_id: "a-1" };

for (const [name, rest] of Object.entries({
  "in a message of its own": wire.gptRest("a-2", "", ["ond", "erful 🙂"]),
  "added to the first": wire.gptRest("a-1", "", ["ond", "erful 🙂"]),
  "with what was there": wire.gptRest("a-1", "It is w", ["ond", "erful 🙂"]),
})) {
  const bytes = new TextEncoder().encode(rest);
  test(`an answer that its user lets go on is one, ${name}, cut at every byte`, () => {
    for (let cut = 0; cut <= bytes.length; cut++) {
      const page = new Page(chatgpt);
      turn(page, GPT, gptBody("Q"), wire.gptCutOff("It is w"));
      assert.deepEqual([page.answer.response, page.answer.status], ["It is w", "partial"]);
      const n = page.ask(GPT, CONTINUE);
      page.receive(n, bytes, cut);
      page.end(n);
      assert.deepEqual([page.answer.response, page.answer.status], ["It is wonderful 🙂", "complete"]);
      assert.equal(new Set(page.news.map(({ key }) => key)).size, 1);
      assert.ok(!page.counted.includes("unreadable"));
    }
  });
}

test("an answer goes on more than once, hours later, and its first part may be cut anywhere", () => {
  const first = new TextEncoder().encode(wire.gptCutOff("on"));
  for (let cut = 0; cut <= first.length; cut++) {
    const page = new Page(chatgpt);
    const n = page.ask(GPT, gptBody("Q"));
    page.receive(n, first, cut);
    page.end(n);
    page.time += 3 * 3_600_000;
    page.turns.tick();
    const second = wire.gptCutOff("e two").replaceAll("a-1", "a-2").replace("u-1", "u-0");
    turn(page, GPT, CONTINUE, second);
    turn(page, GPT, { ...CONTINUE, parent_message_id: "a-2" }, wire.gptRest("a-3", "", [" thr", "ee"]));
    assert.deepEqual([page.answer.response, page.answer.status], ["one two three", "complete"]);
    assert.equal(page.answer.key, "key-1");
  }
});

test("an answer goes on in another page than the one that began it", () => {
  const cutOff = { ...wireMessage("a-1", "assistant", "Wond"), status: "finished_partial_completion" };
  const mapping = {
    "u-1": { message: wireMessage("u-1", "user", "Q"), children: ["a-1"] },
    "a-1": { message: cutOff, children: [] },
  };
  for (const open of [[{ key: "left", messageId: "u-1", conversationId: "c-1" }], []]) {
    const page = new Page(chatgpt);
    page.turns.adopt(open);
    const get = page.ask("https://chatgpt.com/backend-api/conversation/c-1", "", "GET");
    page.receive(get, JSON.stringify({ mapping }));
    page.end(get);
    turn(page, GPT, CONTINUE, wire.gptRest("a-2", "", ["er", "ful"]));
    const { response, status, messageId, key } = page.answer;
    assert.deepEqual([response, status, messageId], ["Wonderful", "complete", "u-1"]);
    assert.equal(key, open[0]?.key ?? "key-1");
    assert.equal(page.prompts.length, open.length === 0 ? 1 : 0);
  }
});

test("an answer that goes on although it seemed complete is a memory of its own", () => {
  const page = new Page(chatgpt);
  turn(page, GPT, gptBody("Q"), wire.gptDeltas(["Won", "der", "", ""]));
  turn(page, GPT, CONTINUE, wire.gptRest("a-2", "", ["ful"]));
  const { response, status, messageId, replacesMessageId } = page.answer;
  assert.deepEqual([response, status, messageId, replacesMessageId], ["Wonderful", "complete", "a-2", "u-1"]);
  assert.equal(page.prompts.at(-1)!.prompt, "Q");
});

test("a history joins the parts of an answer that went on", () => {
  const cutOff = { ...wireMessage("a-1", "assistant", "Wond"), status: "finished_partial_completion" };
  const mapping = {
    "u-1": { message: wireMessage("u-1", "user", "Q"), children: ["a-1"] },
    "a-1": { message: cutOff, children: ["a-2"] },
    "a-2": { message: wireMessage("a-2", "assistant", "erful"), children: [] },
  };
  const request = { url: new URL("https://chatgpt.com/backend-api/conversation/c-1"), body: "" };
  const [past] = chatgpt.history!(request, JSON.stringify({ mapping }))!.turns;
  assert.deepEqual([past!.answer, past!.complete], ["Wonderful", true]);
});

test("a handed-over answer is read from the WebSocket", () => {
  const page = new Page(chatgpt);
  const socket = page.ask("wss://ws.chatgpt.com/p1/ws/user", "", "WS");
  turn(page, GPT, gptBody("Q"), wire.gptHandoff());
  for (const frame of wire.gptSocket(wire.gptDeltas(["Rea", "soned", " ans", "wer"]))) {
    page.turns.take({ k: "data", n: socket, data: frame });
  }
  assert.deepEqual([page.answer.response, page.answer.status], ["Reasoned answer", "complete"]);
  assert.equal(page.answer.messageId, "u-1");
});

test("frames of another conversation do not end up in this one", () => {
  const page = new Page(chatgpt);
  const socket = page.ask("wss://ws.chatgpt.com/p1/ws/user", "", "WS");
  turn(page, GPT, gptBody("Q"), wire.gptHandoff());
  for (const frame of wire.gptSocket(wire.gptDeltas(["of", " an", "oth", "er"]))) {
    page.turns.take({ k: "data", n: socket, data: frame.replaceAll("c-1", "c-2") });
  }
  assert.deepEqual(page.answers, []);
});

const GPT_HISTORY = {
  title: "A title",
  mapping: {
    "u-1": { message: wireMessage("u-1", "user", "Q"), children: ["t-1"] },
    "t-1": { message: { ...wireMessage("t-1", "assistant", "hm"), content: { content_type: "thoughts" } }, children: ["a-0", "a-1"] },
    "a-0": { message: wireMessage("a-0", "assistant", "an older answer"), children: [] },
    "a-1": { message: wireMessage("a-1", "assistant", "from history"), children: ["u-2"] },
    "u-2": { message: wireMessage("u-2", "user", "next"), children: [] },
  },
};

function wireMessage(id: string, role: string, text: string): object {
  return { id, author: { role }, status: "finished_successfully", content: { content_type: "text", parts: [text] } };
}

test("a handed-over answer is read from the conversation that the page loads", () => {
  const page = new Page(chatgpt);
  turn(page, GPT, gptBody("Q"), wire.gptHandoff());
  const n = page.ask("https://chatgpt.com/backend-api/conversation/c-1", "", "GET");
  page.receive(n, JSON.stringify(GPT_HISTORY), 100);
  page.end(n);
  assert.deepEqual([page.answer.response, page.answer.status], ["from history", "complete"]);
  assert.equal(page.answer.facts.conversation_title, "A title");
});

test("a reload in mid-answer: what was there is kept, and the next page completes it", () => {
  const first = new Page(chatgpt);
  const n = first.ask(GPT, gptBody("Q"));
  first.receive(n, wire.gptDeltas(["from", " his", "tory", ""]).split('{"v":"tory"}')[0]!);
  first.turns.leave();
  assert.deepEqual([first.answer.response, first.answer.status], ["from his", "partial"]);

  const second = new Page(chatgpt);
  second.turns.adopt([{ key: first.answer.key, messageId: "u-1", conversationId: "c-1" }]);
  const get = second.ask("https://chatgpt.com/backend-api/conversation/c-1", "", "GET");
  second.receive(get, JSON.stringify(GPT_HISTORY));
  second.end(get);
  assert.deepEqual([second.answer.response, second.answer.status], ["from history", "complete"]);
  assert.equal(second.answer.key, first.answer.key);
  assert.deepEqual(second.prompts, []);
});

test("a page that is told of its own turn late does not take it for another's", () => {
  const page = new Page(chatgpt);
  turn(page, GPT, gptBody("Q"), wire.gptDeltas(["Hel", "lo", "", ""]));
  page.turns.adopt([{ key: page.answer.key, messageId: "u-1", conversationId: "c-1" }]);
  assert.equal(page.answer.status, "complete");
  assert.equal(page.turns.busy, false);
});

test("Grok: a broken stream is taken up where the site reconnects", () => {
  const page = new Page(grok);
  const n = page.ask(`${GROK}/new`, { message: "Q" });
  page.receive(n, wire.grokFirst(["He", "llo"]).split('{"result":{"response":{"modelResponse"')[0]!);
  page.end(n, "failed");
  assert.deepEqual([page.answer.response, page.answer.status], ["Hello", "partial"]);
  const again = page.ask(`${GROK}/reconnect-response-v2/a-1`, "", "GET");
  page.receive(again, wire.grokLater(["Hel", "lo, ", "whole"]));
  page.end(again);
  assert.deepEqual([page.answer.response, page.answer.status], ["Hello, whole", "complete"]);
});

test("Grok's prompt is named as soon as the stream names it", () => {
  const page = new Page(grok);
  const n = page.ask(`${GROK}/new`, { message: "Q" });
  page.receive(n, wire.grokFirst(["He", "llo"]));
  page.end(n);
  const prompts = page.prompts.map(({ messageId, unnamed, key }) => [messageId, unnamed, key]);
  assert.deepEqual(prompts, [[undefined, true, "key-1"], ["u-1", false, "key-1"]]);
});

test("a stream without any text starves, and the page's own text feeds it", () => {
  const page = new Page(chatgpt);
  turn(page, GPT, gptBody("Q"), wire.gptHandoff());
  const [starving] = page.turns.starving();
  page.turns.supply(starving!.key, "as the page shows it");
  assert.deepEqual([page.answer.response, page.answer.facts.metadata["capture"]], ["as the page shows it", "dom"]);
  assert.deepEqual(page.turns.starving(), []);
  assert.equal(page.turns.busy, false);
});

test("a refused request has no answer to wait for", () => {
  const page = new Page(chatgpt);
  const n = page.ask(GPT, gptBody("Q"));
  page.turns.take({ k: "head", n, status: 429 });
  page.receive(n, '{"detail": "too many"}');
  page.end(n);
  assert.deepEqual(page.turns.starving(), []);
  assert.deepEqual(page.answers, []);
});

test("an answer whose model thinks for longer than anybody waits is still saved whole", () => {
  const page = new Page(chatgpt);
  const n = page.ask(GPT, gptBody("Q"));
  page.time += 90 * 60_000;
  page.turns.tick();
  page.receive(n, wire.gptDeltas(["at", " la", "s", "t"]));
  page.end(n);
  assert.deepEqual([page.answer.response, page.answer.status], ["at last", "complete"]);
  assert.equal(page.turns.busy, false);
});

test("an answer that never comes is given up after an hour", () => {
  const page = new Page(chatgpt);
  page.ask(GPT, gptBody("Q"));
  page.time += 61 * 60_000;
  page.turns.tick();
  assert.equal(page.turns.busy, false);
  assert.equal(page.prompts.length, 1);
});

test("two turns at once do not mix", () => {
  const page = new Page(claude);
  const ids = (human: string) => ({ turn_message_uuids: { human_message_uuid: human } });
  const one = page.ask(`${CLAUDE}/completion`, { prompt: "one", ...ids("u-1") });
  const two = page.ask(`${CLAUDE.replace("c-1", "c-2")}/completion`, { prompt: "two", ...ids("u-2") });
  const [first, second] = [wire.claudeEvents(["1", "1"]), wire.claudeEvents(["2", "2"])];
  page.receive(one, first.slice(0, 300));
  page.receive(two, second.slice(0, 500));
  page.receive(one, first.slice(300));
  page.receive(two, second.slice(500));
  page.end(two);
  page.end(one);
  const said = page.answers.map(({ response, messageId, facts }) => [messageId, response, facts.conversation_id]);
  assert.deepEqual(said, [["u-2", "22", "c-2"], ["u-1", "11", "c-1"]]);
});

test("a request that cannot be read is counted, and what shows in the page is saved instead", () => {
  const page = new Page(chatgpt);
  page.ask(GPT, "\u0001 not JSON");
  assert.deepEqual(page.counted, ["unreadable"]);
  const key = page.turns.fromPage("typed by hand");
  page.turns.supply(key, "shown by the page");
  assert.deepEqual(page.prompts.map(({ prompt }) => prompt), ["typed by hand"]);
  assert.deepEqual(page.answers.map(({ response }) => response), ["shown by the page"]);
});
