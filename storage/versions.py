"""What memories were before they were edited or deleted."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.database import Connection

# Of one memory; the newest is kept however long it is.
MOST_VERSIONS = 20
MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Version:
    """How a memory stood from `written_at` to `replaced_at`."""

    number: int
    prompt: str | None
    response: str | None
    conversation_title: str | None
    metadata: dict[str, Any]
    edited: bool
    written_at: datetime
    replaced_at: datetime


# What deleting blanks and restoring brings back.
KEPT = """prompt, response, status, model, conversation_id, conversation_title, url, source,
       metadata, prompt_capture, response_capture, content_hash, edited"""


async def keep(conn: Connection, user_id: UUID, memory_id: UUID, *, deleting: bool = False) -> None:
    """Copy the memory as it stands; `memory_store.take_numbers` has locked the user."""
    await conn.execute(
        f"""
        INSERT INTO memory_layer.versions
               (user_id, memory_id, number, {KEPT}, written_at, deleted_at)
        SELECT user_id, id, 1 + coalesce((SELECT max(number) FROM memory_layer.versions
                                           WHERE user_id = $1 AND memory_id = $2), 0),
               {KEPT}, updated_at, CASE WHEN $3 THEN now() END
          FROM memory_layer.memories
         WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL
        """,  # nosec B608 # made of the constant above
        user_id,
        memory_id,
        deleting,
    )
    await conn.execute(
        """
        DELETE FROM memory_layer.versions v USING (
                SELECT number, row_number() OVER newest_first AS place,
                       sum(coalesce(octet_length(prompt), 0) + coalesce(octet_length(response), 0))
                           OVER newest_first AS bytes
                  FROM memory_layer.versions WHERE user_id = $1 AND memory_id = $2
                WINDOW newest_first AS (ORDER BY number DESC)) old
         WHERE v.user_id = $1 AND v.memory_id = $2 AND v.number = old.number
           AND (place > $3 OR place > 1 AND bytes > $4)
        """,
        user_id,
        memory_id,
        MOST_VERSIONS,
        MOST_BYTES,
    )


async def listed(conn: Connection, user_id: UUID, memory_id: UUID) -> list[Version]:
    """Read what is kept of a memory, newest first."""
    rows = await conn.fetch(
        """
        SELECT number, prompt, response, conversation_title, metadata, edited, written_at,
               replaced_at
          FROM memory_layer.versions
         WHERE user_id = $1 AND memory_id = $2 AND deleted_at IS NULL
         ORDER BY number DESC
        """,
        user_id,
        memory_id,
    )
    return [Version(**dict(row) | {"metadata": json.loads(row["metadata"])}) for row in rows]


async def read(conn: Connection, user_id: UUID, memory_id: UUID, number: int) -> Version | None:
    versions = await listed(conn, user_id, memory_id)
    return next((version for version in versions if version.number == number), None)
