import { snippet } from "../../shared/copy.js";
import { ask, field, notice } from "../../shared/dialog.js";
import { el, say, show as put } from "../../shared/dom.js";
import { since, timeOf } from "../../shared/format.js";
import { table } from "../../shared/table.js";
import { body, card } from "../parts.js";
import { LIFETIMES, makeToken, scopeChoice, SCOPES } from "../tokens.js";

export async function show({ root, api, address, signal }) {
  const list = el("div", {});
  const fresh = el("div", { role: "status" });
  const problem = el("p", { class: "callout bad", role: "alert", hidden: true });
  const name = el("input", { class: "input", name: "name", required: true, maxlength: 100, autocomplete: "off", placeholder: "my editor" });
  const lifetime = el("select", { class: "input", name: "days" }, Object.entries(LIFETIMES).map(([value, text]) => el("option", { value, selected: value === "365" }, text)));
  const send = el("button", { class: "button primary" }, "Make the token");
  const form = el(
    "form",
    { class: "stack", on: { submit: make } },
    el("div", { class: "pair" }, field("Name", name, "What will use it."), field("It works for", lifetime)),
    el("fieldset", {}, el("legend", {}, "It may"), Object.entries(SCOPES).map(([scope, text]) => scopeChoice(scope, text, scope !== "chat"))),
    problem,
    el("div", { class: "row" }, send),
  );

  await load();
  put(
    root,
    el("p", { class: "muted" }, "For programs, which cannot sign in. A token opens your memories to whoever has it; it can neither make tokens nor delete the account. ", el("a", { href: address("setup") }, "Set-up"), " shows where to put one."),
    fresh,
    card("Make a token", null, body(form)),
    card("Your tokens", "at most 25", list),
  );

  async function load() {
    const { tokens } = await api.get("/tokens", {}, { signal });
    put(list, tokenTable(tokens, revoke));
  }

  async function make(event) {
    event.preventDefault();
    problem.hidden = true;
    send.disabled = true;
    try {
      const scopes = [...form.querySelectorAll("[name=scope]:checked")].map((box) => box.value);
      if (!scopes.length) throw new Error("Choose at least one thing that it may do.");
      const text = await makeToken(api, name.value, scopes, lifetime.value);
      shown(name.value.trim(), text);
      form.reset();
      await load();
    } catch (error) {
      say(problem, error.message);
      problem.hidden = false;
    }
    send.disabled = false;
  }

  function shown(about, text) {
    const block = snippet("the new token", text);
    put(fresh, card(`The token “${about}”`, null, body(el("p", { class: "callout" }, "Copy it now: it is shown this once. Only its hash is kept."), block.element)));
    block.element.querySelector("button").focus();
  }

  async function revoke(token) {
    const done = await ask({
      title: `Revoke “${token.name}”?`,
      danger: true,
      action: "Revoke",
      body: [el("p", {}, "Whatever uses it is refused within 5 seconds.")],
      act: () => api.delete(`/tokens/${token.id}`),
    });
    if (!done) return;
    notice("The token is revoked.");
    put(fresh);
    await load().catch((error) => notice(error.message, { bad: true }));
  }
}

function tokenTable(tokens, revoke) {
  return table({
    caption: "Your tokens",
    empty: "You have no tokens.",
    rows: tokens,
    columns: [
      { label: "Name", cell: (token) => token.name },
      { label: "May", cell: (token) => el("span", { class: "row" }, token.scopes.map((scope) => el("span", { class: "badge" }, scope))) },
      { label: "Last used", cell: (token) => since(token.last_used_at) },
      { label: "Ends", cell: endOf },
      { label: "Revoke", hidden: true, end: true, wide: true, cell: (token) => el("button", { class: "button danger compact", type: "button", "aria-label": `Revoke ${token.name}`, on: { click: () => revoke(token) } }, "Revoke…") },
    ],
  });
}

function endOf({ expires_at: at }) {
  if (!at) return "when revoked";
  return new Date(at) < Date.now() ? el("span", { class: "badge warn" }, "expired") : timeOf(at);
}
