// The one thing the extension shows in a page: a button at the prompt box, and what it finds.
// It lives in a closed shadow root, so that the page neither styles nor reads it.

import type { Found } from "../messages";
import { el, memorySummary } from "../ui/dom";

export interface Memories {
  search(query: string): Promise<{ found: Found[] } | { problem: string }>;
  insert(found: Found[]): Promise<string>;
  composer(): HTMLElement | undefined;
  draft(): string;
}

const REFRESH_MS = 600;
const STYLE = `
:host { all: initial; }
.button, .card { position: fixed; z-index: 2147483000; font: 14px/1.4 system-ui, sans-serif; }
.button { width: 30px; height: 30px; border-radius: 15px; border: 1px solid #8886; padding: 0;
  background: #fff; color: #3b3f9e; font-weight: 700; cursor: pointer; }
.card { width: min(360px, calc(100vw - 24px)); overflow: auto;
  box-sizing: border-box; padding: 12px; border-radius: 12px; border: 1px solid #8886;
  background: #fff; color: #1c1d22; box-shadow: 0 8px 30px #0004; }
h2 { font-size: 14px; margin: 0 0 8px; }
p { margin: 0 0 4px; }
ul { list-style: none; margin: 0; padding: 0; display: grid; gap: 6px; }
li button { display: block; width: 100%; text-align: left; font: inherit; color: inherit;
  padding: 8px; border: 1px solid #8884; border-radius: 8px; background: none; cursor: pointer; }
li button:hover { background: #6b70d81f; }
small { display: block; opacity: .75; }
mark { background: #ffe08a; color: #1c1d22; border-radius: 3px; }
button:focus-visible { outline: 2px solid #6b70d8; outline-offset: 1px; }
.card:focus { outline: none; }
[hidden] { display: none; }
@media (prefers-color-scheme: dark) {
  .button { background: #26272e; color: #b9bcff; }
  .card { background: #1e1f25; color: #ecedf2; }
}`;

export class MemoriesButton {
  #memories: Memories;
  #host = el("div");
  #button = el("button", { className: "button", type: "button", textContent: "M" });
  #card = el("div", { className: "card", hidden: true });
  #title = el("h2");
  #list = el("ul");
  #status = el("p");
  #root: ShadowRoot;
  #asked = "";
  #timer: ReturnType<typeof setInterval>;

  constructor(memories: Memories) {
    this.#memories = memories;
    const root = (this.#root = this.#host.attachShadow({ mode: "closed" }));
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    root.adoptedStyleSheets = [style];
    this.#title.textContent = "Your memories";
    this.#status.setAttribute("role", "status");
    this.#card.setAttribute("role", "dialog");
    this.#card.setAttribute("aria-label", "Memories that match your prompt");
    this.#button.title = "Memories that match what you are typing";
    this.#button.setAttribute("aria-label", this.#button.title);
    this.#button.setAttribute("aria-expanded", "false");
    this.#card.append(this.#title, this.#status, this.#list);
    root.append(this.#button, this.#card);
    this.#button.addEventListener("click", () => (this.#card.hidden ? this.open() : this.#close()));
    // The page must not take what is typed here for its own.
    for (const kind of ["keydown", "keyup", "keypress"] as const) {
      this.#host.addEventListener(kind, (event) => event.stopPropagation());
    }
    this.#card.addEventListener("keydown", (event) => this.#key(event));
    this.#timer = setInterval(() => this.#refresh(), REFRESH_MS);
    addEventListener("resize", () => this.#place());
  }

  remove(): void {
    clearInterval(this.#timer);
    this.#host.remove();
  }

  open(): void {
    this.#place();
    this.#card.hidden = false;
    this.#button.setAttribute("aria-expanded", "true");
    this.#asked = "";
    this.#card.tabIndex = -1;
    this.#card.focus();
    this.#refresh();
  }

  /** Say something at the button, for the user to see and a screen reader to read. */
  tell(text: string): void {
    this.#place();
    this.#card.hidden = false;
    this.#list.replaceChildren();
    this.#status.textContent = text;
    this.#asked = this.#memories.draft();
  }

  #close(): void {
    this.#card.hidden = true;
    this.#button.setAttribute("aria-expanded", "false");
    this.#memories.composer()?.focus();
  }

  #key(event: KeyboardEvent): void {
    const items = [...this.#list.querySelectorAll("button")];
    const here = items.indexOf(this.#root.activeElement as HTMLButtonElement);
    if (event.key === "Escape") this.#close();
    else if (event.key === "ArrowDown") items[Math.min(here + 1, items.length - 1)]?.focus();
    else if (event.key === "ArrowUp") items[Math.max(here - 1, 0)]?.focus();
    else return;
    event.preventDefault();
  }

  #refresh(): void {
    if (document.hidden) return;
    this.#place();
    const draft = this.#memories.draft().trim();
    // What is being typed leaves the page only while its owner has the list open.
    if (!this.#card.hidden && draft !== this.#asked) void this.#search(draft);
  }

  #place(): void {
    const box = this.#memories.composer();
    if (!this.#host.isConnected) document.documentElement.append(this.#host);
    const rect = box?.getBoundingClientRect();
    this.#button.hidden = !rect || rect.width === 0;
    if (!rect) return;
    const right = `${Math.max(12, innerWidth - rect.right)}px`;
    const top = Math.max(8, rect.top - 40);
    Object.assign(this.#button.style, { right, top: `${top}px` });
    // The list opens to where there is more room, and never covers the prompt box.
    const below = innerHeight - rect.bottom;
    const room = Math.max(top, below) - 20;
    Object.assign(this.#card.style, {
      right,
      maxHeight: `${Math.max(120, Math.min(420, room))}px`,
      top: below > top ? `${rect.bottom + 8}px` : "auto",
      bottom: below > top ? "auto" : `${innerHeight - top + 8}px`,
    });
  }

  async #search(draft: string): Promise<void> {
    this.#asked = draft;
    if (!draft) {
      this.#list.replaceChildren();
      this.#status.textContent = "Type a prompt, and matching memories appear here.";
      return;
    }
    this.#status.textContent = "Searching…";
    const answer = await this.#memories.search(draft);
    if (this.#asked !== draft) return;
    const found = "found" in answer ? answer.found : [];
    this.#status.textContent =
      "problem" in answer
        ? answer.problem
        : found.length === 0
          ? "No memory matches."
          : "Choose one to put it into your prompt. Nothing is sent.";
    this.#list.replaceChildren(...found.map((memory) => this.#item(memory)));
  }

  #item(memory: Found): HTMLElement {
    const button = el("button", { type: "button" }, ...memorySummary(memory));
    button.addEventListener("click", () => void this.#insert(memory));
    return el("li", {}, button);
  }

  async #insert(memory: Found): Promise<void> {
    const said = await this.#memories.insert([memory]);
    if (said) this.tell(said);
    else this.#close();
  }
}
