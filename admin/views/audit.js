import { addressOf, deedOf, detailsOf } from "../people.js";
import { notice } from "../shared/dialog.js";
import { el, show } from "../shared/dom.js";
import { timeOf } from "../shared/format.js";
import { table } from "../shared/table.js";

export async function open({ api, body }) {
  let older = [];
  let newest = await api.get("/audit");
  let before = newest.next_before;
  const list = el("div", {});
  const more = el("button", { class: "button compact", type: "button", on: { click: readOlder } }, "Show older");
  const pager = el("div", { class: "pager" }, more);

  draw();
  body.removeAttribute("aria-busy");
  show(body, el("section", { class: "card", "aria-label": "Deeds of operators" }, list, pager));
  return { every: 15_000, refresh };

  async function refresh() {
    // What was read further down stays where it is.
    if (older.length) return;
    newest = await api.get("/audit");
    before = newest.next_before;
    draw();
  }

  async function readOlder() {
    more.disabled = true;
    try {
      const page = await api.get("/audit", { before });
      older = [...older, ...page.deeds];
      before = page.next_before;
      draw();
    } catch (error) {
      notice(error.message, { bad: true });
    }
    more.disabled = false;
  }

  function draw() {
    show(list, deedTable([...newest.deeds, ...older]));
    pager.hidden = before === null;
  }
}

function deedTable(deeds) {
  return table({
    caption: "Who did what when",
    empty: "No operator has done anything yet.",
    rows: deeds,
    columns: [
      { label: "What", cell: deedOf },
      { label: "Details", wide: true, cell: detailsOf },
      { label: "User", wide: true, cell: (deed) => (deed.user_id ? el("a", { class: "mono small", href: addressOf(deed.user_id) }, deed.user_id) : "") },
      { label: "Who", cell: (deed) => el("span", { class: "mono" }, deed.actor) },
      { label: "From", cell: (deed) => deed.address ?? "–" },
      { label: "When", end: true, wide: true, cell: (deed) => timeOf(deed.at) },
    ],
  });
}
