import { chart, legend } from "../shared/chart.js";
import { el, say, show } from "../shared/dom.js";
import { bytes, clockOf, compact, milliseconds, number, percent, plural, timeOf } from "../shared/format.js";
import { table } from "../shared/table.js";

const RANGES = { 1: "1 hour", 24: "24 hours", 168: "7 days" };
const WORK = [
  { name: "Saves", key: "saves" },
  { name: "Searches", key: "searches" },
];
const TROUBLE = [
  { name: "Errors", key: "errors", tone: "bad" },
  { name: "Limit hits", key: "refused", tone: "warn" },
];
const READ = [
  { name: "From the network", key: "network" },
  { name: "From the page", key: "dom", tone: "warn" },
  { name: "Not at all", key: "missed", tone: "bad" },
];
const CAPTURE_DAYS = 14;
const SITES = { chatgpt: "ChatGPT", claude: "Claude", gemini: "Gemini", grok: "Grok", xgrok: "Grok in X" };
const shortDay = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric" });

export async function open({ api, body }) {
  let hours = "24";
  const tiles = makeTiles();
  const charts = makeCharts(() => hours);
  const routes = el("div", {});
  const parts = el("div", { class: "parts" });
  const capture = makeCapture();
  const ranges = el("div", { class: "segments", role: "group", "aria-label": "Time span" });
  ranges.append(...Object.entries(RANGES).map(([value, text]) => rangeButton(value, text)));

  draw(await api.get("/overview", { hours }));
  body.removeAttribute("aria-busy");
  show(
    body,
    el("section", { class: "card glance", "aria-label": "At a glance" }, tiles.element),
    el(
      "div",
      { class: "columns" },
      el("section", { class: "card chart-card span-8" }, el("header", {}, el("h2", {}, "Saves and searches"), ranges), el("div", { class: "body" }, charts.work.element, legend(WORK))),
      el("section", { class: "card chart-card span-4" }, el("header", {}, el("h2", {}, "Errors and limit hits")), el("div", { class: "body" }, charts.trouble.element, legend(TROUBLE))),
      el("section", { class: "card span-8" }, el("header", {}, el("h2", {}, "Response times by route"), el("span", { class: "muted small" }, "all replicas, last hour")), routes),
      el("section", { class: "card span-4" }, el("header", {}, el("h2", {}, "Parts"), el("span", { class: "muted small" }, "of the process that answered")), parts),
      el("section", { class: "card chart-card span-4" }, el("header", {}, el("h2", {}, "Chats that were read"), el("span", { class: "muted small" }, "by the extension")), el("div", { class: "body" }, capture.element, legend(READ))),
      el("section", { class: "card span-8" }, el("header", {}, el("h2", {}, "Sites"), el("span", { class: "muted small" }, "today, and in 14 days")), capture.sites),
    ),
  );
  return { every: 10_000, refresh: async () => draw(await api.get("/overview", { hours })) };

  function rangeButton(value, text) {
    const choose = async () => {
      hours = value;
      for (const other of ranges.children) other.setAttribute("aria-pressed", String(other === button));
      draw(await api.get("/overview", { hours }));
    };
    const button = el("button", { type: "button", "aria-pressed": String(value === hours), on: { click: choose } }, text);
    return button;
  }

  function draw(seen) {
    tiles.update(seen);
    charts.update(seen.spans);
    show(routes, routeTable(seen.routes));
    show(parts, partsOf(seen.health));
    capture.update(seen);
  }
}

function makeTiles() {
  const names = ["Users", "Memories", "Requests today", "p95, last hour", "Errors, last hour", "Limit hits today", "Model tokens today"];
  const values = names.map(() => el("dd", { class: "value" }));
  const notes = names.map(() => el("dd", { class: "muted small" }));
  const element = el("dl", { class: "tiles" }, names.map((name, n) => el("div", { class: "tile" }, el("dt", {}, name), values[n], notes[n])));

  function update(seen) {
    const { recent, health } = seen;
    const share = recent.requests ? recent.errors / recent.requests : null;
    const backlog = health.embedding.waiting;
    set(0, compact(seen.users), `${number(seen.users_today)} active today`);
    set(1, compact(seen.memories), backlog ? `${number(backlog)} wait to be embedded` : `${number(seen.memories)} in all`);
    set(2, compact(seen.requests_today), `${compact(recent.requests)} in the last hour`);
    set(3, milliseconds(recent.p95), `p50 ${milliseconds(recent.p50)}, p99 ${milliseconds(recent.p99)}`);
    set(4, percent(share), plural(recent.errors, "error"));
    set(5, compact(seen.refused_today), `${number(recent.refused)} in the last hour`);
    set(6, compact(seen.tokens_today), "of this server's keys");
    values[4].classList.toggle("bad", recent.errors > 0);
  }

  function set(place, value, note) {
    say(values[place], value);
    say(notes[place], note);
  }

  return { element, update };
}

