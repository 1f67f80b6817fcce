// A memory as it is read: what was asked, what was answered, and what its owner may do with it.

import { notice } from "../shared/dialog.js";
import { el, show } from "../shared/dom.js";
import { clockOf, number, timeOf } from "../shared/format.js";
import { markdown } from "./markdown.js";

// Of longer texts only the beginning is drawn until somebody wants the rest.
const MOST_PROMPT = 2_000;
const MOST_ANSWER = 40_000;

/**
 * Make the element of a memory. `earlier` is the memory before it in its conversation, if any: a
 * prompt that was answered anew is not shown twice.
 */
export function turn(memory, context, { earlier = null, alone = false } = {}) {
  const element = el("article", { class: "turn", id: `memory-${memory.id}`, tabindex: "-1", "aria-label": `Turn of ${timeOf(memory.occurred_at)}` });
  draw(memory);
  return element;

  function draw(now) {
    const anew = now.metadata?.replaces && earlier && earlier.prompt === now.prompt;
    show(element, anew ? el("p", { class: "again muted small" }, "Another answer to the same prompt") : prompt(now), answer(now), foot(now));
  }

  function foot(now) {
    const act = { context, memory: now, redraw: draw, element };
    return el(
      "footer",
      { class: "turn-foot" },
      el("time", { class: "muted small", datetime: now.occurred_at }, alone ? timeOf(now.occurred_at) : clockOf(now.occurred_at)),
      now.model && el("span", { class: "muted small" }, now.model),
      marks(now).map(([text, tone]) => el("span", { class: `badge ${tone}` }, text)),
      el(
        "span",
        { class: "acts" },
        alone ? null : el("a", { class: "button quiet compact small", href: context.address("memory", [now.id]) }, "Open"),
        button("Copy", () => copy(now)),
        button("Edit", () => change("edit", act)),
        now.edited && button("Versions", () => change("versions", act)),
        button("Delete", () => change("remove", act)),
      ),
    );
  }
}

async function change(name, act) {
  try {
    const changes = await import("./changes.js");
    await changes[name](act);
  } catch (error) {
    notice(error.message, { bad: true });
  }
}

function prompt({ prompt: text, prompt_missing: missing }) {
  if (missing) return el("p", { class: "prompt missing muted" }, "The prompt was not captured.");
  return el("div", { class: "prompt" }, el("h3", { class: "visually-hidden" }, "You"), cut(text, MOST_PROMPT, (part) => el("p", { class: "plain" }, part)));
}

function answer({ response, status }) {
  if (response === null) return el("p", { class: "muted missing" }, status === "waiting" ? "No answer was captured." : "There is no answer.");
  return el("div", { class: "answer" }, el("h3", { class: "visually-hidden" }, "Answer"), cut(response, MOST_ANSWER, markdown));
}

/** Draw a text, or its beginning and a button for all of it. */
function cut(text, most, drawn) {
  if (text.length <= most * 1.2) return drawn(text);
  const box = el("div", {}, drawn(`${text.slice(0, most)}…`));
  box.append(button(`Show all ${number(text.length)} characters`, () => show(box, drawn(text))));
  return box;
}

function marks({ status, edited, metadata = {} }) {
  return [
    status === "partial" && ["Broke off", "warn"],
    edited && ["Edited", ""],
    metadata.replaces && ["Answered anew", "accent"],
    metadata.branch === "other" && ["From another branch", ""],
  ].filter(Boolean);
}

async function copy({ prompt: asked, response }) {
  try {
    await navigator.clipboard.writeText([asked, response].filter(Boolean).join("\n\n"));
    notice("Copied.");
  } catch {
    notice("The browser does not let this page copy.", { bad: true });
  }
}

export const button = (text, click) => el("button", { class: "button quiet compact small", type: "button", on: { click } }, text);
