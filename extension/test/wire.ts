// Synthetic streams in the shapes that the sites send; nothing in them was ever anybody's.

export const sse = (...events: unknown[]): string =>
  events
    .map((event) => `data: ${typeof event === "string" ? event : JSON.stringify(event)}\n\n`)
    .join("");

export const ndjson = (...events: unknown[]): string =>
  events.map((event) => `${JSON.stringify(event)}\n`).join("");

export function gptMessage(id: string, role: string, more: object = {}): object {
  const message = {
    id,
    author: { role },
    status: "in_progress",
    recipient: "all",
    content: { content_type: "text", parts: [""] },
    metadata: {},
    ...more,
  };
  return { message, conversation_id: "c-1" };
}

const final = { channel: "final" };

/** Delta encoding v1 with inherited `p` and `o`, reasoning, a tool call and a patch list. */
export function gptDeltas(pieces: string[]): string {
  const [first = "", second = "", ...more] = pieces;
  const last = more.pop() ?? "";
  return (
    'event: delta_encoding\ndata: "v1"\n\n' +
    sse(
      { type: "resume_conversation_token", token: "t", conversation_id: "c-1" },
      { p: "", o: "add", v: gptMessage("u-1", "user"), c: 0 },
      { v: gptMessage("t-1", "assistant", { content: { content_type: "thoughts", parts: [""] } }) },
      { p: "/message/content/parts/0", o: "append", v: "secret reasoning" },
      { v: gptMessage("r-1", "assistant", { channel: "commentary" }) },
      { p: "/message/content/parts/0", o: "append", v: "commentary" },
      { p: "/message/status", o: "replace", v: "finished_successfully" },
      { v: gptMessage("w-1", "assistant", { recipient: "web.run" }) },
      { p: "/message/content/parts/0", o: "append", v: "search(1)" },
      { p: "", o: "add", v: gptMessage("a-1", "assistant", { ...final, metadata: { model_slug: "gpt-9" } }) },
      { p: "/message/content/parts/0", o: "append", v: first },
      { v: second },
      ...more.map((piece) => ({ v: piece })),
      {
        p: "",
        o: "patch",
        v: [
          { p: "/message/content/parts/0", o: "append", v: last },
          { p: "/message/status", o: "replace", v: "finished_successfully" },
          { p: "/message/end_turn", o: "replace", v: true },
        ],
      },
      { type: "message_stream_complete", conversation_id: "c-1" },
      { type: "title_generation", title: "A title", conversation_id: "c-1" },
      "[DONE]",
    )
  );
}

/** An answer that was as long as an answer may be. */
export const gptCutOff = (text: string): string =>
  sse(
    { p: "", o: "add", v: gptMessage("u-1", "user"), c: 0 },
    { p: "", o: "add", v: gptMessage("a-1", "assistant", final) },
    { p: "/message/content/parts/0", o: "append", v: text },
    {
      p: "",
      o: "patch",
      v: [
        { p: "/message/status", o: "replace", v: "finished_partial_completion" },
        { p: "/message/metadata", o: "append", v: { finish_details: { type: "max_tokens" } } },
      ],
    },
    { type: "message_stream_complete", conversation_id: "c-1" },
    "[DONE]",
  );

/** The rest of it, in a message of its own or added to the first; some say again what was there. */
export const gptRest = (id: string, there: string, pieces: string[]): string =>
  sse(
    { p: "", o: "add", v: gptMessage(id, "assistant", { ...final, content: { content_type: "text", parts: [there] } }) },
    ...pieces.map((v, n) => (n === 0 ? { p: "/message/content/parts/0", o: "append", v } : { v })),
    { p: "/message/status", o: "replace", v: "finished_successfully" },
    { type: "message_stream_complete", conversation_id: "c-1" },
    "[DONE]",
  );

export const gptSnapshots = (pieces: string[]): string =>
  sse(
    ...pieces.map((_, n) => {
      const parts = [pieces.slice(0, n + 1).join("")];
      return gptMessage("a-1", "assistant", { content: { content_type: "text", parts } });
    }),
    gptMessage("a-1", "assistant", {
      status: "finished_successfully",
      content: { content_type: "text", parts: [pieces.join("")] },
    }),
    "[DONE]",
  );

export const gptHandoff = (): string =>
  'event: delta_encoding\ndata: "v1"\n\n' +
  sse(
    { type: "resume_conversation_token", token: "t", conversation_id: "c-1" },
    { p: "", o: "add", v: gptMessage("u-1", "user") },
    { v: gptMessage("t-1", "assistant", { content: { content_type: "thoughts", parts: [""] }, status: "finished_successfully" }) },
    { type: "stream_handoff", conversation_id: "c-1" },
    "[DONE]",
  );

