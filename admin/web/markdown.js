// Markdown as nodes: what an assistant wrote, readable. Text only ever becomes text, HTML too.

import { el } from "../shared/dom.js";

const DEEPEST = 8;
// How far a mark looks for its other end: what has none costs no more than that.
const REACH = 2_000;

/** Make an element of a text; links lead to http, https and mailto alone, images are links too. */
export function markdown(text) {
  return el("div", { class: "prose" }, blocks(text.split(/\r\n|\r|\n/), 0));
}

function blocks(lines, depth) {
  const made = [];
  for (let at = 0; at < lines.length; ) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const { node, next } = fence(lines, at) ?? heading(lines, at) ?? rule(lines, at) ?? table(lines, at) ?? nested(lines, at, depth) ?? paragraph(lines, at);
    made.push(node);
    at = next;
  }
  return made;
}

const nested = (lines, at, depth) => (depth < DEEPEST ? (quote(lines, at, depth) ?? list(lines, at, depth)) : null);
const isBlank = (line) => !line.trim();
const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([\w+#.-]{0,40})/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^([ \t]{0,20})([-*+]|\d{1,9}[.)])(?:[ \t]+|$)/;

function fence(lines, at) {
  const begin = FENCE.exec(lines[at]);
  if (!begin) return null;
  const [, indent, mark, language] = begin;
  const inside = [];
  let next = at + 1;
  for (; next < lines.length && !closes(lines[next], mark); next += 1) inside.push(outdented(lines[next], indent.length));
  return { node: codeBlock(inside.join("\n"), language), next: next + 1 };
}

const closes = (line, mark) => line.trim().length >= mark.length && line.trim() === mark[0].repeat(line.trim().length);

function outdented(line, most) {
  let cut = 0;
  while (cut < most && (line[cut] === " " || line[cut] === "\t")) cut += 1;
  return line.slice(cut);
}

function codeBlock(text, language) {
  const code = el("code", language ? { class: `language-${language.toLowerCase()}` } : {}, text);
  return el("figure", { class: "code-block" }, language && el("figcaption", {}, language), el("pre", { tabindex: "0", role: "group", "aria-label": language ? `Code, ${language}` : "Code" }, code));
}

function heading(lines, at) {
  const found = HEADING.exec(lines[at]);
  if (!found) return null;
  const text = found[2].trim();
  // The page and its days have the first two levels.
  const level = Math.min(found[1].length + 2, 6);
  return { node: el(`h${level}`, {}, inline(text.length < 500 ? text.replace(/\s+#+$/, "") : text)), next: at + 1 };
}

function rule(lines, at) {
  const marks = lines[at].replaceAll(/[ \t]/g, "");
  const is = marks.length >= 3 && "-*_".includes(marks[0]) && marks === marks[0].repeat(marks.length);
  return is ? { node: el("hr"), next: at + 1 } : null;
}

function quote(lines, at, depth) {
  if (!QUOTE.test(lines[at])) return null;
  let next = at;
  while (next < lines.length && QUOTE.test(lines[next])) next += 1;
  const inside = lines.slice(at, next).map((line) => line.replace(QUOTE, ""));
  return { node: el("blockquote", {}, blocks(inside, depth + 1)), next };
}

function list(lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  if (!first) return null;
  const ordered = /\d/.test(first[2]);
  const items = [];
  let next = at;
  for (let item = first; item && /\d/.test(item[2]) === ordered && item[1].length <= first[1].length + 1; item = next < lines.length ? ITEM.exec(lines[next]) : null) {
    const inside = [lines[next].slice(item[0].length)];
    const indent = item[1].length + 2;
    next += 1;
    while (next < lines.length && belongs(lines, next, indent)) {
      inside.push(outdented(lines[next], item[0].length));
      next += 1;
    }
    items.push(el("li", {}, itemOf(inside, depth)));
    while (next < lines.length && isBlank(lines[next]) && ITEM.test(lines[next + 1] ?? "")) next += 1;
  }
  const start = ordered && parseInt(first[2], 10) !== 1 ? parseInt(first[2], 10) : null;
  return { node: el(ordered ? "ol" : "ul", { start }, items), next };
}

/** What is indented goes on with its item, as does the next line of a text. */
function belongs(lines, at, indent) {
  const line = lines[at];
  if (isBlank(line)) return at + 1 < lines.length && !isBlank(lines[at + 1]) && indentOf(lines[at + 1]) >= indent;
  return indentOf(line) >= indent || (!isBlank(lines[at - 1]) && !beginsBlock(line) && !ITEM.test(line));
}

const indentOf = (line) => line.length - line.trimStart().length;

function itemOf(lines, depth) {
  const box = /^\[([ xX])\][ \t]+/.exec(lines[0]);
  if (box) lines[0] = `${box[1] === " " ? "☐" : "☑"} ${lines[0].slice(box[0].length)}`;
  const inside = blocks(lines, depth + 1);
  // A text alone needs no paragraph of its own.
  if (inside.length && inside[0].localName === "p") inside.splice(0, 1, ...inside[0].childNodes);
  return inside;
}

function table(lines, at) {
  if (!lines[at].includes("|") || at + 1 >= lines.length || !lines[at + 1].includes("-")) return null;
  const marks = cellsOf(lines[at + 1]);
  const head = cellsOf(lines[at]);
  if (marks.length !== head.length || !marks.every((mark) => /^:?-+:?$/.test(mark))) return null;
  let next = at + 2;
  const rows = [];
  for (; next < lines.length && lines[next].includes("|"); next += 1) rows.push(cellsOf(lines[next]));
  const node = el(
    "div",
    { class: "table-box", tabindex: "0", role: "group", "aria-label": "Table" },
    el("table", {}, el("thead", {}, el("tr", {}, head.map((cell) => el("th", { scope: "col" }, inline(cell))))), el("tbody", {}, rows.map((row) => el("tr", {}, head.map((_, index) => el("td", {}, inline(row[index] ?? ""))))))),
  );
  return { node, next };
}

function cellsOf(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function paragraph(lines, at) {
  let next = at + 1;
  while (next < lines.length && !isBlank(lines[next]) && !beginsBlock(lines[next])) next += 1;
  const text = lines.slice(at, next).map((line) => line.trim()).join("\n");
  return { node: el("p", {}, inline(text)), next };
}

const beginsBlock = (line) => FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || /^[ \t]{0,20}([-*+]|1[.)])[ \t]/.test(line);

const SPECIAL = /[\\`*_~[!<]|https?:\/\//g;
const INLINE = { "\\": escaped, "`": codeSpan, "*": emphasis, _: emphasis, "~": struck, "[": link, "!": image, "<": angled, h: bare };

function inline(text, depth = 0) {
  const nodes = [];
  let from = 0;
  for (let at = 0; at < text.length; ) {
    SPECIAL.lastIndex = at;
    const special = SPECIAL.exec(text);
    if (!special) break;
    const found = depth < DEEPEST ? INLINE[special[0][0]](text, special.index, depth) : null;
    at = found ? found.end : special.index + 1;
    if (found) {
      nodes.push(text.slice(from, special.index), found.node);
      from = at;
    }
  }
  nodes.push(text.slice(from));
  return nodes;
}

/** The brackets of formulas keep their backslash, or nobody could read them. */
function escaped(text, at) {
  return /[!-'*-/:-@^-`{-~]/.test(text[at + 1] ?? "") ? { node: text[at + 1], end: at + 2 } : null;
}

function codeSpan(text, at) {
  let length = 1;
  while (text[at + length] === "`") length += 1;
  const mark = "`".repeat(length);
  const near = text.slice(at + length, at + length + REACH);
  for (let close = near.indexOf(mark); close >= 0; close = near.indexOf(mark, close + 1)) {
    if (near[close + length] === "`" || near[close - 1] === "`") continue;
    const inside = near.slice(0, close);
    return { node: el("code", {}, inside.trim() ? inside.replace(/^ (.*) $/s, "$1") : inside), end: at + 2 * length + close };
  }
  return { node: mark, end: at + length };
}

const isWord = (char) => char !== undefined && /[\p{L}\p{N}]/u.test(char);
const isSpace = (char) => char === undefined || /\s/.test(char);

function emphasis(text, at, depth) {
  const mark = text[at];
  let length = 1;
  while (text[at + length] === mark) length += 1;
  const whole = { node: text.slice(at, at + length), end: at + length };
  if (length > 3 || isSpace(text[at + length]) || (mark === "_" && isWord(text[at - 1]))) return whole;
  const run = mark.repeat(length);
  const from = at + length;
  const near = text.slice(from, from + REACH);
  for (let close = near.indexOf(run, 1); close > 0; close = near.indexOf(run, close + 1)) {
    const after = near[close + length];
    if (isSpace(near[close - 1]) || near[close - 1] === mark || after === mark || (mark === "_" && isWord(after))) continue;
    const inside = inline(near.slice(0, close), depth + 1);
    const node = length === 1 ? el("em", {}, inside) : el("strong", {}, length === 3 ? el("em", {}, inside) : inside);
    return { node, end: from + close + length };
  }
  return whole;
}

function struck(text, at, depth) {
  if (text[at + 1] !== "~" || isSpace(text[at + 2])) return null;
  const close = text.slice(at + 2, at + REACH).indexOf("~~");
  return close > 0 ? { node: el("s", {}, inline(text.slice(at + 2, at + 2 + close), depth + 1)), end: at + 4 + close } : null;
}

function link(text, at, depth) {
  const found = target(text, at);
  return found && { node: anchor(found.href, inline(found.label, depth + 1)), end: found.end };
}

/** Nothing is loaded from elsewhere: a picture is where it was. */
function image(text, at) {
  const found = text[at + 1] === "[" ? target(text, at + 1) : null;
  return found && { node: anchor(found.href, [`Image: ${found.label || found.href}`]), end: found.end };
}

/** Read `[label](address)`; null where it is none, or where it leads nowhere that is safe. */
function target(text, at) {
  const near = text.slice(at, at + REACH);
  const middle = closing(near, 0, "[", "]");
  if (middle < 0 || near[middle + 1] !== "(") return null;
  const last = closing(near, middle + 1, "(", ")");
  if (last < 0) return null;
  const [written = ""] = near.slice(middle + 2, last).trim().split(/\s/, 1);
  const href = safe(written.replace(/^<|>$/g, ""));
  return href && { label: near.slice(1, middle), href, end: at + last + 1 };
}

function closing(text, at, open, close) {
  let depth = 0;
  for (let index = at; index < text.length; index += 1) {
    if (text[index] === "\\") index += 1;
    else if (text[index] === open) depth += 1;
    else if (text[index] === close && (depth -= 1) === 0) return index;
  }
  return -1;
}

function angled(text, at) {
  const near = text.slice(at, at + REACH);
  const broken = /^<br\s{0,5}\/?>/i.exec(near);
  if (broken) return { node: el("br"), end: at + broken[0].length };
  const written = /^<([^\s<>]+)>/.exec(near);
  if (!written) return null;
  const href = safe(written[1].includes(":") ? written[1] : written[1].includes("@") ? `mailto:${written[1]}` : "");
  return href && { node: anchor(href, [written[1]]), end: at + written[0].length };
}

function bare(text, at) {
  let [written] = /^[^\s<>"'`|*\\]+/.exec(text.slice(at, at + REACH));
  while (/[.,;:!?\]]$/.test(written) || (written.endsWith(")") && !written.includes("("))) written = written.slice(0, -1);
  const href = safe(written);
  return href && { node: anchor(href, [written]), end: at + written.length };
}

/** An address that a person may follow, or null. */
export function safe(address) {
  try {
    const { href, protocol } = new URL(address);
    return ["http:", "https:", "mailto:"].includes(protocol) ? href : null;
  } catch {
    return null;
  }
}

const anchor = (href, inside) => el("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, inside);
