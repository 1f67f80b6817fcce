import { el, show } from "../shared/dom.js";
import { bytes, milliseconds } from "../shared/format.js";
import { table } from "../shared/table.js";
import { partsOf } from "./overview.js";

export const title = "System";

export async function open({ api, body }) {
  const facts = el("dl", { class: "facts" });
  const parts = el("div", { class: "parts" });
  const tables = el("div", {});
  const settings = el("div", {});

  const first = await api.get("/system");
  show(settings, settingTable(first.settings));
  draw(first);
  body.removeAttribute("aria-busy");
  show(
    body,
    el(
      "div",
      { class: "columns" },
      el(
        "div",
        { class: "stack span-5" },
        card("Versions and capacity", null, el("div", { class: "body" }, facts)),
        card("Parts", "of the process that answered", parts),
        card("Tables", "on disk, with their indexes", tables),
      ),
      el("div", { class: "stack span-7" }, card("Settings", "without secrets", settings)),
    ),
  );
  return { every: 15_000, refresh: async () => draw(await api.get("/system")) };

  function draw(seen) {
    show(facts, factsOf(seen));
    show(parts, partsOf(seen.health));
    show(tables, sizeTable(seen.tables));
  }
}

function factsOf({ version, python, postgres, schema, pool_most: most, index_budget_bytes: budget, health }) {
  const { database, embedding, index, recent_ms: recent } = health;
  return [
    fact("Memory Layer", version),
    fact("Python", python),
    fact("Postgres", postgres),
    fact("Schema", el("span", { class: "mono" }, schema)),
    fact("Embedder", embedding.model ?? "none: search is by words"),
    fact("Database pool", `${database.connections - database.idle_connections} busy, ${database.idle_connections} idle, at most ${most}`),
    fact("Search caches", `${bytes(index.bytes)} of ${bytes(budget)}`),
    fact("Last 1,000 requests", `p50 ${milliseconds(recent.p50)}, p95 ${milliseconds(recent.p95)}, p99 ${milliseconds(recent.p99)}`),
  ];
}

function sizeTable(tables) {
  return table({
    caption: "Tables",
    rows: tables,
    columns: [
      { label: "Table", cell: (one) => el("span", { class: "mono" }, one.name) },
      { label: "Size", end: true, cell: (one) => bytes(one.bytes) },
    ],
  });
}

function settingTable(settings) {
  return table({
    caption: "Settings",
    rows: settings,
    columns: [
      { label: "Setting", cell: (one) => el("span", { class: "mono" }, one.name) },
      { label: "Value", wide: true, cell: valueOf },
    ],
  });
}

function valueOf({ value, is_secret: secret }) {
  if (secret) return el("span", { class: value === "set" ? "badge good" : "badge" }, value === "set" ? "Set" : "Not set");
  if (value === "") return el("span", { class: "muted" }, "–");
  return el("span", { class: "mono" }, value);
}

const fact = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
const card = (name, note, content) => el("section", { class: "card" }, el("header", {}, el("h2", {}, name), note && el("span", { class: "muted small" }, note)), content);
