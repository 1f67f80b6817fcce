"""The messages of a chat, in the shape that OpenAI's and Anthropic's protocols share."""

from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]


def turns_of(messages: object) -> list[str]:
    """What the person said, the newest last; results of tools and images are not that."""
    if not isinstance(messages, list):
        return []
    texts = (_text_of(message) for message in messages if _is_users(message))
    return [text for text in texts if text.strip()]


def texts_of(body: Mapping[str, Any]) -> list[str]:
    """All that a model is to read of a request, whoever said it; not pictures, nor tools."""
    parts = [{"content": body.get("system")}]
    listed = body.get("messages")
    parts += listed if isinstance(listed, list) else []
    return [_text_of(message) for message in parts if isinstance(message, Mapping)]


def with_block(messages: Sequence[Any], block: str) -> list[Any]:
    """Put a block before what the person said last; nothing else changes.

    What comes before it stays as it was sent, so that the provider's prompt cache still holds.
    """
    changed = list(messages)
    for at in range(len(changed) - 1, -1, -1):
        if _is_users(changed[at]) and _text_of(changed[at]).strip():
            changed[at] = {**changed[at], "content": _prefixed(changed[at]["content"], block)}
            break
    return changed


def _is_users(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") == "user"


def _text_of(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part["text"] for part in parts if _is_text(part))


def _is_text(part: Any) -> bool:
    is_text = isinstance(part, Mapping) and part.get("type") == "text"
    return is_text and isinstance(part.get("text"), str)


def _prefixed(content: Any, block: str) -> Any:
    if isinstance(content, str):
        return f"{block}\n\n{content}"
    first = next(at for at, part in enumerate(content) if _is_text(part))
    return [*content[:first], {"type": "text", "text": f"{block}\n\n"}, *content[first:]]
