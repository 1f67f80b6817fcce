// Endless lists: the next page comes when its end is near, or by a button.

import { notice } from "../shared/dialog.js";
import { el } from "../shared/dom.js";

/** Draw `first` and what follows it; `read(cursor)` answers a page with its `next_cursor`. */
export function pages({ list, first, read, draw, signal }) {
  const more = el("button", { class: "button more", type: "button", on: { click: next } }, "Show more");
  const near = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && next(), { rootMargin: "600px" });
  let cursor = null;
  let busy = false;
  list.after(more);
  signal.addEventListener("abort", () => near.disconnect());
  take(first);

  function take(page) {
    draw(page);
    cursor = page.next_cursor;
    more.hidden = cursor === null;
    // Watching anew tells anew whether the end is still near.
    near.unobserve(more);
    if (cursor !== null) near.observe(more);
  }

  async function next() {
    if (busy || cursor === null) return;
    busy = true;
    try {
      take(await read(cursor));
    } catch (error) {
      near.unobserve(more);
      if (!signal.aborted) notice(error.message, { bad: true });
    }
    busy = false;
  }
}
