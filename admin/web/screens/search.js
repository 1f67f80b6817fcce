import { state } from "../../shared/dialog.js";
import { el, say, show as put } from "../../shared/dom.js";
import { plural } from "../../shared/format.js";
import { activity, assistantSelect } from "../assistants.js";
import { startOf } from "../dates.js";
import { hitCard } from "../hit.js";

const LIMIT = 20;
const PAUSE = 220;
// With fewer requests left today than this, typing alone asks nothing.
const FEW = 200;
export const keep = true;

export async function show(context) {
  const { root, api, query, rewrite, signal } = context;
  const input = el("input", { class: "input large", type: "search", name: "q", value: query.get("q") ?? "", placeholder: "What was it about?", "aria-label": "Search your memories", autocomplete: "off", spellcheck: "false", maxlength: 2_000 });
  const from = dateInput("after", "From", query.get("after"));
  const to = dateInput("before", "Until", query.get("before"));
  const [past, { day }] = await Promise.all([activity(api), api.get("/usage", {}, { signal })]);
  const assistant = assistantSelect(past.assistants, query.get("provider") ?? "");
  const told = el("p", { class: "muted small", role: "status" });
  const list = el("div", { class: "hits" });
  const asYouType = day.remaining >= FEW;
  let typing = null;
  let asking = null;
  let shown = null;

  put(
    root,
    el("form", { class: "search-form", role: "search", on: { submit: (event) => (event.preventDefault(), now()), input: later } }, input, el("div", { class: "filters" }, assistant, labelled("From", from), labelled("Until", to), !asYouType && el("button", { class: "button" }, "Search"))),
    told,
    list,
  );
  signal.addEventListener("abort", () => (clearTimeout(typing), asking?.abort()));
  input.focus();
  await now();

  function later(event) {
    clearTimeout(typing);
    if (asYouType || event.target !== input || !input.value.trim()) typing = setTimeout(now, event.target === input ? PAUSE : 0);
  }

  /** Ask for what stands in the form; an answer to what stood there before is dropped. */
  async function now() {
    clearTimeout(typing);
    const asked = { q: input.value.trim(), provider: assistant.value, after: from.value, before: to.value };
    const key = JSON.stringify(asked);
    if (key === shown) return;
    shown = key;
    asking?.abort();
    rewrite([], asked);
    if (!asked.q) return nothingAsked();
    asking = new AbortController();
    const mine = asking;
    list.setAttribute("aria-busy", "true");
    try {
      const answer = await api.post("/search", bodyOf(asked), { signal: mine.signal });
      if (mine === asking) draw(answer);
    } catch (error) {
      if (mine !== asking || mine.signal.aborted) return;
      shown = null;
      say(told, "");
      state(list, "The search did not work", error.retryAfter ? `${error.message} Try again in ${plural(error.retryAfter, "second")}.` : error.message, now);
    }
    if (mine === asking) list.removeAttribute("aria-busy");
  }

  function nothingAsked() {
    asking = null;
    list.removeAttribute("aria-busy");
    say(told, asYouType ? "" : `${plural(day.remaining, "request")} left today: press Enter to search.`);
    state(list, "Find anything that was said", "By its words or by its meaning; a time helps: “the recipe of last May”.");
  }

  function draw({ hits, semantic }) {
    const good = hits.filter((hit) => hit.relevant);
    const rest = hits.filter((hit) => !hit.relevant);
    say(told, `${plural(good.length, "memory fits", "memories fit")}${rest.length ? `, ${rest.length} more may` : ""}.${semantic ? "" : " By words alone: the search model does not answer."}`);
    if (!hits.length) return state(list, "Nothing was found", "Try other words, or fewer filters.");
    const others = rest.map((hit) => hitCard(hit, context));
    if (good.length) return put(list, good.map((hit) => hitCard(hit, context)), others.length > 0 && folded(others));
    put(list, el("h2", { class: "day-line" }, "Nothing fits well. The nearest:"), others);
  }
}

function folded(others) {
  const button = el("button", { class: "button more", type: "button", on: { click: () => button.replaceWith(el("h2", { class: "day-line" }, "Less likely"), ...others) } }, `Show ${others.length} less likely`);
  return button;
}

function bodyOf({ q, provider, after, before }) {
  const filters = { provider: provider || null, after: startOf(after)?.toISOString() ?? null, before: startOf(before, 1)?.toISOString() ?? null };
  return { query: q, limit: LIMIT, ...filters };
}

const dateInput = (name, label, value) => el("input", { class: "input", type: "date", name, "aria-label": label, value: startOf(value) ? value : "" });
const labelled = (text, input) => el("label", { class: "inline-field" }, el("span", { class: "muted small", "aria-hidden": "true" }, text), input);
