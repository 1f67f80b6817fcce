// Numbers, times and sizes as people read them, in the reader's own language.

const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const ago = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

const STEPS = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

export const number = (value) => (value === null || value === undefined ? "–" : whole.format(value));
export const compact = (value) => (value < 10_000 ? whole.format(value) : short.format(value));
export const dayOf = (text) => day.format(new Date(text));
export const timeOf = (text) => (text ? moment.format(new Date(text)) : "–");
export const clockOf = (text) => clock.format(new Date(text));

export function since(text) {
  if (!text) return "never";
  const seconds = (new Date(text) - Date.now()) / 1000;
  const step = STEPS.find(([, length]) => Math.abs(seconds) >= length);
  return step ? ago.format(Math.round(seconds / step[1]), step[0]) : "just now";
}

/** A whole number of the largest unit that fits: 15 seconds, 10 minutes, 1 day. */
export function duration(seconds) {
  const [name, length] = STEPS.find(([, step]) => seconds >= step && seconds % step === 0) ?? ["second", 1];
  return plural(seconds / length, name);
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${(value / 1000).toFixed(value < 10_000 ? 1 : 0)} s`;
  return `${value < 10 ? Number(value.toFixed(1)) : Math.round(value)} ms`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  const step = value < 1 ? 0 : Math.min(Math.floor(Math.log(value) / Math.log(1024)), units.length - 1);
  const scaled = value / 1024 ** step;
  return `${step && scaled < 10 ? scaled.toFixed(1) : Math.round(scaled)} ${units[step]}`;
}

export const percent = (share) => {
  if (share === null || share === undefined) return "–";
  const value = share * 100;
  return `${value === 0 || value >= 10 ? Math.round(value) : Number(value.toPrecision(2))} %`;
};

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
