import { addressOf, tier, TIERS, tokensToday, useToday, who } from "../people.js";
import { el, show } from "../shared/dom.js";
import { number } from "../shared/format.js";
import { table } from "../shared/table.js";

export async function open({ api, body }) {
  const tiers = el("div", {});
  const refused = el("div", {});
  const busiest = el("div", {});
  const spenders = el("div", {});
  const overrides = el("div", {});

  draw(await api.get("/limits"));
  body.removeAttribute("aria-busy");
  show(
    body,
    el(
      "div",
      { class: "columns" },
      el("div", { class: "stack span-6" }, card("Tiers", "as the settings say", tiers), card("Refused most", "last 7 days, UTC", refused)),
      el("div", { class: "stack span-6" }, card("Limits of their own", "instead of what their tier says", overrides), card("Busiest", "today, UTC", busiest), card("Model tokens", "of this server's keys today, UTC", spenders)),
    ),
  );
  return { every: 15_000, refresh: async () => draw(await api.get("/limits")) };

  function draw(seen) {
    const counts = new Map(seen.refused.map((one) => [one.person.id, one.refused]));
    show(tiers, tierTable(seen.tiers));
    show(
      refused,
      people("Users whom limits refused most", "No limit has refused anybody.", seen.refused.map((one) => one.person), [
        { label: "Use today", end: true, cell: useToday },
        { label: "Limit hits", end: true, cell: (person) => number(counts.get(person.id)) },
      ]),
    );
    show(busiest, people("Users with most requests today", "No requests today.", seen.busiest, [{ label: "Use today", end: true, cell: useToday }]));
    show(spenders, people("Users who spent most model tokens today", "Nobody has spent any today.", seen.spenders, [{ label: "Tokens today", end: true, cell: tokensToday }]));
    show(
      overrides,
      people("Users with limits of their own", "Everybody has the limits of their tier.", seen.overrides, [
        { label: "A minute", end: true, cell: (person) => number(person.per_minute) },
        { label: "A day", end: true, cell: (person) => number(person.per_day) },
      ]),
    );
  }
}

function people(caption, empty, rows, more) {
  const columns = [{ label: "User", cell: who }, { label: "Tier", cell: (person) => tier(person, false) }, ...more];
  return table({ caption, empty, rows, columns, href: (person) => addressOf(person.id) });
}

function tierTable(tiers) {
  return table({
    caption: "Tiers",
    rows: tiers,
    columns: [
      { label: "Tier", cell: (one) => el("span", { class: "row" }, TIERS[one.tier], one.is_default && el("span", { class: "badge" }, "Default")) },
      { label: "A minute", end: true, cell: (one) => number(one.per_minute) },
      { label: "A day", end: true, cell: (one) => number(one.per_day) },
      { label: "Model tokens a day", end: true, cell: (one) => (one.tokens_per_day ? number(one.tokens_per_day) : "no limit") },
      { label: "Users", end: true, cell: (one) => number(one.users) },
    ],
  });
}

const card = (name, note, content) => el("section", { class: "card" }, el("header", {}, el("h2", {}, name), el("span", { class: "muted small" }, note)), content);
