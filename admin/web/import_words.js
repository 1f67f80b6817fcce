// What an import says in words: its state, its reasons, and where an export comes from.

import { el } from "../shared/dom.js";
import { number } from "../shared/format.js";
import { outward } from "./parts.js";

export const STATES = {
  queued: ["Waits its turn", ""],
  running: ["Being imported", "accent"],
  done: ["Imported", "good"],
  failed: ["Failed", "bad"],
  cancelled: ["Cancelled", "warn"],
};

export const FORMATS = { chatgpt: "ChatGPT", claude: "Claude", gemini: "Gemini", grok: "Grok", perplexity: "Perplexity", jsonl: "JSON Lines" };

const REASONS = {
  deleted: "you have deleted it here, so it stays away",
  no_text: "neither prompt nor answer has text, as with a picture alone",
  empty_conversation: "a conversation without a message",
  too_large: "larger than what can be kept as one text",
  other_product: "activity of another product",
  not_a_prompt: "activity that is no chat",
  not_a_conversation: "not as a conversation of this format is written",
  not_json: "not valid JSON",
  unknown_date: "its date cannot be read",
  cut: "the file ends in the middle; what came before was kept",
  damaged_zip: "the zip is damaged; what came before was kept",
  zip_bomb: "the zip grows far beyond its size; what came before was kept",
  too_many_files: "the zip holds too many files; what came before was kept",
};

export const reasonsOf = (reasons) => Object.entries(reasons).map(([reason, count]) => `${number(count)} × ${REASONS[reason] ?? reason.replaceAll("_", " ")}`);
export const formatOf = (format) => format && format.split("+").map((name) => FORMATS[name] ?? name).join(" + ");

const SOURCES = [
  ["ChatGPT", () => ["At ", outward("https://chatgpt.com/#settings/DataControls", "chatgpt.com"), ": Settings, Data controls, Export data. A mail brings a link to a zip."]],
  ["Claude", () => ["At ", outward("https://claude.ai/settings/data-privacy-controls", "claude.ai"), ": Settings, Privacy, Export data. A mail brings a link to a zip, or to several numbered ones."]],
  ["Gemini", () => ["At ", outward("https://takeout.google.com/", "takeout.google.com"), ": deselect all, choose My Activity, in it only Gemini Apps, and JSON as its format; HTML is read, too."]],
  ["Grok", () => ["At ", outward("https://grok.com/", "grok.com"), ": Settings, Data controls, Export account data. A mail brings a link to a zip."]],
  ["Perplexity", () => ["At ", outward("https://www.perplexity.ai/settings/account", "perplexity.ai"), ": ask in Settings or by mail for the data of your account; it comes as JSON or as a zip."]],
  ["Another Memory Layer", () => ["The zip of its page Export, or JSON Lines of anybody's."]],
];

/** Where each assistant gives people their own chats. */
export const sources = () => el("dl", { class: "facts where" }, SOURCES.map(([name, text]) => [el("dt", {}, name), el("dd", {}, text())]));
