"""What a turn of an export does to the memories that stand, decided as for a live capture."""

import json
import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.capture import (
    MOST_METADATA_BYTES,
    MOST_METADATA_LEVELS,
    MOST_SHORT,
    MOST_TEXT_BYTES,
    UNKNOWN_PROVIDER,
    Capture,
    is_edited,
    merge,
)
from core.errors import Conflict
from core.importers.turns import Turn, Unusable, content_key
from core.memory_ids import memory_id, well_formed
from storage.memory_store import Key, Row

_PROVIDER = re.compile(r"[\w.:/ -]{1,50}")
MOST_URL = 2_000


@dataclass(frozen=True, slots=True)
class Ready:
    """A turn as the service keeps it: one capture a side."""

    captures: tuple[Capture, ...]
    turn: Turn

    @property
    def id(self) -> UUID:
        return self.captures[0].id

    @property
    def key(self) -> Key:
        return self.captures[0].key


def ready(turn: Turn, user_id: UUID) -> Ready | Unusable:
    """Mend texts as the extension does, and bound them as the API does."""
    # An own export may hold an empty answer, which is one all the same.
    whole = turn.id is not None
    prompt, response = _text(turn.prompt, whole=whole), _text(turn.response, whole=whole)
    if prompt is None and response is None:
        return Unusable("no_text")
    if any(len(text.encode()) > MOST_TEXT_BYTES for text in (prompt, response) if text):
        return Unusable("too_large")
    provider = turn.provider.strip().lower()
    provider = provider if _PROVIDER.fullmatch(provider) else UNKNOWN_PROVIDER
    facts: dict[str, Any] = {
        "provider": provider,
        "model": _short(turn.model),
        "conversation_id": _short(turn.conversation_id),
        "conversation_title": _short(turn.conversation_title),
        "url": _short(turn.url, MOST_URL),
        "source": _short(turn.source),
        "metadata": _metadata(turn, user_id, provider),
    }
    if turn.occurred_at and 1970 <= turn.occurred_at.year <= 2200:
        facts["occurred_at"] = turn.occurred_at
    told = turn.message_id or content_key(turn.occurred_at, f"{prompt}\n{response}")
    named = turn.id or memory_id(user_id, provider, told)
    captures = []
    if prompt is not None:
        captures.append(Capture(user_id, named, "prompt", prompt, **facts))
    if response is not None:
        captures.append(Capture(user_id, named, "response", response, turn.status, **facts))
    return Ready(tuple(captures), turn)


def _text(text: str | None, *, whole: bool) -> str | None:
    return well_formed(text) if text is not None and (whole or text.strip()) else None


def _short(text: str | None, most: int = MOST_SHORT) -> str | None:
    return well_formed(text)[:most] or None if text else None


def _metadata(turn: Turn, user_id: UUID, provider: str) -> dict[str, Any]:
    """What Postgres or the API would refuse is left out."""
    metadata = dict(turn.metadata)
    if turn.replaces:
        metadata["replaces"] = str(memory_id(user_id, provider, turn.replaces))
    try:
        written = json.dumps(metadata, allow_nan=False, ensure_ascii=False)
        fits = len(written.encode()) <= MOST_METADATA_BYTES and "\\u0000" not in written
    except (ValueError, TypeError, RecursionError):
        fits = False
    return metadata if fits and _levels(metadata) <= MOST_METADATA_LEVELS else {}


def _levels(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_levels, inner), default=0)


def put(standing: Row | None, unit: Ready) -> Row | None:
    """Return the row that the turn makes of what stands, or None where it adds nothing.

    What stands wins: another text under the id was captured as it happened, or edited.
    """
    row, changed = standing, None
    for capture in unit.captures:
        try:
            merged = merge(row, capture)
        except Conflict:
            continue
        if merged is not None:
            row = changed = merged
    if changed is not None and standing is None:
        _as_exported(changed, unit.turn)
    return changed


def _as_exported(row: Row, turn: Turn) -> None:
    """Our own export says what was captured where its owner has edited it since."""
    if "prompt" in turn.captured:
        row.prompt_capture = turn.captured["prompt"]
    if "response" in turn.captured:
        row.response_capture = turn.captured["response"]
    row.status = turn.stated or row.status
    row.edited = turn.edited and any(is_edited(row, side) for side in ("prompt", "response"))
