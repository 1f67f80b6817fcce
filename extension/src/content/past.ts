// What a page remembers of its earlier turns: which took whose place, and what they asked.

import { wellFormed } from "../ids";
import { withoutContext } from "../marker";
import type { PastTurn, Prompt } from "../sites/site";
import { conversationOf, nameOf, type Turn } from "./turn";

const MOST = 500;

export class PastTurns {
  #turns: Turn[] = [];
  #texts = new Map<string, string>();
  #answers = new Map<string, PastTurn>();

  /** A turn that took the same place: the new one is its edit, or asks for another answer. */
  siblingOf({ parentId, conversationId, messageId }: Prompt): Turn | undefined {
    if (!conversationId) return undefined;
    return this.#turns.findLast(
      (turn) =>
        // The first of a chat has no parent, and learnt of its chat by the answer.
        turn.prompt.parentId === parentId &&
        conversationOf(turn) === conversationId &&
        (turn.prompt.messageId === undefined || turn.prompt.messageId !== messageId),
    );
  }

  /** The turn to which another answer is asked, where the request names it as the parent. */
  askedAgain({ again, parentId }: Prompt): Turn | undefined {
    if (!again || !parentId) return undefined;
    return this.#turns.findLast((turn) => nameOf(turn) === parentId) ?? this.answeredBy(parentId);
  }

  /** The turn of this page whose answer has that id. */
  answeredBy(answerId: string | undefined): Turn | undefined {
    if (!answerId) return undefined;
    return this.#turns.findLast(({ reader }) => reader.answer.messageId === answerId);
  }

  /** What a history has told of the turn whose answer has that id. */
  toldOf(answerId: string | undefined): PastTurn | undefined {
    return answerId === undefined ? undefined : this.#answers.get(answerId);
  }

  rememberTold(past: PastTurn): void {
    const prompt = wellFormed(withoutContext(past.prompt));
    this.rememberText(past.promptId, prompt);
    if (past.answerId) keepNewest(this.#answers, past.answerId, { ...past, prompt });
  }

  remember(turn: Turn): void {
    this.#turns.push(turn);
    if (this.#turns.length > MOST) this.#turns.shift();
    const { messageId } = turn.prompt;
    if (messageId && turn.text && !turn.again) this.rememberText(messageId, turn.text);
  }

  rememberText(messageId: string, text: string): void {
    keepNewest(this.#texts, messageId, text);
  }

  textOf(messageId: string): string {
    return this.#texts.get(messageId) ?? "";
  }
}

function keepNewest<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > MOST) map.delete(map.keys().next().value!);
}
