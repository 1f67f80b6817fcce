import { addressOf, tier, useToday, who } from "../people.js";
import { state } from "../shared/dialog.js";
import { el, say, show } from "../shared/dom.js";
import { dayOf, number } from "../shared/format.js";
import { table } from "../shared/table.js";

export async function open({ api, tools, body }) {
  let page = 0;
  let asked = 0;
  let typing = null;
  const input = el("input", {
    class: "input",
    type: "search",
    placeholder: "E-mail address or id",
    "aria-label": "Find users by e-mail address or id",
    maxlength: 320,
    autocomplete: "off",
    spellcheck: "false",
    on: { input: () => later() },
  });
  const list = el("div", {});
  const found = el("p", { class: "visually-hidden", role: "status" });
  const hints = el("div", {});
  const previous = el("button", { class: "button compact", type: "button", on: { click: () => turn(-1) } }, "Previous");
  const next = el("button", { class: "button compact", type: "button", on: { click: () => turn(1) } }, "Next");
  const place = el("span", { class: "muted small" });
  const pager = el("nav", { class: "pager", "aria-label": "Pages" }, previous, place, next);

  tools.prepend(el("form", { class: "search", role: "search", on: { submit: now } }, input));
  await load();
  body.removeAttribute("aria-busy");
  show(body, hints, el("section", { class: "card", "aria-label": "Users" }, list, pager), found);

  function later() {
    clearTimeout(typing);
    typing = setTimeout(now, 250);
  }

  function now(event) {
    event?.preventDefault();
    clearTimeout(typing);
    page = 0;
    again();
  }

  function turn(step) {
    page += step;
    again();
  }

  async function again() {
    try {
      await load();
    } catch (error) {
      pager.hidden = true;
      state(list, "The users could not be loaded", error.message, again);
    }
  }

  async function load() {
    const mine = ++asked;
    const answer = await api.get("/users", { query: input.value.trim(), page });
    // What was typed meanwhile has asked for itself.
    if (mine === asked) draw(answer);
  }

  function draw({ people, has_more: more, complete, source }) {
    show(list, peopleTable(people, input.value ? "Nobody has such an address or id." : "Nobody has an account yet."));
    say(found, `${people.length} users on page ${page + 1}`);
    say(place, `Page ${page + 1}`);
    previous.disabled = page === 0;
    next.disabled = !more;
    pager.hidden = page === 0 && !more;
    show(
      hints,
      source === "ids" && el("p", { class: "callout warn" }, "E-mail addresses need the setting SUPABASE_SECRET_KEY. Until then users are listed and found by id alone."),
      !complete && el("p", { class: "callout warn" }, "Not everybody could be looked through. Search for the whole id to be sure."),
    );
    hints.hidden = !hints.children.length;
  }
}

function peopleTable(people, empty) {
  return table({
    caption: "Users",
    empty,
    rows: people,
    href: (person) => addressOf(person.id),
    columns: [
      { label: "User", cell: who },
      { label: "Tier", cell: tier },
      { label: "Memories", end: true, cell: (person) => number(person.memories) },
      { label: "Use today", end: true, cell: useToday },
      { label: "Last seen", end: true, cell: (person) => (person.last_seen ? dayOf(person.last_seen) : "never") },
    ],
  });
}
