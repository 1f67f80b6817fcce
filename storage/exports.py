"""All that a user has, page by page, each page by a short statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from storage.database import Connection
from storage.memory_store import COLUMNS, Memory, memory_from

PAGE = 500
# Of one page, unless its first memory alone is larger.
MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Kept:
    """A memory with the hashes of its texts as captured, and as they stand (16 bytes each)."""

    memory: Memory
    prompt_capture: bytes | None
    response_capture: bytes | None
    content_hash: bytes


_WITHIN = f"""
    SELECT {COLUMNS}, prompt_capture, response_capture, content_hash FROM (
        SELECT page.*, row_number() OVER in_order AS place,
               sum(coalesce(octet_length(prompt), 0) + coalesce(octet_length(response), 0))
                   OVER in_order AS bytes
          FROM page WINDOW in_order AS (ORDER BY %(order)s)) sized
     WHERE place = 1 OR bytes <= {MOST_BYTES}
     ORDER BY %(order)s
"""  # nosec B608 # made of the constants above

_BY_TIME = (
    """
    WITH page AS (
        SELECT * FROM memory_layer.memories
         WHERE user_id = $1 AND deleted_at IS NULL
           AND ($2::timestamptz IS NULL OR (occurred_at, id) > ($2, $3::uuid))
         ORDER BY occurred_at, id LIMIT $4)
"""
    + _WITHIN % {"order": "occurred_at, id"}  # nosec B608 # as above
)

_BY_CONVERSATION = (
    """
    WITH page AS (
        SELECT * FROM memory_layer.memories
         WHERE user_id = $1 AND deleted_at IS NULL AND conversation_id IS NOT NULL
           AND ($2::text IS NULL
                OR (provider, conversation_id, occurred_at, id)
                   > ($2, $3::text, $4::timestamptz, $5::uuid))
         ORDER BY provider, conversation_id, occurred_at, id LIMIT $6)
"""
    + _WITHIN % {"order": "provider, conversation_id, occurred_at, id"}  # nosec B608 # as above
)

_ALONE = (
    """
    WITH page AS (
        SELECT * FROM memory_layer.memories
         WHERE user_id = $1 AND deleted_at IS NULL AND conversation_id IS NULL
           AND ($2::timestamptz IS NULL OR (occurred_at, id) > ($2, $3::uuid))
         ORDER BY occurred_at, id LIMIT $4)
"""
    + _WITHIN % {"order": "occurred_at, id"}  # nosec B608 # as above
)


async def by_time(conn: Connection, user_id: UUID, last: Memory | None) -> list[Kept]:
    """Read the memories behind `last`, the oldest first; none is the end."""
    start = (last.occurred_at, last.id) if last else (None, None)
    return _kept(await conn.fetch(_BY_TIME, user_id, *start, PAGE))


async def by_conversation(conn: Connection, user_id: UUID, last: Memory | None) -> list[Kept]:
    """Read those of conversations, one conversation after the other, each in its order."""
    start: tuple[object, ...] = (None, None, None, None)
    if last:
        start = (last.provider, last.conversation_id, last.occurred_at, last.id)
    return _kept(await conn.fetch(_BY_CONVERSATION, user_id, *start, PAGE))


async def alone(conn: Connection, user_id: UUID, last: Memory | None) -> list[Kept]:
    """Read those of no conversation, the oldest first."""
    start = (last.occurred_at, last.id) if last else (None, None)
    return _kept(await conn.fetch(_ALONE, user_id, *start, PAGE))


def _kept(rows: Sequence[asyncpg.Record]) -> list[Kept]:
    hashes = ("prompt_capture", "response_capture", "content_hash")
    return [Kept(memory_from(row), *(row[name] for name in hashes)) for row in rows]
