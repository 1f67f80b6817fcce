"""JSON Lines: our own export, and the plain form that anybody can write."""

import binascii
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from core.importers.byte_stream import ByteStream, Utf8
from core.importers.turns import Damaged, Turn, Unit, Unusable, a_dict, a_text, a_time
from storage.memory_store import Status

_STATUS: dict[str, Status] = {"waiting": "waiting", "partial": "partial", "complete": "complete"}
EXPECTED = "JSON Lines (each line an object with `prompt`, `response` or both)"


def recognises(keys: set[str]) -> bool:
    return bool({"prompt", "response"} & keys)


def read(stream: ByteStream, keys: set[str]) -> Iterator[Unit]:
    for line in Utf8(stream).lines():
        try:
            memory = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            if not line.endswith("\n"):
                raise Damaged(stream.damage or "cut") from None
            yield Unusable("not_json", failed=True)
            continue
        if memory is not None:
            yield _turn(a_dict(memory))


def _turn(memory: dict[str, Any]) -> Unit:
    prompt, response = memory.get("prompt"), memory.get("response")
    captured = a_dict(memory.get("captured"))
    named = a_text(memory.get("id"))
    return Turn(
        provider=a_text(memory.get("provider")) or "unknown",
        prompt=prompt if isinstance(prompt, str) else None,
        response=response if isinstance(response, str) else None,
        occurred_at=a_time(memory.get("occurred_at")),
        message_id=a_text(memory.get("message_id")) or (named if not _uuid(named) else None),
        model=a_text(memory.get("model")) or None,
        conversation_id=a_text(memory.get("conversation_id")) or None,
        conversation_title=a_text(memory.get("conversation_title")) or None,
        url=a_text(memory.get("url")) or None,
        status="partial" if memory.get("status") == "partial" else "complete",
        metadata=a_dict(memory.get("metadata")),
        id=_uuid(named),
        source=a_text(memory["source"]) or None if "source" in memory else "import",
        stated=_STATUS.get(a_text(memory.get("status"))) if _uuid(named) else None,
        edited=memory.get("edited") is True,
        captured={
            side: _hash(captured[side]) for side in ("prompt", "response") if side in captured
        },
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _hash(value: Any) -> bytes | None:
    try:
        read = binascii.unhexlify(a_text(value))
    except (binascii.Error, ValueError):
        return None
    return read if len(read) == 32 else None
