"""Turns out of a tree of messages, as chats with edited prompts and regenerated answers are."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from core.importers.turns import Turn, Unit, Unusable, in_order

# Messages between a prompt and the end of its answer: an agent's tool calls can be many.
LONGEST_ANSWER = 2_000


@dataclass(slots=True)
class Message:
    """`text` is what the person sees of it, often nothing; `parent` None or unknown is a root."""

    id: str
    parent: str | None
    role: Literal["user", "assistant", "other"]
    text: str = ""
    time: datetime | None = None
    model: str | None = None
    partial: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    last: Message


def turns(
    messages: Iterable[Message], about: Turn, begun: datetime | None, current: str | None = None
) -> Iterator[Unit]:
    """Make a turn of each prompt with its first answer, and of each further answer to it.

    `about` holds what is true of the whole conversation. With `current`, the message that the site
    shows last, turns of other branches say so in their metadata.
    """
    known = {message.id: message for message in messages}
    shown = set(_way_up(known, current, len(known)))
    found = [
        _apart(unit, shown) if shown and isinstance(unit, Turn) else unit
        for unit in _of_prompts(known, about)
    ]
    yield from in_order(found, begun) if found else iter((Unusable("empty_conversation"),))


def _way_up(known: dict[str, Message], start: str | None, most: int) -> Iterator[str]:
    at = known.get(start or "")
    for _ in range(most):
        if at is None:
            return
        yield at.id
        at = known.get(at.parent or "")


def _apart(turn: Turn, shown: set[str]) -> Turn:
    if turn.message_id not in shown:
        turn.metadata = turn.metadata | {"branch": "other"}
    return turn


def _of_prompts(known: dict[str, Message], about: Turn) -> Iterator[Unit]:
    prompts, ends = _exchanges(known)
    for prompt_id, prompt in prompts.items():
        answers: dict[str, _Answer] = {}
        for end in ends[prompt_id]:
            if answer := _answer(known, end, prompt_id):
                answers[answer.last.id] = answer
        ordered = sorted(answers.values(), key=lambda a: (a.last.time is None, a.last.time or 0))
        yield from _turns_of(prompt, ordered, about)


def _exchanges(
    known: dict[str, Message],
) -> tuple[dict[str, Message | None], dict[str, list[Message]]]:
    """Return the prompts in the order of the chat, and the last messages of their answers.

    What is said before the first prompt stands under "".
    """
    children: dict[str, list[Message]] = defaultdict(list)
    for message in known.values():
        parent = message.parent if message.parent in known else None
        children[parent or ""].append(message)
    prompts: dict[str, Message | None] = {"": None}
    ends: dict[str, list[Message]] = defaultdict(list)
    waiting = [(message, "") for message in reversed(children[""])]
    while waiting:
        message, prompt_id = waiting.pop()
        below = children[message.id]
        if message.role == "user":
            prompt_id = message.id
            prompts[prompt_id] = message
        elif all(child.role == "user" for child in below):
            ends[prompt_id].append(message)
        waiting += [(child, prompt_id) for child in reversed(below)]
    return prompts, ends


def _answer(known: dict[str, Message], end: Message, prompt_id: str) -> _Answer | None:
    said: list[Message] = []
    for message_id in _way_up(known, end.id, LONGEST_ANSWER):
        if message_id == prompt_id or known[message_id].role == "user":
            break
        if known[message_id].role == "assistant" and known[message_id].text.strip():
            said.append(known[message_id])
    if not said:
        return None
    return _Answer("\n\n".join(message.text for message in reversed(said)), said[0])


def _turns_of(prompt: Message | None, answers: list[_Answer], about: Turn) -> Iterator[Unit]:
    if prompt is None:
        for answer in answers:
            yield _turn(about, answer.last.id, None, answer, answer.last.time)
        return
    if not prompt.text.strip() and not answers:
        yield Unusable("no_text")
        return
    first = answers[0] if answers else None
    yield _turn(about, prompt.id, prompt, first, prompt.time)
    for answer in answers[1:]:
        turn = _turn(about, answer.last.id, prompt, answer, answer.last.time or prompt.time)
        yield replace(turn, replaces=prompt.id)


def _turn(
    about: Turn,
    message_id: str,
    prompt: Message | None,
    answer: _Answer | None,
    time: datetime | None,
) -> Turn:
    return replace(
        about,
        message_id=message_id,
        prompt=prompt.text if prompt and prompt.text.strip() else None,
        response=answer.text if answer else None,
        occurred_at=time,
        model=(answer and answer.last.model) or about.model,
        status="partial" if answer and answer.last.partial else "complete",
    )
