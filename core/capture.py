"""What a captured prompt or answer does to the memory that stands under its id."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from core.errors import Conflict
from storage.memory_store import Key, Row, Status

UNKNOWN_PROVIDER = "unknown"


@dataclass(frozen=True, slots=True)
class Capture:
    """One side of a turn as a client saw it; `user_id` comes from the verified token."""

    user_id: UUID
    id: UUID
    side: Literal["prompt", "response"]
    text: str
    status: Status = "waiting"
    provider: str | None = None
    model: str | None = None
    conversation_id: str | None = None
    conversation_title: str | None = None
    url: str | None = None
    source: str | None = None
    occurred_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.user_id, self.id


def text_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def content_hash(standing: bytes, side: str, text: str) -> bytes:
    """16 bytes for each side's text, so that a change of one shows which."""
    half = text_hash(text)[:16]
    return half + standing[16:] if side == "prompt" else standing[:16] + half


def merge(row: Row | None, capture: Capture) -> Row | None:
    """Return the row that the capture makes of `row`, or None where it changes nothing.

    Raises Conflict when the id holds another content. A deleted memory only notes the capture's
    hash: its text is never stored again.
    """
    captured = text_hash(capture.text)
    before = None
    if row is not None:
        before = row.prompt_capture if capture.side == "prompt" else row.response_capture
    if row is None:
        return _with_text(_new_row(capture), capture, captured)
    if before is None:
        return _with_text(_with_facts(row, capture), capture, captured)
    if before == captured:
        return _completed(row, capture)
    return _changed(row, capture, captured)


def _new_row(capture: Capture) -> Row:
    now = datetime.now(UTC)
    row = Row(
        user_id=capture.user_id,
        id=capture.id,
        provider=UNKNOWN_PROVIDER,
        occurred_at=capture.occurred_at or now,
        created_at=now,
    )
    return _with_facts(row, capture)


def _with_facts(row: Row, capture: Capture) -> Row:
    """Add what the capture knows beside the text; the answer's word counts over the prompt's."""
    if row.deleted_at is not None:
        return replace(row)
    merged = replace(row)
    known = None if row.provider == UNKNOWN_PROVIDER else row.provider
    merged.provider = _first(capture, known, capture.provider) or UNKNOWN_PROVIDER
    for name in ("model", "conversation_id", "conversation_title", "url", "source"):
        setattr(merged, name, _first(capture, getattr(row, name), getattr(capture, name)))
    if capture.side == "prompt":
        merged.occurred_at = capture.occurred_at or row.occurred_at
        merged.metadata = json.dumps(capture.metadata | json.loads(row.metadata))
    else:
        merged.metadata = json.dumps(json.loads(row.metadata) | capture.metadata)
    return merged


def _first(capture: Capture, known: str | None, told: str | None) -> str | None:
    return told or known if capture.side == "response" else known or told


def _with_text(row: Row, capture: Capture, captured: bytes) -> Row:
    if capture.side == "prompt":
        row.prompt_capture = captured
    else:
        row.response_capture, row.status = captured, capture.status
        row.partial_length = len(capture.text) if capture.status == "partial" else 0
    if row.deleted_at is None:
        setattr(row, capture.side, capture.text)
        row.content_hash = content_hash(row.content_hash, capture.side, capture.text)
    return row


def _completed(row: Row, capture: Capture) -> Row | None:
    """The same text again: a retry, unless it says that the partial answer was all of it."""
    if capture.side == "prompt" or row.status == "complete" or capture.status == "partial":
        return None
    row = _with_facts(row, capture)
    row.status = "complete"
    return row


def _overtaken(row: Row, capture: Capture) -> bool:
    """A partial answer only grows: a shorter one was sent before the one that stands."""
    return capture.status == "partial" and len(capture.text) < row.partial_length


def _changed(row: Row, capture: Capture, captured: bytes) -> Row | None:
    """Another text under the same id is allowed only where the first was a partial answer."""
    if capture.side == "prompt" or (row.status == "complete" and capture.status == "complete"):
        raise Conflict(memory_id=str(capture.id), side=capture.side)
    if row.status == "complete" or _overtaken(row, capture):
        return None
    if row.edited and row.deleted_at is None:
        raise Conflict(
            "The partial answer was edited since; it is not replaced.",
            memory_id=str(capture.id),
            side=capture.side,
        )
    return _with_text(_with_facts(row, capture), capture, captured)
