// Real editors on one page, each with a way to read what its model holds and to empty it.

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

interface Made {
  read(): string;
  clear(): void;
}

const EDITORS: Record<string, () => Made> = {
  prosemirror() {
    const state = EditorState.create({ schema, plugins: [keymap(baseKeymap)] });
    const view = new EditorView(place(), { state });
    view.dom.id = "prompt-textarea";
    return {
      read: () => view.state.doc.textBetween(0, view.state.doc.content.size, "\n", "\n"),
      clear: () => view.dispatch(view.state.tr.delete(0, view.state.doc.content.size)),
    };
  },
  tiptap() {
    const editor = new Editor({ element: place(), extensions: [StarterKit], content: "" });
    editor.view.dom.ariaLabel = "Ask Grok anything";
    return {
      read: () => editor.state.doc.textBetween(0, editor.state.doc.content.size, "\n", "\n"),
      clear: () => editor.commands.clearContent(true),
    };
  },
  quill() {
    const box = document.createElement("rich-textarea");
    document.querySelector("#composer")!.append(box);
    const inner = document.createElement("div");
    box.append(inner);
    const quill = new Quill(inner);
    return { read: () => quill.getText().replace(/\n$/, ""), clear: () => quill.setText("") };
  },
  textarea() {
    const box = document.createElement("textarea");
    box.ariaLabel = "Ask Grok anything";
    document.querySelector("#composer")!.append(box);
    let value = "";
    // A framework's model: it holds what input events have told it.
    box.addEventListener("input", () => (value = box.value));
    return { read: () => value, clear: () => (value = box.value = "") };
  },
};

Object.assign(window, {
  makeEditor(kind: string) {
    const { read, clear } = EDITORS[kind]!();
    Object.assign(window, { readEditor: read, clearEditor: clear });
  },
});
