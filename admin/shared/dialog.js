// Dialogs that ask before something is done, and notices that say what was done.

import { el, say, show } from "./dom.js";

let made = 0;
const newId = (kind) => `${kind}-${++made}`;

/**
 * Ask in a modal dialog. `act` does the thing; while it runs the buttons wait, and when it throws
 * the dialog stays and says why. Resolves to true when it was done, to false when it was cancelled.
 * With `typed`, nothing happens before that very text has been typed in.
 */
export function ask({ title, body = [], action, danger = false, typed = null, wide = false, act }) {
  return new Promise((resolve) => {
    const problem = el("p", { class: "callout bad", role: "alert", hidden: true });
    const confirm = el("button", { class: danger ? "button danger" : "button primary", disabled: typed !== null }, action);
    const cancel = el("button", { class: "button", type: "button", on: { click: () => dialog.close() } }, "Cancel");
    const heading = el("h2", { id: newId("dialog") }, title);
    const form = el(
      "form",
      { on: { submit } },
      heading,
      body,
      typed === null ? null : typedField(typed, (matches) => (confirm.disabled = !matches)),
      problem,
      el("div", { class: "row" }, cancel, confirm),
    );
    let done = false;
    const dialog = el("dialog", { class: wide && "wide", "aria-labelledby": heading.id, on: { close: leave } }, form);

    async function submit(event) {
      event.preventDefault();
      if (confirm.disabled) return;
      confirm.disabled = true;
      problem.hidden = true;
      try {
        await act(new FormData(form));
        done = true;
        dialog.close();
      } catch (error) {
        say(problem, error.message);
        problem.hidden = false;
        confirm.disabled = false;
      }
    }

    function leave() {
      dialog.remove();
      resolve(done);
    }

    document.body.append(dialog);
    dialog.showModal();
  });
}

function typedField(text, onChange) {
  const id = newId("typed");
  const input = el("input", {
    id,
    class: "input mono",
    name: "typed",
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    on: { input: () => onChange(input.value.trim() === text) },
  });
  return el("div", { class: "field" }, el("label", { for: id }, "Type ", el("span", { class: "mono" }, text), " to confirm"), input);
}

/** A labelled field for a dialog or a form. */
export function field(label, input, hint = null) {
  const id = input.id || newId("field");
  input.id = id;
  if (hint) input.setAttribute("aria-describedby", `${id}-hint`);
  return el(
    "div",
    { class: "field" },
    el("label", { for: id }, label),
    input,
    hint && el("p", { class: "hint", id: `${id}-hint` }, hint),
  );
}

let box = null;

/** Say something in the corner; it goes by itself unless it is bad news. */
export function notice(text, { bad = false } = {}) {
  box ??= document.body.appendChild(el("div", { class: "notices", role: "status", "aria-live": "polite" }));
  const close = el("button", { class: "button quiet compact", type: "button", "aria-label": "Dismiss" }, "×");
  const item = el("div", { class: bad ? "notice bad" : "notice" }, el("p", {}, text), close);
  close.addEventListener("click", () => item.remove());
  if (!bad) setTimeout(() => item.remove(), 6_000);
  box.append(item);
}

/** What a place says while it is empty, or after something went wrong. */
export function state(node, title, text, retry = null) {
  const again = retry && el("button", { class: "button", type: "button", on: { click: retry } }, "Try again");
  return show(node, el("div", { class: "state" }, el("strong", {}, title), text && el("p", {}, text), again));
}

/** What stands in a place while its content is on its way. */
export function loading(node, heights = [88, 240, 240]) {
  node.setAttribute("aria-busy", "true");
  const bones = heights.map((height) => {
    const bone = el("div", { class: "card skeleton" });
    bone.style.height = `${height}px`;
    return bone;
  });
  return show(node, el("p", { class: "visually-hidden", role: "status" }, "Loading"), bones);
}
