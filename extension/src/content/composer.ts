// The site's prompt box: find it, read it, put text into it as a person would.

export function firstOf<E extends Element = HTMLElement>(selectors: string[]): E | undefined {
  for (const selector of selectors) {
    const found = document.querySelector<E>(selector);
    if (found) return found;
  }
  return undefined;
}

export function lastTextOf(selectors: string[]): string {
  for (const selector of selectors) {
    const found = document.querySelectorAll<HTMLElement>(selector);
    const text = found.item(found.length - 1)?.innerText;
    if (text) return text;
  }
  return "";
}

export function textOf(box: HTMLElement): string {
  return box instanceof HTMLTextAreaElement ? box.value : box.innerText;
}

const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

export type Technique = "typed" | "pasted" | "copied";

/**
 * Put `text` at the end of the box, and look whether the editor has taken it. Editors keep models
 * of their own: only what goes through editing commands or a paste becomes part of them.
 */
export async function insert(box: HTMLElement, text: string): Promise<Technique | null> {
  const marker = text.trim().split("\n").at(-1)!;
  const taken = async (): Promise<boolean> => {
    await pause(50);
    return textOf(box).includes(marker);
  };
  const own = textOf(box).trim() === "" ? `${text}\n\n` : `\n\n${text}`;
  box.focus();
  caretToEnd(box);
  // An editor takes the new selection over in a task of its own.
  await pause(30);
  typeLines(box, own);
  if (await taken()) return "typed";
  paste(box, own);
  if (await taken()) return "pasted";
  try {
    await navigator.clipboard.writeText(text);
    return "copied";
  } catch {
    return null;
  }
}

function caretToEnd(box: HTMLElement): void {
  if (box instanceof HTMLTextAreaElement) {
    box.setSelectionRange(box.value.length, box.value.length);
  } else {
    const selection = getSelection();
    selection?.selectAllChildren(box);
    selection?.collapseToEnd();
  }
}

function typeLines(box: HTMLElement, text: string): void {
  const lineBreak = box instanceof HTMLTextAreaElement ? "insertLineBreak" : "insertParagraph";
  for (const [n, line] of text.split("\n").entries()) {
    if (n > 0) document.execCommand(lineBreak);
    if (line) document.execCommand("insertText", false, line);
  }
}

function paste(box: HTMLElement, text: string): void {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  box.dispatchEvent(
    new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }),
  );
}
