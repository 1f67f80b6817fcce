// Real editors on one page, each with a way to read what its model holds.

import { Editor } from "@tiptap/core";
import StarterKit from "@tiptap/starter-kit";
import { baseKeymap } from "prosemirror-commands";
import { keymap } from "prosemirror-keymap";
import { schema } from "prosemirror-schema-basic";
import { EditorState } from "prosemirror-state";
import { EditorView } from "prosemirror-view";
import Quill from "quill";

function place(): HTMLElement {
  const element = document.createElement("div");
  document.querySelector("#composer")!.append(element);
  return element;
}

const EDITORS: Record<string, () => () => string> = {
  prosemirror() {
    const state = EditorState.create({ schema, plugins: [keymap(baseKeymap)] });
    const view = new EditorView(place(), { state });
    view.dom.id = "prompt-textarea";
    return () => view.state.doc.textBetween(0, view.state.doc.content.size, "\n", "\n");
  },
  tiptap() {
    const editor = new Editor({ element: place(), extensions: [StarterKit], content: "" });
    editor.view.dom.ariaLabel = "Ask Grok anything";
    return () => editor.state.doc.textBetween(0, editor.state.doc.content.size, "\n", "\n");
  },
  quill() {
    const box = document.createElement("rich-textarea");
    document.querySelector("#composer")!.append(box);
    const inner = document.createElement("div");
    box.append(inner);
    const quill = new Quill(inner);
    return () => quill.getText().replace(/\n$/, "");
  },
  textarea() {
    const box = document.createElement("textarea");
    box.ariaLabel = "Ask Grok anything";
    document.querySelector("#composer")!.append(box);
    let value = "";
    // A framework's model: it holds what input events have told it.
    box.addEventListener("input", () => (value = box.value));
    return () => value;
  },
};

Object.assign(window, {
  makeEditor(kind: string) {
    Object.assign(window, { readEditor: EDITORS[kind]!() });
  },
});
