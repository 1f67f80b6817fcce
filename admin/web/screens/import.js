import { notice } from "../../shared/dialog.js";
import { el, say, show as put } from "../../shared/dom.js";
import { bytes, number, percent, plural, since } from "../../shared/format.js";
import { formatOf, reasonsOf, sources, STATES } from "../import_words.js";
import { body, button, card } from "../parts.js";
import { uploadsOf } from "../uploads.js";

const SOON = 1_000;
const LATER = 10_000;
const isOpen = (job) => job.state === "queued" || job.state === "running";

export async function show({ root, api, session, about, address, signal }) {
  const uploads = uploadsOf(api, session);
  const cards = new Map();
  const sending = new WeakMap();
  let timer = null;
  let most = 0;
  const arriving = el("div", { class: "stack" });
  const list = el("div", { class: "stack" });
  const past = card("Imports", "the latest first", el("div", { class: "body" }, list));
  const embedding = el("div", { class: "card embedding", hidden: true });

  await refresh();
  put(root, dropZone(uploads.add, about.import_max_mb, signal), arriving, embedding, past, card("Where your past is", "each assistant gives it to you as a file", el("div", { class: "body" }, sources())));
  uploads.watch(drawUploads, signal);
  drawUploads();
  signal.addEventListener("abort", () => clearTimeout(timer));

  async function refresh() {
    const { imports } = await api.get("/import", {}, { signal });
    draw(imports);
    // How many wait for their vectors, any import tells.
    const waiting = imports.length ? (await api.get(`/import/${imports[0].id}`, {}, { signal })).to_embed : 0;
    drawWaiting(waiting);
    clearTimeout(timer);
    timer = setTimeout(again, imports.some(isOpen) || waiting ? SOON : LATER);
  }

  async function again() {
    if (signal.aborted) return;
    try {
      if (document.hidden) timer = setTimeout(again, SOON);
      else await refresh();
    } catch (error) {
      // An ended session has asked for a sign-in; anything else passes.
      if (!signal.aborted && error.status !== 401) timer = setTimeout(again, LATER);
    }
  }

  function draw(imports) {
    past.hidden = !imports.length;
    const held = new Map(uploads.all().filter((one) => one.job).map((one) => [one.job.id, one]));
    const elements = imports.map((job) => {
      const known = cards.get(job.id) ?? jobCard({ cancel, again: uploads.again, address });
      cards.set(job.id, known);
      known.update(job, held.get(job.id));
      return known.element;
    });
    arrange(list, elements);
  }

  function drawWaiting(count) {
    most = Math.max(most, count);
    embedding.hidden = !count;
    if (count) put(embedding, el("div", { class: "body" }, el("p", {}, `${plural(count, "memory waits", "memories wait")} to be found by meaning, too. Words find them already.`), el("progress", { class: "wide", max: most, value: most - count, "aria-label": "Made ready for search by meaning" })));
    else most = 0;
  }

  function drawUploads() {
    const elements = uploads.all().filter((one) => one.state !== "sent").map((one) => {
      const known = sending.get(one) ?? uploadCard(one, uploads);
      sending.set(one, known);
      known.update();
      return known.element;
    });
    arrange(arriving, elements);
    arriving.hidden = !elements.length;
    // A file that has arrived is an import, which the list shows at once.
    if (uploads.all().some((one) => one.job && !cards.has(one.job.id))) again();
  }

  async function cancel(job) {
    try {
      await api.post(`/import/${job.id}/cancel`);
      await refresh();
    } catch (error) {
      if (error.name !== "AbortError") notice(error.message, { bad: true });
    }
  }
}

/** Let these be in the place, in their order; what is there already keeps its focus. */
function arrange(place, elements) {
  const same = elements.length === place.children.length && elements.every((element, n) => place.children[n] === element);
  if (!same) put(place, elements);
}

/** Files are chosen, or dropped anywhere on the page while this screen is shown. */
function dropZone(take, most, signal) {
  const input = el("input", { type: "file", id: "files", multiple: true, class: "visually-hidden", on: { change: chosen } });
  const zone = el(
    "label",
    { class: "drop", for: "files" },
    el("strong", {}, "Drop your exports here, or choose them"),
    el("span", { class: "muted" }, `The zip as it came, or the JSON or HTML in it; several at once; each up to ${bytes(most * 1024 * 1024)}.`),
    el("span", { class: "muted small" }, "To send a file again adds nothing, and what was captured live is there once."),
  );
  for (const event of ["dragenter", "dragover"]) document.addEventListener(event, over, { signal });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && zone.classList.remove("over"), { signal });
  document.addEventListener("drop", dropped, { signal });
  return el("div", { class: "card" }, input, zone);

  function over(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    zone.classList.add("over");
  }

  function dropped(event) {
    zone.classList.remove("over");
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files);
  }

  function chosen() {
    take(input.files);
    input.value = "";
  }
}

