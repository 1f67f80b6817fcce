import { ApiError } from "../../shared/api.js";
import { field } from "../../shared/dialog.js";
import { el, say, show as put } from "../../shared/dom.js";
import { events } from "../../shared/events.js";
import { plural, timeOf } from "../../shared/format.js";
import { nameOf } from "../assistants.js";
import { answerText } from "../cited.js";
import { button } from "../parts.js";

export function show({ root, api, about, address, query, signal }) {
  let asking = null;
  const input = el("textarea", {
    class: "input",
    name: "question",
    rows: 3,
    maxlength: 20_000,
    required: true,
    placeholder: "What did I decide about the garden shed?",
    value: query.get("q") ?? "",
    on: { keydown: (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing && ask(event) },
  });
  const send = el("button", { class: "button primary" }, "Ask");
  const stop = button("Stop", () => asking?.abort());
  const status = el("p", { class: "visually-hidden", role: "status" });
  const asked = el("div", { class: "stack" });
  stop.hidden = true;

  put(
    root,
    !about.can_ask && noProvider(),
    el("form", { class: "card ask", on: { submit: ask } }, field("Your question", input, "It is answered from your memories alone, and each claim names the one it stands in."), el("div", { class: "row end" }, stop, send)),
    status,
    asked,
  );
  input.focus({ preventScroll: true });
  signal.addEventListener("abort", () => asking?.abort());

  async function ask(event) {
    event.preventDefault();
    const question = input.value.trim();
    if (!question || asking) return;
    asking = new AbortController();
    const view = makeAnswer(question, address);
    asked.prepend(view.element);
    turn(true);
    say(status, "Looking through your memories");
    try {
      await follow(api, question, asking.signal, view);
      say(status, "The answer is complete");
      input.value = "";
    } catch (error) {
      view.fail(error.name === "AbortError" ? "Stopped." : error.message, error.name !== "AbortError");
      say(status, "The answer ended early");
    }
    asking = null;
    turn(false);
    input.focus({ preventScroll: true });
  }

  function turn(busy) {
    send.disabled = busy;
    stop.hidden = !busy;
  }
}

async function follow(api, question, signal, view) {
  const response = await api.send("POST", "/rag/query", { body: { question, stream: true }, patience: null, signal });
  try {
    for await (const { name, data } of events(response)) {
      if (name === "sources") view.sources(data.sources);
      else if (name === "text") view.text(data.text);
      else if (name === "done") return view.done(data);
      else if (name === "error") throw new ApiError(data.error, { code: data.error_code });
    }
  } catch (error) {
    // The browser's words for a connection that broke off are nobody's.
    throw error instanceof TypeError ? brokenOff() : error;
  }
  throw brokenOff();
}

const brokenOff = () => new ApiError("The connection broke off before the answer ended.");

/** One question, its answer as it comes, and its sources. */
function makeAnswer(question, address) {
  let said = "";
  let shown = [];
  let drawing = 0;
  const text = el("div", { class: "answer", "aria-busy": "true" }, el("p", { class: "muted" }, "Looking through your memories…"));
  const list = el("ol", { class: "sources" });
  const note = el("p", { class: "callout", hidden: true });
  const element = el("article", { class: "card asked", "aria-label": question }, el("header", {}, el("h2", {}, question)), el("div", { class: "body stack" }, text, note, list));
  return { element, sources, text: more, done, fail };

  function sources(found) {
    shown = found;
    put(list, found.map((source) => sourceItem(source, address)));
    say(text.firstChild, found.length ? `Answering from ${plural(found.length, "memory", "memories")}…` : "Nothing that fits was found.");
  }

  function more(piece) {
    said += piece;
    // Pieces come faster than anybody sees.
    if (!drawing) drawing = requestAnimationFrame(draw);
  }

  function draw() {
    cancelAnimationFrame(drawing);
    drawing = 0;
    put(text, answerText(said, shown.length, focus));
  }

  function focus(n) {
    const source = list.children[n - 1];
    source?.querySelector("a").focus({ preventScroll: true });
    source?.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  function done({ answer, cited, details, model }) {
    text.removeAttribute("aria-busy");
    if (answer !== null) {
      said = answer;
      draw();
      for (const [index, item] of [...list.children].entries()) item.classList.toggle("uncited", !cited.includes(index + 1));
      return model && remark(`Answered by ${model}, which can be wrong: the sources are yours, word for word.`, null);
    }
    text.hidden = true;
    if (details.error_code !== "NO_CHAT_PROVIDER") return remark(details.error ?? "There is no answer.", "warn");
    return remark(shown.length ? "No model is set up on this server, so nobody put this into words. These are your memories that fit, the best first." : "No model is set up on this server, and no memory fits the question.");
  }

  function fail(message, bad) {
    text.removeAttribute("aria-busy");
    if (said) draw();
    else text.hidden = true;
    remark(message, bad ? "bad" : "warn");
  }

  function remark(message, tone = "") {
    note.className = tone === null ? "muted small" : `callout ${tone}`;
    say(note, message);
    note.hidden = false;
  }
}

function sourceItem(source, address) {
  const where = source.conversation_id ? address("conversation", [source.provider, source.conversation_id], { memory: source.memory_id }) : address("memory", [source.memory_id]);
  return el(
    "li",
    { class: "source" },
    el(
      "a",
      { href: where },
      el("span", { class: "badge accent" }, source.n),
      el("strong", {}, source.conversation_title || "Without a title"),
      el("span", { class: "muted small" }, `${nameOf(source.provider)}, ${timeOf(source.occurred_at)}`),
    ),
    source.prompt && el("p", { class: "said" }, source.prompt),
    source.response && el("p", { class: "said muted" }, source.response),
  );
}

function noProvider() {
  return el(
    "p",
    { class: "callout warn" },
    "This server has no model provider, so questions are not answered in words: you are shown the memories that fit. Its operator sets one up with ",
    el("span", { class: "mono" }, "OPENAI_API_KEY"),
    " or ",
    el("span", { class: "mono" }, "ANTHROPIC_API_KEY"),
    ".",
  );
}
