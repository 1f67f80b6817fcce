// An answer with its [n] made into buttons that lead to the sources.

import { el } from "../shared/dom.js";
import { markdown } from "./markdown.js";

const CITATION = /\[(\d{1,3})\]/;

/** Render `text`; `choose(n)` is called for a citation of one of the `count` sources. */
export function answerText(text, count, choose) {
  const rendered = markdown(text);
  const walker = document.createTreeWalker(rendered, NodeFilter.SHOW_TEXT, (node) => (node.parentElement.closest("code") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT));
  const found = [];
  while (walker.nextNode()) if (CITATION.test(walker.currentNode.data)) found.push(walker.currentNode);
  for (const node of found) node.replaceWith(...parts(node.data, count, choose));
  return rendered;
}

/** With one group in the pattern, every second part is the number of a citation. */
function parts(text, count, choose) {
  return text.split(CITATION).map((part, index) => {
    if (index % 2 === 0) return part;
    const n = Number(part);
    if (n < 1 || n > count) return `[${part}]`;
    return el("button", { class: "cite", type: "button", "aria-label": `Source ${n}`, on: { click: () => choose(n) } }, n);
  });
}
