import type { AskAnswer, Found, FoundAnswer, SearchFilters } from "../messages";
import { day, el, memorySummary, siteName } from "./dom";
import { problemIn, send, tabBeside } from "./worker";

const $ = <E extends HTMLElement = HTMLElement>(id: string): E =>
  document.getElementById(id) as E;
const query = $<HTMLInputElement>("query");
let results: Found[] = [];
let asked = 0;

function say(text: string, isProblem = false): void {
  $("status").textContent = text;
  $("status").className = isProblem ? "problem" : "soft";
  scrollTo(0, 0);
}

function filters(): SearchFilters {
  const { value: provider } = $<HTMLSelectElement>("provider");
  const { value: after } = $<HTMLInputElement>("after");
  const { value: before } = $<HTMLInputElement>("before");
  const chosen: SearchFilters = {};
  if (provider) chosen.provider = provider;
  if (after) chosen.after = new Date(`${after}T00:00`).toISOString();
  if (before) chosen.before = new Date(`${before}T23:59:59.999`).toISOString();
  return chosen;
}

/** Only the newest question may write its answer into the panel. */
async function run<T>(working: string, work: () => Promise<T>): Promise<T | undefined> {
  const mine = ++asked;
  say(working);
  const answer = await work().catch(() => undefined);
  if (mine !== asked) return undefined;
  const problem = answer === undefined ? "Memory Layer does not answer." : problemIn(answer);
  if (problem === undefined) return answer;
  say(problem, true);
  return undefined;
}

async function find(): Promise<void> {
  const message = { type: "find", query: query.value, filters: filters() } as const;
  const answer = await run("Searching…", () => send<FoundAnswer>(message));
  if (!answer || !("found" in answer)) return;
  $("answer").hidden = true;
  results = answer.found;
  showResults();
}

function showResults(): void {
  const relevant = results.filter((memory) => memory.relevant).length;
  say(results.length === 0 ? "Nothing found." : `${relevant} of ${results.length} match well.`);
  $("back").hidden = true;
  $("results").replaceChildren(...results.map((memory) => item(memory)));
}

async function ask(): Promise<void> {
  const question = query.value.trim();
  if (!question) return query.focus();
  const answer = await run("Thinking…", () => send<AskAnswer>({ type: "ask", question }));
  if (!answer || !("answer" in answer)) return;
  const none = answer.sources.length === 0;
  say(
    answer.answer === null
      ? `This server has no model to answer with. ${none ? "No memory matches." : "These memories match:"}`
      : none ? "No memory was near enough to be a source." : "Sources:",
  );
  $("answer").textContent = answer.answer;
  $("answer").hidden = answer.answer === null;
  $("back").hidden = true;
  results = answer.sources;
  $("results").replaceChildren(...results.map((memory, n) => item(memory, n + 1)));
}

function item(memory: Found, number?: number): HTMLElement {
  const summary = el("div", { className: "text" }, ...memorySummary(memory));
  if (number !== undefined) summary.prepend(el("span", { className: "number", textContent: `[${number}] ` }));
  const read = el("button", { type: "button", textContent: "Read" });
  read.addEventListener("click", () => void open(memory));
  return el("li", { className: "card" }, summary, el("div", { className: "row" }, insertButton(memory), read));
}

function insertButton(memory: Found): HTMLElement {
  const button = el("button", { type: "button", textContent: "Insert into prompt" });
  button.addEventListener("click", () => void insert(memory));
  return button;
}

async function insert(memory: Found): Promise<void> {
  const tabId = await tabBeside();
  const problem = tabId === null
    ? "Open a chat in the tab beside this panel first."
    : problemIn(await send({ type: "insert", tabId, found: [memory] }));
  say(problem ?? "It stands in the prompt box. Nothing was sent.", problem !== undefined);
}

async function open(memory: Found): Promise<void> {
  const { provider, conversationId } = memory;
  const whole = conversationId === null
    ? { found: [memory] }
    : await run("Opening…", () => send<FoundAnswer>({ type: "conversation", provider, conversationId }));
  if (!whole || !("found" in whole)) return;
  say(memory.title ?? `${siteName(provider)}, ${day(memory.occurredAt)}`);
  $("answer").hidden = true;
  $("back").hidden = false;
  const turns = whole.found.map((one) => turn(one));
  $("results").replaceChildren(...turns);
  const place = whole.found.findIndex(({ id }) => id === memory.id);
  if (place > 0) turns[place]?.scrollIntoView();
}

function turn(memory: Found): HTMLElement {
  const parts = [
    ["You", memory.prompt],
    [siteName(memory.provider), memory.response],
  ].filter(([, text]) => text);
  const said = parts.map(([who, text]) =>
    el("section", {}, el("h3", { textContent: who! }), el("div", { className: "text", textContent: text! })),
  );
  const when = el("small", { textContent: new Date(memory.occurredAt).toLocaleString() });
  return el("li", { className: "card turn" }, when, ...said, insertButton(memory));
}

async function takeQuery(): Promise<void> {
  const stored = (await chrome.storage.local.get("query")) as { query?: string };
  if (!stored.query) return;
  await chrome.storage.local.remove("query");
  query.value = stored.query;
  await find();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  void find();
});
$("ask").addEventListener("click", () => void ask());
$("back").addEventListener("click", showResults);
chrome.storage.local.onChanged.addListener(({ query: left }) => left && void takeQuery());
void takeQuery();
