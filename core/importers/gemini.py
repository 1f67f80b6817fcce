"""Gemini: Takeout's activity, newest first, as JSON or as HTML; it names no message."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from core.importers.byte_stream import ByteStream
from core.importers.html_text import html_text
from core.importers.json_stream import items
from core.importers.turns import (
    Turn,
    Unit,
    Unusable,
    a_dict,
    a_list,
    a_text,
    a_time,
    content_key,
)

EXPECTED = "Gemini (Takeout's MyActivity.json or .html of Gemini Apps)"
# What Takeout puts before a prompt, in the language of the account. A title that begins otherwise
# is kept whole: which of its words are the person's cannot be known.
VERBS = ("Prompted ", "Eingegebener Prompt: ", "Asked ", "Said ")
# What was asked after a longer pause is another chat, where Takeout does not name the chat.
PAUSE = timedelta(minutes=30)
LONGEST_CHAT = 500
_CHAT = re.compile(r"/app/([\w-]+)")
_OURS = re.compile(r"gemini|bard", re.IGNORECASE)


def recognises(keys: set[str]) -> bool:
    return {"item.title", "item.time"} <= keys and bool({"item.header", "item.products"} & keys)


def read(stream: ByteStream, keys: set[str]) -> Iterator[Unit]:
    yield from in_chats(_entry(a_dict(item)) for item in items(stream, "item"))


def _entry(entry: dict[str, Any]) -> list[Unit]:
    """Make of an activity a turn, and one more of each further answer."""
    named = (*map(a_text, a_list(entry.get("products"))), a_text(entry.get("header")))
    if not any(map(_OURS.search, named)):
        return [Unusable("other_product")]
    answers = [a_text(a_dict(item).get("html")) for item in a_list(entry.get("safeHtmlItem"))]
    links = [a_text(a_dict(item).get("url")) for item in a_list(entry.get("details"))]
    chat = next(filter(None, map(_CHAT.search, [*links, a_text(entry.get("titleUrl"))])), None)
    return activity(
        a_text(entry.get("title")), answers, a_time(entry.get("time")), chat and chat[1]
    )


def activity(title: str, answers: list[str], time: Any, chat: str | None) -> list[Unit]:
    verb = next((verb for verb in VERBS if title.replace("\xa0", " ").startswith(verb)), None)
    said = [text for text in map(html_text, answers) if text]
    if verb is None and not said:
        return [Unusable("not_a_prompt")]
    prompt = title[len(verb or "") :]
    if not prompt.strip() and not said:
        return [Unusable("no_text")]
    first = Turn(
        provider="gemini",
        prompt=prompt if prompt.strip() else None,
        response=said[0] if said else None,
        occurred_at=time,
        message_id=content_key(time, prompt),
        anonymous=True,
        conversation_id=chat,
        url=f"https://gemini.google.com/app/{chat}" if chat else None,
    )
    further: list[Unit] = [
        replace(
            first,
            response=answer,
            message_id=f"{first.message_id}#{n}",
            replaces=first.message_id,
            anonymous=False,
        )
        for n, answer in enumerate(said[1:], 2)
    ]
    return [first, *further]


def in_chats(activities: Iterable[list[Unit]]) -> Iterator[Unit]:
    """Turn newest first into oldest first within each chat, and name chats that have no name."""
    chat: list[list[Unit]] = []
    for units in activities:
        turn = units[0]
        if not isinstance(turn, Turn):
            yield turn
            continue
        if chat and not _same_chat(chat[-1][0], turn, len(chat)):
            yield from _named(chat)
            chat = []
        chat.append(units)
    yield from _named(chat)


def _same_chat(newer: Unit, older: Turn, length: int) -> bool:
    assert isinstance(newer, Turn)
    if length >= LONGEST_CHAT or newer.conversation_id != older.conversation_id:
        return False
    if newer.occurred_at is None or older.occurred_at is None:
        return False
    return abs(newer.occurred_at - older.occurred_at) <= PAUSE


def _named(chat: list[list[Unit]]) -> Iterator[Unit]:
    """A chat is named after its first turn, which a later export has too."""
    first = chat[-1][0] if chat else None
    for units in reversed(chat):
        for unit in units:
            assert isinstance(unit, Turn)
            if unit.conversation_id is None and isinstance(first, Turn) and first.occurred_at:
                yield replace(unit, conversation_id=f"activity-{first.occurred_at:%Y%m%dT%H%M%S}")
            else:
                yield unit
