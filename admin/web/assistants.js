// How assistants are named and told apart, and which of them this person has talked to.

import { el } from "../shared/dom.js";

const NAMES = {
  chatgpt: "ChatGPT",
  claude: "Claude",
  gemini: "Gemini",
  grok: "Grok",
  perplexity: "Perplexity",
  openai: "OpenAI",
  anthropic: "Anthropic",
  mcp: "By MCP",
};
const FRESH = 60_000;
let known = null;

export const nameOf = (provider) => NAMES[provider] ?? provider;

export function badge(provider) {
  return el("span", { class: "assistant", data: { assistant: provider in NAMES ? provider : "other" } }, nameOf(provider));
}

/** What GET /activity answers for the reader's own time zone; the same for a minute. */
export function activity(api, { anew = false } = {}) {
  if (anew || !known || Date.now() - known.at > FRESH) {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    known = { at: Date.now(), answer: api.get("/activity", { zone }) };
    known.answer.catch(() => (known = null));
  }
  return known.answer;
}

/** A choice of one assistant or all, for a form. */
export function assistantSelect(assistants, chosen) {
  const names = assistants.map((one) => one.provider);
  if (chosen && !names.includes(chosen)) names.push(chosen);
  const options = [["", "All assistants"], ...names.map((name) => [name, nameOf(name)])];
  return el("select", { class: "input", name: "provider", "aria-label": "Assistant" }, options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}
