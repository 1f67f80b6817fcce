"""What a captured prompt or answer does to the memory that stands under its id."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from core.errors import Conflict
from core.injection import MARK, without_blocks
from storage.memory_store import Key, Row, Status

UNKNOWN_PROVIDER = "unknown"
# What a memory may hold, however it comes here.
MOST_TEXT_BYTES = 1024 * 1024
MOST_SHORT = 500
MOST_METADATA_BYTES = 16 * 1024
# Far below the depth at which it could be read in and not be written out again.
MOST_METADATA_LEVELS = 32


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


def content_hash(standing: bytes, side: str, hashed: bytes) -> bytes:
    """Put the hash of a side's text in: 16 bytes for each, so that a change shows which."""
    half = hashed[:16]
    return half + standing[16:] if side == "prompt" else standing[:16] + half


def merge(row: Row | None, capture: Capture) -> Row | None:
    """Return the row that the capture makes of `row`, or None where it changes nothing.

    Raises Conflict when the id holds another content. A deleted memory only notes the capture's
    hash: its text is never stored again. Memories that we put into a prompt are not captured.
    """
    if MARK in capture.text:
        capture = replace(capture, text=without_blocks(capture.text))
    captured = text_hash(capture.text)
    if row is None:
        return _with_text(_with_facts(_new_row(capture), capture), capture, captured)
    if _purged(row):
        return None
    row = row.copy()
    before = row.prompt_capture if capture.side == "prompt" else row.response_capture
    if before != captured and is_edited(row, capture.side):
        _refuse_unless_late(row, capture)
        return None
    if before is None:
        return _with_text(_with_facts(row, capture), capture, captured)
    if before == captured:
        return _completed(row, capture)
    return _changed(row, capture, captured)


def _purged(row: Row) -> bool:
    """Of what was purged not even the hash of a text is kept, nor noted anew."""
    return row.deleted_at is not None and row.prompt_capture is row.response_capture is None


def _new_row(capture: Capture) -> Row:
    now = datetime.now(UTC)
    return Row(
        user_id=capture.user_id,
        id=capture.id,
        provider=UNKNOWN_PROVIDER,
        occurred_at=capture.occurred_at or now,
        created_at=now,
    )


def _with_facts(row: Row, capture: Capture) -> Row:
    """Add what the capture knows beside the text; the answer's word counts over the prompt's."""
    if row.deleted_at is not None:
        return row
    known = None if row.provider == UNKNOWN_PROVIDER else row.provider
    row.provider = _first(capture, known, capture.provider) or UNKNOWN_PROVIDER
    row.model = _first(capture, row.model, capture.model)
    row.conversation_id = _first(capture, row.conversation_id, capture.conversation_id)
    row.conversation_title = _first(capture, row.conversation_title, capture.conversation_title)
    row.url = _first(capture, row.url, capture.url)
    row.source = _first(capture, row.source, capture.source)
    if capture.side == "prompt":
        row.occurred_at = capture.occurred_at or row.occurred_at
    if capture.metadata:
        known_metadata, told = json.loads(row.metadata), capture.metadata
        both = told | known_metadata if capture.side == "prompt" else known_metadata | told
        row.metadata = json.dumps(both)
    return row


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
        row.content_hash = content_hash(row.content_hash, capture.side, captured)
    return row


def _completed(row: Row, capture: Capture) -> Row | None:
    """The same text again: a retry, unless it says that the partial answer was all of it."""
    if capture.side == "prompt" or row.status == "complete" or capture.status == "partial":
        return None
    row = _with_facts(row, capture)
    row.status = "complete"
    return row


def is_edited(row: Row, side: str) -> bool:
    """Say whether the owner has written this side: it holds another text than was captured."""
    half = row.content_hash[:16] if side == "prompt" else row.content_hash[16:]
    captured = row.prompt_capture if side == "prompt" else row.response_capture
    return row.deleted_at is None and half not in (bytes(16), (captured or b"")[:16])


def _refuse_unless_late(row: Row, capture: Capture) -> None:
    """The capture stays with its client, and the edit where it is: neither text is lost."""
    if capture.side == "response" and row.status == "complete" and capture.status == "partial":
        return
    raise Conflict(
        "Its owner has edited this text; the capture does not replace it.",
        memory_id=str(capture.id),
        side=capture.side,
    )


def _overtaken(row: Row, capture: Capture) -> bool:
    """A partial answer only grows: a shorter one was sent before the one that stands."""
    return capture.status == "partial" and len(capture.text) < row.partial_length


def _changed(row: Row, capture: Capture, captured: bytes) -> Row | None:
    """Another text under the same id is allowed only where the first was a partial answer."""
    if capture.side == "prompt" or (row.status == "complete" and capture.status == "complete"):
        raise Conflict(memory_id=str(capture.id), side=capture.side)
    if row.status == "complete" or _overtaken(row, capture):
        return None
    return _with_text(_with_facts(row, capture), capture, captured)
