// Light, dark, or as the system has it; theme.js applies it before the next page is painted.

import { el } from "../shared/dom.js";

const KEY = "memory-layer-theme";
const THEMES = { "": "Auto", light: "Light", dark: "Dark" };

export function themeSwitch() {
  const root = document.documentElement;
  const buttons = Object.entries(THEMES).map(([theme, text]) => el("button", { type: "button", "aria-pressed": String((root.dataset.theme ?? "") === theme), on: { click: () => choose(theme) } }, text));
  return el("div", { class: "segments", role: "group", "aria-label": "Theme" }, buttons);

  function choose(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    localStorage.setItem(KEY, theme);
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.textContent === THEMES[theme]));
  }
}
