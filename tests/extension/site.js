// A chat site as its users see it: a prompt box, turns, and requests in the real site's form.
"use strict";

const host = location.hostname;
const SITES = {
  "chatgpt.com": {
    editor: "prosemirror",
    chat: () => location.pathname.match(/\/c\/([\w-]+)/)?.[1] ?? null,
    path: (chat) => `/c/${chat}`,
    turn: (role) => make("div", { "data-message-author-role": role }),
    busy: () => make("button", { "data-testid": "stop-button" }),
  },
  "claude.ai": {
    editor: "tiptap",
    chat: () => location.pathname.match(/\/chat\/([\w-]+)/)?.[1] ?? null,
    path: (chat) => `/chat/${chat}`,
    turn: (role) => (role === "user" ? make("div", { "data-testid": "user-message" }) : make("div", { class: "font-claude-response" })),
    busy: () => make("span", { "data-is-streaming": "true" }),
  },
  "gemini.google.com": {
    editor: "quill",
    chat: () => (location.pathname.match(/\/app\/(\w+)/)?.[1] ? `c_${location.pathname.split("/")[2]}` : null),
    path: (chat) => `/app/${chat.slice(2)}`,
    turn: (role) => make(role === "user" ? "user-query" : "model-response", {}),
    busy: () => make("button", { "aria-label": "Stop response" }),
  },
  "grok.com": {
    editor: "tiptap",
    chat: () => location.pathname.match(/\/c\/([\w-]+)/)?.[1] ?? null,
    path: (chat) => `/c/${chat}`,
    turn: (role) => {
      const bubble = make("div", { class: "message-bubble response-content-markdown" });
      make("div", { class: role === "user" ? "items-end" : "items-start" }).append(bubble);
      return bubble;
    },
    busy: () => make("button", { "aria-label": "Stop generating" }),
  },
};
SITES["x.com"] = { ...SITES["grok.com"], editor: "textarea", chat: () => null, path: () => "/i/grok?conversation=20" };
const site = SITES[host];
const state = { chat: site.chat(), parent: null, lastAsked: null, done: 0, failed: 0, stop: () => {} };

function make(tag, attributes) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function show(role, text) {
  const element = site.turn(role);
  element.textContent = text;
  document.querySelector("#turns").append(element.closest("[class^=items]") ?? element);
  return element;
}

function byFetch(url, body, viaRequest) {
  const abort = new AbortController();
  state.stop = () => abort.abort();
  const init = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal: abort.signal };
  return viaRequest ? fetch(new Request(url, init)) : fetch(url, init);
}

/** Gemini's own way: an XMLHttpRequest with a form. */
function byXhr(url, body) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    state.stop = () => xhr.abort();
    xhr.open("POST", url);
    xhr.setRequestHeader("content-type", "application/x-www-form-urlencoded;charset=utf-8");
    xhr.onload = () => resolve({ ok: xhr.status === 200, headers: { get: (name) => xhr.getResponseHeader(name) }, text: () => xhr.responseText });
    xhr.onerror = xhr.onabort = () => reject(new Error("broken off"));
    xhr.send(body);
  });
}

