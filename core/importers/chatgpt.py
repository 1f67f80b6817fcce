"""ChatGPT: `conversations.json`, one file or split, each conversation a tree of messages."""

import re
from collections.abc import Iterator
from typing import Any

from core.importers import tree
from core.importers.byte_stream import ByteStream
from core.importers.json_stream import items
from core.importers.tree import Message
from core.importers.turns import Turn, Unit, Unusable, a_dict, a_list, a_text, a_time

EXPECTED = "ChatGPT (conversations.json: a list of objects with `mapping`)"
# "cite turn0search0" between private-use marks, which the site draws as a number.
_CITATION = re.compile("\ue200[^\ue200\ue201]*\ue201|[\ue200-\ue206]")
_SHOWN = {"text", "multimodal_text"}


def recognises(keys: set[str]) -> bool:
    return "item.mapping" in keys or {"mapping", "current_node"} <= keys


def read(stream: ByteStream, keys: set[str]) -> Iterator[Unit]:
    for item in items(stream, "item" if "item.mapping" in keys else ""):
        yield from _conversation(a_dict(item))


def _conversation(conversation: dict[str, Any]) -> Iterator[Unit]:
    mapping = conversation.get("mapping")
    if not isinstance(mapping, dict):
        yield Unusable("not_a_conversation", failed=True)
        return
    named = a_text(conversation.get("conversation_id")) or a_text(conversation.get("id"))
    about = Turn(
        provider="chatgpt",
        prompt=None,
        response=None,
        occurred_at=None,
        model=a_text(conversation.get("default_model_slug")) or None,
        conversation_id=named or None,
        conversation_title=a_text(conversation.get("title")) or None,
        url=f"https://chatgpt.com/c/{named}" if named else None,
    )
    names = {key: _id_of(key, node) for key, node in mapping.items()}
    messages = [_message(a_dict(node), name, names) for (_, name), node in _nodes(names, mapping)]
    current = names.get(a_text(conversation.get("current_node")))
    begun = a_time(conversation.get("create_time"))
    yield from tree.turns(messages, about, begun, current)


def _nodes(names: dict[str, str], mapping: dict[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    return zip(names.items(), mapping.values(), strict=True)


def _id_of(key: str, node: Any) -> str:
    """A node is named after its message, but for old exports, whose roots are not."""
    return a_text(a_dict(a_dict(node).get("message")).get("id")) or key


def _message(node: dict[str, Any], name: str, names: dict[str, str]) -> Message:
    message = a_dict(node.get("message"))
    metadata = a_dict(message.get("metadata"))
    role = a_text(a_dict(message.get("author")).get("role"))
    hidden = metadata.get("is_visually_hidden_from_conversation") is True
    parent = a_text(node.get("parent"))
    return Message(
        id=name,
        parent=names.get(parent),
        role="user"
        if role == "user" and not hidden
        else "assistant"
        if _is_answer(message)
        else "other",
        text="" if hidden else _text(a_dict(message.get("content"))),
        time=a_time(message.get("create_time")),
        model=a_text(metadata.get("model_slug")) or None,
        partial=message.get("status") == "finished_partial_completion",
    )


def _is_answer(message: dict[str, Any]) -> bool:
    """What an assistant says to tools, or to itself, is not said to the person."""
    return (
        a_dict(message.get("author")).get("role") == "assistant"
        and message.get("recipient") in (None, "all")
        and message.get("channel") in (None, "final")
    )


def _text(content: dict[str, Any]) -> str:
    if a_text(content.get("content_type")) not in _SHOWN:
        return ""
    texts = [
        part if isinstance(part, str) else a_text(a_dict(part).get("text"))
        for part in a_list(content.get("parts"))
    ]
    return _CITATION.sub("", "\n".join(text for text in texts if text))
