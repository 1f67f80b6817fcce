// What an owner does to a memory: edit it, bring back what it was, delete it.

import { ask, field } from "../shared/dialog.js";
import { el, show } from "../shared/dom.js";
import { timeOf } from "../shared/format.js";
import { button } from "./turn.js";

export async function edit({ context: { api }, memory: { id }, redraw }) {
  const read = await api.read("GET", `/memories/${id}`);
  let { data: memory, etag } = read;
  const inputs = { prompt: area("prompt", memory.prompt), response: area("response", memory.response) };
  await ask({
    title: "Edit this memory",
    wide: true,
    action: "Save",
    body: [field("Prompt", inputs.prompt), field("Answer", inputs.response, "What stands now stays as a version.")],
    act: async () => {
      const body = changed(memory, inputs);
      if (!Object.keys(body).length) return;
      try {
        memory = await api.call("PATCH", `/memories/${id}`, { body, more: { "If-Match": etag } });
      } catch (error) {
        if (error.status !== 412) throw error;
        ({ memory, etag } = error.details);
        redraw(memory);
        throw new Error("It was changed elsewhere meanwhile, and now stands behind this dialog. Save again to put your text in its place.");
      }
      redraw(memory);
    },
  });
}

const area = (name, text) => el("textarea", { class: "input", name, rows: 8, value: text ?? "" });

/** Only what is another now. A text area turns every line end into one kind: that is no change. */
function changed(memory, inputs) {
  const plain = (text) => (text ?? "").replaceAll(/\r\n?/g, "\n");
  return Object.fromEntries(Object.entries(inputs).flatMap(([name, { value }]) => (value && value !== plain(memory[name]) ? [[name, value]] : [])));
}

export async function versions({ context: { api }, memory: { id }, redraw }) {
  const { versions: found } = await api.get(`/memories/${id}/versions`);
  let chosen = found[0]?.number;
  const choices = found.map((version, index) => {
    const radio = el("input", { type: "radio", name: "version", checked: index === 0, on: { change: () => (chosen = version.number) } });
    return el("li", {}, el("label", { class: "check" }, radio, `Until ${timeOf(version.replaced_at)}`), text("Prompt", version.prompt), text("Answer", version.response));
  });
  if (!found.length) throw new Error("There is no earlier version.");
  await ask({
    title: "Earlier versions",
    wide: true,
    action: "Bring this one back",
    body: [el("ul", { class: "versions" }, choices)],
    act: async () => redraw(await api.post(`/memories/${id}/versions/${chosen}/restore`)),
  });
}

const text = (name, content) => content && el("p", { class: "version-text" }, el("strong", {}, `${name}: `), content.length > 600 ? `${content.slice(0, 600)}…` : content);

/** Deleting asks nothing, as it can be undone where it was done. */
export async function remove({ context: { api }, memory, redraw, element }) {
  await api.delete(`/memories/${memory.id}`);
  const undo = button("Undo", async () => {
    undo.disabled = true;
    await api.post(`/trash/${memory.id}/restore`);
    element.classList.remove("deleted");
    redraw(memory);
    element.focus();
  });
  element.classList.add("deleted");
  show(element, el("p", { class: "row", role: "status" }, "In the trash for 30 days.", undo));
  undo.focus();
}
