// What a page could not hand over because the extension was replaced under it. It waits in the tab
// until the user has reloaded the page; whatever is there is text that the page itself had.

import type { Told } from "../spool";

const NAME = "8f0c6b1e";
const MOST_CHARACTERS = 2_000_000;

export function leaveBehind(news: Told): void {
  try {
    const text = JSON.stringify([...takeUp(), news]);
    if (text.length <= MOST_CHARACTERS) sessionStorage.setItem(NAME, text);
  } catch {
    // The site leaves no room: the user has been told to reload.
  }
}

export function takeUp(): Told[] {
  try {
    const left: unknown = JSON.parse(sessionStorage.getItem(NAME) ?? "[]");
    sessionStorage.removeItem(NAME);
    return Array.isArray(left) ? left.filter(isTold) : [];
  } catch {
    return [];
  }
}

/** The page could have written it: it is believed only in shape. */
function isTold(left: unknown): left is Told {
  const { type, key, facts, prompt, response } = (left ?? {}) as Record<string, unknown>;
  const text = type === "prompt" ? prompt : type === "answer" ? response : undefined;
  return typeof text === "string" && typeof key === "string" && typeof facts === "object";
}