/** One file on its way, renewed in place. */
function uploadCard(one, uploads) {
  const { file } = one;
  const badge = el("span", { class: "badge" });
  const bar = el("progress", { class: "wide", max: Math.max(file.size, 1), "aria-label": `Sending ${file.name}` });
  const message = el("p", { class: "callout bad whole", role: "alert" });
  const retry = button("Try again", () => uploads.again(one), "compact");
  const away = button("Cancel", () => uploads.drop(one), "compact");
  const element = el(
    "section",
    { class: "card", "aria-label": file.name },
    el("div", { class: "body stack" }, el("div", { class: "row between" }, el("strong", {}, file.name), badge), bar, message, el("div", { class: "row between" }, el("span", { class: "muted small" }, bytes(file.size)), el("span", { class: "row" }, retry, away))),
  );
  return { element, update };

  function update() {
    const failed = one.state === "failed";
    badge.className = failed ? "badge bad dot" : "badge";
    say(badge, stateOf(one));
    bar.value = one.sent;
    bar.hidden = failed;
    message.hidden = retry.hidden = !failed;
    say(message, one.message ?? "");
    say(away, failed ? "Dismiss" : "Cancel");
  }
}

function stateOf({ state, sent, file }) {
  if (state === "failed") return "Not sent";
  if (state === "waiting") return "Waits to be sent";
  return sent < file.size ? `${percent(sent / file.size)} sent` : "Arriving…";
}

const COUNTS = { imported: "imported", already_here: "already here", skipped: "skipped", failed: "failed" };

/** One import, whose numbers are renewed in place. */
function jobCard({ cancel, again, address }) {
  let job = null;
  let held = null;
  const name = el("strong", {});
  const about = el("span", { class: "muted small" });
  const badge = el("span", { class: "badge" });
  const bar = el("progress", { class: "wide", "aria-label": "How far the file is read" });
  const found = el("span", { class: "number" });
  const numbers = Object.fromEntries(Object.keys(COUNTS).map((key) => [key, el("span", { class: "number" })]));
  const sum = el("p", { class: "sum" }, el("span", {}, found, " found"), " = ", Object.entries(COUNTS).flatMap(([key, text], n) => [n > 0 && " + ", el("span", {}, numbers[key], ` ${text}`)]));
  const reasons = el("ul", { class: "reasons" });
  const message = el("p", { class: "callout bad whole", hidden: true });
  const stop = button("Cancel", () => cancel(job), "compact");
  const retry = button("Send it again", () => again(held), "compact");
  const next = el("p", { hidden: true }, el("a", { href: address("timeline") }, "See them on the timeline"), ", or ", el("a", { href: address("search") }, "search them"), ".");
  const element = el("section", { class: "job stack" }, el("div", { class: "row between" }, el("div", {}, name, " ", about), badge), bar, sum, reasons, message, next, el("div", { class: "row" }, stop, retry));
  return { element, update };

  function update(now, upload) {
    job = now;
    held = upload;
    const [text, tone] = STATES[job.state] ?? [job.state, ""];
    element.setAttribute("aria-label", job.file_name ?? "An import");
    say(name, job.file_name ?? "A file without a name");
    say(about, [formatOf(job.format), bytes(job.bytes), since(job.created_at)].filter(Boolean).join(" · "));
    badge.className = `badge dot ${tone}`;
    say(badge, text);
    bar.max = Math.max(job.bytes, 1);
    bar.value = job.bytes_read;
    bar.hidden = !isOpen(job);
    say(found, number(job.found));
    for (const key of Object.keys(COUNTS)) say(numbers[key], number(job[key]));
    put(reasons, reasonsOf(job.reasons).map((reason) => el("li", {}, reason)));
    reasons.hidden = !reasons.children.length;
    // What ended the reading of a file stands among the reasons, too.
    message.hidden = !job.message || job.state === "done";
    say(message, job.message ?? "");
    next.hidden = job.state !== "done" || !job.imported;
    stop.hidden = !isOpen(job);
    retry.hidden = isOpen(job) || job.state === "done" || !held;
  }
}
