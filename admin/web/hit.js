// A memory that was found: where it fits, why, and where it stands.

import { el } from "../shared/dom.js";
import { plural, since } from "../shared/format.js";
import { badge } from "./assistants.js";

/** `hit` is one of POST /search. */
export function hitCard(hit, { address }) {
  const { memory, snippet, matched, newer, duplicates } = hit;
  const { id, provider, conversation_id: conversation, conversation_title: title, occurred_at: at } = memory;
  const href = conversation ? address("conversation", [provider, conversation], { at, memory: id }) : address("memory", [id]);
  return el(
    "article",
    { class: hit.relevant ? "hit card" : "hit card faint" },
    el("h3", {}, el("a", { href }, title || firstLine(memory.prompt) || "Without a title")),
    el("p", { class: "excerpt" }, matched === "response" && el("span", { class: "muted" }, "Answer: "), snippet.map(({ text, match }) => (match ? el("mark", {}, text) : text))),
    el(
      "p",
      { class: "about" },
      badge(provider),
      el("time", { datetime: at, title: new Date(at).toLocaleString() }, since(at)),
      reasons(hit).map((text) => el("span", { class: "reason" }, text)),
    ),
    newer && el("p", { class: "callout warn small" }, "Something newer says it otherwise. ", el("a", { href: address("memory", [newer]) }, "Read that")),
    duplicates.length > 0 && el("details", { class: "small" }, el("summary", {}, `${plural(duplicates.length, "memory says", "memories say")} nearly the same`), el("ul", {}, duplicates.map((other, index) => el("li", {}, el("a", { href: address("memory", [other]) }, `Number ${index + 1}`))))),
  );
}

/** Why it was found, as a person would say it. */
function reasons({ why: { dense, lexical, time, conversation } }) {
  return [
    lexical >= 0.99 ? "all your words" : lexical >= 0.4 ? "some of your words" : null,
    dense >= 0.45 ? "close in meaning" : null,
    time > 0 ? "of that time" : null,
    conversation > 0 ? "fits its conversation" : null,
  ].filter(Boolean);
}

const firstLine = (text) => text?.trim().replaceAll(/\s+/g, " ").slice(0, 120);
