// Days as the reader counts them, in the reader's own time zone.

const long = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const recent = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

/** The day of a moment, as 2026-11-21. */
export function dayKey(moment) {
  const at = new Date(moment);
  return [at.getFullYear(), at.getMonth() + 1, at.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
}

/** The moment at which a day begins, `add` days later; null for what is no day. */
export function startOf(key, add = 0) {
  const [, year, month, day] = /^(\d{4})-(\d\d)-(\d\d)$/.exec(key ?? "")?.map(Number) ?? [];
  const at = year ? new Date(year, month - 1, day + add) : null;
  return at && !Number.isNaN(at.getTime()) ? at : null;
}

export function nameOfDay(key) {
  const at = startOf(key);
  const today = dayKey(Date.now());
  if (key === today) return "Today";
  if (key === dayKey(startOf(today, -1))) return "Yesterday";
  return (at.getFullYear() === new Date().getFullYear() ? recent : long).format(at);
}

export const fullDay = (key) => long.format(startOf(key));
