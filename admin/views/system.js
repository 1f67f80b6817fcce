import { addressOf } from "../people.js";
import { ask, notice } from "../shared/dialog.js";
import { el, show } from "../shared/dom.js";
import { bytes, duration, milliseconds, since, timeOf } from "../shared/format.js";
import { table } from "../shared/table.js";
import { partsOf } from "./overview.js";

export async function open({ api, body }) {
  const facts = el("dl", { class: "facts" });
  const parts = el("div", { class: "parts" });
  const tables = el("div", {});
  const settings = el("div", {});
  const jobs = el("div", {});
  const missing = el("div", {});

  const first = await api.get("/system");
  show(settings, settingTable(first.settings));
  draw(first);
  body.removeAttribute("aria-busy");
  show(
    body,
    missing,
    card("Background jobs", "each on one server at a time", jobs),
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
  return { every: 15_000, refresh };

  function draw(seen) {
    show(facts, factsOf(seen));
    show(parts, partsOf(seen.health));
    show(tables, sizeTable(seen.tables));
    show(jobs, jobTable(seen.jobs, run));
    show(missing, seen.missing_users.length && missingCard(seen.missing_users, erase));
    missing.hidden = !seen.missing_users.length;
  }

  async function refresh() {
    draw(await api.get("/system"));
  }

  async function run(job, button) {
    button.disabled = true;
    try {
      const { outcome, detail } = await api.post(`/jobs/${encodeURIComponent(job.name)}/run`);
      notice(`${job.what}: ${outcome === "ok" ? detail : `failed, ${detail}`}.`, { bad: outcome !== "ok" });
      await refresh();
    } catch (error) {
      notice(error.message, { bad: true });
      button.disabled = false;
    }
  }

  async function erase({ user_id: id }) {
    const done = await ask({
      title: "Erase this user for ever?",
      danger: true,
      action: "Erase user",
      typed: id,
      body: [el("p", {}, "Supabase no longer knows this user. Everything that is kept here will be erased on every server; nothing brings it back.")],
      act: (form) => api.post(`/missing-users/${encodeURIComponent(id)}/erase`, { typed: form.get("typed").trim() }),
    });
    if (done) {
      notice("The user is erased.");
      await refresh();
    }
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
    folds: false,
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
    folds: false,
    rows: settings,
    columns: [
      { label: "Setting", cell: (one) => el("span", { class: "mono" }, one.name) },
      { label: "Value", cell: valueOf },
    ],
  });
}

function valueOf({ value, is_secret: secret }) {
  if (secret) return el("span", { class: value === "set" ? "badge good" : "badge" }, value === "set" ? "Set" : "Not set");
  if (value === "") return el("span", { class: "muted" }, "–");
  return el("span", { class: "mono" }, value);
}

const OUTCOMES = { ok: "good", failed: "bad", running: "accent" };

function jobTable(jobs, run) {
  return table({
    caption: "Background jobs",
    empty: "The jobs register themselves within some seconds of a start.",
    rows: jobs,
    columns: [
      { label: "Job", cell: (job) => job.what },
      { label: "Every", cell: (job) => duration(job.every_seconds) },
      { label: "Last run", cell: (job) => since(job.started_at) },
      { label: "Outcome", cell: (job) => (job.outcome ? el("span", { class: `badge dot ${OUTCOMES[job.outcome]}` }, job.outcome) : "–") },
      { label: "Result", wide: true, cell: (job) => job.detail },
      { label: "Run now", hidden: true, end: true, cell: (job) => runButton(job, run) },
    ],
  });
}

function runButton(job, run) {
  const button = el("button", { class: "button compact", type: "button", "aria-label": `Run now: ${job.what}`, on: { click: () => run(job, button) } }, "Run now");
  return button;
}

function missingCard(users, erase) {
  const rows = table({
    caption: "Users deleted at Supabase",
    rows: users,
    href: (user) => addressOf(user.user_id),
    columns: [
      { label: "User", cell: (user) => el("span", { class: "mono" }, user.user_id) },
      { label: "Noticed", cell: (user) => timeOf(user.noticed_at) },
      { label: "Erase", hidden: true, end: true, cell: (user) => el("button", { class: "button danger compact", type: "button", on: { click: () => erase(user) } }, "Erase…") },
    ],
  });
  return card("Deleted at Supabase", "kept here until you confirm", rows);
}

const fact = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
const card = (name, note, content) => el("section", { class: "card" }, el("header", {}, el("h2", {}, name), note && el("span", { class: "muted small" }, note)), content);
