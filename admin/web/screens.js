// Which screens there are. Each is a module of its own below screens/, fetched when it is first shown.

/**
 * A screen is `{name, title, group}`: `name` is its address (#/name) and its file (screens/name.js),
 * `group` its place in the menu, null for none. Its module exports `show(context)`, which may be
 * async, and which is given
 *
 * - `root`: where it draws; `tools`: a place at the right of the heading;
 * - `title(text)`: another heading; `heading`: its element, to put something before it;
 * - `api` (shared/api.js), signed in and renewed by itself; `session`: `{email, kind}`, of which kind
 *   is "session" or "token", and `token()`, the bearer of the moment, for what `api` cannot do;
 * - `about`: what GET /about says of this server;
 * - `params`: what follows the name in the address, `query`: its URLSearchParams, and `go(name,
 *   params, query)` and `address(name, params, query)`, which leads to and writes another address;
 * - `rewrite(params, query)`: makes the address say what is shown now, and shows nothing anew;
 * - `signal`: aborted when the screen is left: give it to requests, listeners and timers.
 *
 * What `show` throws is shown in its place, with a button to try again. A module that exports
 * `keep = true` is left as it is when one goes on from it, and is there again on the way back.
 */
export const SCREENS = [
  { name: "timeline", title: "Timeline", group: "Memories" },
  { name: "search", title: "Search", group: "Memories" },
  { name: "ask", title: "Ask", group: "Memories" },
  { name: "trash", title: "Trash", group: "Memories" },
  { name: "conversation", title: "Conversation", group: null },
  { name: "memory", title: "Memory", group: null },
  { name: "import", title: "Import", group: "In and out" },
  { name: "export", title: "Export", group: "In and out" },
  { name: "setup", title: "Set-up", group: "In and out" },
  { name: "tokens", title: "Tokens", group: "You" },
  { name: "usage", title: "Usage", group: "You" },
  { name: "account", title: "Account", group: "You" },
];

export const FIRST = "timeline";

/** Write the address of a screen. */
export function address(name, params = [], query = {}) {
  const path = [name, ...params].map(encodeURIComponent).join("/");
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== ""));
  return `#/${path}${asked.size ? `?${asked}` : ""}`;
}

/** Read an address, whoever wrote it; what names no screen leads to the first one. */
export function placeOf(hash) {
  const [path, asked = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [name, ...params] = path.split("/").map(decoded);
  const screen = SCREENS.find((one) => one.name === name);
  return { screen: screen ?? SCREENS.find((one) => one.name === FIRST), params: screen ? params : [], query: new URLSearchParams(asked) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
