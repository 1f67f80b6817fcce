// What several screens are made of.

import { el } from "../shared/dom.js";

export const card = (title, note, ...content) =>
  el("section", { class: "card", "aria-label": title }, el("header", {}, el("h2", {}, title), note && el("span", { class: "muted small" }, note)), ...content);
export const body = (...content) => el("div", { class: "body stack" }, ...content);
export const button = (text, click, tone = "") => el("button", { class: `button ${tone}`, type: "button", on: { click } }, text);
export const fact = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
export const action = (name, text, press) => el("div", { class: "action" }, el("div", {}, el("strong", {}, name), el("p", { class: "muted small" }, text)), press);
/** A link that leaves this server and takes nothing along. */
export const outward = (href, text) => el("a", { href, target: "_blank", rel: "noopener noreferrer" }, text);
