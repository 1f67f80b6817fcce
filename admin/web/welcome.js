// What somebody sees who has no memories yet: the ways to get some.

import { el } from "../shared/dom.js";
import { SCREENS } from "./screens.js";

const WAYS = [
  ["import", "Bring your past", "Years of chats with ChatGPT, Claude, Gemini, Grok or Perplexity, from the file that each of them gives you. Nothing leaves this server.", "Import a file"],
  ["setup", "Keep what comes", "The extension for Chrome saves every prompt and every answer as it happens; assistants and editors join by MCP.", "Set it up"],
];

export function welcome({ address }) {
  const ways = WAYS.filter(([name]) => SCREENS.some((screen) => screen.name === name));
  return el(
    "section",
    { class: "welcome" },
    el("h2", {}, "Your memory is empty. Two ways to fill it:"),
    el("div", { class: "ways-in" }, ways.map(([name, title, text, action], index) => el("article", { class: "card" }, el("h3", {}, title), el("p", { class: "muted" }, text), el("a", { class: index ? "button" : "button primary", href: address(name) }, action)))),
  );
}