function makeCharts(hours) {
  const time = (at) => (hours() === "168" ? shortDay.format(new Date(at)) : clockOf(at));
  const work = chart({ label: "Saves and searches", height: 208, time, reading: timeOf });
  const trouble = chart({ label: "Errors and limit hits", height: 208, time, reading: timeOf });

  function update(spans) {
    const times = spans.map((span) => span.start);
    const drawn = (series) => ({ times, series: series.map((one) => ({ ...one, values: spans.map((span) => span[one.key]) })) });
    work.update(drawn(WORK));
    trouble.update(drawn(TROUBLE));
  }

  return { work, trouble, update };
}

/** How well people's extensions read the sites: a site that has changed shows in a few minutes. */
function makeCapture() {
  const day = (at) => shortDay.format(new Date(`${at}T12:00`));
  const drawn = chart({ label: "Chats that were read, by day", height: 208, time: day });
  const sites = el("div", {});

  function update({ at, capture }) {
    const days = Array.from({ length: CAPTURE_DAYS }, (_, n) => dayBefore(at, CAPTURE_DAYS - 1 - n));
    const sum = (rows, key) => rows.reduce((total, row) => total + row[key], 0);
    const valuesOf = (key) => days.map((one) => sum(capture.filter((row) => row.day === one), key));
    drawn.update({ times: days, series: READ.map((one) => ({ ...one, values: valuesOf(one.key) })) });
    const rows = Object.entries(SITES).flatMap(([site, name]) => {
      const all = capture.filter((row) => row.site === site);
      if (!all.length) return [];
      const today = all.filter((row) => row.day === days.at(-1));
      const of = (key) => `${number(sum(today, key))} / ${number(sum(all, key))}`;
      return [{ name, of, missed: sum(today, "missed") + sum(today, "unreadable") + sum(today, "unknown_streams") }];
    });
    show(sites, siteTable(rows));
  }

  return { element: drawn.element, sites, update };
}

function dayBefore(at, days) {
  return new Date(new Date(at).getTime() - days * 86_400_000).toISOString().slice(0, 10);
}

function siteTable(rows) {
  return table({
    caption: "How well the sites are read",
    empty: "No extension has reported yet.",
    rows,
    columns: [
      { label: "Site", cell: (one) => el("span", { class: "row" }, one.name, one.missed > 0 && el("span", { class: "badge dot warn" }, "Has it changed?")) },
      { label: "Network", end: true, cell: (one) => one.of("network") },
      { label: "Page", end: true, cell: (one) => one.of("dom") },
      { label: "Not seen", end: true, cell: (one) => one.of("missed") },
      { label: "Cut off", end: true, cell: (one) => one.of("partial") },
      { label: "Not understood", end: true, cell: (one) => one.of("unreadable") },
      { label: "New streams", end: true, cell: (one) => one.of("unknown_streams") },
    ],
  });
}

function routeTable(routes) {
  return table({
    caption: "Response times by route in the last hour",
    empty: "No requests in the last hour.",
    rows: routes,
    columns: [
      { label: "Route", cell: (one) => el("span", { class: "mono" }, one.route) },
      { label: "Requests", end: true, cell: (one) => number(one.requests) },
      { label: "p50", end: true, cell: (one) => milliseconds(one.p50) },
      { label: "p95", end: true, cell: (one) => milliseconds(one.p95) },
      { label: "p99", end: true, cell: (one) => milliseconds(one.p99) },
      { label: "Errors", end: true, cell: (one) => number(one.errors) },
      { label: "Limit hits", end: true, cell: (one) => number(one.refused) },
    ],
  });
}

const STATES = { ok: ["good", "OK"], degraded: ["warn", "Degraded"], down: ["bad", "Down"], off: ["", "Off"] };

export function badge(state) {
  const [tone, text] = STATES[state];
  return el("span", { class: `badge dot ${tone}` }, text);
}

export function partsOf({ database, embedding, limits, index, saves_waiting: waiting, process_memory_mb: memory }) {
  const most = embedding.waiting >= 100_000 ? " or more" : "";
  const queued = embedding.waiting === null ? "backlog unknown" : `${number(embedding.waiting)}${most} waiting`;
  const setAside = embedding.set_aside ? `, ${number(embedding.set_aside)} set aside` : "";
  return [
    part("Database", `${milliseconds(database.milliseconds)}, ${database.connections} connections, ${database.idle_connections} idle`, database.state),
    part("Embedding", embedding.model ? `${queued}${setAside}` : "Search is by words alone", embedding.state),
    part("Limits in Redis", limits.redis === "off" ? "Counted in the process" : limits.redis === "ok" ? "Counted for all replicas" : "Away: counted in the process", limits.redis),
    part("Search caches", `${plural(index.users, "user")}, ${bytes(index.bytes)}`, "ok"),
    part("Save queue", `${number(waiting)} waiting`, "ok"),
    part("Process", `${bytes(memory * 1_048_576)} of memory`, "ok"),
  ];
}

function part(name, text, state) {
  return el("div", { class: "part" }, el("div", {}, el("div", {}, name), el("div", { class: "muted small" }, text)), badge(state));
}
