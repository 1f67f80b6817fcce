// Bars and lines as SVG, read by pointer, by arrow keys and by screen readers.

import { el, say, show, svg } from "./dom.js";
import { compact } from "./format.js";

const EDGE = { top: 10, right: 4, bottom: 22, left: 40 };

/**
 * Make a chart; `update(data)` draws it. `data`: {times, series: [{name, values, tone?}]}, with null
 * for a value that is missing and "bad" or "warn" as a tone. `kind` is "bars" (stacked) or "lines"; `label` says what is drawn, `time`
 * writes a moment on the axis, `reading` writes it in full, `unit` writes a value.
 */
export function chart({ kind = "bars", label, height = 180, time, reading = time, unit = compact }) {
  const picture = svg("svg", { height, "aria-hidden": "true" });
  const box = el("div", { class: "reading", hidden: true });
  const spoken = el("p", { class: "visually-hidden", "aria-live": "polite" });
  const element = el("div", { class: "chart", tabindex: "0", role: "group", "aria-label": label }, picture, box, spoken);
  let data = { times: [], series: [] };
  let chosen = null;
  let width = 0;

  function draw() {
    if (!width || !data.times.length) return;
    const scale = scaleOf(data, kind, width, height);
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    show(picture, grid(scale, unit), axis(scale, data.times, time), kind === "bars" ? bars(scale, data) : lines(scale, data));
    if (chosen !== null && chosen < data.times.length) point(scale);
    else box.hidden = true;
  }

  function point(scale) {
    const x = scale.x(chosen);
    picture.append(svg("line", { class: "cursor", x1: x, x2: x, y1: EDGE.top, y2: height - EDGE.bottom }));
    show(
      box,
      el("strong", {}, reading(data.times[chosen])),
      data.series.map((one, index) =>
        el("div", { class: "row between" }, el("span", { class: `key ${toneOf(one, index)}` }, one.name), el("span", { class: "number" }, written(one.values[chosen], unit))),
      ),
    );
    box.hidden = false;
    const left = Math.min(Math.max(x + 10, 0), width);
    box.style.left = left + box.offsetWidth > width ? `${Math.max(x - box.offsetWidth - 10, 0)}px` : `${left}px`;
  }

  function choose(index, aloud = false) {
    chosen = index;
    draw();
    if (index === null || !aloud) return;
    const values = data.series.map((one) => `${one.name} ${written(one.values[index], unit)}`);
    say(spoken, `${reading(data.times[index])}: ${values.join(", ")}`);
  }

  element.addEventListener("pointermove", (event) => {
    const scale = scaleOf(data, kind, width, height);
    const at = Math.floor((event.clientX - picture.getBoundingClientRect().left - EDGE.left) / scale.step);
    choose(at >= 0 && at < data.times.length ? at : null);
  });
  element.addEventListener("pointerleave", () => choose(null));
  element.addEventListener("blur", () => choose(null));
  element.addEventListener("keydown", (event) => {
    const last = data.times.length - 1;
    const goals = { ArrowLeft: Math.max((chosen ?? last + 1) - 1, 0), ArrowRight: Math.min((chosen ?? -1) + 1, last), Home: 0, End: last, Escape: null };
    if (last < 0 || !(event.key in goals)) return;
    event.preventDefault();
    choose(goals[event.key], true);
  });
  new ResizeObserver(([entry]) => {
    width = Math.round(entry.contentRect.width);
    draw();
  }).observe(element);

  return {
    element,
    update(next) {
      data = next;
      draw();
    },
  };
}

/** The legend of a chart with several series. */
export function legend(series) {
  return el("div", { class: "legend" }, series.map((one, index) => el("span", { class: `key ${toneOf(one, index)}` }, one.name)));
}

const toneOf = (one, index) => one.tone ?? `series-${index + 1}`;

const written = (value, unit) => (value === null || value === undefined ? "–" : unit(value));

function scaleOf({ times, series }, kind, width, height) {
  const sums = times.map((_, index) => {
    const values = series.map((one) => one.values[index] ?? 0);
    return kind === "bars" ? values.reduce((sum, value) => sum + value, 0) : Math.max(0, ...values);
  });
  const top = nice(Math.max(1, ...sums));
  const step = (width - EDGE.left - EDGE.right) / Math.max(times.length, 1);
  const room = height - EDGE.top - EDGE.bottom;
  return {
    top,
    step,
    width,
    height,
    x: (index) => EDGE.left + (index + 0.5) * step,
    y: (value) => height - EDGE.bottom - (value / top) * room,
  };
}

/** The next of 1, 2, 4, 5, 8, 10, 20 … : each splits into quarters or halves that read well. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 4, 5, 8, 10].find((step) => value <= step * power);
}

function grid(scale, unit) {
  const marks = scale.top >= 4 ? [0, 0.5, 1] : [0, 1];
  return marks.flatMap((share) => {
    const y = scale.y(scale.top * share);
    return [
      svg("line", { class: "grid", x1: EDGE.left, x2: scale.width - EDGE.right, y1: y, y2: y }),
      svg("text", { class: "tick", x: EDGE.left - 8, y: y + 4, "text-anchor": "end" }, unit(scale.top * share)),
    ];
  });
}

function axis(scale, times, time) {
  const every = Math.max(1, Math.ceil(times.length / Math.max(2, Math.floor((scale.width - EDGE.left) / 80))));
  return times.flatMap((at, index) => {
    const first = Math.floor(every / 2);
    if (index % every !== first % every) return [];
    return [svg("text", { class: "tick", x: scale.x(index), y: scale.height - 5, "text-anchor": "middle" }, time(at))];
  });
}

function bars(scale, { times, series }) {
  const width = Math.max(1, Math.min(scale.step * 0.72, 26));
  return times.flatMap((_, index) => {
    let below = 0;
    return series.flatMap((one, number) => {
      const value = one.values[index] ?? 0;
      if (!value) return [];
      const y = scale.y(below + value);
      const height = Math.max(scale.y(below) - y, 1);
      below += value;
      return [svg("rect", { class: `bar ${toneOf(one, number)}`, x: scale.x(index) - width / 2, y, width, height, rx: Math.min(2, width / 3) })];
    });
  });
}

function lines(scale, { series }) {
  return series.map((one, number) => {
    let pen = "M";
    const path = one.values.map((value, index) => {
      if (value === null || value === undefined) {
        pen = "M";
        return "";
      }
      const place = `${scale.x(index).toFixed(1)} ${scale.y(value).toFixed(1)}`;
      // A point that stands alone is a line of no length, drawn by its round ends.
      const step = pen === "M" ? `M${place}h0` : `L${place}`;
      pen = "L";
      return step;
    });
    return svg("path", { class: `line ${toneOf(one, number)}`, d: path.join("") });
  });
}
