// How people, tiers and deeds are written wherever they appear.

import { el } from "./shared/dom.js";
import { number } from "./shared/format.js";

export const TIERS = { free: "Free", pro: "Pro", enterprise: "Enterprise" };
export const addressOf = (id) => `#/users/${encodeURIComponent(id)}`;
export const nameOf = (person) => person.email || person.name || person.id;

/** The first cell of every list of people. */
export function who(person) {
  const second = person.email && person.name ? person.name : null;
  return el(
    "span",
    { class: "who" },
    el("span", { class: person.email ? null : "mono" }, nameOf(person)),
    second && el("span", { class: "muted small" }, second),
  );
}

export function tier(person, withOwn = true) {
  const own = withOwn && (person.override_per_minute !== null || person.override_per_day !== null);
  return el(
    "span",
    { class: "row" },
    el("span", { class: person.tier === "free" ? "badge" : "badge accent" }, TIERS[person.tier]),
    own && el("span", { class: "badge warn" }, "Own limits"),
  );
}

export function useToday(person) {
  const spent = person.requests_today >= person.per_day;
  const label = `${number(person.requests_today)} of ${number(person.per_day)} requests today`;
  return el(
    "span",
    { class: "use" },
    el("span", {}, `${number(person.requests_today)} / ${number(person.per_day)}`),
    el("progress", { class: spent ? "spent" : null, max: Math.max(person.per_day, 1), value: Math.min(person.requests_today, person.per_day), "aria-label": label }),
  );
}

export function tokensToday({ tokens_today: spent, tokens_per_day: most }) {
  return most ? `${number(spent)} of ${number(most)}` : number(spent);
}

const DEEDS = {
  signed_in: "Signed in",
  signed_out: "Signed out",
  wrong_key: "Wrong key refused",
  plan_changed: "Changed the plan",
  cache_rebuilt: "Rebuilt the search cache",
  account_exported: "Exported the memories",
  job_run: "Ran a background job",
  erasure_ordered: "Ordered to erase the account",
  account_erased: "Erased the account",
};
const FIELDS = { tier: "tier", per_minute: "per minute", per_day: "per day" };

export const deedOf = (deed) => DEEDS[deed.action] ?? deed.action.replaceAll("_", " ");

export function detailsOf({ action, details }) {
  if (action === "plan_changed") {
    const changes = Object.entries(details).map(([name, { from, to }]) => `${FIELDS[name] ?? name}: ${valueOf(from)} → ${valueOf(to)}`);
    return changes.join(", ") || "nothing was another";
  }
  if (details.erased) {
    const counts = Object.entries(details.erased).map(([name, count]) => `${name.replaceAll("_", " ")} ${number(count)}`);
    return counts.join(", ") || "nothing was left";
  }
  return Object.entries(details).map(([name, value]) => `${name}: ${value}`).join(", ");
}

function valueOf(value) {
  if (value === null) return "default";
  return typeof value === "number" ? number(value) : (TIERS[value] ?? String(value));
}
