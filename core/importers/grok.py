"""Grok: `prod-grok-backend.json`, whose times are ISO 8601 or MongoDB's."""

from collections.abc import Iterator
from typing import Any

from core.importers import tree
from core.importers.byte_stream import ByteStream
from core.importers.json_stream import items
from core.importers.tree import Message
from core.importers.turns import Turn, Unit, Unusable, a_dict, a_list, a_text, a_time

EXPECTED = "Grok (prod-grok-backend.json: `conversations` with `responses`)"


def recognises(keys: set[str]) -> bool:
    return bool({"conversations.item.responses", "conversations.item.conversation"} & keys)


def read(stream: ByteStream, keys: set[str]) -> Iterator[Unit]:
    for item in items(stream, "conversations.item"):
        yield from _conversation(a_dict(item))


def _conversation(record: dict[str, Any]) -> Iterator[Unit]:
    conversation, responses = a_dict(record.get("conversation")), record.get("responses")
    if not isinstance(responses, list):
        yield Unusable("not_a_conversation", failed=True)
        return
    named = a_text(conversation.get("id"))
    about = Turn(
        provider="grok",
        prompt=None,
        response=None,
        occurred_at=None,
        conversation_id=named or None,
        conversation_title=a_text(conversation.get("title")) or None,
        url=f"https://grok.com/c/{named}" if named else None,
    )
    begun = a_time(conversation.get("create_time"))
    yield from tree.turns(_messages(responses, named), about, begun)


def _messages(responses: list[Any], conversation: str) -> Iterator[Message]:
    """Where no parent is named, each message follows the one before."""
    read = [a_dict(a_dict(item).get("response")) for item in a_list(responses)]
    linked = any(a_text(response.get("parent_response_id")) for response in read)
    before: str | None = None
    for n, response in enumerate(read):
        name = a_text(response.get("_id")) or f"{conversation}#{n}"
        sender = a_text(response.get("sender")).lower()
        yield Message(
            id=name,
            parent=a_text(response.get("parent_response_id")) if linked else before,
            role="user" if sender == "human" else "assistant" if sender == "assistant" else "other",
            text=a_text(response.get("message")),
            time=a_time(response.get("create_time")),
            model=a_text(response.get("model")) or None,
            partial=response.get("partial") is True,
        )
        before = name
