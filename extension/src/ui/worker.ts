// How our pages talk to the worker.

import type { FromUi } from "../messages";

export async function send<T>(message: FromUi): Promise<T> {
  return chrome.runtime.sendMessage<FromUi, T>(message);
}

export function problemIn(answer: unknown): string | undefined {
  const problem = (answer as { problem?: unknown } | null)?.problem;
  return typeof problem === "string" ? problem : undefined;
}

/** The tab that a popup or the side panel stands beside. */
export async function tabBeside(): Promise<number | null> {
  const [tab] = await chrome.tabs.query({ active: true, lastFocusedWindow: true });
  return tab?.id ?? null;
}
