// A year at a glance: a square a day, darker the more was said; by pointer and by arrow keys.

import { el, say, show, svg } from "../shared/dom.js";
import { plural } from "../shared/format.js";
import { dayKey, fullDay, startOf } from "./dates.js";

const STEP = 14;
const SQUARE = 11;
const TOP = 18;
const LEFT = 30;
const WEEKS = 53;
const DAYS = ["", "Mon", "", "Wed", "", "Fri", ""];
const month = new Intl.DateTimeFormat(undefined, { month: "short" });

/**
 * Make the picture; `update(counts, chosen)` draws it from a Map of days (2026-11-21) to numbers.
 * `choose(day)` is called when a day is clicked, or chosen with Enter.
 */
export function heatMap({ label, choose }) {
  const days = daysShown();
  const picture = svg("svg", { "aria-hidden": "true", width: LEFT + WEEKS * STEP, height: TOP + 7 * STEP });
  const box = el("div", { class: "heat-box", tabindex: "0", role: "group", "aria-label": label }, picture);
  const reading = el("p", { class: "reading-line muted small" });
  const spoken = el("p", { class: "visually-hidden", "aria-live": "polite" });
  const element = el("div", { class: "heat-map" }, box, reading, spoken);
  const squares = days.map(square);
  let counts = new Map();
  let chosen = null;
  let pointed = null;

  // Where it is narrow the last months show, and the rest can be scrolled to.
  new ResizeObserver(() => (box.scrollLeft = box.scrollWidth)).observe(box);

  box.addEventListener("pointerover", (event) => point(event.target.dataset.day ?? null));
  box.addEventListener("pointerleave", () => point(null));
  box.addEventListener("blur", () => point(null));
  box.addEventListener("click", (event) => event.target.dataset.day && choose(event.target.dataset.day));
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && pointed) return choose(pointed);
    const last = days.length - 1;
    const at = pointed ? days.indexOf(pointed) : last + 1;
    const goals = { ArrowLeft: at - 7, ArrowRight: at + 7, ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: last };
    if (!(event.key in goals)) return;
    event.preventDefault();
    point(days[Math.min(Math.max(goals[event.key], 0), last)], true);
  });

  show(picture, months(days), DAYS.map((name, row) => svg("text", { class: "tick", x: 0, y: TOP + row * STEP + SQUARE - 2 }, name)), squares);
  draw();
  say(reading, "\u00a0");
  return {
    element,
    update(next, day = null) {
      counts = next;
      chosen = day;
      draw();
    },
  };

  function draw() {
    const levels = levelsOf(days.map((day) => counts.get(day) ?? 0));
    days.forEach((day, index) => squares[index].setAttribute("class", `day level-${levels(counts.get(day) ?? 0)}${day === chosen ? " chosen" : ""}`));
    point(null);
  }

  function point(day, aloud = false) {
    picture.querySelector(".pointed")?.classList.remove("pointed");
    pointed = day;
    const square = day && squares[days.indexOf(day)];
    square?.classList.add("pointed");
    if (aloud) square?.scrollIntoView({ block: "nearest", inline: "nearest" });
    const text = day ? `${fullDay(day)}: ${plural(counts.get(day) ?? 0, "memory", "memories")}` : summary();
    say(reading, text);
    if (aloud) say(spoken, text);
  }

  function summary() {
    const sum = days.reduce((total, day) => total + (counts.get(day) ?? 0), 0);
    const active = days.filter((day) => counts.get(day)).length;
    return `${plural(sum, "memory", "memories")} on ${plural(active, "day")} since ${fullDay(days[0])}`;
  }
}

function square(day, index) {
  return svg("rect", { x: LEFT + Math.floor(index / 7) * STEP, y: TOP + (index % 7) * STEP, width: SQUARE, height: SQUARE, rx: 2, "data-day": day });
}

/** Whole weeks from a Sunday on, the last of them up to today. */
function daysShown() {
  const today = startOf(dayKey(Date.now()));
  const count = (WEEKS - 1) * 7 + today.getDay() + 1;
  return Array.from({ length: count }, (_, index) => dayKey(new Date(today.getFullYear(), today.getMonth(), today.getDate() - count + 1 + index)));
}

/** Four shades by quarters of the days that have something: one busy day leaves the others visible. */
function levelsOf(values) {
  const sorted = values.filter(Boolean).sort((a, b) => a - b);
  const bounds = [0.25, 0.5, 0.75].map((share) => sorted[Math.floor(share * (sorted.length - 1))] ?? 0);
  return (value) => (value === 0 ? 0 : 1 + bounds.filter((bound) => value > bound).length);
}

function months(days) {
  return days.flatMap((day, index) => {
    const week = index / 7;
    const isFirstWeek = index % 7 === 0 && day.slice(8) <= "07";
    return isFirstWeek && week < days.length / 7 - 2 ? [svg("text", { class: "tick", x: LEFT + week * STEP, y: 10 }, month.format(startOf(day)))] : [];
  });
}
