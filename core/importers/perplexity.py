"""Perplexity: the account's data request, and two shapes that thread exporters write."""

import hashlib
from collections.abc import Iterator
from typing import Any

from core.importers.byte_stream import ByteStream
from core.importers.json_stream import items
from core.importers.turns import Turn, Unit, Unusable, a_dict, a_list, a_text, a_time, in_order

EXPECTED = "Perplexity (`conversations` with `entries`, or threads with `entries` of `query_str`)"
_THREADS = {
    "conversations.item.entries": "conversations.item",
    "item.entries": "item",
    "threads.item.entries": "threads.item",
}
_ALONE = {"entries.item.query_str", "conversations.item.query"}


def recognises(keys: set[str]) -> bool:
    return bool(keys & {*_THREADS, *_ALONE})


def read(stream: ByteStream, keys: set[str]) -> Iterator[Unit]:
    prefix = next((prefix for key, prefix in _THREADS.items() if key in keys), "")
    for item in items(stream, prefix):
        yield from _thread(a_dict(item))


def _thread(thread: dict[str, Any]) -> Iterator[Unit]:
    entries = thread.get("entries") or thread.get("conversations")
    if not isinstance(entries, list):
        yield Unusable("not_a_conversation", failed=True)
        return
    about = a_dict(thread.get("metadata")) or a_dict(thread.get("thread_metadata"))
    first = a_dict(next(iter(entries), None))
    title = (
        _first(thread, "context_title", "title")
        or _first(about, "thread_title", "title")
        or _first(first, "thread_title")
    )
    named = (
        _first(thread, "context_uuid", "uuid", "id")
        or _first(about, "thread_id")
        or _first(first, "context_uuid", "thread_url_slug")
    )
    created = _first(thread, "created_at") or _first(about, "thread_created_at", "created_at")
    if not named and title:
        named = "thread-" + hashlib.sha256(f"{created}\n{title}".encode()).hexdigest()[:16]
    found = [_turn(a_dict(entry), named, title) for entry in a_list(entries)]
    yield from (
        in_order(found, a_time(created)) if found else iter((Unusable("empty_conversation"),))
    )


def _first(values: dict[str, Any], *names: str) -> str:
    return next((a_text(values[name]) for name in names if a_text(values.get(name))), "")


def _turn(entry: dict[str, Any], conversation: str, title: str) -> Unit:
    prompt, response = _first(entry, "query_str", "query"), _answer(entry)
    if not prompt.strip() and not response.strip():
        return Unusable("no_text")
    slug = _first(entry, "thread_url_slug")
    return Turn(
        provider="perplexity",
        prompt=prompt or None,
        response=response or None,
        occurred_at=a_time(
            _first(entry, "entry_created_datetime", "timestamp", "created_at", "updated_datetime")
        ),
        message_id=_first(entry, "uuid", "backend_uuid") or None,
        model=_first(entry, "display_model", "user_selected_model", "model") or None,
        conversation_id=conversation or None,
        conversation_title=title or None,
        url=f"https://www.perplexity.ai/search/{slug}" if slug else None,
    )


def _answer(entry: dict[str, Any]) -> str:
    if answer := a_text(entry.get("answer")):
        return answer
    for block in map(a_dict, a_list(entry.get("blocks"))):
        markdown = a_dict(block.get("markdown_block"))
        chunks = "".join(map(a_text, a_list(markdown.get("chunks"))))
        if answer := a_text(markdown.get("answer")) or chunks:
            return answer
    return ""
