// Small things that every surface of ours shares. Text enters only as text, never as markup.

import type { Found } from "../messages";

type Props<T> = Partial<{ [K in keyof T]: T[K] }>;

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children);
  return element;
}

const SITE_NAMES: Record<string, string> = {
  chatgpt: "ChatGPT",
  claude: "Claude",
  gemini: "Gemini",
  grok: "Grok",
};

export function siteName(provider: string): string {
  return SITE_NAMES[provider] ?? provider;
}

export function day(time: string): string {
  return new Date(time).toLocaleDateString(undefined, { dateStyle: "medium" });
}

/** Where a memory is from, and the part of it that matched. */
export function memorySummary(memory: Found): Node[] {
  const source = [siteName(memory.provider), day(memory.occurredAt), memory.title];
  const snippet = el("span");
  for (const { text, match } of memory.snippet) {
    snippet.append(match ? el("mark", { textContent: text }) : text);
  }
  if (memory.snippet.length === 0) {
    snippet.textContent = (memory.prompt ?? memory.response ?? "").slice(0, 200);
  }
  return [el("small", { textContent: source.filter(Boolean).join(" · ") }), snippet];
}
