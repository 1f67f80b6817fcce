// Text that is to be taken elsewhere: shown as it is, with a button that copies it.

import { notice } from "./dialog.js";
import { el, say } from "./dom.js";

/** A button that copies what `text()` returns; `name` says what it copies. */
export function copyButton(text, name) {
  const button = el("button", { class: "button compact", type: "button", "aria-label": `Copy ${name}`, on: { click: copy } }, "Copy");
  return button;

  async function copy() {
    try {
      await navigator.clipboard.writeText(text());
      say(button, "Copied");
      setTimeout(() => say(button, "Copy"), 2_000);
    } catch {
      // Over plain http from another machine a page has no clipboard.
      notice("The browser does not let this page copy: select the text and copy it.", { bad: true });
    }
  }
}

/** A block of text with its copy button; `write(text)` changes it. */
export function snippet(name, text = "") {
  const code = el("code", {}, text);
  const element = el("div", { class: "snippet" }, el("pre", { tabindex: "0", role: "region", "aria-label": name }, code), copyButton(() => code.textContent, name));
  return { element, write: (next) => say(code, next) };
}