export const gptSocket = (stream: string): string[] =>
  stream
    .split(/(?<=\n\n)/)
    .map((item) =>
      JSON.stringify([
        {
          type: "message",
          topic_id: "conversation-turn-1",
          payload: {
            type: "conversation-turn-stream",
            payload: { type: "stream-item", conversation_id: "c-1", encoded_item: item },
          },
        },
      ]),
    );

export const claudeEvents = (pieces: string[]): string =>
  [
    { type: "message_start", message: { id: "chatcompl_1", uuid: "a-1", parent_uuid: "u-1", model: "claude-9" } },
    { type: "content_block_start", index: 0, content_block: { type: "thinking", thinking: "" } },
    { type: "content_block_delta", index: 0, delta: { type: "thinking_delta", thinking: "hm" } },
    { type: "content_block_stop", index: 0 },
    { type: "content_block_start", index: 1, content_block: { type: "tool_use", name: "search" } },
    { type: "content_block_delta", index: 1, delta: { type: "input_json_delta", partial_json: "{}" } },
    { type: "content_block_start", index: 2, content_block: { type: "text", text: "" } },
    ...pieces.map((text) => ({ type: "content_block_delta", index: 2, delta: { type: "text_delta", text } })),
    { type: "content_block_stop", index: 2 },
    { type: "message_delta", delta: { stop_reason: "end_turn" } },
    { type: "message_limit", message_limit: { type: "approaching_limit", remaining: 3 } },
    { type: "message_stop" },
  ]
    .map((event) => `event: ${event.type}\r\ndata: ${JSON.stringify(event)}\r\n\r\n`)
    .join("");

export const claudeLegacy = (pieces: string[]): string =>
  sse(
    ...pieces.map((completion) => ({ type: "completion", completion, stop_reason: null })),
    { type: "completion", completion: "", stop_reason: "stop_sequence" },
  );

/** A frame's length counts UTF-16 units, with the line break before and the one after it. */
export function geminiFrame(rows: unknown): string {
  const json = JSON.stringify(rows);
  return `${json.length + 2}\n${json}\n`;
}

export function geminiFrames(pieces: string[]): string {
  const so = (text: string, more: object | null = null): string =>
    geminiFrame([
      ["wrb.fr", null, JSON.stringify([null, ["c_1", "r_1"], more, null, [["rc_1", [text]], ["rc_2", ["a draft"]]]])],
    ]);
  return (
    ")]}'\n\n" +
    geminiFrame([["wrb.fr", null, JSON.stringify([null, ["c_1", "r_1"]])]]) +
    pieces.map((_, n) => so(pieces.slice(0, n + 1).join(""))).join("") +
    so(pieces.join(""), { 11: ["A title"], 44: true }) +
    geminiFrame([["di", 59], ["af.httprm", 59, "1", 7]]) +
    geminiFrame([["e", 4, null, null, 1234]])
  );
}

export function geminiBody(text: string, more: Record<number, unknown> = {}): string {
  const inner: unknown[] = Array.from({ length: 60 }, () => null);
  inner[0] = [text, 0, null, null, null, null, 0];
  inner[59] = "REQ-1";
  for (const [place, value] of Object.entries(more)) inner[Number(place)] = value;
  return new URLSearchParams({ "f.req": JSON.stringify([null, JSON.stringify(inner)]), at: "x" }).toString();
}

export const grokFirst = (pieces: string[]): string =>
  ndjson(
    { result: { conversation: { conversationId: "g-1", title: "New conversation" } } },
    { result: { response: { userResponse: { responseId: "u-1", message: "q", sender: "human" }, responseId: "a-1" } } },
    { result: { response: { token: "thinking aloud", isThinking: true, messageTag: "header" } } },
    ...pieces.map((token) => ({ result: { response: { token, isThinking: false, messageTag: "final" } } })),
    { result: { response: { finalMetadata: {}, isSoftStop: false } } },
    { result: { response: { modelResponse: { responseId: "a-1", message: pieces.join(""), model: "grok-9", partial: false } } } },
    { result: { title: { newTitle: "A title" } } },
  );

export const grokLater = (pieces: string[]): string =>
  ndjson(
    { result: { userResponse: { responseId: "u-1", message: "q", sender: "human" } } },
    ...pieces.map((token) => ({ result: { token, isThinking: false, messageTag: "final" } })),
    { result: { modelResponse: { responseId: "a-1", message: pieces.join(""), model: "grok-9" } } },
  ).replace(/(?<=^|\n)\{/g, "data: {");

export const grokOnX = (pieces: string[]): string =>
  ndjson(
    { conversationId: "20", userChatItemId: "u-1", agentChatItemId: "a-1" },
    { result: { sender: "ASSISTANT", message: "looking", isThinking: true, messageTag: "header" } },
    ...pieces.map((message) => ({ result: { sender: "ASSISTANT", message, messageTag: "final" } })),
    { result: { isSoftStop: true } },
  );