const ask = {
  "chatgpt.com"(text, options) {
    state.lastAsked = options.again ? state.lastAsked : options.id ?? crypto.randomUUID();
    if (options.moved) return byFetch("/backend-api/v9/turns", { prompt: text });
    const message = { id: state.lastAsked, author: { role: "user" }, content: { content_type: "text", parts: [text] }, metadata: { attachments: options.attachments ?? [] } };
    return byFetch("/backend-api/f/conversation", {
      action: options.goOn ? "continue" : options.again ? "variant" : "next",
      messages: options.again || options.goOn ? [] : [message],
      parent_message_id: options.again ? state.lastAsked : options.parent ?? state.parent ?? "client-created-root",
      conversation_id: state.chat ?? undefined,
      model: "auto",
      history_and_training_disabled: options.temporary || undefined,
    }, options.viaRequest);
  },
  "claude.ai"(text, options) {
    state.chat ??= crypto.randomUUID();
    const url = `/api/organizations/${crypto.randomUUID()}/chat_conversations/${state.chat}/`;
    if (!options.again) state.lastAsked = options.id ?? crypto.randomUUID();
    const turn_message_uuids = { assistant_message_uuid: crypto.randomUUID() };
    if (!options.again) turn_message_uuids.human_message_uuid = state.lastAsked;
    return byFetch(url + (options.again ? "retry_completion" : "completion"), {
      prompt: options.again ? "" : text,
      parent_message_uuid: options.again ? state.lastAsked : options.parent ?? state.parent,
      model: "claude-9",
      turn_message_uuids,
      create_conversation_params: options.temporary ? { is_temporary: true } : undefined,
    });
  },
  "gemini.google.com"(text, options) {
    const inner = Array.from({ length: 60 }, () => null);
    inner[0] = [text, 0, null, null, null, null, 0];
    inner[2] = [state.chat, options.again ? state.before : state.parent, null];
    inner[45] = options.temporary ? 1 : null;
    state.lastAsked = inner[59] = options.id ?? crypto.randomUUID().toUpperCase();
    const form = new URLSearchParams({ "f.req": JSON.stringify([null, JSON.stringify(inner)]), at: "x" });
    return byXhr("/_/BardChatUi/data/assistant.lamda.BardFrontendService/StreamGenerate?bl=x&rt=c", form.toString());
  },
  "grok.com"(text, options) {
    const url = "/rest/app-chat/conversations/" + (state.chat ? `${state.chat}/responses` : "new");
    return byFetch(url, { message: text, parentResponseId: (options.again ? state.before : options.parent ?? state.parent) ?? undefined, isRegenRequest: Boolean(options.again), temporary: options.temporary ?? false, modelName: "grok-9" });
  },
};

ask["x.com"] = (text) => byFetch("/2/grok/add_response.json", { responses: [{ message: text, sender: 1 }], conversationId: "20" });

/** Send a prompt and show its answer, as the site does. */
async function send(text, options = {}) {
  state.last = [text, options];
  if (!options.again) state.before = state.parent;
  if (!options.again && !options.goOn) show("user", text);
  const busy = site.busy();
  document.body.append(busy);
  try {
    const response = await ask[host](text, options);
    if (!response.ok) throw new Error("refused");
    const shown = show("assistant", "");
    state.answerId = response.headers.get("x-answer-id");
    if (response.body) {
      const body = options.piped ? response.body.pipeThrough(new TextDecoderStream()) : response.body;
      const reader = body.getReader();
      if (options.lets) state.stop = () => reader.cancel();
      while (!(await reader.read()).done);
    }
    shown.textContent = decodeURIComponent(response.headers.get("x-plain"));
    state.parent = response.headers.get("x-answer-id");
    if (!site.chat() && !options.temporary) {
      state.chat = response.headers.get("x-chat");
      history.pushState(null, "", site.path(state.chat));
    }
    state.done += 1;
  } catch {
    state.failed += 1;
  }
  busy.remove();
}

/** What a site does with what broke off: Grok takes the answer up, others ask under the same id. */
async function again() {
  if (host !== "grok.com") return send(state.last[0], { ...state.last[1], id: state.lastAsked });
  const response = await fetch(`/rest/app-chat/conversations/reconnect-response-v2/${state.answerId}`);
  await response.text();
  state.parent = state.answerId;
  if (!site.chat()) history.pushState(null, "", site.path((state.chat = response.headers.get("x-chat"))));
}

makeEditor(new URLSearchParams(location.search).get("editor") ?? site.editor);
document.querySelector("#composer").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey) return;
  event.preventDefault();
  event.stopPropagation();
  const text = readEditor();
  clearEditor();
  const options = JSON.parse(document.documentElement.dataset.options ?? "{}");
  if (text.trim()) void send(text, options);
}, true);
if (host === "chatgpt.com") {
  if (!location.search.includes("nosocket")) new WebSocket("wss://ws.chatgpt.com/socket");
  if (state.chat) void fetch(`/backend-api/conversation/${state.chat}`).then((response) => response.text());
}
Object.assign(window, { send, state, again, resume: () => byFetch("/backend-api/f/conversation/resume", { conversation_id: state.chat, offset: 0 }).then((response) => response.text()) });
document.title = "ready";
