// One table for all lists: real headers, an empty state, and rows that fold where it is narrow.

import { el } from "./dom.js";

/**
 * `columns`: {label, cell(row), end?, wide?, hidden?}, of which the first names the row and a
 * wide one takes a line of its own where it is narrow. With `href(row)`
 * that first cell is a link, and a click anywhere in the row follows it. What has two short columns
 * need not fold.
 */
export function table({ caption, columns, rows, href = null, folds = true, empty = "Nothing here yet." }) {
  if (!rows.length) return el("div", { class: "state" }, el("p", {}, empty));
  const head = columns.map((column) =>
    el("th", { scope: "col", class: column.end && "end" }, column.hidden ? el("span", { class: "visually-hidden" }, column.label) : column.label),
  );
  const body = rows.map((row) => {
    const link = href?.(row);
    const cells = columns.map((column, index) => {
      const content = column.cell(row) ?? "";
      if (index === 0) return el("th", { scope: "row" }, link ? el("a", { href: link }, content) : content);
      const kinds = [column.end && "end number", column.wide && "wide"].filter(Boolean).join(" ");
      const props = { class: kinds || null, "data-label": column.hidden ? null : column.label };
      return el("td", props, content);
    });
    return el("tr", link ? { class: "link", on: { click: (event) => follow(event, link) } } : {}, cells);
  });
  return el(
    "div",
    { class: "table-box", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { class: folds ? "folds" : null }, el("caption", { class: "visually-hidden" }, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)),
  );
}

function follow(event, link) {
  if (event.target.closest("a, button, input, select") || String(getSelection())) return;
  location.assign(link);
}
