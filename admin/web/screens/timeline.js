import { notice, state } from "../../shared/dialog.js";
import { el, show as put } from "../../shared/dom.js";
import { clockOf, number, plural } from "../../shared/format.js";
import { activity, badge, nameOf } from "../assistants.js";
import { dayKey, fullDay, nameOfDay, startOf } from "../dates.js";
import { heatMap } from "../heat_map.js";
import { pages } from "../pages.js";

const PAGE = 30;
export const keep = true;

export async function show(context) {
  const { root, api, query, address, go, signal } = context;
  const provider = query.get("provider") ?? "";
  const day = startOf(query.get("day")) && query.get("day");
  const before = day ? startOf(day, 1).toISOString() : null;
  const read = (cursor) => api.get("/timeline", { limit: PAGE, provider, before, cursor }, { signal });
  const first = await read(null);
  if (!first.entries.length && !provider && !day) {
    const { welcome } = await import("../welcome.js");
    return put(root, welcome(context));
  }

  // The list waits neither for the picture nor for the server's counting.
  const past = activity(api, { anew: true });
  const picture = heatMap({ label: "Activity by day", choose: (chosen) => go("timeline", [], { provider, day: chosen }) });
  const assistants = el("nav", { class: "chips", "aria-label": "Assistants" });
  const list = el("div", { class: "days" });
  put(
    root,
    el("section", { class: "card activity", "aria-label": "Activity over the year" }, el("div", { class: "body" }, picture.element)),
    el("div", { class: "row between" }, assistants, day && el("a", { class: "chip chosen", href: address("timeline", [], { provider }) }, `Until ${fullDay(day)}`, el("span", { "aria-label": "Show all" }, " ×"))),
    list,
  );
  past.then(drawPast, (error) => !signal.aborted && notice(error.message, { bad: true }));
  if (!first.entries.length) return state(list, "Nothing here", day ? "Nothing was said before that day's end." : `Nothing is kept of ${nameOf(provider)}.`);
  let lastDay = null;
  pages({ list, first, read, signal, draw });

  function drawPast(counted) {
    picture.update(countsOf(counted, provider), day);
    const all = counted.assistants.reduce((sum, one) => sum + one.memories, 0);
    const offered = counted.assistants.length > 1 || provider ? [["", "All", all], ...counted.assistants.map((one) => [one.provider, nameOf(one.provider), one.memories])] : [];
    put(assistants, offered.map(([value, text, count]) => el("a", { class: "chip", href: address("timeline", [], { provider: value, day }), "aria-current": value === provider ? "true" : null }, text, el("span", { class: "count" }, number(count)))));
  }

  function draw({ entries }) {
    for (const entry of entries) {
      const key = dayKey(entry.last_at);
      if (key !== lastDay) {
        lastDay = key;
        list.append(el("section", { class: "day-group" }, el("h2", {}, nameOfDay(key)), el("ul", { class: "card entries" })));
      }
      list.lastElementChild.querySelector("ul").append(row(entry));
    }
  }

  function row({ provider: of, conversation_id: id, memory_id: memory, title, opening, memories, last_at: at }) {
    const href = id ? address("conversation", [of, id]) : address("memory", [memory]);
    return el(
      "li",
      { class: "entry" },
      el("a", { href }, el("span", { class: "name" }, title || firstLine(opening)), title && opening && !firstLine(opening).startsWith(title) && el("span", { class: "opening" }, firstLine(opening))),
      el("span", { class: "about" }, badge(of), el("span", {}, id ? plural(memories, "turn") : "a single memory"), el("time", { datetime: at }, clockOf(at))),
    );
  }
}

const firstLine = (text) => text?.trim().replaceAll(/\s+/g, " ").slice(0, 200) || "Without a title";

function countsOf({ days }, provider) {
  return new Map(days.map(({ day, memories }) => [day, provider ? (memories[provider] ?? 0) : Object.values(memories).reduce((sum, count) => sum + count, 0)]));
}
