import { field, notice } from "../../shared/dialog.js";
import { el, say, show as put } from "../../shared/dom.js";
import { choosePlace, save } from "../../shared/download.js";
import { bytes } from "../../shared/format.js";
import { body, button, card } from "../parts.js";

const SHORTEST = 8;

export function show({ root, api, signal }) {
  let running = null;
  const secret = el("input", { class: "input", type: "password", name: "passphrase", autocomplete: "new-password", minlength: SHORTEST, maxlength: 1_000 });
  const again = el("input", { class: "input", type: "password", name: "again", autocomplete: "new-password", on: { input: compare } });
  secret.addEventListener("input", compare);
  const send = el("button", { class: "button primary" }, "Download");
  const cancel = button("Cancel", () => running?.abort());
  const progress = el("p", { class: "muted", role: "status" });
  const problem = el("p", { class: "callout bad", role: "alert", hidden: true });
  cancel.hidden = true;
  put(
    root,
    card(
      "Everything that is yours, in one file",
      null,
      body(
        el("p", {}, "A zip of all your memories but those in the trash. It is made as it is sent, however large it is."),
        el(
          "dl",
          { class: "facts" },
          part("memories.jsonl", "a line for each memory, word for word; any server of this kind imports it again"),
          part("markdown/", "each conversation as a text to read"),
          part("manifest.json", "how many there are, and check sums"),
        ),
        el(
          "form",
          { class: "stack", on: { submit: start } },
          el(
            "details",
            {},
            el("summary", {}, "Encrypt it with a passphrase"),
            el(
              "div",
              { class: "stack" },
              field("Passphrase", secret, `At least ${SHORTEST} characters. It is kept nowhere: without it nobody can open the file.`),
              field("The same again", again),
              el("p", { class: "muted small" }, "The file is in the format of age: ", el("code", {}, "age -d -o export.zip FILE"), " opens it, as does ", el("code", {}, "python main.py decrypt FILE"), "."),
            ),
          ),
          problem,
          el("div", { class: "row" }, send, cancel, progress),
        ),
      ),
    ),
  );
  signal.addEventListener("abort", () => running?.abort());

  function compare() {
    again.setCustomValidity(secret.value === again.value ? "" : "The two passphrases differ.");
  }

  async function start(event) {
    event.preventDefault();
    problem.hidden = true;
    running = new AbortController();
    turn(true);
    try {
      const passphrase = secret.value || null;
      const name = `memory-layer-${new Date().toISOString().slice(0, 10)}.zip${passphrase ? ".age" : ""}`;
      const place = await choosePlace(name);
      say(progress, "It begins…");
      const size = await fetchInto(place, passphrase, running.signal);
      say(progress, `Saved: ${bytes(size)}.`);
      notice(`Your export is saved: ${bytes(size)}.`);
    } catch (error) {
      say(progress, error.name === "AbortError" ? "Nothing was saved." : "");
      if (error.name !== "AbortError") {
        say(problem, error instanceof TypeError ? "The connection broke off; nothing was saved. Try again." : error.message);
        problem.hidden = false;
      }
    }
    running = null;
    turn(false);
  }

  async function fetchInto(place, passphrase, stopped) {
    try {
      const request = passphrase ? { body: { passphrase } } : {};
      const response = await api.send(passphrase ? "POST" : "GET", "/export/full", { ...request, patience: null, signal: stopped });
      return await save(response, place, (count) => say(progress, `${bytes(count)} so far`));
    } catch (error) {
      await place.abort().catch(() => {});
      throw error;
    }
  }

  function turn(busy) {
    send.disabled = busy;
    cancel.hidden = !busy;
  }
}

const part = (name, text) => [el("dt", { class: "mono" }, name), el("dd", {}, text)];
