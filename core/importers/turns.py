"""What every importer makes of a file: turns, and what could not be made one, with the reason."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID


@dataclass(slots=True)
class Turn:
    """A prompt and its answer. `message_id` is the site's, of the prompt or, of a further answer
    to it, of that answer; then `replaces` is the prompt's."""

    provider: str
    prompt: str | None
    response: str | None
    occurred_at: datetime | None
    message_id: str | None = None
    replaces: str | None = None
    # The site names no message: what was captured live is known by its prompt and time instead.
    anonymous: bool = False
    model: str | None = None
    conversation_id: str | None = None
    conversation_title: str | None = None
    url: str | None = None
    status: Literal["complete", "partial"] = "complete"
    metadata: dict[str, Any] = field(default_factory=dict)
    source: str | None = "import"
    # Of our own export alone.
    id: UUID | None = None
    stated: Literal["waiting", "partial", "complete"] | None = None
    edited: bool = False
    captured: dict[str, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Something that is no turn: skipped for a good reason, or failed because it is broken."""

    reason: str
    failed: bool = False


Unit = Turn | Unusable


class Damaged(Exception):
    """The rest of a file cannot be read; `reason` is one of the import's reasons."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def content_key(time: datetime | None, prompt: str) -> str:
    """Name a message that has no name, the same in every export of it."""
    told = f"{time.isoformat() if time else ''}\n{prompt}"
    return "text:" + hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def a_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def a_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def a_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def a_time(value: Any) -> datetime | None:
    """Read ISO 8601, seconds or milliseconds since 1970, or MongoDB's `{"$date": …}`."""
    if isinstance(value, dict):
        inner = value.get("$date")
        return a_time(inner.get("$numberLong") if isinstance(inner, dict) else inner)
    try:
        if isinstance(value, str):
            if value.isdigit():
                return a_time(int(value))
            read = datetime.fromisoformat(value)
            return read if read.tzinfo else read.replace(tzinfo=UTC)
        if isinstance(value, int | float | Decimal) and math.isfinite(value):
            value = float(value)
            return datetime.fromtimestamp(value / 1000 if value > 1e11 else value, UTC)
    except (ValueError, ArithmeticError, OSError):
        pass
    return None


def in_order(turns: Iterable[Unit], begun: datetime | None) -> Iterator[Unit]:
    """Give turns of one conversation that have no time of their own, or the same as the one
    before, a time that keeps their order."""
    last: datetime | None = None
    for unit in turns:
        if isinstance(unit, Turn):
            if last and unit.occurred_at in (None, last):
                unit.occurred_at = last + timedelta(microseconds=1)
            last = unit.occurred_at = unit.occurred_at or begun
        yield unit
