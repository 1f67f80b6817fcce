"""Claude: `conversations.json` of a zip, each conversation a list of messages."""

from collections.abc import Iterator
from typing import Any

from core.importers import tree
from core.importers.byte_stream import ByteStream
from core.importers.json_stream import items
from core.importers.tree import Message
from core.importers.turns import Turn, Unit, Unusable, a_dict, a_list, a_text, a_time

EXPECTED = "Claude (conversations.json: a list of objects with `chat_messages`)"


def recognises(keys: set[str]) -> bool:
    return "item.chat_messages" in keys


def read(stream: ByteStream, keys: set[str]) -> Iterator[Unit]:
    for item in items(stream, "item"):
        yield from _conversation(a_dict(item))


def _conversation(conversation: dict[str, Any]) -> Iterator[Unit]:
    messages = conversation.get("chat_messages")
    if not isinstance(messages, list):
        yield Unusable("not_a_conversation", failed=True)
        return
    named = a_text(conversation.get("uuid"))
    about = Turn(
        provider="claude",
        prompt=None,
        response=None,
        occurred_at=None,
        model=a_text(conversation.get("model")) or None,
        conversation_id=named or None,
        conversation_title=a_text(conversation.get("name")) or None,
        url=f"https://claude.ai/chat/{named}" if named else None,
    )
    current = a_text(conversation.get("current_leaf_message_uuid")) or None
    begun = a_time(conversation.get("created_at"))
    yield from tree.turns(_messages(messages, named), about, begun, current)


def _messages(messages: list[Any], conversation: str) -> Iterator[Message]:
    """Older exports name no parents: there each message follows the one before."""
    linked = any(a_text(a_dict(message).get("parent_message_uuid")) for message in messages)
    before: str | None = None
    for n, message in enumerate(map(a_dict, messages)):
        name = a_text(message.get("uuid")) or f"{conversation}#{n}"
        parent = a_text(message.get("parent_message_uuid")) if linked else before
        sender = message.get("sender")
        yield Message(
            id=name,
            parent=parent,
            role="user" if sender == "human" else "assistant" if sender == "assistant" else "other",
            text=_text(message),
            time=a_time(message.get("created_at")),
            model=a_text(message.get("model")) or None,
        )
        before = name


def _text(message: dict[str, Any]) -> str:
    """Take the blocks of text, or where there are none the plain text; then what was attached."""
    blocks = map(a_dict, a_list(message.get("content")))
    said = [a_text(block.get("text")) for block in blocks if block.get("type") == "text"]
    texts = [text for text in said if text] or [a_text(message.get("text"))]
    for attachment in map(a_dict, a_list(message.get("attachments"))):
        if content := a_text(attachment.get("extracted_content")):
            name = a_text(attachment.get("file_name"))
            texts.append(f"[{name}]\n{content}" if name else content)
    return "\n\n".join(text for text in texts if text)
