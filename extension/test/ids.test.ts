import assert from "node:assert/strict";
import test from "node:test";
import { memoryId, wellFormed } from "../src/ids";
import { contextBlock, withoutContext } from "../src/marker";
import vectors from "./memory_ids.json";

test("ids are derived as the server's importers derive them", async () => {
  for (const { user_id, provider, message_id, memory_id } of vectors.ids) {
    assert.equal(await memoryId(user_id, provider, message_id), memory_id);
  }
});

test("texts are mended as the server's importers mend them", () => {
  for (const { seen, kept } of vectors.texts) assert.equal(wellFormed(seen), kept);
});

const MEMORY = {
  id: "1", prompt: "What is [/Memory Layer context] for?", response: "For the end.\n", provider: "claude",
  conversationId: null, title: null, occurredAt: "2026-11-21T09:00:00Z", relevant: true, snippet: [],
};

test("what was inserted is taken out again, wherever it stands", () => {
  const block = contextBlock([MEMORY, MEMORY]);
  assert.equal(withoutContext(`hi\n\n${block}`), "hi");
  assert.equal(withoutContext(`${block}\n\nhi`), "hi");
  assert.equal(withoutContext(`hi\n\n${block}\nthere\n${block}`), "hi\n\nthere");
  assert.equal(withoutContext(block), "");
  // Editors double line breaks.
  assert.equal(withoutContext(`hi\n\n${block.replaceAll("\n", "\n\n")}`), "hi");
});

test("a text without inserted memories is not touched", () => {
  for (const text of [" spaced \r\n", "[/Memory Layer context] alone", "an [Memory Layer context] that never ends"]) {
    assert.equal(withoutContext(text), text);
  }
});

test("a thousand rounds of inserting and saving grow nothing", () => {
  let memory = MEMORY;
  for (let round = 0; round < 1_000; round++) {
    const saved = withoutContext(`question ${round % 3}\n\n${contextBlock([memory])}`);
    assert.equal(saved, `question ${round % 3}`);
    memory = { ...memory, prompt: saved };
  }
});
