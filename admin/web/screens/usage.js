import { chart, legend } from "../../shared/chart.js";
import { el, show as put } from "../../shared/dom.js";
import { clockOf, dayOf, number, timeOf } from "../../shared/format.js";
import { body, card, fact } from "../parts.js";

const TIERS = { free: "Free", pro: "Pro", enterprise: "Enterprise" };
const EVERY = 10_000;

export async function show({ root, api, signal }) {
  const spans = el("div", { class: "spans" });
  const facts = el("dl", { class: "facts" });
  const requests = chart({ label: "Requests of the last 30 days", time: dayOf });
  const tokens = chart({ label: "Tokens of models in the last 30 days", time: dayOf });
  const spent = card("Tokens of models by day", "of the server's own keys", body(tokens.element));

  await refresh();
  put(root, card("What is left", null, body(spans, facts)), card("Requests by day", "last 30 days, UTC", body(requests.element, legend([{ name: "Requests" }]))), spent);
  const timer = setInterval(() => !document.hidden && refresh().catch(() => {}), EVERY);
  signal.addEventListener("abort", () => clearInterval(timer));

  async function refresh() {
    const use = await api.get("/usage", {}, { signal });
    const times = use.days.map((one) => one.day);
    put(spans, span("Today", use.day, "requests"), span("This minute", use.minute, "requests"), use.tokens && span("Tokens of models today", use.tokens, "tokens"));
    put(facts, fact("Plan", TIERS[use.tier] ?? use.tier), fact("The day begins anew", `${timeOf(use.day.reset_at)}, midnight UTC`), fact("What costs one", "a save, a search, a question, a list, an import of any size, an export"), fact("What is free", "deleting, this page, looking at imports and tokens"));
    requests.update({ times, series: [{ name: "Requests", values: use.days.map((one) => one.requests) }] });
    tokens.update({ times, series: [{ name: "Tokens", values: use.days.map((one) => one.tokens) }] });
    spent.hidden = !use.days.some((one) => one.tokens);
  }
}

function span(title, { limit, used, remaining, reset_at: reset }, unit) {
  const label = `${title}: ${number(used)} of ${number(limit)} ${unit}`;
  return el(
    "div",
    { class: "span" },
    el("div", { class: "row between" }, el("strong", {}, title), el("span", { class: "number" }, `${number(used)} / ${number(limit)}`)),
    el("progress", { class: used >= limit ? "wide spent" : "wide", max: Math.max(limit, 1), value: Math.min(used, limit), "aria-label": label }),
    el("p", { class: "muted small" }, `${number(remaining)} ${unit} left until ${clockOf(reset)}`),
  );
}
