import { ask, notice } from "../../shared/dialog.js";
import { el, show as put } from "../../shared/dom.js";
import { plural, since } from "../../shared/format.js";
import { table } from "../../shared/table.js";
import { nameOf } from "../assistants.js";
import { button, card } from "../parts.js";

const DAY = 86_400_000;

export async function show({ root, tools, api, signal }) {
  let memories = [];
  let cursor = null;
  const list = el("div", {});
  const more = button("Show older", readOn, "compact");
  const pager = el("div", { class: "pager" }, more);
  const empty = button("Empty the trash…", emptyIt, "danger");

  await load();
  tools.append(empty);
  put(root, el("p", { class: "muted" }, "What you delete can be brought back for 30 days. Then its words are gone for good, and nothing that is imported or sent again brings them back."), card("Deleted memories", null, list, pager));

  async function load(from = null) {
    const page = await api.get("/trash", { limit: 50, cursor: from }, { signal });
    memories = from ? [...memories, ...page.memories] : page.memories;
    cursor = page.next_cursor;
    draw();
  }

  function draw() {
    empty.hidden = !memories.length;
    pager.hidden = cursor === null;
    put(list, trashTable(memories, restore, forget));
  }

  async function readOn() {
    more.disabled = true;
    await told(() => load(cursor));
    more.disabled = false;
  }

  async function restore({ memory }, pressed) {
    pressed.disabled = true;
    const done = await told(async () => {
      await api.post(`/trash/${memory.id}/restore`);
      notice("It is back, where and as it was.");
      drop(memory.id);
    });
    pressed.disabled = done;
  }

  async function forget({ memory }) {
    const done = await ask({
      title: "Forget this memory for ever?",
      danger: true,
      action: "Forget",
      body: [el("p", { class: "said" }, titleOf(memory)), el("p", {}, "Its words are erased now. Nothing brings them back.")],
      act: () => api.delete(`/trash/${memory.id}`),
    });
    if (done) drop(memory.id);
  }

  async function emptyIt() {
    await ask({
      title: "Forget all that was deleted?",
      danger: true,
      action: "Empty the trash",
      body: [el("p", {}, "The words of every memory in the trash are erased now. Nothing brings them back.")],
      act: async () => {
        const { purged } = await api.delete("/trash");
        notice(`${plural(purged, "memory is", "memories are")} forgotten.`);
        await load();
      },
    });
  }

  function drop(id) {
    memories = memories.filter(({ memory }) => memory.id !== id);
    draw();
  }
}

async function told(act) {
  try {
    await act();
    return true;
  } catch (error) {
    if (error.name !== "AbortError") notice(error.message, { bad: true });
    return false;
  }
}

function trashTable(memories, restore, forget) {
  return table({
    caption: "Deleted memories",
    empty: "The trash is empty.",
    rows: memories,
    columns: [
      { label: "Memory", cell: ({ memory }) => el("span", { class: "two-lines" }, titleOf(memory)) },
      { label: "From", cell: ({ memory }) => nameOf(memory.provider) },
      { label: "Deleted", cell: ({ deleted_at: at }) => since(at) },
      { label: "Kept for", cell: ({ purged_at: at }) => left(at) },
      { label: "Actions", hidden: true, end: true, wide: true, cell: (one) => actions(one, restore, forget) },
    ],
  });
}

function actions(one, restore, forget) {
  const about = titleOf(one.memory).slice(0, 80);
  const back = el("button", { class: "button compact", type: "button", "aria-label": `Restore: ${about}`, on: { click: () => restore(one, back) } }, "Restore");
  const away = el("button", { class: "button danger compact", type: "button", "aria-label": `Forget: ${about}`, on: { click: () => forget(one) } }, "Forget…");
  return el("span", { class: "row actions" }, back, away);
}

const titleOf = (memory) => memory.prompt || memory.response || "Without text";
const left = (at) => plural(Math.max(1, Math.ceil((new Date(at) - Date.now()) / DAY)), "day");
