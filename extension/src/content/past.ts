// What a page remembers of its earlier turns: which took whose place, and what they asked.

import type { Prompt } from "../sites/site";
import type { Turn } from "./turn";

const MOST = 500;

export class PastTurns {
  #turns: Turn[] = [];
  #texts = new Map<string, string>();

  /** A turn that took the same place: the new one is its edit, or asks for another answer. */
  siblingOf({ parentId, conversationId, messageId }: Prompt): Turn | undefined {
    if (!parentId || !conversationId) return undefined;
    return this.#turns.findLast(
      (turn) =>
        turn.prompt.parentId === parentId &&
        turn.conversationId === conversationId &&
        (turn.prompt.messageId === undefined || turn.prompt.messageId !== messageId),
    );
  }

  remember(turn: Turn): void {
    this.#turns.push(turn);
    if (this.#turns.length > MOST) this.#turns.shift();
    const { messageId } = turn.prompt;
    if (messageId && turn.text && !turn.again) this.rememberText(messageId, turn.text);
  }

  rememberText(messageId: string, text: string): void {
    this.#texts.set(messageId, text);
    if (this.#texts.size > MOST) this.#texts.delete(this.#texts.keys().next().value!);
  }

  textOf(messageId: string): string {
    return this.#texts.get(messageId) ?? "";
  }
}
